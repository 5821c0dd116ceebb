"""Cases that have cost others nodes or nights, as far as their telemetry goes."""

from __future__ import annotations

from tests.traces import faults
from tests.traces.faults import LINK_DOWN, REPLAYS, flap, idle, withheld
from tests.traces.fleet import Machine, Shape
from tests.traces.scenarios.registry import scenario
from tests.traces.story import Story

RACK = Shape(nodes=24, gpus=2, racks=1, interval_s=30)


def _big_rack(s: Story, size: int = 18) -> list[Machine]:
    """The first `size` nodes share a rack, the others another one."""
    for i, node in enumerate(s.nodes):
        node.rack = "r01" if i < size else "r02"
    return s.nodes[:size]


def _links_late(s: Story, rack: list[Machine]) -> float:
    back = s.reboot(rack, s.onset, s.some(420, 720))
    for node in rack:
        up = back + s.some(0, 60)
        for gpu in node.gpus[: s.whole(1, 2)]:
            s.health(gpu, LINK_DOWN, up - 30.0, up + s.every)
    return back


@scenario("common_cause", RACK, case="F01", false_of=("nvlink_down",), watch=1500)
def f01_links_down_at_boot(s: Story) -> None:
    """A rack of 18 boots; for one sample each node says that an NVLink is down."""
    rack = _big_rack(s)
    _links_late(s, rack)
    s.never()


@scenario("common_cause", RACK, case="F01", watch=2400)
def f01_links_down_at_boot_and_one_stays(s: Story) -> None:
    """As every boot of that rack, but one node's link stays down, with an XID of its own."""
    rack = _big_rack(s)
    back = _links_late(s, rack)
    node = rack[s.whole(0, 17)]
    faults.link_down(s, node, node.gpus[0], back + s.some(60, 200))
    s.parts["truth"][-1]["detectable_at"] = back + 600.0
    s.only(node)


@scenario("look_alike", Shape(nodes=6, gpus=4), case="F01", false_of=("nvlink_down",))
def f01_one_sample_without_a_boot(s: Story) -> None:
    """One scrape says that an NVLink is down, the next that it is up; no error counter moved."""
    _, gpu = s.victim()
    s.health(gpu, LINK_DOWN, s.onset, s.onset + 30.0 + s.every)
    s.never()


@scenario(
    "never_alone",
    Shape(nodes=8, gpus=4, interval_s=60),
    case="F02",
    false_of=("xid_app",),
    warmup=10800.0,
)
def f02_storm_of_cleanups(s: Story) -> None:
    """672 XIDs 45 on 3 nodes in 3 hours: cleanups after an application's page faults."""
    for node in s.pick(3):
        gpu = node.gpus[s.whole(0, 3)]
        first = -10000.0 + s.some(0, 900)
        s.xid(gpu, first - 2.0, s.one_of(13, 31, 43))
        s.xid(gpu, first, 45, count=224, every=47.0)
        s.looks(node, "app_level", gpu, since=first)
    s.never()


@scenario("hardware", Shape(nodes=8, gpus=4), case="F02", watch=1800)
def f02_storm_after_a_real_fault(s: Story) -> None:
    """A double-bit error on one node, then hundreds of cleanups on it and on two that shared its
    job: one fault, and two nodes that are sound.
    """
    hit, *others = s.pick(3)
    faults.double_bit(s, hit, hit.gpus[0], s.onset)
    for node in (hit, *others):
        for gpu in node.gpus:
            s.xid(gpu, s.onset + s.some(2, 6), 45, count=s.whole(20, 60), every=20.0)
    for node in others:
        s.looks(node, "app_level")
    s.only(hit)


@scenario("hardware", Shape(nodes=6, gpus=4), case="F03", true_of=("xid_95",))
def f03_thousands_of_duplicates(s: Story) -> None:
    """Thousands of lines of one uncontained error on one GPU are one fault."""
    node, gpu = s.victim()
    faults.uncontained(s, node, gpu, s.onset)
    s.xid(gpu, s.onset + 0.5, 95, count=s.whole(1500, 3000), every=0.3)
    s.only(node)


def _unreachable(s: Story, polls: int) -> Machine:
    node = s.pick()[0]
    s.gap(node, s.onset, s.onset + polls * s.every, effect=s.one_of("gone", "gone", "silent"))
    s.never()
    return node


@scenario("telemetry", Shape(nodes=6, gpus=4), case="F04", false_of=("device_plugin",))
def f04_exporter_silent_for_one_poll(s: Story) -> None:
    """The exporter of one node misses one scrape."""
    _unreachable(s, 1)


@scenario("telemetry", Shape(nodes=6, gpus=4), case="F04", false_of=("gpu_count_short",))
def f04_exporter_silent_for_three_polls(s: Story) -> None:
    """The exporter of one node misses three scrapes."""
    node = _unreachable(s, 3)
    s.looks(node, "telemetry_lost", until=s.onset + 3 * s.every + 600.0)


@scenario(
    "telemetry",
    Shape(nodes=6, gpus=4, interval_s=30),
    case="F04",
    false_of=("gpu_off_bus",),
    watch=1500,
)
def f04_exporter_silent_for_thirty_polls(s: Story) -> None:
    """The exporter of one node misses thirty scrapes: telemetry is lost, no GPU is bad."""
    node = _unreachable(s, 30)
    s.looks(node, "telemetry_lost", until=s.onset + 30 * s.every + 600.0)
    s.expect["telemetry_lost"] = [node.name]


@scenario("half_evidence", Shape(nodes=6, gpus=4), case="F05", true_of=("nvlink_replay",))
def f05_health_to_and_fro(s: Story) -> None:
    """A marginal link: its health watch fails and passes by turns, as replays come and go."""
    node, gpu = s.victim()
    at = s.onset
    for _ in range(s.whole(4, 7)):
        lasts = s.some(45, 120)
        s.health(gpu, REPLAYS, at, at + 30.0 + lasts)
        s.grow(gpu, faults.REPLAY, 0.05, at, at + lasts)
        at += lasts + s.some(60, 150)
    s.fault(node, "nvlink_down", gpu, optional=True)


@scenario("look_alike", Shape(nodes=6, gpus=4, dialect="pair"), case="F05", false_of=("xid_app",))
def f05_everything_twice(s: Story) -> None:
    """Two Prometheus servers and repeated events show one application error many times."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, s.one_of(13, 31, 43), count=3, every=5.0)
    for i in range(5):
        s.event(s.onset + i, "XidError", "NVRM: Xid 31", node=node.name, count=i + 1)
    s.looks(node, "app_level", gpu)
    s.never()


@scenario("look_alike", Shape(nodes=6, gpus=4), case="F05", false_of=("not_ready",))
def f05_late_events_of_a_node_that_is_well(s: Story) -> None:
    """A node was NotReady for a minute; the events of it arrive late and out of order."""
    node = s.pick()[0]
    s.condition(node, s.onset, "Ready", "Unknown", "NodeStatusUnknown")
    s.condition(node, s.onset + s.some(40, 100), "Ready", "True", "KubeletReady")
    for late, reason in ((200, "NodeReady"), (260, "NodeNotReady"), (320, "NodeNotReady")):
        kind = "Normal" if reason == "NodeReady" else "Warning"
        s.event(s.onset + late, reason, f"Node status is now: {reason}", node=node.name, type=kind)
    s.never()


@scenario("hardware", Shape(nodes=6, gpus=4), case="F06", true_of=("gpu_count_short",))
def f06_one_of_two_gpus_comes_back(s: Story) -> None:
    """Two GPUs of a node vanish, one comes back, the other one does not."""
    node = s.pick()[0]
    first, second = node.gpus[1], node.gpus[2]
    s.gap(first, s.onset, s.onset + s.some(150, 400))
    s.gap(second, s.onset)
    withheld(s, node, s.onset, gpus=2, chance=1.0)
    s.change(node, s.onset + 420.0, allocatable=node.gpu_count - 1)
    found = s.onset + faults.COUNT_S
    s.fault(node, "gpu_missing", second, also=["gpu_off_bus"], detectable_at=found)
    s.only(node)


@scenario("telemetry", Shape(nodes=6, gpus=4), case="F06", false_of=("gpu_count_short",))
def f06_all_gpus_vanish_and_come_back(s: Story) -> None:
    """For a few scrapes the exporter shows no GPU at all, then all of them again, none the
    worse.
    """
    node = s.pick()[0]
    s.gap(node, s.onset, s.onset + s.every * s.whole(2, 4))
    s.never()


@scenario(
    "hardware",
    Shape(nodes=6, gpus=4),
    case="F38",
    true_of=("not_ready",),
    watch=1800,
)
def f38_transition_time_starts_again(s: Story) -> None:
    """A machine is dead; its Ready condition goes to and fro between Unknown and False, and each
    time its transition time starts again.
    """
    node = s.pick()[0]
    s.gap(node, s.onset, exporters=["dcgm", "node"])
    at, word = s.onset + 40.0, "Unknown"
    while at < s.length:
        s.condition(node, at, "Ready", word, "NodeStatusUnknown")
        word = "False" if word == "Unknown" else "Unknown"
        at += s.some(170, 280)
    s.fault(node, "node_not_ready", detectable_at=s.onset + 640.0)
    s.only(node)


@scenario("hardware", Shape(nodes=6, gpus=4), case="F39", true_of=("device_plugin",))
def f39_black_hole(s: Story) -> None:
    """One GPU is dead on a Ready node, and pod after pod fails there within seconds."""
    node, gpu = s.victim()
    s.gap(gpu, s.onset)
    for i in range(s.whole(20, 40)):
        at = s.onset + 20.0 * i + s.some(0, 8)
        ends = [{"at": at + s.some(3, 9), "phase": "Failed", "ready": False}]
        s.pod(
            f"ci-{i:03d}", node.name, **{"from": at}, gpus=1, owner=f"Job/ci-{i:03d}", changes=ends
        )
    found = s.onset + faults.COUNT_S
    s.fault(node, "gpu_missing", gpu, also=["gpu_off_bus", "device_plugin"], detectable_at=found)
    s.only(node)


@scenario("never_alone", Shape(nodes=6, gpus=4), case="F41", false_of=("power_violation",))
def f41_power_violation_of_99999(s: Story) -> None:
    """The power violation counter jumps to 99999: a full load, or an injected test."""
    _, gpu = s.victim()
    s.set(gpu, "DCGM_FI_DEV_POWER_VIOLATION", 99999.0, s.onset)
    s.never()


@scenario("hardware", Shape(nodes=6, gpus=4, profile="default"), case="F41", true_of=("xid_95",))
def f41_xid_95_in_the_default_fields(s: Story) -> None:
    """An uncontained error where only the last XID is exported."""
    node, gpu = s.victim()
    s.xid(gpu, s.onset, 95)
    withheld(s, node, s.onset)
    s.fault(node, "ecc_uncorrectable", gpu)
    s.only(node)


@scenario("half_evidence", Shape(nodes=6, gpus=4), case="F41")
def f41_inforom_invalid(s: Story) -> None:
    """DCGM's watch of the configuration memory fails: a ticket, no emergency."""
    node, gpu = s.victim()
    s.telemetry["also"] = {"DCGM_FI_DEV_INFOROM_CONFIG_VALID": 1}
    s.health(gpu, ("INFOROM", "DCGM_FR_CORRUPT_INFOROM", 20), s.onset)
    s.set(gpu, "DCGM_FI_DEV_INFOROM_CONFIG_VALID", 0.0, s.onset)
    s.fault(node, "unclassified", gpu, optional=True)


@scenario("hardware", Shape(nodes=6, gpus=4), case="F41", true_of=("gpu_off_bus",))
def f41_xid_79(s: Story) -> None:
    """A GPU falls off the bus."""
    node, gpu = s.victim()
    faults.off_bus(s, node, gpu, s.onset)
    s.only(node)


@scenario("hardware", Shape(nodes=6, gpus=4), case="F41")
def f41_xid_119_with_a_recovery_action(s: Story) -> None:
    """The GPU's system processor hangs; the driver asks for a reset."""
    node, gpu = s.victim()
    faults.gsp_hang(s, node, gpu, s.onset)
    s.only(node)


@scenario("look_alike", Shape(nodes=6, gpus=4), case="F41", false_of=("fabric_manager",))
def f41_sxid_that_is_not_fatal(s: Story) -> None:
    """A switch reports SXid 28002, not fatal; links and jobs go on."""
    node = s.pick()[0]
    message = "nvidia-nvswitch0: SXid (PCI:0000:85:00.0): 28002, Non-fatal, thermal event cleared"
    s.event(s.onset, "SXid", message, node=node.name)
    s.series(
        "DCGM_FI_DEV_NVSWITCH_NON_FATAL_ERRORS",
        nodes=[node.name],
        per="node",
        labels={"nvswitch": "nvswitch0"},
        steps=[{"at": -s.warmup, "value": 0}, {"at": s.onset, "value": 28002}],
    )
    s.never()


@scenario("hardware", Shape(nodes=6, gpus=4), case="F41", true_of=("fabric_manager",))
def f41_sxid_that_is_fatal(s: Story) -> None:
    """A switch reports SXid 20034, fatal: the fabric manager fails and GPUs report XID 74 and
    45.
    """
    node = s.pick()[0]
    message = "nvidia-nvswitch0: SXid (PCI:0000:85:00.0): 20034, Fatal, Link 30 LTSSM Fault Up"
    s.event(s.onset, "SXid", message, node=node.name)
    s.series(
        "DCGM_FI_DEV_NVSWITCH_FATAL_ERRORS",
        nodes=[node.name],
        per="node",
        labels={"nvswitch": "nvswitch0"},
        steps=[{"at": -s.warmup, "value": 0}, {"at": s.onset, "value": 20034}],
    )
    for gpu in node.gpus[: s.whole(2, 4)]:
        s.xid(gpu, s.onset + s.some(0, 3), 74)
        s.xid(gpu, s.onset + s.some(3, 6), 45)
        s.health(gpu, LINK_DOWN, s.onset)
    s.set(node, "DCGM_FI_DEV_FABRIC_MANAGER_STATUS", 4.0, s.onset + 30.0)
    s.fault(node, "fabric", also=["nvlink_down"])
    s.only(node)


@scenario("hardware", Shape(nodes=6, gpus=4), case="F41", true_of=("nvlink_down",))
def f41_xid_74_and_the_link_is_down(s: Story) -> None:
    """XID 74, and DCGM sees the link down."""
    node, gpu = s.victim()
    faults.link_down(s, node, gpu, s.onset)
    s.only(node)


@scenario(
    "half_evidence",
    Shape(nodes=6, gpus=4, ports=4),
    case="F42",
    true_of=("ib_flap",),
    warmup=7200.0,
)
def f42_port_flaps_again_and_again(s: Story) -> None:
    """A port is down for half a minute again and again within hours: a cable to clean or
    replace.
    """
    node = s.pick()[0]
    number = s.whole(0, 3)
    first = -6000.0
    for i in range(s.whole(5, 8)):
        at = first + i * 1000.0 + s.some(0, 300)
        flap(s, node, number, at, at + s.some(26, 70))
    s.fault(node, "network_port", since=first + 3000.0, detectable_at=0.0, optional=True)


@scenario("look_alike", Shape(nodes=6, gpus=4, ports=4), case="F42", false_of=("ib_flap",))
def f42_one_flap(s: Story) -> None:
    """A port is down for half a minute, once: it heals itself."""
    node = s.pick()[0]
    flap(s, node, s.whole(0, 3), s.onset, s.onset + s.some(20, 60))
    s.never()


@scenario("look_alike", Shape(nodes=6, gpus=4, ports=4), case="F42", watch=1800)
def f42_reboot_resets_the_counters(s: Story) -> None:
    """A person reboots a node that nothing ails: a new boot id, counters from zero, all silent for
    ten minutes.
    """
    node = s.pick()[0]
    s.set(node, faults.PCIE, 900.0, -s.warmup, s.onset)
    s.change(node, s.onset - 60.0, unschedulable=True)
    back = s.reboot(node, s.onset, s.some(420, 700))
    s.change(node, back + 60.0, unschedulable=False)
    s.never()


@scenario(
    "half_evidence",
    Shape(nodes=6, gpus=4, ports=4),
    case="F42",
    true_of=("ib_port_down",),
)
def f42_port_drops_and_comes_back(s: Story) -> None:
    """A port is down for six minutes, its job dies, then the port is back: nobody knows why."""
    node = s.pick()[0]
    flap(s, node, s.whole(0, 3), s.onset, s.onset + s.some(330, 480))
    idle(s, node, s.onset + 60.0)
    s.fault(node, "network_port", until=s.onset + 1080.0, optional=True)


@scenario("telemetry", Shape(nodes=8, gpus=4), case="F46")
def f46_gaps_here_and_there(s: Story) -> None:
    """Scrapes fail now and then on several nodes."""
    for node in s.pick(4):
        for _ in range(s.whole(1, 3)):
            at = s.some(0, s.length - 300)
            s.gap(node, at, at + s.every * s.whole(1, 3), effect=s.one_of("gone", "silent"))
    s.never()


@scenario("telemetry", Shape(nodes=6, gpus=4), case="F46", false_of=("ecc_dbe",))
def f46_values_that_are_no_numbers(s: Story) -> None:
    """NaN and DCGM's blank value in fields where they were not expected."""
    _, gpu = s.victim()
    other = s.pick()[0]
    s.gap(
        gpu,
        s.onset,
        s.onset + s.some(200, 500),
        effect="nan",
        metrics=[faults.DBE_TOTAL, faults.TEMP, faults.ACTION],
    )
    s.gap(
        other,
        s.onset,
        s.onset + s.some(60, 400),
        effect="sentinel",
        metrics=[faults.DBE_TOTAL, faults.FAILED, faults.ROWS, faults.PCIE, faults.SRAM],
    )
    s.never()


@scenario("telemetry", Shape(nodes=6, gpus=4), case="F46", false_of=("pcie_replay",))
def f46_counters_start_again(s: Story) -> None:
    """The driver is reloaded: its counters fall to zero and grow on, which is no burst of
    errors.
    """
    node, gpu = s.victim()
    for metric in (faults.PCIE, faults.REPLAY, faults.CRC):
        high = float(s.whole(5_000, 90_000))
        s.set(gpu, metric, high, -s.warmup)
        s.set(gpu, metric, 0.0, s.onset)
    s.restart(node, s.onset)
    s.never()


@scenario("telemetry", Shape(nodes=6, gpus=4), case="F46")
def f46_clock_of_a_node_is_off(s: Story) -> None:
    """A node's clock is minutes ahead: its boot seems to be in the future, then corrected."""
    node = s.pick()[0]
    s.gain(
        node, "node_boot_time_seconds", s.some(120, 2400) + node.boot_age, s.onset, s.onset + 600.0
    )
    s.never()


@scenario("telemetry", Shape(nodes=8, gpus=2, dialect="Hostname"), case="F46", watch=1800)
def f46_whole_exporter_is_upgraded(s: Story) -> None:
    """The exporter's DaemonSet rolls through the fleet: a gap of a minute on each node, XIDs
    forgotten, and `Hostname` becomes `hostname`.
    """
    _, gpu = s.victim()
    s.xid(gpu, -s.warmup - 3 * 86400.0, s.one_of(13, 31, 43, 94))
    for i, node in enumerate(s.nodes):
        at = s.onset + 75.0 * i
        back = at + s.some(40, 75)
        s.gap(node, at, back)
        s.restart(node, back)
        s.change(node, back, host_label="hostname")
    s.never()
