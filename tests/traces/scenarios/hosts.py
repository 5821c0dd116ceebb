"""Less usual fields of GPUs, hosts and services: true, and looking so."""

from __future__ import annotations

from tests.traces import faults
from tests.traces.fleet import Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

SMALL = Shape(nodes=6, gpus=2)
PLAIN = Shape(nodes=6, gpus=4, profile="default")
MAX_LINK = {"DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH": 16, "DCGM_FI_DEV_PCIE_MAX_LINK_GEN": 5}
ETH = {"device": "eth1"}


@scenario("hardware", PLAIN, true_of=("gpu_off_bus",))
def xid_79_of_an_old_exporter(s: Story) -> None:
    """An exporter of before the label err_code shows 79 as a value only."""
    s.telemetry["err_code"] = False
    node, gpu = s.victim()
    faults.off_bus(s, node, gpu, s.onset)
    s.only(node)


@scenario("look_alike", PLAIN, false_of=("gpu_off_bus",))
def old_xids_of_an_old_exporter(s: Story) -> None:
    """The same exporter with a 79 of last week on one GPU, and a 31 of now on another."""
    s.telemetry["err_code"] = False
    first, second = s.pick(2)
    s.xid(first.gpus[0], -s.warmup - 6 * 86400.0, 79)
    s.xid(second.gpus[0], s.onset, 31)
    s.never()


@scenario("half_evidence", SMALL)
def boots_without_a_gpu(s: Story) -> None:
    """A node comes up from a reboot with a GPU less: its capacity and label say that this is so."""
    node = s.pick()[0]
    back = s.reboot(node, s.onset - 900.0, 500.0)
    less = node.gpu_count - 1
    s.gap(node.gpus[-1], s.onset - 900.0)
    labels = {"nvidia.com/gpu.count": str(less)}
    s.change(node, back, capacity=less, allocatable=less, labels=labels)
    s.fault(node, "gpu_missing", node.gpus[-1], since=back, optional=True)


@scenario("hardware", SMALL, true_of=("fabric_manager",))
def fabric_health_fails(s: Story) -> None:
    """The fabric mask says that a route is unhealthy, and XID 74 comes."""
    mask = "DCGM_FI_DEV_FABRIC_HEALTH_MASK"
    s.telemetry["also"] = {mask: 0b10101010}
    node, gpu = s.victim()
    s.set(gpu, mask, float(0b10011010), s.onset)
    s.xid(gpu, s.onset, 74)
    s.fault(node, "fabric", gpu, also=["nvlink_down"])
    s.only(node)


@scenario("look_alike", SMALL, false_of=("fabric_manager",))
def fabric_mask_that_says_well(s: Story) -> None:
    """The fabric mask is not zero: each of its fields says explicitly that all is well."""
    s.telemetry["also"] = {"DCGM_FI_DEV_FABRIC_HEALTH_MASK": 0b10101010}
    s.never()


@scenario("half_evidence", SMALL, true_of=("pcie_link",), watch=1500)
def pcie_generation_falls_under_load(s: Story) -> None:
    """A link runs at generation 3 of 5 under full load, with replays now and then."""
    s.telemetry["also"] = dict(MAX_LINK)
    node, gpu = s.victim()
    s.set(gpu, faults.GEN, 3.0, s.onset)
    s.grow(gpu, faults.PCIE, s.some(0.6, 2.0), s.onset)
    s.scale(gpu, faults.TENSOR, 0.8, s.onset)
    s.fault(node, "pcie_degraded", gpu, also=["straggler"], optional=True)


@scenario("look_alike", SMALL, false_of=("pcie_link",), watch=1500)
def pcie_generation_falls_when_idle(s: Story) -> None:
    """Links go down to generation 1 as a node has no work."""
    s.telemetry["also"] = dict(MAX_LINK)
    faults.idle(s, s.pick()[0], s.onset)
    s.never()


@scenario("half_evidence", SMALL, true_of=("hw_slowdown",), watch=1500)
def slowdown_in_the_reasons(s: Story) -> None:
    """The clocks' event reasons show a hardware slowdown for long, and the count of it grows."""
    reasons, total = "DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_EXP_CLOCK_EVENTS_TOTAL"
    s.telemetry["also"] = {reasons: 4}
    node, gpu = s.victim()
    s.set(gpu, reasons, float(s.one_of(8, 72, 64)), s.onset)
    start = {"at": -s.warmup, "value": 0.0}
    s.series(
        total,
        nodes=[node.name],
        gpus=[gpu.index],
        labels={"clock_event": "hw_slowdown"},
        steps=[start, {"at": s.onset, "value": 0.0, "rate": 0.03}],
    )
    s.gain(gpu, faults.TEMP, 30.0, s.onset)
    s.scale(gpu, faults.CLOCK, 0.6, s.onset)
    s.fault(node, "thermal", gpu, also=["straggler"], optional=True)


@scenario("never_alone", SMALL, false_of=("temperature",))
def memory_and_margin_are_hot(s: Story) -> None:
    """Memory at 96 C and no margin left for twenty minutes, at full clock."""
    s.telemetry["also"] = {"DCGM_FI_DEV_GPU_TEMP_LIMIT": 24}
    node, gpu = s.victim()
    s.gain(gpu, "DCGM_FI_DEV_MEMORY_TEMP", 28.0, s.onset)
    s.set(gpu, "DCGM_FI_DEV_GPU_TEMP_LIMIT", 0.0, s.onset)
    s.looks(node, "thermal", gpu)
    s.never()


@scenario("half_evidence", SMALL, true_of=("ib_port_down",), warmup=1800.0)
def carrier_is_lost(s: Story) -> None:
    """A RoCE port loses its carrier and stays without."""
    s.telemetry["also"] = {}
    node = s.pick()[0]
    for each in s.nodes:
        s.series(
            "node_network_carrier",
            nodes=[each.name],
            labels=ETH,
            per="node",
            steps=[{"at": -s.warmup, "value": 1.0}],
        )
        s.series(
            "node_network_carrier_changes_total",
            nodes=[each.name],
            labels=ETH,
            per="node",
            steps=[{"at": -s.warmup, "value": 2.0}],
        )
    s.set(node, "node_network_carrier", 0.0, s.onset, **ETH)
    s.set(node, "node_network_carrier_changes_total", 3.0, s.onset, **ETH)
    s.fault(node, "network_port", optional=True)


@scenario("look_alike", SMALL, false_of=("ib_flap",))
def carrier_flickers_once(s: Story) -> None:
    """A port loses its carrier for ten seconds, once."""
    node = s.pick()[0]
    s.series(
        "node_network_carrier",
        nodes=[node.name],
        labels=ETH,
        per="node",
        steps=[
            {"at": -s.warmup, "value": 1.0},
            {"at": s.onset, "value": 0.0},
            {"at": s.onset + s.every, "value": 1.0},
        ],
    )
    s.series(
        "node_network_carrier_changes_total",
        nodes=[node.name],
        labels=ETH,
        per="node",
        steps=[{"at": -s.warmup, "value": 2.0}, {"at": s.onset, "value": 4.0}],
    )
    s.never()


@scenario("never_alone", SMALL)
def host_under_pressure(s: Story) -> None:
    """A workload presses CPU, memory and disk of a node: stalls, OOM kills, a disk that fills."""
    node = s.pick()[0]
    for kind in ("cpu_waiting", "memory_stalled", "io_stalled"):
        s.grow(node, f"node_pressure_{kind}_seconds_total", 0.9, -s.warmup)
    s.grow(node, "node_vmstat_oom_kill", 0.02, s.onset)
    s.scale(node, "node_filesystem_avail_bytes", 0.1, s.onset)
    for i in range(4):
        message = "Out of memory: Killed process 991 (python3)"
        s.event(s.onset + 40.0 * i, "OOMKilling", message, node=node.name)
    s.looks(node, "app_level", since=0.0, also=["disk"])
    s.never()


@scenario("half_evidence", SMALL, true_of=("node_problem",))
def filesystem_with_a_device_error(s: Story) -> None:
    """The root filesystem cannot be read, and the kernel reports errors of its disk."""
    node = s.pick()[0]
    s.set(node, "node_filesystem_device_error", 1.0, s.onset, **faults.ROOT)
    for i in range(3):
        s.event(s.onset + 20.0 * i, "IOError", "Buffer I/O error on dev nvme0n1p2", node=node.name)
    s.fault(node, "disk", optional=True)


@scenario("look_alike", SMALL, false_of=("node_problem",))
def corrected_errors_of_the_host(s: Story) -> None:
    """Memory errors of the host that were corrected, and a clock half a second off."""
    node = s.pick()[0]
    s.grow(node, "node_edac_correctable_errors_total", 0.01, s.onset, controller="0")
    s.set(node, "node_timex_offset_seconds", 0.6, s.onset)
    s.event(s.onset, "MemoryReadError", "CE memory read error", node=node.name)
    s.never()


def _serve(s: Story, bad: float, slow: float, sick: str) -> None:
    """Triton and a mesh in front of it, with a pod on each node."""
    for i, node in enumerate(s.nodes):
        pod = {"namespace": "serving", "pod": f"triton-{i}"}
        is_sick = node.name == sick
        s.pod(f"triton-{i}", node.name, namespace="serving", gpus=1, owner="ReplicaSet/triton-59c")
        failing = bad if is_sick else 0.002
        late = slow if is_sick else 1.0
        for metric, rate, more in (
            ("nv_inference_request_success", 10.0 * (1 - failing), {"model": "bert"}),
            (
                "nv_inference_request_failure",
                10.0 * failing,
                {"model": "bert", "reason": "BACKEND"},
            ),
            ("nv_inference_request_duration_us", 2e5 * late, {"model": "bert"}),
            ("istio_requests_total", 10.0 * (1 - failing), _mesh("200")),
            ("istio_requests_total", 10.0 * failing, _mesh("500")),
        ):
            s.series(
                metric,
                per="once",
                labels={**pod, **more},
                steps=[{"at": -s.warmup, "value": 0.0, "rate": round(rate, 4)}],
            )


def _mesh(code: str) -> dict[str, str]:
    return {"reporter": "destination", "response_code": code, "destination_workload": "triton"}


@scenario("never_alone", SMALL)
def triton_fails_on_one_node(s: Story) -> None:
    """Triton fails a third of the requests of one node and is slow there; nothing else is wrong."""
    node = s.pick()[0]
    _serve(s, s.some(0.2, 0.5), s.some(2, 5), node.name)
    s.looks(node, "app_level", since=0.0)
    s.never()
