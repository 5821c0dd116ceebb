"""`change_canary` on a real Airflow, with a real Prometheus, Postgres and Kubernetes' objects."""

from __future__ import annotations

import shutil
import time

import pytest

from breakfix.adapters.ledger import PostgresLedger, migrate
from breakfix.cohorts import Advice
from dev.stack.airflow import ROOT
from dev.stack.prometheus import PrivatePrometheus
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from tests.contract.prometheus_history import History

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(300)]

FLEET = FleetConfig.model_validate(
    {"racks": [{"name": "r1", "pool": "p1", "sku": "h100", "nodes": 6}]}
)
RUN_TIMEOUT_S = 120.0
CHANGED_S = 5400.0  # into two hours of history


def write_history(url, nodes):
    """The first three nodes got a new driver half an hour ago, and serve errors."""
    history = History(end=float(int(time.time())), length_s=7200.0, every_s=60.0)
    for i, node in enumerate(nodes):
        is_new = i < 3
        for version, is_there in (("570.1", lambda t, n=is_new: not n or t < CHANGED_S),
                                  ("580.2", lambda t, n=is_new: n and t >= CHANGED_S)):  # fmt: skip
            history.add(
                "DCGM_FI_DEV_GPU_TEMP",
                lambda t, there=is_there: 50.0 if there(t) else None,
                Hostname=node,
                UUID=f"GPU-{node}",
                DCGM_FI_DRIVER_VERSION=version,
                instance=f"{node}:9400",
            )
        for status, rate in (("2xx", 1.0), ("5xx", 0.3 if is_new else 0.0)):
            history.add(
                "http_requests_total",
                lambda t, r=rate: r * t,
                instance=f"{node}:8000",
                job="vllm",
                handler="/v1/completions",
                status=status,
            )
    history.write(url)


@pytest.fixture(scope="module")
def stack(tmp_path_factory, private_processes, private_postgres, start_airflow):
    """(Airflow, the ledger)."""
    folder = tmp_path_factory.mktemp("canary")
    (folder / "policy.yaml").write_text("canary: {lookback: 1h}")
    (folder / "dags").mkdir()
    (folder / "plugins").mkdir()
    shutil.copy(ROOT / "dags" / "change_canary.py", folder / "dags")
    url = private_postgres.url(private_postgres.create_database())
    migrate(url)
    with (
        SimFleet(FLEET) as fleet,
        PrivatePrometheus(folder / "prometheus", private_processes, remote_write=True) as metrics,
    ):
        write_history(metrics.url, [f"r1-n0{i}" for i in range(1, 7)])
        airflow = start_airflow(
            dags=folder / "dags",
            plugins=folder / "plugins",
            env={
                "BREAKFIX_PROMETHEUS_URL": metrics.url,
                "BREAKFIX_KUBECONFIG": str(fleet.kubeconfig(folder / "kubeconfig")),
                "BREAKFIX_DATABASE_URL": url,
                "BREAKFIX_POLICY": str(folder / "policy.yaml"),
                "BREAKFIX_CLUSTER_NAME": "test",
            },
        )
        ledger = PostgresLedger(url, "test")
        yield airflow, ledger
        ledger.close()
        airflow.stop()


def run(client, run_id, **conf):
    """The states of the run's tasks, once it has ended."""
    path = "/api/v2/dags/change_canary"
    until(lambda: client.get(path).is_success, "the DAG")
    body = {"logical_date": None, "dag_run_id": run_id, "conf": conf}
    client.post(f"{path}/dagRuns", json=body).raise_for_status()
    path = f"{path}/dagRuns/{run_id}"
    until(lambda: client.get(path).json()["state"] in {"success", "failed"}, run_id)
    found = client.get(f"{path}/taskInstances").json()["task_instances"]
    return client.get(path).json()["state"], {t["task_id"]: t["state"] for t in found}


def until(condition, what):
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.3)


def test_a_bad_driver_is_found_compared_and_advised_against(stack):
    airflow, ledger = stack
    with airflow.client("oncall") as client:
        state, tasks = run(client, "first")
        assert state == "success"
        assert (tasks["roll_back"], tasks["nothing"], tasks["go_on"]) == (
            "success",
            "skipped",
            "skipped",
        )
        (advice,) = ledger.advices()
        assert advice.advice is Advice.ROLL_BACK
        assert advice.detail["value"] == "580.2"
        assert advice.nodes == {"r1-n01", "r1-n02", "r1-n03"}
        assert "change.advised" in [e.event for e in ledger.audit_entries()]
        by_hand = {
            "canary": 'instance=~"r1-n0[45]:8000"',
            "stable": 'instance=~"r1-n06:8000"',
        }
        state, tasks = run(client, "by-hand", **by_hand)
        assert (state, tasks["go_on"]) == ("success", "success")
        assert len(ledger.advices(open_only=False)) == 1
        state, tasks = run(client, "wrong", canary="a in (b)", stable="c=d")
        assert (state, tasks["compare"]) == ("failed", "failed")
