"""Each fault shows its symptoms and clears only after the right repair."""

from __future__ import annotations

import pytest

from simfleet.faults import FAULTS, FaultOptions, Repair, Scope
from simfleet.telemetry import DcgmExporter
from tests.unit.simfleet.bench import make_bench

REPAIRS = {
    "gpu reset": Repair.GPU_RESET,
    "reboot": Repair.REBOOT,
    "device plugin restart": Repair.PLUGIN_RESTART,
    "exporter restart": Repair.EXPORTER_RESTART,
    "driver rollback": Repair.DRIVER_ROLLBACK,
}
RIGHT = {
    "xid79": {"reboot"},
    "lemon": {"reboot"},
    "gpu_missing": {"reboot"},
    "xid48": {"gpu reset", "reboot"},
    "ecc_dbe": {"gpu reset", "reboot"},
    "xid95": {"gpu reset", "reboot"},
    "xid74": {"gpu reset", "reboot"},
    "nvlink_down": {"gpu reset", "reboot"},
    "xid63": {"gpu reset", "reboot"},
    "xid64": set(),
    "bad_memory": set(),
    "hot": set(),
    "app_xid13": set(),
    "app_xid31": set(),
    "not_ready": {"reboot"},
    "exporter_gone": {"exporter restart", "reboot"},
    "dcgm_hung": {"exporter restart", "reboot"},
    "stale_series": {"exporter restart", "reboot"},
    "bad_driver": {"driver rollback"},
    "reboot_hangs": set(),
    "slow_nvlink": {"reboot"},
    "slow_pcie": {"reboot"},
    "noisy_link": set(),
    "diag_busy": set(),
    "diag_missing": set(),
    "toolkit_broken": set(),
}


def test_the_table_names_every_fault():
    assert set(RIGHT) == {name for name, kind in FAULTS.items() if kind.scope is not Scope.RACK}


@pytest.mark.parametrize("repair", REPAIRS)
@pytest.mark.parametrize("fault", RIGHT)
def test_a_fault_clears_only_after_the_right_repair(bench, fault, repair):
    bench.machine.break_it(fault, FaultOptions(gpu=2))
    bench.machine.repair(REPAIRS[repair])
    left = [f.kind.name for f in bench.machine.faults]
    assert left == ([] if repair in RIGHT[fault] else [fault])


@pytest.mark.parametrize("fault", [n for n in RIGHT if FAULTS[n].scope is Scope.GPU])
def test_resetting_another_gpu_clears_nothing(bench, fault):
    bench.machine.break_it(fault, FaultOptions(gpu=2))
    bench.machine.repair(Repair.GPU_RESET, [3])
    assert [f.kind.name for f in bench.machine.faults] == [fault]


@pytest.mark.parametrize("fault", [n for n in RIGHT if n not in {"hot", "app_xid13", "app_xid31"}])
def test_hands_and_parts_end_every_fault(bench, fault):
    bench.machine.break_it(fault, FaultOptions(gpu=2))
    assert bench.machine.heal() == 1
    bench.later(60)
    assert bench.machine.is_up()
    assert bench.machine.faults == []


def test_a_fallen_gpu_is_taken_from_the_scheduler_and_comes_back_with_the_reboot(bench):
    machine = bench.machine
    machine.break_it("xid79", FaultOptions(gpu=3))
    assert machine.allocatable_gpus() == 7
    boot = machine.boot_id
    assert bench.run("nvidia-smi", "--gpu-reset").exit_code != 0
    bench.run("nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "--", "systemctl", "reboot")
    assert machine.boot_id != boot
    assert machine.allocatable_gpus() == 8
    assert machine.gpus[3].xids.last == 0


def test_after_a_reset_the_plugin_still_hides_the_gpu_until_it_restarts(bench):
    machine = bench.machine
    machine.break_it("xid95", FaultOptions(gpu=1))
    bench.run("nvidia-smi", "--gpu-reset", "-i", "1")
    assert machine.faults == []
    assert machine.allocatable_gpus() == 7
    machine.plugin_restarted()
    assert machine.allocatable_gpus() == 8


@pytest.mark.parametrize("fault", ["app_xid13", "app_xid31", "hot"])
def test_application_errors_and_heat_take_no_gpu_away(bench, fault):
    bench.machine.break_it(fault, FaultOptions(gpu=1, count=3))
    bench.later(30)
    assert bench.machine.allocatable_gpus() == 8


def test_the_last_xid_sticks_after_a_reset_until_the_exporter_restarts(bench):
    machine = bench.machine
    machine.break_it("xid48", FaultOptions(gpu=0))
    bench.run("nvidia-smi", "--gpu-reset", "-i", "0")
    assert (machine.gpus[0].xids.last, machine.gpus[0].ecc_dbe_vol) == (48, 0)
    assert machine.gpus[0].ecc_dbe_agg == 1
    machine.repair(Repair.EXPORTER_RESTART)
    assert machine.gpus[0].xids.last == 0


def test_a_failed_row_remap_is_still_there_after_reset_and_reboot(bench):
    bench.machine.break_it("xid64", FaultOptions(gpu=5))
    bench.run("nvidia-smi", "--gpu-reset")
    bench.run("reboot")
    assert bench.machine.gpus[5].remap_failed
    assert bench.machine.allocatable_gpus() == 7


def test_a_lemon_fails_again_once_its_node_takes_work_again(bench):
    machine = bench.machine
    machine.break_it("lemon", FaultOptions(gpu=4, fails_again_after_s=5))
    machine.set_cordoned(cordoned=True)
    bench.run("reboot")
    bench.later(600)
    assert machine.faults == []
    machine.set_cordoned(cordoned=False)
    bench.later(4)
    assert machine.faults == []
    bench.later(2)
    assert [f.kind.name for f in machine.faults] == ["lemon"]


def test_a_fault_that_returns_a_given_number_of_times_then_stays_away(bench):
    options = FaultOptions(fails_again_after_s=1, again_on="repair", times=1)
    bench.machine.break_it("xid95", options)
    for _ in range(3):
        bench.machine.repair(Repair.GPU_RESET)
        bench.later(5)
    faults = [e.detail.get("fault") for e in bench.world.truth.since(what="fault")]
    assert faults == ["xid95", "xid95"]


def test_a_dead_kubelet_comes_back_by_itself_when_told_so(bench):
    bench.machine.break_it("not_ready", FaultOptions(lasts_s=20))
    bench.later(19)
    assert not bench.machine.is_up()
    bench.later(2)
    assert bench.machine.is_up()


def test_a_stuck_reboot_ends_only_when_somebody_power_cycles(bench):
    bench.machine.break_it("reboot_hangs")
    bench.run("reboot")
    bench.later(3600)
    assert not bench.machine.is_up()
    bench.machine.reboot(power_cycle=True)
    bench.later(60)
    assert bench.machine.is_up()


def test_a_bad_driver_fails_again_after_each_reboot_until_rolled_back(bench):
    machine = bench.machine
    machine.break_it("bad_driver", FaultOptions(driver="590.1", upgrade_state="upgrade-done"))
    bench.later(5)
    assert (machine.driver_version, machine.gpus[0].xids.last) == ("590.1", 119)
    bench.run("reboot")
    bench.later(5)
    assert machine.gpus[0].xids.last == 119
    machine.repair(Repair.DRIVER_ROLLBACK)
    assert machine.driver_version == machine.spec.driver_version
    assert machine.allocatable_gpus() == 8
    assert machine.labels == {}


@pytest.mark.parametrize("fault", ["xid79", "gpu_missing"])
def test_a_lost_gpu_has_no_series(bench, fault):
    exporter = DcgmExporter(bench.machine, "full")
    bench.machine.break_it(fault, FaultOptions(gpu=3, vanish_after_s=10))
    assert 'DCGM_FI_DEV_GPU_UTIL{gpu="3"' not in exporter.render()
    assert ('xid="79"' in exporter.render()) == (fault == "xid79")
    bench.later(11)
    assert 'gpu="3"' not in exporter.render()
    assert 'gpu="4"' in exporter.render()


def test_breaking_a_gpu_that_is_not_there_says_so():
    with pytest.raises(ValueError, match="no GPU 7"):
        make_bench(gpus=4).machine.break_it("xid79", FaultOptions(gpu=7))
