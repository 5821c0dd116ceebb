"""Each signal without a fault behind it: what must not take a node out."""

from __future__ import annotations

from tests.traces import faults
from tests.traces.faults import REPLAYS, flap, idle
from tests.traces.fleet import Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

SMALL = Shape(nodes=6, gpus=4)
PORTS = Shape(nodes=6, gpus=4, ports=4)
DAY = 86400.0


def _before(s: Story, days: float) -> float:
    return -s.warmup - days * DAY


@scenario("look_alike", SMALL, false_of=("gpu_off_bus",))
def xid_79_of_days_ago(s: Story) -> None:
    """The last XID of a GPU is 79, from days ago; it was repaired, and its gauge never fell."""
    _, gpu = s.victim()
    s.telemetry["metrics"] = ["basic", "xid", "remap", "pcie"]
    s.xid(gpu, _before(s, s.some(1, 9)), 79)
    s.never()


@scenario("look_alike", SMALL, false_of=("ecc_dbe", "xid_95"))
def sticky_xids_of_days_ago(s: Story) -> None:
    """Several GPUs still show XIDs 48, 95 and 74 of last week."""
    s.telemetry["metrics"] = ["basic", "xid", "remap", "pcie"]
    for node, code in zip(s.pick(3), (48, 95, 74), strict=True):
        s.xid(node.gpus[0], _before(s, s.some(2, 8)), code)
    s.never()


@scenario("telemetry", SMALL, false_of=("gpu_off_bus",))
def sticky_xid_returns_after_a_gap(s: Story) -> None:
    """A GPU's last XID is 79 from days ago; a gap in the telemetry does not make it new."""
    s.telemetry["metrics"] = ["basic", "xid", "remap", "pcie"]
    node, gpu = s.victim()
    s.xid(gpu, _before(s, s.some(1, 9)), 79)
    s.gap(node, s.onset, s.onset + s.some(90, 500))
    s.never()


@scenario("look_alike", SMALL, false_of=("ecc_dbe",))
def blank_value_as_a_count(s: Story) -> None:
    """DCGM's blank value, 2^63 and a bit less, shows up as an error count."""
    _, gpu = s.victim()
    s.gap(
        gpu,
        s.onset,
        s.onset + s.some(30, 600),
        effect="sentinel",
        metrics=[faults.DBE_TOTAL, faults.ROWS, faults.FAILED, faults.PENDING],
    )
    s.never()


@scenario("change", SMALL, false_of=("gpu_count_short",), watch=1500)
def driver_upgrade_by_the_operator(s: Story) -> None:
    """The GPU operator has the node for a driver upgrade: its GPUs vanish, on purpose."""
    node = s.pick()[0]
    label = "nvidia.com/gpu-driver-upgrade-state"
    for wait, state in (
        (0, "cordon-required"),
        (30, "drain-required"),
        (90, "pod-restart-required"),
        (500, "validation-required"),
        (600, "uncordon-required"),
        (620, "upgrade-done"),
    ):
        s.change(node, s.onset + wait, labels={label: state})
    s.change(node, s.onset + 10.0, unschedulable=True)
    s.gap(node, s.onset + 90.0, s.onset + 480.0)
    s.change(node, s.onset + 100.0, allocatable=0)
    s.change(node, s.onset + 480.0, driver="590.48.01", allocatable=node.gpu_count)
    s.change(node, s.onset + 610.0, unschedulable=False)
    s.restart(node, s.onset + 480.0)
    s.looks(node, "telemetry_lost", until=s.onset + 1200.0, also=["change_induced", "gpu_missing"])
    s.never()


@scenario("look_alike", SMALL, false_of=("xid_94",))
def contained_error_that_was_one(s: Story) -> None:
    """XID 94 once, no remap waits, no counter moved: an application restarts and goes on."""
    _, gpu = s.victim()
    s.xid(gpu, s.onset, 94)
    s.never()


@scenario("look_alike", SMALL, false_of=("row_remap_pending", "remapped_rows"))
def rows_remapped_long_ago(s: Story) -> None:
    """A few rows were remapped, none waits, no more come: the GPU is as good as new."""
    _, gpu = s.victim()
    s.set(gpu, faults.ROWS, float(s.whole(1, 30)), -s.warmup)
    s.set(gpu, "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", float(s.whole(1, 12)), -s.warmup)
    s.never()


@scenario("look_alike", SMALL, false_of=("remapped_rows", "row_remap_failed"))
def many_rows_remapped_but_not_too_many(s: Story) -> None:
    """Some hundred remapped rows, below the vendor's limit, and stable: a watch list."""
    _, gpu = s.victim()
    s.set(gpu, faults.ROWS, float(s.whole(120, 480)), -s.warmup)
    s.never()


@scenario("telemetry", SMALL, false_of=("row_remap_pending", "row_remap_failed"))
def remap_fields_vanish(s: Story) -> None:
    """The remap fields are not exported any more on a node: not collected is not failed."""
    node = s.pick()[0]
    s.gap(node, s.onset, metrics=["DCGM_FI_DEV_ROW_REMAP_*", "DCGM_FI_DEV_*REMAPPED_ROWS"])
    s.never()


@scenario("look_alike", SMALL, false_of=("ecc_sbe",))
def correctable_errors_trickle(s: Story) -> None:
    """Correctable errors by the hundred an hour: memory corrects them, that is what it does."""
    _, gpu = s.victim()
    s.grow(gpu, "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", s.some(0.05, 2.0), -s.warmup)
    s.never()


@scenario("look_alike", SMALL, false_of=("sram_threshold",))
def sram_flag_reads_blank(s: Story) -> None:
    """The SRAM flag cannot be read for a while: DCGM's blank value, then NaN."""
    _, gpu = s.victim()
    s.gap(gpu, s.onset, s.onset + 240.0, effect="sentinel", metrics=[faults.SRAM])
    s.gap(gpu, s.onset + 240.0, s.onset + 400.0, effect="nan", metrics=[faults.SRAM])
    s.never()


@scenario(
    "look_alike", Shape(nodes=4, gpus=4, model="Tesla-V100-SXM2-32GB"), false_of=("retired_pages",)
)
def a_few_retired_pages(s: Story) -> None:
    """A dozen retired pages of years, none pending."""
    s.telemetry["metrics"].append("pages")
    _, gpu = s.victim()
    s.set(gpu, "DCGM_FI_DEV_RETIRED_SBE", float(s.whole(2, 14)), -s.warmup)
    s.set(gpu, "DCGM_FI_DEV_RETIRED_DBE", float(s.whole(0, 4)), -s.warmup)
    s.never()


@scenario("look_alike", SMALL, false_of=("nvlink_replay",))
def one_nvlink_replay(s: Story) -> None:
    """One replay on one link; DCGM's health watch fails for a minute for it."""
    _, gpu = s.victim()
    s.gain(gpu, faults.REPLAY, 1.0, s.onset)
    s.health(gpu, REPLAYS, s.onset, s.onset + 90.0)
    s.never()


@scenario("look_alike", SMALL, false_of=("nvlink_crc",))
def few_crc_errors(s: Story) -> None:
    """CRC errors now and then, some a second for a minute: links correct them."""
    _, gpu = s.victim()
    s.grow(gpu, faults.CRC, s.some(0.01, 0.4), -s.warmup)
    s.grow(gpu, faults.CRC, s.some(2, 40), s.onset, s.onset + 60.0)
    s.never()


@scenario("look_alike", SMALL, false_of=("nvlink_down",), watch=1500)
def link_trains_again(s: Story) -> None:
    """After a planned GPU reset a link shows as down for one look, then is up."""
    node, gpu = s.victim()
    s.change(node, s.onset - 120.0, unschedulable=True)
    s.health(gpu, faults.LINK_DOWN, s.onset, s.onset + 30.0 + s.every)
    s.change(node, s.onset + 600.0, unschedulable=False)
    s.never()


@scenario("look_alike", SMALL, false_of=("fabric_manager",), watch=1500)
def fabric_manager_starts(s: Story) -> None:
    """After a planned boot the fabric manager is not started, then in progress, then well."""
    node = s.pick()[0]
    s.change(node, s.onset - 100.0, unschedulable=True)
    back = s.reboot(node, s.onset, s.some(400, 600))
    s.change(node, back + 240.0, unschedulable=False)
    metric = "DCGM_FI_DEV_FABRIC_MANAGER_STATUS"
    s.set(node, metric, 1.0, back, back + 90.0)
    s.set(node, metric, 2.0, back + 90.0, back + 200.0)
    s.never()


@scenario("look_alike", SMALL, false_of=("pcie_replay",))
def burst_of_pcie_replays(s: Story) -> None:
    """A burst of replays, corrected by the link, at full width and speed."""
    _, gpu = s.victim()
    s.grow(gpu, faults.PCIE, s.some(1.0, 3.0), s.onset, s.onset + s.some(60, 240))
    s.health(gpu, faults.PCIE_REPLAYS, s.onset, s.onset + 300.0)
    s.never()


@scenario("look_alike", SMALL, false_of=("pcie_link", "idle_gpu"))
def idle_gpus_save_power(s: Story) -> None:
    """A node without work: its PCIe links are at generation 1, its clocks low, its use zero."""
    node = s.pick()[0]
    idle(s, node, s.onset)
    s.never()


@scenario("never_alone", SMALL, false_of=("temperature",))
def hot_and_working(s: Story) -> None:
    """A GPU at the edge of its temperature, at full clock: warm air, no fault."""
    node, gpu = s.victim()
    s.gain(gpu, faults.TEMP, float(s.whole(26, 30)), s.onset)
    s.looks(node, "thermal", gpu)
    s.never()


@scenario("never_alone", SMALL, false_of=("temperature", "thermal_violation"))
def hot_spell(s: Story) -> None:
    """Twenty minutes of warm air: a node's GPUs are hot and a little throttled, then all is
    well.
    """
    node = s.pick()[0]
    s.gain(node, faults.TEMP, float(s.whole(27, 31)), s.onset, s.onset + 1200.0)
    s.grow(node, faults.THERMAL, s.some(0.02, 0.3) * 1e9, s.onset, s.onset + 1200.0)
    s.looks(node, "thermal")
    s.never()


@scenario("look_alike", SMALL, false_of=("hw_slowdown",))
def slowdown_for_a_moment(s: Story) -> None:
    """A handful of slowdown events in one minute as a job starts with full load."""
    _, gpu = s.victim()
    s.set(
        gpu,
        faults.CLOCK_EVENTS,
        float(s.whole(1, 5)),
        s.onset,
        s.onset + 90.0,
        clock_event="hw_slowdown",
    )
    s.never()


@scenario("never_alone", SMALL, false_of=("power_violation",))
def power_cap_at_full_load(s: Story) -> None:
    """All GPUs are at their power cap, as they are meant to be at full load."""
    s.grow(s.nodes, "DCGM_FI_DEV_POWER_VIOLATION", s.some(0.3, 0.95) * 1e9, s.onset)
    s.set(s.nodes, faults.CLOCK_EVENTS, 40.0, s.onset, clock_event="power_cap")
    s.scale(s.nodes, faults.CLOCK, s.some(0.82, 0.95), s.onset)
    s.never()


@scenario("never_alone", SMALL, false_of=("idle_gpu",), watch=2400)
def job_loads_its_data(s: Story) -> None:
    """A job holds its GPUs and leaves them idle for half an hour: it loads data."""
    node = s.pick()[0]
    s.pod("loader-0", node.name, gpus=node.gpu_count, owner="Job/loader")
    idle(s, node, s.onset, s.onset + 2000.0)
    s.never()


@scenario("never_alone", SMALL, false_of=("straggler",), watch=1500)
def another_job_needs_less(s: Story) -> None:
    """One node runs an inference job at a third of the load of the training beside it."""
    node = s.pick()[0]
    s.scale(node, faults.POWER, 0.45, -s.warmup)
    s.scale(node, faults.TENSOR, 0.3, -s.warmup)
    s.scale(node, faults.UTIL, 0.6, -s.warmup)
    s.pod("chat-0", node.name, gpus=node.gpu_count, owner="ReplicaSet/chat", namespace="serving")
    s.never()


@scenario("never_alone", SMALL, false_of=("straggler", "slow_group"), watch=1500)
def short_dip_of_one_node(s: Story) -> None:
    """One node writes a checkpoint and is slow for three minutes."""
    node = s.pick()[0]
    for metric in (faults.POWER, faults.TENSOR, faults.UTIL):
        s.scale(node, metric, 0.4, s.onset, s.onset + 180.0)
    s.never()


@scenario("look_alike", PORTS, false_of=("ib_port_down",))
def unused_port_is_down(s: Story) -> None:
    """One port of every node was never cabled."""
    port = {"device": "mlx5_3", "port": "1"}
    s.set(s.nodes, "node_infiniband_state_id", 1.0, -s.warmup, **port)
    s.set(s.nodes, "node_infiniband_physical_state_id", 2.0, -s.warmup, **port)
    s.never()


@scenario("look_alike", PORTS, false_of=("ib_port_down", "ib_flap"))
def port_down_for_two_minutes(s: Story) -> None:
    """A port is down for two minutes: a switch restarts a line card, it heals itself."""
    node = s.pick()[0]
    flap(s, node, s.whole(0, 3), s.onset, s.onset + s.some(90, 170))
    s.never()


@scenario("look_alike", PORTS, false_of=("ib_symbol_errors",))
def few_symbol_errors(s: Story) -> None:
    """Some symbol errors an hour, corrected."""
    node = s.pick()[0]
    port = {"device": "mlx5_1", "port": "1"}
    s.grow(node, "node_infiniband_symbol_error_total", s.some(0.001, 0.02), -s.warmup, **port)
    s.never()


@scenario("look_alike", SMALL, false_of=("not_ready",), watch=1500)
def not_ready_for_two_minutes(s: Story) -> None:
    """The kubelet restarts: NotReady for two minutes, everything else goes on."""
    node = s.pick()[0]
    s.condition(node, s.onset, "Ready", "Unknown", "NodeStatusUnknown")
    s.condition(node, s.onset + s.some(60, 200), "Ready", "True", "KubeletReady")
    s.never()


@scenario("look_alike", SMALL, false_of=("node_problem",))
def memory_pressure_of_a_workload(s: Story) -> None:
    """A workload eats the node's memory and disk; pods are evicted: no node repair helps."""
    node = s.pick()[0]
    s.condition(node, s.onset, "MemoryPressure", "True", "KubeletHasInsufficientMemory")
    s.condition(node, s.onset + 60.0, "DiskPressure", "True", "KubeletHasDiskPressure")
    s.event(s.onset, "OOMKilling", "Out of memory: Killed process 4242 (python3)", node=node.name)
    s.condition(node, s.onset + 700.0, "MemoryPressure", "False", "KubeletHasSufficientMemory")
    s.looks(node, "app_level", also=["disk"])
    s.never()


@scenario("look_alike", SMALL, false_of=("node_problem",))
def agents_of_every_polarity_are_well(s: Story) -> None:
    """Conditions of several agents, good ones at True, bad ones at False: nothing is wrong."""
    for node in s.nodes:
        node.conditions = {
            "KernelDeadlock": "False",
            "ReadonlyFilesystem": "False",
            "GPUMissing": "False",
            "NVLinkStatusInactive": "False",
            "AcceleratedHardwareReady": "True",
            "KernelReady": "True",
            "StorageReady": "True",
            "NetworkingReady": "True",
        }
    s.never()


@scenario("look_alike", SMALL, false_of=("device_plugin",), watch=1500)
def device_plugin_restarts(s: Story) -> None:
    """The device plugin's pod restarts: no GPU is allocatable for a minute."""
    node = s.pick()[0]
    s.change(node, s.onset, allocatable=0)
    s.change(node, s.onset + s.some(30, 100), allocatable=node.gpu_count)
    s.looks(node, "device_plugin", until=s.onset + 120.0)
    s.never()


@scenario("never_alone", SMALL, false_of=("xid_app",))
def application_errors(s: Story) -> None:
    """XIDs 13, 31, 43, 45, 68 and 69 of applications on several nodes."""
    for node in s.pick(4):
        for _ in range(s.whole(1, 3)):
            gpu = node.gpus[s.whole(0, node.gpu_count - 1)]
            s.xid(gpu, s.some(0, s.length - 200), s.one_of(13, 31, 43, 45, 68, 69))
        s.looks(node, "app_level", since=0.0)
    s.never()


@scenario("lemon", SMALL, false_of=("lemon",), warmup=14400.0, onset=(120.0, 300.0))
def node_with_a_bad_past(s: Story) -> None:
    """A node was repaired twice today and is well now: its past alone takes it out of nothing."""
    node = s.pick()[0]
    for at in (-12500.0, -7500.0):
        s.xid(node.gpus[0], at, 79)
        s.gap(node.gpus[0], at + 60.0, at + 900.0)
        s.reboot(node, at + 900.0, 600.0)
    s.never()


@scenario("look_alike", SMALL, watch=1500)
def exporter_restarts(s: Story) -> None:
    """The exporter restarts and forgets an old XID."""
    node, gpu = s.victim()
    s.xid(gpu, _before(s, 2.0), s.one_of(31, 79, 48))
    s.gap(node, s.onset, s.onset + s.some(30, 90))
    s.restart(node, s.onset + 60.0)
    s.never()


@scenario("look_alike", SMALL, watch=1500)
def planned_reboot(s: Story) -> None:
    """A person cordons and reboots a healthy node."""
    node = s.pick()[0]
    s.change(node, s.onset - 100.0, unschedulable=True)
    back = s.reboot(node, s.onset, s.some(400, 800))
    s.change(node, back + 30.0, unschedulable=False)
    s.never()


@scenario("look_alike", SMALL, watch=1500)
def new_node_comes_up(s: Story) -> None:
    """A node joins; for minutes its exporter and its device plugin are not there."""
    node = s.pick()[0]
    s.change(node, s.onset, created=True, booted=True, allocatable=0)
    s.gap(node, -s.warmup, s.onset + 200.0, exporters=["dcgm", "node"])
    s.change(node, s.onset + 260.0, allocatable=node.gpu_count)
    s.never()
