"""What each fault does to the machine when it starts and after a repair that did not help."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from simfleet.faults import ActiveFault
    from simfleet.gpu import Gpu
    from simfleet.machine import SimMachine

GSP_RPC_TIMEOUT = 119
GSP_ERROR = 120
# How long after a reset or reboot a bad driver fails again, real seconds.
BAD_DRIVER_RELAPSE_S = 3.0


def _gpu(machine: SimMachine, fault: ActiveFault) -> Gpu:
    return machine.gpus[fault.options.gpu]


def off_the_bus(machine: SimMachine, fault: ActiveFault) -> None:
    """XID 79: the card no longer answers; its XID shows a while, then all series are gone."""
    gpu = _gpu(machine, fault)
    if gpu.on_bus:
        machine.report_xid(gpu, 79)
        gpu.recovery_action = 2
    _lose(machine, gpu, fault.options.vanish_after_s)


def missing(machine: SimMachine, fault: ActiveFault) -> None:
    """The card is not there and nobody said why."""
    gpu = _gpu(machine, fault)
    machine.unhealthy.add(gpu.index)
    _lose(machine, gpu, 0.0)


def _lose(machine: SimMachine, gpu: Gpu, vanish_after_s: float) -> None:
    if gpu.on_bus:
        gpu.on_bus = False
        gpu.lost_at = machine.world.now()
        gpu.vanish_after_s = vanish_after_s


def double_bit(machine: SimMachine, fault: ActiveFault) -> None:
    """XID 48 and the counters that go with it."""
    double_bit_silent(machine, fault)
    machine.report_xid(_gpu(machine, fault), 48)


def double_bit_silent(machine: SimMachine, fault: ActiveFault) -> None:
    """The ECC counters alone."""
    gpu = _gpu(machine, fault)
    gpu.ecc_dbe_vol += 1
    gpu.ecc_dbe_agg += 1
    gpu.recovery_action = 1


def uncontained(machine: SimMachine, fault: ActiveFault) -> None:
    """XID 95: any work on the GPU is suspect."""
    gpu = _gpu(machine, fault)
    gpu.ecc_dbe_vol += 1
    gpu.ecc_dbe_agg += 1
    gpu.recovery_action = 4
    machine.report_xid(gpu, 95)


def nvlink_error(machine: SimMachine, fault: ActiveFault) -> None:
    """XID 74 with a link down."""
    nvlink_down(machine, fault)
    machine.report_xid(_gpu(machine, fault), 74)


def nvlink_down(machine: SimMachine, fault: ActiveFault) -> None:
    """A link is down, and error counters keep moving while it is."""
    gpu = _gpu(machine, fault)
    gpu.links_down = 1
    gpu.recovery_action = 1
    _link_errors(machine, fault)


def _link_errors(machine: SimMachine, fault: ActiveFault) -> None:
    if fault not in machine.faults:
        return
    gpu = _gpu(machine, fault)
    gpu.nvlink_replay += 3
    gpu.nvlink_recovery += 1
    gpu.nvlink_crc_flit += 40
    machine.world.agenda.after(fault.options.every_s, lambda: _link_errors(machine, fault))


def remap_pending(machine: SimMachine, fault: ActiveFault) -> None:
    """XID 63: a row is remapped at the next reset."""
    gpu = _gpu(machine, fault)
    gpu.remap_pending = True
    gpu.remapped_uncorrectable += 1
    gpu.recovery_action = 1
    machine.report_xid(gpu, 63)


def remap_failed(machine: SimMachine, fault: ActiveFault) -> None:
    """XID 64: no spare row is left; the flag survives resets and reboots."""
    gpu = _gpu(machine, fault)
    gpu.remap_failed = True
    machine.report_xid(gpu, 64)


def hot(machine: SimMachine, fault: ActiveFault) -> None:
    """Warm air, healthy card."""
    _gpu(machine, fault).temp_c = fault.options.temp_c


def cooled(machine: SimMachine, fault: ActiveFault) -> None:
    """The temperature follows the load again."""
    _gpu(machine, fault).temp_c = None


def app_xid13(machine: SimMachine, fault: ActiveFault) -> None:
    """The application's exception, `count` times."""
    _app_events(machine, fault, 13, fault.options.count)


def app_xid31(machine: SimMachine, fault: ActiveFault) -> None:
    """The application's page fault, `count` times."""
    _app_events(machine, fault, 31, fault.options.count)


def _app_events(machine: SimMachine, fault: ActiveFault, xid: int, left: int) -> None:
    if fault not in machine.faults or left == 0:
        return
    machine.report_xid(_gpu(machine, fault), xid)
    machine.world.agenda.after(
        fault.options.every_s, lambda: _app_events(machine, fault, xid, left - 1)
    )


def kubelet_dies(machine: SimMachine, _fault: ActiveFault) -> None:
    """No heartbeats, no pods started; exporters keep running."""
    machine.kubelet_alive = False


def kubelet_lives(machine: SimMachine, _fault: ActiveFault) -> None:
    """Heartbeats again."""
    machine.kubelet_alive = True


def exporter_dies(machine: SimMachine, _fault: ActiveFault) -> None:
    """The scrape target is down."""
    machine.exporter_up = False


def exporter_hangs(machine: SimMachine, _fault: ActiveFault) -> None:
    """The scrape never gets its answer."""
    machine.exporter_hangs = True


def exporter_lives(machine: SimMachine, _fault: ActiveFault) -> None:
    """Scrapes are answered again."""
    machine.exporter_up, machine.exporter_hangs = True, False


def series_stall(machine: SimMachine, fault: ActiveFault) -> None:
    """The exporter answers, but with old values, or without half of the GPUs."""
    if fault.options.mode == "frozen":
        machine.series_frozen = True
    else:
        machine.series_missing = frozenset(range(1, len(machine.gpus), 2))


def series_flow(machine: SimMachine, _fault: ActiveFault) -> None:
    """Fresh values of every GPU again."""
    machine.series_frozen, machine.series_missing = False, frozenset()


def bad_driver(machine: SimMachine, fault: ActiveFault) -> None:
    """The new version is in; GSP timeouts follow now, and again after any reset or reboot."""
    machine.driver_version = fault.options.driver
    if fault.options.upgrade_state:
        machine.labels["nvidia.com/gpu-driver-upgrade-state"] = fault.options.upgrade_state
    machine.world.agenda.after(BAD_DRIVER_RELAPSE_S, lambda: _gsp_timeouts(machine, fault))


def _gsp_timeouts(machine: SimMachine, fault: ActiveFault) -> None:
    if fault in machine.faults and not machine.rebooting:
        for gpu in machine.gpus[:2]:
            gpu.recovery_action = 1
            machine.report_xid(gpu, GSP_RPC_TIMEOUT if gpu.index == 0 else GSP_ERROR)


def old_driver(machine: SimMachine, _fault: ActiveFault) -> None:
    """Rolled back: version, label and device state are as before."""
    machine.driver_version = machine.spec.driver_version
    machine.labels.pop("nvidia.com/gpu-driver-upgrade-state", None)
    machine.unhealthy = set()  # a driver reload restarts plugin and exporter with it
    for gpu in machine.gpus:
        gpu.reset()
        gpu.xids.forget()


def nothing_yet(_machine: SimMachine, _fault: ActiveFault) -> None:
    """Shows nothing by itself."""


def powered_again(machine: SimMachine, _fault: ActiveFault) -> None:
    """Somebody pulled the plug and put it back."""
    if machine.dead:
        machine.reboot(power_cycle=True)
