"""The road with nothing faked but the machines: Prometheus, Postgres and the real adapters."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import yaml

from breakfix.adapters.ledger import migrate
from breakfix.model import CaseEnd, RefusalReason, StepStatus
from breakfix.settings import load_settings
from breakfix.wiring import build_services
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from simfleet.kube import ADMIN_TOKEN
from simfleet.prometheus import prometheus_config
from tests.flow.driver import Road

DEMO_POLICY = Path(__file__).parents[2] / "dev" / "demo" / "policy.yaml"
FASTER = {
    "timing": {"clear": "4s", "watch": "3s", "boot_grace": "1s", "stale_sample": "15s"},
    "drain": {"poll": "1s"},
}
#: One SKU and pool a story, so that they need not wait for one another.
FLEET = FleetConfig.model_validate(
    {
        "speed": 60,
        "operator_validator": True,
        "racks": [
            {"name": "r1", "pool": "p1", "sku": "h100", "nodes": 3},
            {"name": "r2", "pool": "p2", "sku": "a100", "nodes": 3},
        ],
        "workloads": [
            {
                "name": "served",
                "pool": "p2",
                "gpus": 2,
                "budget": {"max_unavailable": 0},
            }
        ],
    }
)
CHECKS = (
    *("check_gpus", "check_operator", "diag_r1", "diag_r2", "nccl", "nvbandwidth"),
    "check_signals",
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def fleet():
    with SimFleet(FLEET) as fleet:
        yield fleet


@pytest.fixture
def services(fleet, tmp_path, postgres_url, start_prometheus):
    overlay = yaml.safe_load(DEMO_POLICY.read_text())
    for part, values in FASTER.items():
        overlay[part] |= values
    (tmp_path / "policy.yaml").write_text(yaml.safe_dump(overlay))
    migrate(postgres_url)
    services = build_services(
        load_settings(
            prometheus_url=start_prometheus(prometheus_config(fleet.url, "1s")).url,
            kubeconfig=str(fleet.kubeconfig(tmp_path / "kubeconfig")),
            database_url=postgres_url,
            policy=str(tmp_path / "policy.yaml"),
            cluster_name="sim",
            nccl_image="sim/nccl-tests:1",
            nvbandwidth_image="sim/nvbandwidth:1",
        ),
        needs_ledger=True,
    )
    yield services
    for port in (services.book, services.cluster, services.metrics):
        port.close()


def open_budget(fleet):
    """The owner of the pods allows one of them to go."""
    with httpx.Client(
        base_url=fleet.url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}, timeout=10
    ) as http:
        listed = http.get("/apis/policy/v1/poddisruptionbudgets").json()["items"]
        (name, namespace) = next(
            (b["metadata"]["name"], b["metadata"]["namespace"]) for b in listed
        )
        answer = http.patch(
            f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/{name}",
            json={"spec": {"maxUnavailable": 1}},
            headers={"Content-Type": "application/merge-patch+json"},
        )
        answer.raise_for_status()


def test_an_xid_79_and_a_budget_that_opens_both_end_in_service(fleet, services):
    road = Road(services)

    def is_seen():
        verdicts = road.sweep().assessment.judgement.verdicts
        return len(verdicts) == 6 and not any(v.failure_class for v in verdicts)

    road.drive(until=is_seen, within_s=120, sweep_every_s=1.0)
    served = next(p.node for p in services.cluster.pods() if p.name.startswith("served"))
    fleet.break_node("r1-n02", "xid79", gpu=3)
    fleet.break_node(served, "xid79", gpu=1)
    refused = set()

    def is_held():
        refused.update((r.node, r.reason) for r in road.sweep().refusals)
        return (served, RefusalReason.BUDGET) in refused and services.book.cases()

    road.drive(until=is_held, within_s=90, sweep_every_s=1.0)
    assert {c.node for c in services.book.cases()} == {"r1-n02"}
    open_budget(fleet)

    def are_ended():
        cases = services.book.cases()
        return {c.node for c in cases} == {"r1-n02", served} and not any(c.is_open for c in cases)

    road.drive(until=are_ended, within_s=300, sweep_every_s=1.0)
    assert {c.end for c in services.book.cases()} == {CaseEnd.RETURNED}
    whats = [e["what"] for e in fleet.events() if e["what"] == "reboot_started"]
    assert len(whats) == 2
    for node in services.cluster.nodes():
        assert not node.is_unschedulable
        assert not [k for k in (*node.labels, *node.annotations) if k.startswith("breakfix.dev/c")]
    for case in services.book.cases():
        done = {s.name: s.status for s in services.book.steps(case.id)}
        assert {done[f"{check}-1"] for check in CHECKS} == {StepStatus.VERIFIED}
        signals = next(s for s in services.book.steps(case.id) if s.name == "check_signals-1")
        assert "uncorrectable memory errors: none new" in signals.detail["text"]
    assert services.book.verify_audit()[1] == ""
