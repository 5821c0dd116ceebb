"""What agents on the nodes say: conditions and events of platforms and of node-problem-detector.

Names and polarity: AKS node-problem-detector, EKS node monitoring agent, node-problem-detector's
configuration, NVSentinel. Each word has a trace in which it is true and the hardware shows it too,
and one of its platform in which it was a blip.
"""

from __future__ import annotations

from tests.traces import faults
from tests.traces.fleet import Gpu, Machine, Shape
from tests.traces.scenarios.registry import Scenario, register, scenario
from tests.traces.story import Story

SMALL = Shape(nodes=4, gpus=2, ports=2)


def _fabric_fails(s: Story, node: Machine, _gpu: Gpu, at: float) -> None:
    s.set(node, "DCGM_FI_DEV_FABRIC_MANAGER_STATUS", 4.0, at)
    s.fault(node, "fabric", since=at, also=["nvlink_down"])


def _plugin_withholds(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    s.change(node, at, allocatable=node.gpu_count - 1)
    s.fault(node, "device_plugin", gpu, since=at, also=["gpu_missing"], optional=True)


def _kernel_hangs(s: Story, node: Machine, _gpu: Gpu, at: float) -> None:
    s.condition(node, at + 60.0, "Ready", "False", "KubeletNotReady")
    s.fault(node, "node_not_ready", since=at, optional=True)


def _memory_of_the_host_fails(s: Story, node: Machine, _gpu: Gpu, at: float) -> None:
    s.grow(node, "node_edac_uncorrectable_errors_total", 0.02, at, controller="0")
    s.fault(node, "unclassified", since=at, also=["node_not_ready"], optional=True)


#: Condition, its bad status, what is behind it.
CONDITIONS: tuple[tuple[str, str, faults.Fault], ...] = (
    ("GPUMissing", "True", faults.gone_silently),
    ("NVLinkStatusInactive", "True", faults.link_down),
    ("XIDErrors", "True", faults.off_bus),
    ("IBLinkFlapping", "True", faults.port_down),
    ("GPUClockThrottling", "True", faults.overheats),
    ("UnhealthyNvidiaDevicePlugin", "True", _plugin_withholds),
    ("AcceleratedHardwareReady", "False", faults.double_bit),
    ("KernelReady", "False", _kernel_hangs),
    ("ContainerRuntimeReady", "False", _kernel_hangs),
    ("NetworkingReady", "False", faults.port_down),
    ("StorageReady", "False", faults.disk_dies),
    ("XfsShutdown", "True", faults.disk_dies),
    ("KubeletUnhealthy", "True", _kernel_hangs),
    ("CperHardwareErrorFatal", "True", _memory_of_the_host_fails),
    ("SysLogsGPUFallenOff", "True", faults.off_bus),
    ("SysLogsXIDError", "True", faults.uncontained),
    ("SysLogsSXIDError", "True", _fabric_fails),
    ("GpuMemWatch", "True", faults.double_bit),
    ("GpuNvlinkWatch", "True", faults.link_down),
    ("GpuPcieWatch", "True", faults.pcie_degrades),
    ("InfiniBandStateCheck", "True", faults.port_down),
)

#: Reason of an event, what is behind it.
EVENTS: tuple[tuple[str, faults.Fault], ...] = (
    ("NvidiaXID79Error", faults.off_bus),
    ("NvidiaDoubleBitError", faults.double_bit),
    ("NvidiaNVLinkError", faults.link_down),
    ("NvidiaDeviceCountMismatch", faults.gone_silently),
    ("NvidiaFabricError", _fabric_fails),
    ("KernelOops", _kernel_hangs),
    ("MemoryReadError", _memory_of_the_host_fails),
)

_WELL = {"True": "False", "False": "True"}
_OPTIONAL = frozenset(
    {faults.overheats, faults.pcie_degrades, _plugin_withholds, _kernel_hangs,
     _memory_of_the_host_fails}
)  # fmt: skip


def _words(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).strip("_")


def _condition(kind: str, bad: str, fault: faults.Fault) -> Scenario:
    def tell(s: Story) -> None:
        for node in s.nodes:
            node.conditions = {kind: _WELL[bad]}
        node, gpu = s.victim()
        fault(s, node, gpu, s.onset)
        s.condition(node, s.onset + s.some(20, 90), kind, bad, "AgentSaysSo")
        s.only(node)

    return Scenario(
        name=f"condition_{_words(kind)}",
        kind="half_evidence" if fault in _OPTIONAL else "hardware",
        about=f"The condition {kind} turns {bad}, and the hardware shows the same trouble.",
        tell=tell,
        shape=SMALL,
    )


def _event(reason: str, fault: faults.Fault) -> Scenario:
    def tell(s: Story) -> None:
        node, gpu = s.victim()
        fault(s, node, gpu, s.onset)
        for i in range(3):
            message = f"{reason} on {node.name}"
            s.event(s.onset + 15.0 * (i + 1), reason, message, node=node.name, count=i + 1)
        s.only(node)

    return Scenario(
        name=f"event_{_words(reason)}",
        kind="half_evidence" if fault in _OPTIONAL else "hardware",
        about=f"Events {reason} of a node, and the hardware shows the same trouble.",
        tell=tell,
        shape=SMALL,
    )


for _kind, _bad, _fault in CONDITIONS:
    register(_condition(_kind, _bad, _fault))
for _reason, _fault in EVENTS:
    register(_event(_reason, _fault))

BLIPS = Shape(nodes=12, gpus=2, racks=4, ports=2)


def _blips(s: Story, first: int, last: int) -> None:
    """One condition after the other is bad for a minute, each on another node."""
    said = CONDITIONS[first:last]
    for node in s.nodes:
        node.conditions = {kind: _WELL[bad] for kind, bad, _ in said}
    for i, (kind, bad, _) in enumerate(said):
        node, at = s.nodes[(5 * i) % len(s.nodes)], 150.0 * i + s.some(0, 60)
        s.condition(node, at, kind, bad, "AgentStarted")
        s.condition(node, at + s.some(30, 80), kind, _WELL[bad], "AgentIsWell")
    s.never()


@scenario("look_alike", BLIPS, watch=900)
def blips_of_the_aks_agent(s: Story) -> None:
    """The AKS agent restarts on several nodes and calls each thing bad for a minute."""
    _blips(s, 0, 6)


@scenario("look_alike", BLIPS, watch=900)
def blips_of_the_eks_agent(s: Story) -> None:
    """The EKS agent restarts on several nodes and calls each thing not ready for a minute."""
    _blips(s, 6, 11)


@scenario("look_alike", BLIPS, watch=900)
def blips_of_node_problem_detector(s: Story) -> None:
    """Node-problem-detector restarts and calls each thing bad for a minute."""
    _blips(s, 11, 14)


@scenario("look_alike", BLIPS, watch=1200)
def blips_of_nvsentinel(s: Story) -> None:
    """NVSentinel's monitors start with an old log and call each thing bad for a minute."""
    _blips(s, 14, 21)


@scenario("look_alike", BLIPS, watch=1200)
def events_without_a_fault(s: Story) -> None:
    """Each kind of event once, of a log read again; nothing else is wrong."""
    for i, (reason, _) in enumerate(EVENTS):
        node = s.nodes[(5 * i) % len(s.nodes)]
        s.event(150.0 * i + s.some(0, 60), reason, f"{reason} (replayed)", node=node.name)
    s.never()


@scenario("never_alone", SMALL)
def gpu_watches_that_are_minor(s: Story) -> None:
    """Thermal, power and connectivity watches of an agent fail for ten minutes on one node."""
    node = s.pick()[0]
    for kind in ("GpuThermalWatch", "GpuPowerWatch", "GpuDcgmConnectivityFailure"):
        s.condition(node, s.onset, kind, "True", "AgentSaysSo")
        s.condition(node, s.onset + 600.0, kind, "False", "AgentIsWell")
    s.never()
