"""One sign alone, which sometimes is a fault and sometimes is none: for calibration.

What share is a fault comes from public sources where there are some, else it is ours; the policy's
weights had no say. `is_fault` draws it for each seed: the signs are the same either way, but for
what a repair would have shown.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.traces import faults
from tests.traces.fleet import Gpu, Machine, Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

SMALL = Shape(nodes=6, gpus=4)
PORTS = Shape(nodes=6, gpus=4, ports=4)


@dataclass(frozen=True)
class Ratio:
    """How often the sign alone is a fault of the node, and who says so."""

    fault: float
    source: str


RATIOS = {
    "xid_74": Ratio(
        0.6,
        "NVIDIA Xid catalogue: WORKFLOW_NVLINK_ERR, read the link first; fatal for"
        " EKS and Azure NHC, an event for others; share ours",
    ),
    "xid_119": Ratio(
        0.6,
        "NVIDIA Xid 119: RESET_GPU, often a driver's bug; NCSA Delta calls the GSP"
        " the weakest part of the A100; share ours",
    ),
    "xid_94": Ratio(
        0.5,
        "NCSA Delta: 92 % of uncorrectable errors are mitigated, contained ones"
        " mostly for good; a fault here means that a reset or part was due; share ours",
    ),
    "xid_63": Ratio(
        0.7, "NVIDIA A100 memory error management: a reset is due; not urgent; share ours"
    ),
    "xid_109": Ratio(0.5, "NVIDIA: RESET_GPU; the device plugin calls it an application's; ours"),
    "replays": Ratio(0.5, "DCGM: 1 a minute is FAIL; Meta GCM, Imbue: a warning; share ours"),
    "health_nvlink": Ratio(0.4, "One replay in 60 s is FAIL, and most links go on (Imbue); ours"),
    "pcie_replays": Ratio(0.35, "DCGM: WARN; EKS: an event only; share ours"),
    "slowdown": Ratio(0.5, "gpud: 0.6 events a minute is unhealthy; rooms do it, too; share ours"),
    "not_ready": Ratio(
        0.5, "EKS and GKE repair it after 10-30 minutes; partitions look alike; ours"
    ),
    "withheld": Ratio(0.5, "k8s-device-plugin 0.20 withholds on XIDs that are no fault, too; ours"),
    "readonly": Ratio(0.7, "node-problem-detector, Meta GCM: drain; a mount may be meant so; ours"),
}


def _settle(
    s: Story, key: str, node: Machine, gpu: Gpu | None, failure_class: str, *also: str
) -> None:
    """Draw whether it was one, and write it down. Nobody can know from this sign, so taking the
    node out is not asked for; where it is none it is wrong.
    """
    if s.chance(RATIOS[key].fault):
        s.fault(node, failure_class, gpu, also=also, optional=True)
    else:
        s.never()


@scenario("half_evidence", SMALL)
def xid_74_alone(s: Story) -> None:
    """XID 74 and nothing else."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 74)
    _settle(s, "xid_74", node, gpu, "nvlink_down")


@scenario("half_evidence", SMALL)
def xid_119_alone(s: Story) -> None:
    """XID 119 once, no recovery action, no change before it."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, s.one_of(119, 120))
    _settle(s, "xid_119", node, gpu, "gsp", "gpu_recovery")


@scenario("half_evidence", SMALL)
def xid_94_alone(s: Story) -> None:
    """XID 94 once."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 94)
    _settle(s, "xid_94", node, gpu, "ecc_contained")


@scenario("half_evidence", SMALL)
def xid_63_alone(s: Story) -> None:
    """XID 63 where the pending flag is not exported."""
    s.telemetry["metrics"].remove("remap_pending")
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 63)
    _settle(s, "xid_63", node, gpu, "row_remap_pending", "ecc_contained")


@scenario("half_evidence", SMALL)
def xid_109_alone(s: Story) -> None:
    """XID 109 once."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 109)
    _settle(s, "xid_109", node, gpu, "gpu_recovery", "app_level")


@scenario("half_evidence", SMALL)
def replays_alone(s: Story) -> None:
    """Some NVLink replays a minute, no XID, no failed job."""
    s.telemetry["metrics"].remove("health")
    node, gpu = s.victim()
    s.grow(gpu, faults.REPLAY, s.some(0.03, 0.5), s.onset, s.onset + s.some(400, 2000))
    _settle(s, "replays", node, gpu, "nvlink_down")


@scenario("half_evidence", SMALL)
def nvlink_health_alone(s: Story) -> None:
    """DCGM's health watch fails the links of a GPU for replays, and stays so."""
    node, gpu = s.victim()
    s.health(gpu, faults.REPLAYS, s.onset)
    _settle(s, "health_nvlink", node, gpu, "nvlink_down")


@scenario("half_evidence", SMALL)
def pcie_replays_alone(s: Story) -> None:
    """PCIe replays beyond DCGM's limit, at full width."""
    s.telemetry["metrics"].remove("health")
    node, gpu = s.victim()
    s.grow(gpu, faults.PCIE, s.some(1.2, 4.0), s.onset)
    _settle(s, "pcie_replays", node, gpu, "pcie_degraded")


@scenario("half_evidence", SMALL, watch=1500)
def hardware_slowdown_alone(s: Story) -> None:
    """Hardware slows one GPU down, at a normal temperature."""
    node, gpu = s.victim()
    s.set(gpu, faults.CLOCK_EVENTS, float(s.whole(4, 12)), s.onset, clock_event="hw_slowdown")
    _settle(s, "slowdown", node, gpu, "thermal")


@scenario("half_evidence", PORTS, watch=1200)
def port_down_alone(s: Story) -> None:
    """A port is down and stays down; no job complains. Whether it is the cable, or the network team
    that shut it: jobs on several nodes cannot run there.
    """
    node = s.pick()[0]
    faults.flap(s, node, s.whole(0, 3), s.onset, None)
    s.fault(node, "network_port", optional=True)


@scenario("half_evidence", SMALL, watch=1200)
def not_ready_alone(s: Story) -> None:
    """A node is NotReady and stays so; its exporters go on."""
    node = s.pick()[0]
    s.condition(node, s.onset + 40.0, "Ready", "Unknown", "NodeStatusUnknown")
    _settle(s, "not_ready", node, None, "node_not_ready")


@scenario("half_evidence", SMALL, watch=1200)
def device_withheld_alone(s: Story) -> None:
    """One GPU is not allocatable any more; every GPU reports and works."""
    node, _ = s.victim()
    s.change(node, s.onset, allocatable=node.gpu_count - 1)
    _settle(s, "withheld", node, None, "device_plugin")


@scenario("half_evidence", SMALL)
def readonly_filesystem_alone(s: Story) -> None:
    """One agent says that a filesystem is read-only."""
    node = s.pick()[0]
    s.set(node, "node_filesystem_readonly", 1.0, s.onset, **faults.ROOT)
    _settle(s, "readonly", node, None, "disk")


@scenario("half_evidence", SMALL, watch=1500)
def node_crashes_and_comes_back(s: Story) -> None:
    """A node panics, is silent and NotReady for some minutes, boots by itself and is well."""
    node = s.pick()[0]
    back = s.reboot(node, s.onset, s.some(300, 600))
    s.fault(node, "node_not_ready", until=back, optional=True)
