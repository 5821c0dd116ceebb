"""What real hardware shows when it fails: each fault draws its signs, as a fleet would see them.

Sources of what goes with what: NVIDIA Xid catalogue and A100 memory error management (48 brings
63/64, 94/95 and 45), DCGM 4.6.0 health module (which watch fails), dcgm-exporter issue 500 and
DCGM issues 235 and 277 (sticky last value, a dead GPU's series vanish), k8s-device-plugin 0.20 (a
device with such an XID is withheld), gpud (ports down, flaps). Chances without a source are ours.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.traces.fleet import Gpu, Machine
from tests.traces.story import Sign, Story

Fault = Callable[[Story, Machine, Gpu, float], None]

DBE: Sign = ("MEM", "DCGM_FR_VOLATILE_DBE_DETECTED", 20)
OFF_BUS: Sign = ("ALL", "DCGM_FR_FALLEN_OFF_BUS", 20)
UNCONTAINED: Sign = ("ALL", "DCGM_FR_UNCONTAINED_ERROR", 20)
XID: Sign = ("ALL", "DCGM_FR_XID_ERROR", 20)
CONTAINED: Sign = ("ALL", "DCGM_FR_CONTAINED_ERROR", 10)
LINK_DOWN: Sign = ("NVLINK", "DCGM_FR_NVLINK_DOWN", 20)
REPLAYS: Sign = ("NVLINK", "DCGM_FR_NVLINK_ERROR_CRITICAL", 20)
REMAP_FAILED: Sign = ("MEM", "DCGM_FR_ROW_REMAP_FAILURE", 20)
PCIE_REPLAYS: Sign = ("PCIE", "DCGM_FR_PCI_REPLAY_RATE", 10)

REPLAY = "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL"
RECOVERY = "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL"
CRC = "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL"
DBE_TOTAL = "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"
ACTION = "DCGM_FI_DEV_GPU_RECOVERY_ACTION"
PENDING = "DCGM_FI_DEV_ROW_REMAP_PENDING"
ROWS = "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"
FAILED = "DCGM_FI_DEV_ROW_REMAP_FAILURE"
SRAM = "DCGM_FI_DEV_THRESHOLD_SRM"
PCIE = "DCGM_FI_DEV_PCIE_REPLAY_COUNTER"
WIDTH = "DCGM_FI_DEV_PCIE_LINK_WIDTH"
GEN = "DCGM_FI_DEV_PCIE_LINK_GEN"
TEMP = "DCGM_FI_DEV_GPU_TEMP"
THERMAL = "DCGM_FI_DEV_THERMAL_VIOLATION"
CLOCK = "DCGM_FI_DEV_SM_CLOCK"
POWER = "DCGM_FI_DEV_POWER_USAGE"
UTIL = "DCGM_FI_DEV_GPU_UTIL"
TENSOR = "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE"
CLOCK_EVENTS = "DCGM_EXP_CLOCK_EVENTS_COUNT"
ENERGY = "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION"
COUNT_S = 600.0  # after this a silent GPU is missing
ROOT = {"device": "/dev/nvme0n1p2", "fstype": "ext4", "mountpoint": "/"}


def withheld(s: Story, node: Machine, at: float, *, gpus: int = 1, chance: float = 0.9) -> None:
    """The device plugin takes the device off the list and does not give it back."""
    if s.chance(chance):
        s.change(node, at + s.some(5, 40), allocatable=max(0, node.gpu_count - gpus))


def job_dies(s: Story, node: Machine, at: float) -> None:
    """What ran there fails and nothing replaces it; all GPUs of the node are idle."""
    idle(s, node, at + 60.0)


def idle(s: Story, target: Gpu | Machine, since: float, until: float | None = None) -> None:
    """No work: cool, slow, and at a low PCIe generation to save power."""
    s.scale(target, UTIL, 0.0, since, until)
    s.scale(target, POWER, 0.11, since, until)
    s.scale(target, TEMP, 0.55, since, until)
    s.scale(target, CLOCK, 0.2, since, until)
    s.scale(target, TENSOR, 0.0, since, until)
    s.set(target, GEN, 1.0, since, until)


def off_bus(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """XID 79. The series vanish, or become blanks, or stay as they were."""
    s.xid(gpu, at, 79)
    s.health(gpu, OFF_BUS, at)
    if s.chance(0.25):  # co-occurring PCIe errors (Meta RSC)
        s.grow(gpu, PCIE, s.some(1.0, 4.0), at - 180.0, at)
    if s.chance(0.5):
        s.set(gpu, ACTION, 2.0, at + 20.0)
    shows = s.one_of("vanishes", "blanks", "stays", p=[0.6, 0.2, 0.2])
    if shows == "vanishes":
        s.gap(gpu, at + s.every * (1.5 + s.whole(0, 4)))
    elif shows == "blanks":
        s.gap(gpu, at + 30.0, effect="sentinel", metrics=[TEMP, POWER, CLOCK, UTIL])
    withheld(s, node, at)
    job_dies(s, node, at)
    s.fault(node, "gpu_off_bus", gpu, since=at, also=["gpu_missing"])


def gone_silently(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """The GPU is not there any more and nobody said why; its neighbours report on. Ten minutes make
    it more than a gap (EKS, accelerated hardware).
    """
    s.gap(gpu, at)
    withheld(s, node, at, chance=0.8)
    job_dies(s, node, at)
    s.fault(node, "gpu_missing", gpu, since=at, also=["gpu_off_bus"], detectable_at=at + COUNT_S)


def double_bit(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """XID 48 with its counter, and what it brings along."""
    s.xid(gpu, at, 48)
    s.gain(gpu, DBE_TOTAL, float(s.whole(1, 4)), at)
    s.health(gpu, DBE, at)
    if s.chance(0.6):
        s.xid(gpu, at + 0.5, 63)
        s.set(gpu, PENDING, 1.0, at + 1.0)
        s.gain(gpu, ROWS, 1.0, at + 1.0)
    if s.chance(0.7):  # hides the 48 from the last-value gauge (DCGM issue 235)
        s.xid(gpu, at + 2.0, 45)
    if s.chance(0.6):
        s.set(gpu, ACTION, 1.0, at + 20.0)
    withheld(s, node, at)
    job_dies(s, node, at)
    s.fault(node, "ecc_uncorrectable", gpu, since=at)


def uncontained(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """XID 95: everything on the GPU has to stop, then a reset."""
    s.xid(gpu, at, 95)
    if s.chance(0.7):
        s.xid(gpu, at + 1.0, 45)
    if s.chance(0.6):
        s.gain(gpu, DBE_TOTAL, 1.0, at)
        s.health(gpu, DBE, at)
    s.health(gpu, UNCONTAINED, at)
    if s.chance(0.6):
        s.set(gpu, ACTION, 4.0, at + 20.0)
    withheld(s, node, at)
    job_dies(s, node, at)
    s.fault(node, "ecc_uncorrectable", gpu, since=at)


def contained(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """XID 94 with a remap recorded: only the process died, the reset may wait for the job's end."""
    s.xid(gpu, at, 94)
    s.xid(gpu, at + 0.4, 63)
    s.set(gpu, PENDING, 1.0, at + 1.0)
    s.gain(gpu, ROWS, 1.0, at + 1.0)
    s.health(gpu, CONTAINED, at)
    s.fault(
        node,
        "ecc_contained",
        gpu,
        since=at,
        also=["row_remap_pending", "ecc_uncorrectable"],
        optional=True,
    )


def remap_failed(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """No spare row is left: XID 64 and the flag, which survives resets."""
    if s.chance(0.5):
        s.xid(gpu, at, 48)
        s.gain(gpu, DBE_TOTAL, 1.0, at)
    s.xid(gpu, at + 0.3, 64)
    s.set(gpu, FAILED, 1.0, at + 5.0)
    s.health(gpu, REMAP_FAILED, at)
    withheld(s, node, at)
    job_dies(s, node, at)
    s.fault(node, "row_remap_failed", gpu, since=at, also=["ecc_uncorrectable"])


def link_down(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """An NVLink is down and stays down: XID 74 (149 with NVLink 5), errors, DCGM's health watch."""
    s.xid(gpu, at, 149 if "B200" in node.model.product else 74)
    s.health(gpu, LINK_DOWN, at)
    if s.chance(0.8):
        s.grow(gpu, REPLAY, s.some(0.05, 2.0), at)
    if s.chance(0.5):
        s.grow(gpu, RECOVERY, s.some(0.02, 0.5), at)
    if s.chance(0.5):
        s.set(gpu, ACTION, 1.0, at + 20.0)
    withheld(s, node, at, chance=0.7)
    job_dies(s, node, at)
    s.fault(node, "nvlink_down", gpu, since=at)


def gsp_hang(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """The GPU's system processor stops answering: XID 119, soon 120; the driver asks for a reset or
    reboot. No change came before it.
    """
    s.xid(gpu, at, 119, count=s.whole(3, 6))
    if s.chance(0.4):
        s.xid(gpu, at + 30.0, 120)
    s.set(gpu, ACTION, float(s.one_of(1, 2)), at + 20.0)
    s.health(gpu, XID, at)
    withheld(s, node, at)
    job_dies(s, node, at)
    s.fault(node, "gsp", gpu, since=at, also=["gpu_recovery"])


def port_down(s: Story, node: Machine, _gpu: Gpu, at: float) -> None:
    """An InfiniBand port goes down for good; jobs that use the fabric stop. Four minutes make it
    more than a flap (gpud).
    """
    flap(s, node, s.whole(0, s.shape.ports - 1), at, None)
    s.condition(node, at + 240.0, "IBLinkFlapping", "True", "IBPortDown")
    job_dies(s, node, at)
    s.fault(node, "network_port", since=at, detectable_at=at + 300.0)


def flap(s: Story, node: Machine, number: int, since: float, until: float | None) -> None:
    """A port is down from `since` to `until`."""
    port = {"device": f"mlx5_{number}", "port": "1"}
    s.set(node, "node_infiniband_state_id", 1.0, since, until, **port)
    s.set(node, "node_infiniband_physical_state_id", 2.0, since, until, **port)
    s.grow(node, "node_infiniband_link_downed_total", 1.0, since, since + 1.0, **port)


def host_dies(s: Story, node: Machine, _gpu: Gpu, at: float) -> None:
    """Power supply, board, CPU or memory: the whole machine is silent and stays so. Platforms wait
    10 to 30 minutes (GKE, EKS); five make it more than a blip (ours).
    """
    s.gap(node, at, exporters=["dcgm", "node"])
    s.condition(node, at + 40.0, "Ready", "Unknown", "NodeStatusUnknown")
    s.fault(node, "node_not_ready", since=at, detectable_at=at + 340.0)


def disk_dies(s: Story, node: Machine, _gpu: Gpu, at: float) -> None:
    """The root filesystem goes read-only; node-problem-detector sees it, pods fail."""
    s.set(node, "node_filesystem_readonly", 1.0, at, **ROOT)
    s.condition(node, at + 20.0, "ReadonlyFilesystem", "True", "FilesystemIsReadOnly")
    s.event(at + 5.0, "Ext4Error", "EXT4-fs error (device nvme0n1p2)", node=node.name)
    job_dies(s, node, at + 60.0)
    s.fault(node, "disk", since=at, detectable_at=at + 300.0)


def overheats(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """A bad thermal interface: this GPU alone is hot, and hardware slows it down."""
    s.gain(gpu, TEMP, float(s.whole(30, 34)), at)
    s.scale(gpu, CLOCK, s.some(0.45, 0.7), at)
    s.scale(gpu, TENSOR, s.some(0.5, 0.75), at)
    s.scale(gpu, POWER, 0.7, at)
    s.grow(gpu, THERMAL, s.some(0.3, 0.9) * 1e9, at)
    for event in ("hw_thermal", "hw_slowdown"):
        s.set(gpu, CLOCK_EVENTS, float(s.whole(5, 30)), at + 60.0, clock_event=event)
    s.fault(node, "thermal", gpu, since=at, also=["straggler"], optional=True)


def pcie_degrades(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """The link is narrower under load, with replays, and its GPU slower."""
    s.set(gpu, WIDTH, float(s.one_of(1, 4, 8)), at)
    s.grow(gpu, PCIE, s.some(1.5, 6.0), at)
    s.scale(gpu, TENSOR, s.some(0.5, 0.8), at)
    s.health(gpu, PCIE_REPLAYS, at)
    s.fault(node, "pcie_degraded", gpu, since=at, also=["straggler"], optional=True)


def sram_flag(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """Uncorrectable SRAM errors: XID 48, no row to remap, and the vendor's threshold flag."""
    s.xid(gpu, at, 48)
    s.gain(gpu, DBE_TOTAL, float(s.whole(1, 3)), at)
    s.set(gpu, SRAM, 1.0, at + 10.0)
    s.health(gpu, DBE, at)
    withheld(s, node, at)
    job_dies(s, node, at)
    s.fault(node, "ecc_uncorrectable", gpu, since=at)


def slow_gpu(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """One GPU does less than its job's others, and no counter says why; a test has to confirm it
    before anything is taken out.
    """
    share = s.some(0.55, 0.8)
    for metric in (CLOCK, POWER, TENSOR):
        s.scale(gpu, metric, share, at)
    s.fault(node, "straggler", gpu, since=at, optional=True)


def corrupts_silently(s: Story, node: Machine, gpu: Gpu, at: float) -> None:
    """Wrong results and no sign at all: no telemetry shows it."""
    s.fault(node, "unclassified", gpu, since=at, optional=True)


#: Faults by the share of Llama 3 405B's unplanned interruptions (16,384 H100, 54 days), software
#: bugs and maintenance left out: of 333. "Faulty GPU" (148) is split as fleets report it (ours).
CLASS_MIX: tuple[tuple[float, str, Fault], ...] = (
    (64.0, "off_bus", off_bus),
    (30.0, "gone_silently", gone_silently),
    (30.0, "link_down", link_down),
    (24.0, "gsp_gpu", gsp_hang),
    (44.0, "double_bit", double_bit),
    (12.0, "uncontained", uncontained),
    (12.0, "remap_failed", remap_failed),
    (4.0, "contained", contained),
    (19.0, "sram", sram_flag),
    (17.0, "gsp", gsp_hang),
    (42.0, "port_down", port_down),
    (6.0, "silent", corrupts_silently),
    (6.0, "thermal", overheats),
    (13.0, "host", host_dies),
    (3.0, "disk", disk_dies),
    (7.0, "nccl_only", slow_gpu),
)


def draw_fault(s: Story) -> tuple[str, Fault]:
    """A fault of the mix."""
    shares = [share for share, _, _ in CLASS_MIX]
    total = sum(shares)
    chosen = CLASS_MIX[int(s.rng.choice(len(shares), p=[x / total for x in shares]))]
    return chosen[1], chosen[2]
