"""Each signal with a real fault behind it, and what such a fault shows beside it."""

from __future__ import annotations

from tests.traces import faults
from tests.traces.faults import flap, idle, job_dies, withheld
from tests.traces.fleet import Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

SMALL = Shape(nodes=6, gpus=4)
PORTS = Shape(nodes=6, gpus=4, ports=4)
PLAIN = Shape(nodes=6, gpus=4, profile="default")


def _one(s: Story, fault: faults.Fault) -> None:
    node, gpu = s.victim()
    fault(s, node, gpu, s.onset)
    s.only(node)


@scenario("hardware", SMALL, true_of=("gpu_off_bus",))
def gpu_off_the_bus(s: Story) -> None:
    """A GPU falls off the bus where all fields are exported."""
    _one(s, faults.off_bus)


@scenario("hardware", PLAIN, true_of=("gpu_off_bus",))
def gpu_off_the_bus_in_the_default_fields(s: Story) -> None:
    """A GPU falls off the bus where only the default fields are exported."""
    _one(s, faults.off_bus)


@scenario("hardware", SMALL, true_of=("gpu_count_short",))
def gpu_gone_without_a_word(s: Story) -> None:
    """A GPU's series end; the others' go on, no change is under way."""
    _one(s, faults.gone_silently)


@scenario("hardware", SMALL, true_of=("ecc_dbe",))
def double_bit_error(s: Story) -> None:
    """An uncorrectable memory error with XID 48 and what follows it."""
    _one(s, faults.double_bit)


@scenario("hardware", SMALL, true_of=("ecc_dbe",))
def double_bit_error_that_only_counters_tell(s: Story) -> None:
    """The uncorrectable counter moves; the exporter missed the XID behind a later one."""
    node, gpu = s.victim()
    s.gain(gpu, faults.DBE_TOTAL, float(s.whole(1, 6)), s.onset)
    s.health(gpu, faults.DBE, s.onset)
    s.xid(gpu, s.onset, 45)
    job_dies(s, node, s.onset)
    s.fault(node, "ecc_uncorrectable", gpu)
    s.only(node)


@scenario("half_evidence", SMALL, true_of=("xid_94",))
def contained_error(s: Story) -> None:
    """A contained error: the process died, a remap waits for the next reset."""
    node, gpu = s.victim()
    faults.contained(s, node, gpu, s.onset)


@scenario("hardware", SMALL, true_of=("xid_95",))
def uncontained_error(s: Story) -> None:
    """An uncontained error."""
    _one(s, faults.uncontained)


@scenario("half_evidence", SMALL, true_of=("row_remap_pending",))
def remap_is_pending(s: Story) -> None:
    """A row waits to be remapped: true, and not urgent; applications may go on."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 63)
    s.set(gpu, faults.PENDING, 1.0, s.onset + 1.0)
    s.gain(gpu, faults.ROWS, 1.0, s.onset + 1.0)
    if s.chance(0.5):
        s.set(gpu, faults.ACTION, 1.0, s.onset + 20.0)
    s.fault(node, "row_remap_pending", gpu, also=["ecc_contained", "gpu_recovery"], optional=True)


@scenario("hardware", SMALL, true_of=("row_remap_failed",))
def remap_failed(s: Story) -> None:
    """No spare row is left."""
    _one(s, faults.remap_failed)


@scenario("hardware", PLAIN, true_of=("row_remap_failed",))
def remap_failed_in_the_default_fields(s: Story) -> None:
    """No spare row is left, and only the default fields are exported."""
    _one(s, faults.remap_failed)


@scenario("hardware", PLAIN, true_of=("remapped_rows",))
def too_many_remapped_rows(s: Story) -> None:
    """512 rows of a GPU were remapped for uncorrectable errors: the vendor's limit."""
    node, gpu = s.victim()
    s.set(gpu, faults.ROWS, float(s.whole(380, 508)), -s.warmup)
    s.set(gpu, faults.ROWS, float(s.whole(512, 640)), s.onset)
    s.xid(gpu, s.onset, 63, count=2)
    s.fault(node, "row_remap_failed", gpu, also=["row_remap_pending", "ecc_uncorrectable"])
    s.only(node)


@scenario("half_evidence", SMALL, true_of=("ecc_sbe",))
def storm_of_correctable_errors(s: Story) -> None:
    """Correctable errors by the million with XID 92: the memory is going, a ticket is enough."""
    node, gpu = s.victim()
    s.grow(gpu, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", s.some(20_000, 60_000), s.onset - 600.0)
    s.xid(gpu, s.onset, 92)
    s.fault(node, "ecc_contained", gpu, also=["ecc_uncorrectable"], optional=True)


@scenario("hardware", SMALL, true_of=("sram_threshold",))
def sram_threshold(s: Story) -> None:
    """Uncorrectable SRAM errors pass the vendor's threshold."""
    _one(s, faults.sram_flag)


PASCAL = Shape(nodes=4, gpus=4, model="Tesla-V100-SXM2-32GB")


@scenario("half_evidence", PASCAL, true_of=("retired_pages",))
def retired_pages_at_the_limit(s: Story) -> None:
    """63 retired pages on a GPU that cannot remap: DCGM's limit. A page waits for a reboot."""
    s.telemetry["metrics"].append("pages")
    node, gpu = s.victim()
    s.set(gpu, "DCGM_FI_DEV_RETIRED_DBE", float(s.whole(20, 40)), -s.warmup)
    s.set(gpu, "DCGM_FI_DEV_RETIRED_SBE", float(s.whole(46, 60)), s.onset)
    s.set(gpu, "DCGM_FI_DEV_RETIRED_PENDING", 1.0, s.onset)
    s.gain(gpu, faults.DBE_TOTAL, 1.0, s.onset)
    s.health(gpu, ("MEM", "DCGM_FR_RETIRED_PAGES_LIMIT", 20), s.onset)
    s.fault(
        node,
        "ecc_uncorrectable",
        gpu,
        also=["row_remap_failed", "row_remap_pending"],
        optional=True,
    )


@scenario("hardware", SMALL, true_of=("nvlink_replay",))
def replays_with_an_xid(s: Story) -> None:
    """A link replays and recovers many times a minute, XID 74 comes, the job stops."""
    node, gpu = s.victim()
    s.grow(gpu, faults.REPLAY, s.some(0.1, 3.0), s.onset)
    s.grow(gpu, faults.RECOVERY, s.some(0.03, 0.5), s.onset)
    s.health(gpu, faults.REPLAYS, s.onset)
    s.xid(gpu, s.onset + s.some(20, 90), 74, count=2)
    job_dies(s, node, s.onset + 60.0)
    s.fault(node, "nvlink_down", gpu)
    s.only(node)


@scenario("hardware", SMALL, true_of=("nvlink_crc",))
def storm_of_crc_errors(s: Story) -> None:
    """Hundreds of CRC errors a second on a link: a bad trace, connector or cable."""
    node, gpu = s.victim()
    s.grow(gpu, faults.CRC, s.some(200, 3000), s.onset)
    if s.chance(0.5):
        s.grow(gpu, faults.REPLAY, s.some(0.1, 2.0), s.onset)
    s.fault(node, "nvlink_down", gpu, detectable_at=s.onset + 150.0)
    s.only(node)


@scenario("hardware", SMALL, true_of=("nvlink_down",))
def nvlink_down(s: Story) -> None:
    """A link goes down and stays down."""
    _one(s, faults.link_down)


@scenario("hardware", SMALL, true_of=("nvlink_down",))
def nvlink_down_and_a_node_condition(s: Story) -> None:
    """A link is down where DCGM's health is not exported; the platform's agent says so too."""
    s.telemetry["metrics"].remove("health")
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 74)
    s.grow(gpu, faults.REPLAY, s.some(0.1, 2.0), s.onset)
    s.condition(node, s.onset + s.some(20, 90), "NVLinkStatusInactive", "True", "NVLinkInactive")
    s.fault(node, "nvlink_down", gpu)
    s.only(node)


@scenario("hardware", SMALL, true_of=("fabric_manager",))
def fabric_manager_fails(s: Story) -> None:
    """The fabric manager fails for good, after a SXid; no job can start there."""
    node = s.pick()[0]
    s.set(node, "DCGM_FI_DEV_FABRIC_MANAGER_STATUS", 4.0, s.onset)
    for gpu in node.gpus:
        s.xid(gpu, s.onset + s.some(0, 20), 45)
    idle(s, node, s.onset + 60.0)
    s.fault(node, "fabric", also=["nvlink_down"])
    s.only(node)


@scenario("half_evidence", SMALL, true_of=("pcie_replay", "pcie_link"))
def pcie_link_degrades(s: Story) -> None:
    """A link at a quarter of its width, under load, with replays: the job is slow."""
    s.telemetry["also"] = {"DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH": 16}
    node, gpu = s.victim()
    faults.pcie_degrades(s, node, gpu, s.onset)


@scenario(
    "half_evidence",
    SMALL,
    true_of=("temperature", "hw_slowdown", "thermal_violation"),
    watch=1500,
)
def one_gpu_overheats(s: Story) -> None:
    """One GPU is too hot and slowed down by hardware while its neighbours are cool."""
    node, gpu = s.victim()
    faults.overheats(s, node, gpu, s.onset)


@scenario("half_evidence", SMALL, true_of=("power_violation",), watch=1500)
def power_brake(s: Story) -> None:
    """A failing power supply: the board brakes all GPUs of one node, its neighbours run on."""
    node = s.pick()[0]
    for event in ("hw_power_brake", "hw_slowdown"):
        s.set(node, faults.CLOCK_EVENTS, float(s.whole(6, 20)), s.onset + 60.0, clock_event=event)
    s.grow(node, "DCGM_FI_DEV_POWER_VIOLATION", 0.8e9, s.onset)
    s.scale(node, faults.CLOCK, s.some(0.3, 0.5), s.onset)
    s.scale(node, faults.POWER, 0.5, s.onset)
    s.fault(node, "thermal", also=["straggler"], optional=True)


@scenario("half_evidence", SMALL, true_of=("straggler",), watch=1800)
def one_gpu_is_slow(s: Story) -> None:
    """One GPU of a job runs at two thirds of its peers' clock for half an hour."""
    node, gpu = s.victim()
    faults.slow_gpu(s, node, gpu, s.onset)


@scenario("half_evidence", SMALL, true_of=("slow_group", "idle_gpu"), watch=1800)
def one_node_hangs_its_job(s: Story) -> None:
    """Seven nodes spin at full use and half their power, one stands still: a hang that starts on
    the one; it needs a test, not a repair.
    """
    node, *_ = s.pick()
    for other in s.nodes:
        if other is not node:
            s.scale(other, faults.POWER, 0.5, s.onset)
            s.scale(other, faults.TENSOR, 0.0, s.onset)
    s.scale(node, faults.UTIL, 0.0, s.onset)
    s.scale(node, faults.POWER, 0.15, s.onset)
    s.scale(node, faults.TENSOR, 0.0, s.onset)
    s.fault(node, "straggler", also=["unclassified"], optional=True)


@scenario("hardware", PORTS, true_of=("ib_port_down",))
def ib_port_down_for_good(s: Story) -> None:
    """A port goes down and stays down; its link and its jobs with it."""
    _one(s, faults.port_down)


@scenario("half_evidence", PORTS, true_of=("ib_flap",), warmup=3600.0)
def ib_port_flaps(s: Story) -> None:
    """A port flaps every few minutes while jobs time out on it."""
    node = s.pick()[0]
    number, at = s.whole(0, 3), -3000.0
    while at < s.length - 200:
        lasts = s.some(26, 90)
        flap(s, node, number, at, at + lasts)
        at += lasts + s.some(200, 700)
    s.condition(node, 0.0, "IBLinkFlapping", "True", "IBLinkFlapping")
    s.fault(node, "network_port", since=-1500.0, detectable_at=120.0, optional=True)


@scenario("half_evidence", PORTS, true_of=("ib_symbol_errors",))
def ib_symbol_errors(s: Story) -> None:
    """A port counts symbol errors and link recoveries by the hundred an hour: cable or optics."""
    node = s.pick()[0]
    port = {"device": f"mlx5_{s.whole(0, 3)}", "port": "1"}
    s.grow(node, "node_infiniband_symbol_error_total", s.some(12, 60), s.onset, **port)
    s.grow(node, "node_infiniband_link_error_recovery_total", s.some(0.1, 0.5), s.onset, **port)
    s.fault(node, "network_port", optional=True)


@scenario("hardware", SMALL, true_of=("not_ready",))
def machine_dies(s: Story) -> None:
    """A machine loses its power: NotReady, and all its exporters silent."""
    _one(s, faults.host_dies)


@scenario("half_evidence", SMALL, true_of=("not_ready",), watch=1500)
def kubelet_dies(s: Story) -> None:
    """The kubelet dies and stays dead, the exporters go on: a reboot helps, after somebody
    looked.
    """
    node = s.pick()[0]
    s.condition(node, s.onset + 40.0, "Ready", "Unknown", "NodeStatusUnknown")
    s.fault(node, "node_not_ready", optional=True)


@scenario("hardware", SMALL, true_of=("node_problem",))
def root_filesystem_read_only(s: Story) -> None:
    """A disk dies: the root filesystem is read-only, two agents say so."""
    _one(s, faults.disk_dies)


@scenario("half_evidence", SMALL, true_of=("node_problem",))
def kernel_deadlock(s: Story) -> None:
    """The kernel is deadlocked by node-problem-detector's word, and the node stops being Ready."""
    node = s.pick()[0]
    s.condition(node, s.onset, "KernelDeadlock", "True", "DockerHung")
    s.event(
        s.onset,
        "TaskHung",
        "INFO: task kubelet:812 blocked for more than 300 seconds",
        node=node.name,
    )
    s.condition(node, s.onset + 60.0, "Ready", "Unknown", "NodeStatusUnknown")
    s.fault(node, "node_not_ready", optional=True)


@scenario("half_evidence", SMALL, true_of=("device_plugin",))
def device_withheld_after_an_xid(s: Story) -> None:
    """The device plugin withholds a GPU since its XID 62, and pods wait for it."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 62)
    withheld(s, node, s.onset, chance=1.0)
    for i in range(s.whole(1, 3)):
        s.pod(f"waiting-{i}", phase="Pending", ready=False, gpus=1, **{"from": s.onset + 60.0})
    s.fault(node, "gpu_recovery", gpu, also=["device_plugin"], optional=True)


@scenario("half_evidence", SMALL, true_of=("xid_app",), watch=1500)
def same_gpu_fails_every_application(s: Story) -> None:
    """XID 13 and 31 on one GPU whatever runs there, in three different pods: the GPU is suspect."""
    node, gpu = s.victim()
    for i in range(3):
        s.xid(gpu, s.onset + 240.0 * i, s.one_of(13, 31))
        s.pod(
            f"job-{i}-0",
            node.name,
            gpus=1,
            owner=f"Job/job-{i}",
            **{"from": s.onset + 240.0 * i - 200.0},
            changes=[{"at": s.onset + 240.0 * i + 5.0, "phase": "Failed", "ready": False}],
        )
    s.fault(node, "app_level", gpu, also=["unclassified"], optional=True)


@scenario("lemon", SMALL, true_of=("lemon",), warmup=14400.0, onset=(120.0, 300.0))
def lemon_fails_again(s: Story) -> None:
    """A node whose GPU fell off the bus and was rebooted twice falls off the bus once more."""
    node = s.pick()[0]
    gpu = node.gpus[0]
    for at in (-12000.0, -6000.0):
        s.xid(gpu, at, 79)
        s.gap(gpu, at + 60.0, at + 900.0)
        s.reboot(node, at + 900.0, 600.0)
    faults.off_bus(s, node, gpu, s.onset)
    s.only(node)
