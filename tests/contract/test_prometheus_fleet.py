"""A simulated fleet, scraped by a real Prometheus and judged through the real adapters."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breakfix.adapters.kubernetes import KubernetesCluster
from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.decide import judge
from breakfix.model import Judgement
from breakfix.observe import observe
from breakfix.policy import Policy, parse_policy
from breakfix.settings import Settings
from breakfix.wiring import build_cluster, default_policy_text
from dev.stack.processes import Processes
from dev.stack.prometheus import PrivatePrometheus
from simfleet.fleet import FleetConfig, RackConfig
from simfleet.inprocess import SimFleet

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

DEADLINE_S = 240.0
# Windows short enough to watch; what counts and how sure it is stays the default's.
OVERLAY = """
signals:
  - {name: gpu_count_short, window: 15s}
  - {name: nvlink_errors, window: 30s}
  - {name: gpu_hot, window: 15s}
  - {name: not_ready, threshold: 5}
timing: {stale_sample: 10s, boot_grace: 0s}
common_cause: {scopes: [rack]}  # most of this fleet is broken, each node for a reason of its own
"""
# node -> (fault, options); each in a rack of its own
BROKEN: dict[str, tuple[str, dict[str, object]]] = {
    "off-bus": ("xid79", {"gpu": 3}),
    "double-bit": ("xid48", {"gpu": 1}),
    "silent-dbe": ("ecc_dbe", {}),
    "uncontained": ("xid95", {}),
    "link-down": ("nvlink_down", {}),
    "remap-failed": ("xid64", {}),
    "remap-pending": ("xid63", {}),
    "gpu-gone": ("gpu_missing", {"gpu": 7}),
    "half-gone": ("stale_series", {"mode": "vanish"}),
    "hot": ("hot", {"temp_c": 95}),
    "app-13": ("app_xid13", {}),
    "app-31": ("app_xid31", {}),
    "mute": ("exporter_gone", {}),
}
EXPECTED = {
    "off-bus": ("gpu_off_bus", "reboot_node"),
    "double-bit": ("ecc_uncorrectable", "reset_gpu"),
    "silent-dbe": ("ecc_uncorrectable", "reset_gpu"),
    "uncontained": ("ecc_uncorrectable", "reset_gpu"),
    "link-down": ("nvlink_down", "reset_gpu"),
    "remap-failed": ("row_remap_failed", "hold_for_hardware"),
    "remap-pending": ("row_remap_pending", "reset_gpu"),
    "gpu-gone": ("gpu_missing", "reboot_node"),
    "half-gone": ("gpu_missing", "reboot_node"),
    "hot": (None, "none"),
    "app-13": (None, "none"),
    "app-31": (None, "none"),
    "mute": ("telemetry_lost", "none"),
    "well": (None, "none"),
    **dict.fromkeys(
        ("rollout-n01", "rollout-n02", "rollout-n03", "rollout-n04"), ("change_induced", "review")
    ),
}
#: What an exporter shows whose fields nobody asked for.
EXPECTED_BY_DEFAULT_FIELDS = EXPECTED | {
    "silent-dbe": (None, "none"),
    "link-down": (None, "none"),
    "remap-pending": ("device_plugin", "review"),
}


@dataclass
class Eyes:
    """What judges the fleet."""

    metrics: PrometheusMetrics
    cluster: KubernetesCluster
    policy: Policy

    def judge(self) -> Judgement:
        now = datetime.now(UTC)
        seen = observe(
            self.metrics,
            self.cluster,
            self.policy,
            at=now,
            gpu_node_selector="nvidia.com/gpu.present=true",
        )
        assert {n: c.error for n, c in seen.coverage.items() if c.error} == {}
        return judge(seen, self.policy, {}, now)


def words(made: Judgement) -> dict[str, tuple[str | None, str]]:
    return {v.node: (v.failure_class, v.recommended_action) for v in made.verdicts}


def until(condition: Callable[[], object], expected: object) -> None:
    """Poll until the condition gives what is expected; the last answer is what a failure shows."""
    deadline = time.monotonic() + DEADLINE_S
    while (answer := condition()) != expected and time.monotonic() < deadline:
        time.sleep(1.0)
    assert answer == expected, "not so by the deadline"


@pytest.fixture(params=["full", "default"])
def fields(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def fleet(fields: str) -> Iterator[SimFleet]:
    alone = [*BROKEN, "well"]
    racks = [RackConfig(name=f"r-{n}", pool=f"p-{n}", names=(n,)) for n in alone]
    racks.append(RackConfig(name="rollout", pool="p-rollout", nodes=4, sku="a100"))
    with SimFleet(FleetConfig(racks=tuple(racks), dcgm_fields=fields, speed=60)) as made:
        yield made


@pytest.fixture
def eyes(fleet: SimFleet, tmp_path: Path, private_processes: Processes) -> Iterator[Eyes]:
    config = fleet.prometheus_config(tmp_path / "prometheus.yml").read_text()
    settings = Settings(kubeconfig=str(fleet.kubeconfig(tmp_path / "kubeconfig")))
    folder = tmp_path / "prometheus"
    with (
        PrivatePrometheus(folder, private_processes, config) as server,
        PrometheusMetrics(server.url) as metrics,
    ):
        policy = parse_policy(default_policy_text(), OVERLAY)
        yield Eyes(metrics, build_cluster(settings), policy)


def test_each_fault_is_named_and_only_faults_are_acted_on(
    fleet: SimFleet, eyes: Eyes, fields: str
) -> None:
    until(lambda: words(eyes.judge()), dict.fromkeys(EXPECTED, (None, "none")))
    for node, (fault, options) in BROKEN.items():
        fleet.break_node(node, fault, **options)
    fleet.break_node("rollout-n01", "bad_driver_rollout", stagger_s=0.1)
    expected = EXPECTED if fields == "full" else EXPECTED_BY_DEFAULT_FIELDS
    until(lambda: words(eyes.judge()), expected)
    made = eyes.judge()
    assert [i.nodes for i in made.incidents] == [
        tuple(n for n in sorted(EXPECTED) if n.startswith("rollout"))
    ]
