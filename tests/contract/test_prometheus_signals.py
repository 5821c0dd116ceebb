"""The policy's PromQL on a real Prometheus: each signal speaks when it should, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import pytest

from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.model import Observation
from breakfix.observe import observe
from breakfix.policy import Policy, parse_policy
from breakfix.replay.server import ReplayPrometheus
from breakfix.wiring import default_policy_text
from dev.stack.processes import Processes
from dev.stack.prometheus import PrivatePrometheus
from tests.contract.prometheus_history import History, Value
from tests.fakes_cluster import FakeCluster

SELECTOR = "nvidia.com/gpu.present=true"
OK, MINUTE = 0.0, 60.0


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, private_processes: Processes
) -> Iterator[PrivatePrometheus]:
    folder = tmp_path_factory.mktemp("prometheus") / "data"
    with PrivatePrometheus(folder, private_processes, remote_write=True) as prometheus:
        yield prometheus


@pytest.fixture(scope="module")
def metrics(server: PrivatePrometheus) -> Iterator[PrometheusMetrics]:
    with PrometheusMetrics(server.url) as client:
        yield client


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(default_policy_text())


class Scene:
    """One node with two GPUs of its own, its history, and what observe makes of it."""

    def __init__(self, name: str, url: str, metrics: PrometheusMetrics, policy: Policy) -> None:
        self.node, self.url, self.metrics, self.policy = name, url, metrics, policy
        self.history = History(end=float(int(time.time())) - 30)

    def dcgm(self, metric: str, value: Value | float, gpu: int = 0, **labels: str) -> None:
        self.history.add(
            metric,
            value,
            gpu=str(gpu),
            UUID=f"GPU-{self.node}-{gpu}",
            Hostname=self.node,
            instance=f"{self.node}:9400",
            job="dcgm-exporter",
            **labels,
        )

    def alive(self, is_up: Callable[[float], bool] = lambda _: True) -> None:
        """The dense series that every GPU has while its exporter is up."""
        for gpu in (0, 1):
            self.dcgm("DCGM_FI_DEV_GPU_TEMP", lambda t: 50.0 if is_up(t) else None, gpu)
            self.dcgm(
                "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", lambda t: t if is_up(t) else None, gpu
            )
        self.code(0, is_up, gpu=1)

    def code(self, xid: int, holds: Callable[[float], bool], gpu: int = 0) -> None:
        """DCGM_FI_DEV_XID_ERRORS shows this code while `holds`."""
        self.dcgm(
            "DCGM_FI_DEV_XID_ERRORS",
            lambda t: float(xid) if holds(t) else None,
            gpu,
            err_code=str(xid),
            err_msg="text",
        )

    def look(self, *, since_s: float | None = None, gpus: int = 2) -> Observation:
        self.history.write(self.url)
        return self.see(since_s=since_s, gpus=gpus)

    def see(
        self, *, since_s: float | None = None, before_s: float = 0.0, gpus: int = 2
    ) -> Observation:
        """What observe says `before_s` before the history's end, after a repair `since_s` ago."""
        at = datetime.fromtimestamp(self.history.end - before_s, UTC)
        cluster = FakeCluster()
        cluster.add_node(self.node, gpus_capacity=gpus, gpus_allocatable=gpus)
        floors = {}
        if since_s is not None:
            floors[self.node] = datetime.fromtimestamp(self.history.end - since_s, UTC)
        seen = observe(
            self.metrics, cluster, self.policy, at=at, gpu_node_selector=SELECTOR, floors=floors
        )
        assert {n: c.error for n, c in seen.coverage.items() if c.error} == {}
        return seen

    def speaks(self, observation: Observation) -> set[tuple[str, str]]:
        return {(r.signal, r.key) for r in observation.readings if r.node == self.node}


@pytest.fixture
def scene(
    request: pytest.FixtureRequest,
    server: PrivatePrometheus,
    metrics: PrometheusMetrics,
    policy: Policy,
) -> Scene:
    name = "".join(c if c.isalnum() else "-" for c in request.node.name.lower())
    return Scene(name, server.url, metrics, policy)


def after(start: float) -> Callable[[float], bool]:
    return lambda t: t >= start


def before(end: float) -> Callable[[float], bool]:
    return lambda t: t < end


def between(start: float, end: float) -> Callable[[float], bool]:
    return lambda t: start <= t < end


def counts(holds: Callable[[float], bool], value: float = 1.0) -> Value:
    return lambda t: value if holds(t) else None


def test_every_query_of_the_policy_evaluates(scene: Scene) -> None:
    scene.alive()
    seen = scene.look(since_s=60)
    assert seen.warnings == ()


def test_a_healthy_node_says_nothing_and_is_covered(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    seen = scene.look()
    assert scene.speaks(seen) == set()
    for signal in scene.policy.required_signals:
        assert seen.coverage[signal].nodes_seen == {scene.node}
        assert seen.coverage[signal].oldest_age_s == pytest.approx(0, abs=1)


# ------------------------------------------------------------------ the sticky gauge


def test_a_new_code_in_the_sticky_gauge_counts(scene: Scene) -> None:
    scene.alive()
    scene.code(0, before(20 * MINUTE))
    scene.code(48, after(20 * MINUTE))
    assert scene.speaks(scene.look()) == {("xid_last", "48")}


def test_a_code_that_was_there_from_the_start_does_not_count(scene: Scene) -> None:
    scene.alive()
    scene.code(79, after(0))
    assert scene.speaks(scene.look()) == set()


def test_a_sticky_code_is_not_replayed_after_an_exporter_restart(scene: Scene) -> None:
    def up(t: float) -> bool:
        return not 600 <= t < 700

    scene.alive(up)
    scene.code(79, up)
    scene.look()
    for before_s in range(0, 1300, 130):
        assert scene.speaks(scene.see(before_s=before_s)) <= {("gpu_count_short", "")}


def test_a_sticky_code_is_not_replayed_after_a_gap_of_prometheus(scene: Scene) -> None:
    scene.history.length_s = 40 * MINUTE
    scene.alive(after(30 * MINUTE))
    scene.code(79, after(30 * MINUTE))
    assert scene.speaks(scene.look()) == set()


def test_a_code_that_comes_back_after_another_one_counts(scene: Scene) -> None:
    scene.alive()
    scene.code(48, before(10 * MINUTE))
    scene.code(45, between(10 * MINUTE, 20 * MINUTE))
    scene.code(48, after(20 * MINUTE))
    assert ("xid_last", "48") in scene.speaks(scene.look())


def test_the_code_of_a_gpu_that_then_vanished_counts(scene: Scene) -> None:
    scene.alive()
    scene.code(0, before(20 * MINUTE))
    scene.code(79, between(20 * MINUTE, 22 * MINUTE))
    assert ("xid_last", "79") in scene.speaks(scene.look())


def test_the_code_of_a_gpu_that_vanished_with_its_exporter_does_not_count(scene: Scene) -> None:
    scene.alive(before(22 * MINUTE))
    scene.code(0, before(20 * MINUTE))
    scene.code(79, between(20 * MINUTE, 22 * MINUTE))
    seen = scene.look()
    assert scene.speaks(seen) == set()
    assert seen.coverage["xid_last"].nodes_seen == frozenset()


def test_a_code_that_moves_to_another_pod_is_no_event(scene: Scene) -> None:
    scene.alive()
    for pod, holds in (("a", before(600)), ("b", after(600))):
        scene.dcgm(
            "DCGM_FI_DEV_XID_ERRORS", counts(holds, 79.0), err_code="79", err_msg="x", pod=pod
        )
    assert scene.speaks(scene.look()) == set()


def test_a_code_older_than_the_repair_does_not_count_after_it(scene: Scene) -> None:
    scene.alive()
    scene.code(0, before(10 * MINUTE))
    scene.code(48, after(10 * MINUTE))
    assert scene.speaks(scene.look(since_s=300)) == set()
    assert scene.speaks(scene.see(since_s=25 * MINUTE)) == {("xid_last", "48")}


# ------------------------------------------------------------------ counted XIDs


def test_the_windowed_count_counts_after_its_window(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_COUNT", counts(before(600), OK), window_size_in_ms="300000")
    scene.dcgm(
        "DCGM_EXP_XID_ERRORS_COUNT",
        counts(between(600, 900)),
        window_size_in_ms="300000",
        xid="95",
    )
    scene.dcgm("DCGM_EXP_XID_ERRORS_COUNT", counts(after(900), OK), window_size_in_ms="300000")
    assert scene.speaks(scene.look()) == {("xid_count", "95")}


def test_the_windowed_count_of_before_a_repair_does_not_count(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_COUNT", counts(between(1500, 1800)), xid="95")
    assert scene.speaks(scene.look(since_s=120)) == set()


def test_the_windowed_count_of_after_a_repair_counts(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_COUNT", counts(after(1740)), xid="95")
    assert scene.speaks(scene.look(since_s=120)) == {("xid_count", "95")}


def test_the_first_event_of_the_total_counts(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_TOTAL", counts(after(1785)), xid="48")
    assert scene.speaks(scene.look()) == {("xid_total", "48")}


def test_a_later_event_of_the_total_counts(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_TOTAL", lambda t: 1.0 if t < 1200 else 2.0, xid="48")
    assert scene.speaks(scene.look()) == {("xid_total", "48")}


@pytest.mark.parametrize(
    "is_there",
    [
        pytest.param(after(0), id="from the start"),
        pytest.param(before(600), id="until the exporter restarted"),
    ],
)
def test_an_old_total_is_no_event(scene: Scene, is_there: Callable[[float], bool]) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_TOTAL", counts(is_there, 3.0), xid="48")
    assert scene.speaks(scene.look()) == set()


def test_a_total_of_before_the_repair_does_not_count_after_it(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_EXP_XID_ERRORS_TOTAL", counts(after(600)), xid="48")
    assert scene.speaks(scene.look(since_s=600)) == set()
    assert scene.speaks(scene.see()) == {("xid_total", "48")}


# ------------------------------------------------------------------ states


@pytest.mark.parametrize(
    ("metric", "value", "labels", "signal"),
    [
        pytest.param("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 1, {}, "ecc_dbe", id="a double-bit error"),
        pytest.param("DCGM_FI_DEV_ROW_REMAP_FAILURE", 1, {}, "row_remap_failed", id="failed remap"),
        pytest.param("DCGM_FI_DEV_ROW_REMAP_PENDING", 1, {}, "row_remap_pending", id="pending"),
        pytest.param(
            "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", 512, {}, "remapped_rows_high", id="512 rows"
        ),
        pytest.param("DCGM_FI_DEV_THRESHOLD_SRM", 1, {}, "sram_threshold", id="SRAM threshold"),
        pytest.param("DCGM_FI_DEV_GPU_RECOVERY_ACTION", 4, {}, "recovery_reset", id="drain, reset"),
        pytest.param("DCGM_FI_DEV_GPU_RECOVERY_ACTION", 2, {}, "recovery_reboot", id="reboot"),
        pytest.param("DCGM_FI_DEV_GPU_RECOVERY_ACTION", 3, {}, "recovery_p2p", id="drain P2P"),
        pytest.param("DCGM_FI_DEV_FABRIC_MANAGER_STATUS", 4, {}, "fabric_manager", id="FM failed"),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            20,
            {"health_watch": "ALL", "health_error_code": "DCGM_FR_FALLEN_OFF_BUS"},
            "health_off_bus",
            id="health: off the bus",
        ),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            20,
            {"health_watch": "MEM", "health_error_code": "DCGM_FR_VOLATILE_DBE_DETECTED"},
            "health_memory",
            id="health: memory",
        ),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            20,
            {"health_watch": "NVLINK", "health_error_code": "DCGM_FR_NVLINK_DOWN"},
            "nvlink_down",
            id="health: link down",
        ),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            20,
            {"health_watch": "NVLINK", "health_error_code": "DCGM_FR_NVLINK_ERROR_THRESHOLD"},
            "health_nvlink",
            id="health: link errors",
        ),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            20,
            {"health_watch": "PCIE", "health_error_code": "DCGM_FR_PCI_REPLAY_RATE"},
            "health_pcie",
            id="health: PCIe",
        ),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            20,
            {"health_watch": "SM", "health_error_code": "DCGM_FR_UNKNOWN"},
            "health_other",
            id="health: something else",
        ),
        pytest.param(
            "DCGM_EXP_CLOCK_EVENTS_COUNT",
            5,
            {"clock_event": "hw_thermal"},
            "hw_slowdown",
            id="slow",
        ),
    ],
)
def test_a_state_speaks_while_it_holds(
    scene: Scene, metric: str, value: float, labels: dict[str, str], signal: str
) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm(metric, float(value), **labels)
    assert {s for s, _ in scene.speaks(scene.look())} == {signal}


@pytest.mark.parametrize(
    ("metric", "value", "labels"),
    [
        pytest.param("DCGM_FI_DEV_ROW_REMAP_FAILURE", 0.0, {}, id="no failed remap"),
        pytest.param("DCGM_FI_DEV_ROW_REMAP_FAILURE", 9223372036854775794.0, {}, id="blank"),
        pytest.param("DCGM_FI_DEV_ROW_REMAP_FAILURE", float("nan"), {}, id="not a number"),
        pytest.param("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", 511.0, {}, id="511 rows"),
        pytest.param("DCGM_FI_DEV_GPU_RECOVERY_ACTION", 0.0, {}, id="no recovery action"),
        pytest.param("DCGM_FI_DEV_FABRIC_MANAGER_STATUS", 2.0, {}, id="FM still starting"),
        pytest.param(
            "DCGM_EXP_CLOCK_EVENTS_COUNT", 9.0, {"clock_event": "power_cap"}, id="power cap"
        ),
        pytest.param(
            "DCGM_EXP_GPU_HEALTH_STATUS",
            10.0,
            {"health_watch": "PCIE", "health_error_code": "DCGM_FR_PCI_REPLAY_RATE"},
            id="health warns",
        ),
    ],
)
def test_a_state_that_is_well_or_no_measurement_says_nothing(
    scene: Scene, metric: str, value: float, labels: dict[str, str]
) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm(metric, value, **labels)
    seen = scene.look()
    assert scene.speaks(seen) == set()


@pytest.mark.parametrize(
    ("metric", "per_s", "signals"),
    [
        ("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", 0.05, {"nvlink_errors"}),
        ("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", 0.05, {"nvlink_errors"}),
        ("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", 150, {"nvlink_crc", "nvlink_crc_some"}),
        ("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", 150, {"nvlink_crc", "nvlink_crc_some"}),
        ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", 1, {"pcie_replay"}),
        ("DCGM_FI_DEV_THERMAL_VIOLATION", 0.5e9, {"thermal_violation"}),
    ],
)
def test_a_counter_speaks_by_its_rate(
    scene: Scene, metric: str, per_s: float, signals: set[str]
) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm(metric, lambda t: t * per_s)
    assert {s for s, _ in scene.speaks(scene.look())} == signals
    scene.history.series.clear()


def test_a_hot_gpu_is_hot_only_when_it_stays_so(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_FI_DEV_GPU_TEMP", lambda t: 91.0 if t >= 1500 else 50.0, gpu=3)
    assert ("gpu_hot", "") in scene.speaks(scene.look(gpus=3))
    assert ("gpu_hot", "") not in scene.speaks(scene.see(before_s=60, gpus=3))


# ------------------------------------------------------------------ what is not there


def test_a_vanished_gpu_is_missed_after_the_window(scene: Scene) -> None:
    scene.alive()
    scene.code(0, after(0))
    scene.dcgm("DCGM_FI_DEV_GPU_TEMP", counts(before(900), 50.0), gpu=2)
    seen = scene.look(gpus=3)
    assert {(r.signal, r.value) for r in seen.readings} == {
        ("gpu_count_short", 1.0),
        ("gpu_count_fast", 1.0),
    }
    early = scene.see(before_s=600, gpus=3)
    assert scene.speaks(early) == {("gpu_count_fast", "")}


def test_a_silent_exporter_is_no_missing_gpu_but_unseen(scene: Scene) -> None:
    scene.alive(before(1500))
    seen = scene.look()
    assert scene.speaks(seen) == set()
    assert seen.coverage["gpu_count_short"].nodes_seen == frozenset()


def test_an_exporter_that_repeats_old_values_is_unseen(scene: Scene) -> None:
    scene.alive()
    scene.history.series = [s for s in scene.history.series if "ENERGY" not in s[0]["__name__"]]
    scene.dcgm("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", lambda t: min(t, 1200.0))
    seen = scene.look()
    assert seen.coverage["gpu_count_short"].nodes_seen == frozenset()
    assert scene.see(before_s=500).coverage["gpu_count_short"].nodes_seen == {scene.node}


def test_a_gpu_seen_by_two_prometheis_counts_once(scene: Scene) -> None:
    for replica in ("a", "b"):
        for gpu in (0, 1):
            scene.dcgm("DCGM_FI_DEV_GPU_TEMP", 50.0, gpu, prometheus=replica)
            scene.dcgm("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", lambda t: t, gpu, prometheus=replica)
        scene.dcgm("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", 2.0, prometheus=replica)
    seen = scene.look()
    assert [(r.signal, r.value) for r in seen.readings] == [("ecc_dbe", 2.0)]


# ------------------------------------------------------------------ node exporter, facts


def node_exporter(scene: Scene, metric: str, value: Value | float, **labels: str) -> None:
    instance = f"{scene.node}.example:9100"
    scene.history.add("node_uname_info", 1.0, instance=instance, nodename=scene.node)
    scene.history.add(metric, value, instance=instance, **labels)


def test_a_read_only_filesystem_is_joined_to_its_node(scene: Scene) -> None:
    node_exporter(scene, "node_filesystem_readonly", 1.0, mountpoint="/", fstype="ext4")
    seen = scene.look()
    assert scene.speaks(seen) == {("readonly_filesystem", "/")}
    assert seen.coverage["readonly_filesystem"].nodes_seen == {scene.node}


def test_a_port_that_is_down_for_four_minutes_speaks(scene: Scene) -> None:
    node_exporter(
        scene,
        "node_infiniband_state_id",
        lambda t: 1.0 if t > 1500 else 4.0,
        device="mlx5_0",
        port="1",
    )
    spoken = {("ib_port_down", "mlx5_0"), ("ib_port_inactive", "mlx5_0")}
    assert scene.speaks(scene.look()) == spoken
    assert scene.speaks(scene.see(before_s=120)) == set()


def test_facts_are_read_from_labels_and_values(scene: Scene) -> None:
    scene.dcgm("DCGM_FI_DEV_GPU_TEMP", 50.0, DCGM_FI_DRIVER_VERSION="580.95.05")
    scene.history.add(
        "kube_node_info", 1.0, node=scene.node, kernel_version="6.8", instance="ksm:8080"
    )
    node_exporter(scene, "node_boot_time_seconds", 1.7e9 + 0.5)
    facts = scene.look().facts[scene.node]
    assert facts["driver_version"] == "580.95.05"
    assert facts["kernel_version"] == "6.8"
    assert float(facts["boot_time"]) == 1.7e9 + 0.5


def info(scene: Scene, kernel: str, holds: Callable[[float], bool], **labels: str) -> None:
    labels = {"node": scene.node, **labels}
    scene.history.add(
        "kube_node_info",
        counts(holds),
        kernel_version=kernel,
        os_image="linux",
        kubelet_version="v1.34.2",
        instance="ksm:8080",
        **labels,
    )


@pytest.mark.parametrize(
    ("changed_s_ago", "told"),
    [
        pytest.param(5 * MINUTE, "new", id="just now"),
        pytest.param(23 * 60 * MINUTE, "new", id="within a day"),
        pytest.param(25 * 60 * MINUTE, None, id="longer ago"),
    ],
)
def test_a_changed_kernel_is_told_for_a_day(
    policy: Policy, changed_s_ago: float, told: str | None
) -> None:
    with ReplayPrometheus() as days, PrometheusMetrics(days.url) as metrics:
        scene = Scene("gpu-1", days.url, metrics, policy)
        scene.history.length_s, scene.history.every_s = 26 * 60 * MINUTE, 120.0
        change = scene.history.length_s - changed_s_ago
        info(scene, "old", before(change))
        info(scene, "new", after(change))
        facts = scene.look().facts[scene.node]
    assert facts.get("changed_kernel_version") == told
    assert facts["kernel_version"] == "new"
    assert "changed_os_image" not in facts


def test_a_change_is_seen_without_a_day_of_history(scene: Scene) -> None:
    info(scene, "old", before(1000))
    info(scene, "new", after(1000))
    assert scene.look().facts[scene.node]["changed_kernel_version"] == "new"


def test_a_new_node_has_not_changed(scene: Scene) -> None:
    info(scene, "new", after(1000))
    assert "changed_kernel_version" not in scene.look().facts[scene.node]


def test_a_change_is_told_of_the_node_that_the_scrape_moved_aside(scene: Scene) -> None:
    aside = {"node": "where-ksm-runs", "exported_node": scene.node}
    info(scene, "old", before(1000), **aside)
    info(scene, "new", after(1000), **aside)
    assert scene.look().facts[scene.node]["changed_kernel_version"] == "new"


def test_a_changed_driver_is_told_although_its_exporter_has_another_address(scene: Scene) -> None:
    for version, holds in (("550.1", before(1000)), ("580.2", after(1060))):
        scene.history.add(
            "DCGM_FI_DEV_GPU_TEMP",
            counts(holds, 50.0),
            gpu="0",
            UUID=f"GPU-{scene.node}-0",
            Hostname=scene.node,
            instance=f"10.0.0.{version[:2]}:9400",
            DCGM_FI_DRIVER_VERSION=version,
        )
    assert scene.look().facts[scene.node]["changed_driver_version"] == "580.2"


def pod_of(scene: Scene, name: str, kind: str, owner: str) -> None:
    about = {"namespace": "ops", "pod": f"{name}-{scene.node}", "node": scene.node}
    scene.history.add(
        "kube_pod_info", 1.0, created_by_kind=kind, created_by_name=owner, uid="u", **about
    )


def test_a_rollout_of_the_gpu_stack_is_told_of_the_nodes_it_has_reached(scene: Scene) -> None:
    owner = f"nvidia-driver-{scene.node}"
    pod_of(scene, "driver", "DaemonSet", owner)
    where = {"namespace": "ops", "pod": f"driver-{scene.node}"}
    scene.history.add("kube_pod_created", scene.history.end - 600, **where)
    scene.history.add(
        "kube_daemonset_metadata_generation",
        lambda t: 1.0 if t < 900 else 2.0,
        namespace="ops",
        daemonset=owner,
    )
    facts = scene.look().facts[scene.node]
    assert facts["changed_gpu_stack"] == owner


def test_a_pod_that_restarts_alone_is_no_rollout(scene: Scene) -> None:
    owner = f"nvidia-driver-{scene.node}"
    pod_of(scene, "driver", "DaemonSet", owner)
    where = {"namespace": "ops", "pod": f"driver-{scene.node}"}
    scene.history.add("kube_pod_created", scene.history.end - 600, **where)
    scene.history.add("kube_daemonset_metadata_generation", 1.0, namespace="ops", daemonset=owner)
    scene.code(0, after(0))
    assert "changed_gpu_stack" not in scene.look().facts.get(scene.node, {})


def test_a_deployment_that_was_rolled_out_is_told_of_its_nodes(scene: Scene) -> None:
    name = f"serve-{scene.node}"
    pod_of(scene, "serve", "ReplicaSet", f"{name}-6b8f9")
    scene.history.add(
        "kube_deployment_status_observed_generation",
        lambda t: 1.0 if t < 900 else 2.0,
        namespace="ops",
        deployment=name,
    )
    assert scene.look().facts[scene.node]["changed_deployments"] == name
