"""Many nodes at once: one cause, and sometimes one real fault among them."""

from __future__ import annotations

from collections.abc import Sequence

from tests.traces import faults
from tests.traces.faults import XID, flap, withheld
from tests.traces.fleet import Machine, Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

FLEET = Shape(nodes=16, gpus=2, racks=4)
PORTS = Shape(nodes=16, gpus=2, racks=4, ports=2)
NEW_DRIVER, NEW_KERNEL = "590.48.01", "6.14.0-1018-generic"


def _cohort(s: Story) -> list[Machine]:
    """A quarter to a half of the fleet, spread over racks."""
    return s.pick(s.whole(4, 8))


def _bad_driver(s: Story, cohort: Sequence[Machine]) -> None:
    """The driver is new on the cohort; within minutes most of it reports GSP trouble."""
    rolled = s.onset - s.some(600, 1500)
    s.change(cohort, max(rolled, -s.warmup + 60.0), driver=NEW_DRIVER)
    for node in cohort:
        at = s.onset + s.some(0, 300)
        gpu = node.gpus[s.whole(0, 1)]
        s.xid(gpu, at, s.one_of(119, 120), count=s.whole(1, 4))
        s.set(gpu, faults.ACTION, 1.0, at + 20.0)
        s.health(gpu, XID, at)
        withheld(s, node, at, chance=0.5)
        s.looks(node, "change_induced", gpu, since=at, also=["gsp", "gpu_recovery"])


@scenario("common_cause", FLEET, watch=1200)
def bad_driver(s: Story) -> None:
    """A new driver on a cohort, and GSP timeouts on all of it within minutes."""
    _bad_driver(s, _cohort(s))
    s.never()


@scenario("common_cause", FLEET, watch=1200)
def bad_driver_and_one_real_fault(s: Story) -> None:
    """The same, and one GPU of the cohort really falls off the bus or loses its memory."""
    cohort = _cohort(s)
    _bad_driver(s, cohort[1:])
    s.change(cohort[0], max(s.onset - 900.0, -s.warmup + 60.0), driver=NEW_DRIVER)
    fault = s.one_of(faults.off_bus, faults.double_bit, faults.remap_failed)
    fault(s, cohort[0], cohort[0].gpus[0], s.onset + s.some(60, 300))
    s.only(cohort[0])


@scenario("common_cause", FLEET, watch=1200)
def bad_driver_node_by_node(s: Story) -> None:
    """A rollout reaches a node every two minutes, and each one fails a minute after it."""
    for i, node in enumerate(s.pick(6)):
        at = s.onset + 120.0 * i
        s.change(node, at, driver=NEW_DRIVER)
        s.xid(node.gpus[0], at + 70.0, 119, count=2)
        s.set(node.gpus[0], faults.ACTION, 1.0, at + 90.0)
        s.looks(node, "change_induced", node.gpus[0], since=at + 70.0, also=["gsp", "gpu_recovery"])
    s.never()


@scenario("common_cause", FLEET, watch=1500)
def bad_kernel(s: Story) -> None:
    """A cohort boots into a new kernel; its NVLinks do not come up."""
    cohort = s.pick(5)
    back = s.reboot(cohort, s.onset, s.some(400, 600))
    s.change(cohort, back - 60.0, kernel=NEW_KERNEL)
    for node in cohort:
        s.health(node, faults.LINK_DOWN, back + 30.0)
        s.looks(node, "change_induced", since=back + 30.0, also=["nvlink_down", "fabric"])
    s.never()


EXPORTER = "nvidia-dcgm-exporter"
OLD_IMAGE, NEW_IMAGE = (
    f"nvcr.io/nvidia/k8s/dcgm-exporter:{v}" for v in ("4.4.0-4.5.0", "4.5.3-4.8.2")
)


def _exporter_pods(s: Story, rolled: dict[str, float]) -> None:
    """The exporter's pods: a new one, of a new image, from then on."""
    owner = f"DaemonSet/{EXPORTER}"
    shared = {"namespace": "gpu-operator", "owner": owner, "container": EXPORTER}
    for i, node in enumerate(s.nodes):
        at = rolled.get(node.name)
        ends = [] if at is None else [{"at": at, "deleted": True}]
        s.pod(f"{EXPORTER}-o{i:03d}", node.name, image=OLD_IMAGE, changes=ends, **shared)
        if at is not None:
            more = {"from": at + 20.0, "image": NEW_IMAGE}
            s.pod(f"{EXPORTER}-n{i:03d}", node.name, **more, **shared)
    s.series(
        "kube_daemonset_metadata_generation",
        per="once",
        labels={"namespace": "gpu-operator", "daemonset": EXPORTER},
        steps=[{"at": -s.warmup, "value": 7.0}, {"at": min(rolled.values()) - 30.0, "value": 8.0}],
    )


@scenario("common_cause", FLEET, watch=1200)
def bad_exporter(s: Story) -> None:
    """A new exporter on a cohort says that health fails everywhere; no GPU does anything wrong."""
    cohort = _cohort(s)
    code = s.one_of("DCGM_FR_VOLATILE_DBE_DETECTED", "DCGM_FR_NVLINK_DOWN")
    watch = "MEM" if "DBE" in code else "NVLINK"
    rolled = {node.name: s.onset + s.some(0, 240) for node in cohort}
    _exporter_pods(s, rolled)
    for node in cohort:
        at = rolled[node.name]
        s.gap(node, at, at + 50.0)
        s.restart(node, at + 50.0)
        s.health(node, (watch, code, 20), at + 50.0)
        s.looks(node, "change_induced", since=at)
    s.never()


@scenario("common_cause", Shape(nodes=12, gpus=4, racks=3), watch=1200)
def half_of_the_gpus_after_a_driver(s: Story) -> None:
    """A new driver shows half of the GPUs of each node of a cohort."""
    cohort = s.pick(5)
    s.change(cohort, s.onset, driver=NEW_DRIVER)
    for node in cohort:
        for gpu in node.gpus[2:]:
            s.gap(gpu, s.onset)
        s.change(node, s.onset + 30.0, allocatable=2)
        s.looks(node, "change_induced", also=["gpu_missing"])
    s.never()


@scenario("common_cause", FLEET, false_of=("temperature", "hw_slowdown"), watch=1500)
def hot_rack(s: Story) -> None:
    """The cooling of a rack fails: all its GPUs are hot and slowed down by hardware."""
    rack = s.of_rack(s.pick()[0])
    s.gain(rack, faults.TEMP, float(s.whole(29, 34)), s.onset)
    s.grow(rack, faults.THERMAL, s.some(0.2, 0.8) * 1e9, s.onset + 60.0)
    for event in ("hw_thermal", "hw_slowdown"):
        s.set(rack, faults.CLOCK_EVENTS, float(s.whole(5, 20)), s.onset + 60.0, clock_event=event)
    s.scale(rack, faults.CLOCK, 0.6, s.onset + 60.0)
    for node in rack:
        s.looks(node, "thermal")
    s.never()


@scenario("common_cause", FLEET, watch=1500)
def hot_rack_and_one_real_fault(s: Story) -> None:
    """A hot rack, and one GPU in it with an uncorrectable memory error."""
    rack = s.of_rack(s.pick()[0])
    s.gain(rack, faults.TEMP, 30.0, s.onset)
    for event in ("hw_thermal", "hw_slowdown"):
        s.set(rack, faults.CLOCK_EVENTS, 9.0, s.onset + 60.0, clock_event=event)
    node = rack[s.whole(0, len(rack) - 1)]
    faults.double_bit(s, node, node.gpus[0], s.onset + s.some(60, 300))
    for other in rack:
        if other is not node:
            s.looks(other, "thermal")
    s.only(node)


@scenario("common_cause", FLEET, false_of=("not_ready",), watch=1500)
def rack_without_power(s: Story) -> None:
    """A whole rack is silent and NotReady at once: its power or its switch, not four machines."""
    rack = s.of_rack(s.pick()[0])
    s.gap(rack, s.onset, exporters=["dcgm", "node"])
    for node in rack:
        s.condition(node, s.onset + 40.0, "Ready", "Unknown", "NodeStatusUnknown")
        s.looks(node, "node_not_ready", also=["telemetry_lost"])
    s.never()


@scenario("common_cause", FLEET, watch=1200)
def partition_of_the_control_plane(s: Story) -> None:
    """Two thirds of the nodes are NotReady, their exporters go on: the network between them and the
    API server.
    """
    for node in s.nodes[: s.whole(9, 12)]:
        s.condition(node, s.onset + s.some(0, 60), "Ready", "Unknown", "NodeStatusUnknown")
        s.looks(node, "node_not_ready")
    s.never()


@scenario("common_cause", FLEET, false_of=("nvlink_down", "fabric_manager"), watch=1200)
def nvlink_switch_of_a_rack(s: Story) -> None:
    """A switch tray of a rack fails: links are down on all its nodes within seconds."""
    rack = s.of_rack(s.pick()[0])
    for node in rack:
        for gpu in node.gpus:
            s.xid(gpu, s.onset + s.some(0, 5), s.one_of(74, 149))
            s.health(gpu, faults.LINK_DOWN, s.onset)
            s.grow(gpu, faults.REPLAY, 0.3, s.onset)
        s.looks(node, "nvlink_down", also=["fabric"])
    s.never()


@scenario("common_cause", PORTS, false_of=("ib_port_down", "ib_flap"), watch=1200)
def leaf_switch_of_a_rack(s: Story) -> None:
    """A leaf switch dies: the same port is down on all nodes of a rack."""
    rack = s.of_rack(s.pick()[0])
    for node in rack:
        flap(s, node, 0, s.onset + s.some(0, 2), None)
        s.looks(node, "network_port")
    s.never()


@scenario("common_cause", FLEET, false_of=("xid_app",), watch=1200)
def job_with_an_error_everywhere(s: Story) -> None:
    """One job's bug: the same XID 31, 13 or 43 on all its GPUs, 45 behind it."""
    code = s.one_of(13, 31, 43)
    s.xid(s.nodes, s.onset, code, count=s.whole(1, 3), every=90.0)
    s.xid(s.nodes, s.onset + 3.0, 45)
    for node in s.nodes:
        s.looks(node, "app_level")
    s.never()


@scenario("common_cause", FLEET, false_of=("xid_94",), watch=1200)
def job_with_an_odd_error_everywhere(s: Story) -> None:
    """One job makes XID 109 on a dozen nodes within a minute: the job, not a dozen GPUs."""
    for node in s.pick(12):
        s.xid(node.gpus[0], s.onset + s.some(0, 60), 109)
        s.looks(node, "app_level", also=["gpu_recovery", "change_induced"])
    s.never()


@scenario("telemetry", FLEET, false_of=("gpu_count_short",))
def nan_across_the_fleet(s: Story) -> None:
    """An exporter release shows NaN for several fields on every node."""
    s.gap(
        s.nodes,
        s.onset,
        effect="nan",
        metrics=[faults.TEMP, faults.POWER, faults.DBE_TOTAL, faults.ACTION],
    )
    s.never()


@scenario("telemetry", FLEET, false_of=("gpu_count_short", "device_plugin"), watch=1200)
def exporters_of_a_pool_are_gone(s: Story) -> None:
    """The exporters of two racks are gone; their nodes are Ready and work."""
    lost = s.nodes[: s.whole(6, 9)]
    s.gap(lost, s.onset)
    for node in lost:
        s.looks(node, "telemetry_lost", since=s.onset + 300.0)
    s.expect["telemetry_lost"] = [n.name for n in lost]
    s.never()


@scenario("telemetry", FLEET, watch=1200)
def all_exporters_are_gone(s: Story) -> None:
    """No exporter of the fleet answers any more."""
    s.gap(s.nodes, s.onset, exporters=["dcgm", "node", "ksm"])
    s.never()


@scenario("telemetry", FLEET)
def prometheus_has_holes(s: Story) -> None:
    """Prometheus itself was down for minutes, twice: nothing was scraped anywhere."""
    for at in (s.onset - 600.0, s.onset):
        s.gap(
            s.nodes, at, at + s.some(100, 280), effect="silent", exporters=["dcgm", "node", "ksm"]
        )
    s.never()


@scenario("telemetry", FLEET, watch=1200)
def frozen_exporter(s: Story) -> None:
    """An exporter shows the same values again and again: DCGM hangs behind it."""
    node = s.pick()[0]
    s.gap(node, s.onset, effect="frozen")
    s.looks(node, "telemetry_lost", since=s.onset + 300.0)
    s.never()


@scenario("telemetry", FLEET, watch=1200)
def telemetry_lost_and_a_real_fault_elsewhere(s: Story) -> None:
    """Half of the exporters are gone; on the other half one GPU falls off the bus."""
    s.gap(s.nodes[:8], s.onset - 200.0)
    node = s.nodes[s.whole(8, 15)]
    faults.off_bus(s, node, node.gpus[0], s.onset)
    s.only(node)


@scenario("lemon", Shape(nodes=10, gpus=2, racks=2), warmup=7200.0, watch=600)
def lemons_of_a_fleet(s: Story) -> None:
    """A fleet with a node that fails every hour and a fresh fault on it; the others have none."""
    node = s.pick()[0]
    s.xid(node.gpus[1], -5400.0, 74)
    s.xid(node.gpus[1], -2000.0, 94)
    faults.double_bit(s, node, node.gpus[1], s.onset)
    s.only(node)
