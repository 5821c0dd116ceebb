"""Repairs that lie, hang, come twice, or lose what they depend on."""

from __future__ import annotations

import pytest

from breakfix.errors import ClusterError
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.case import run_stage
from breakfix.flow.stages import Stage
from breakfix.model import (
    Action,
    CaseEnd,
    FailureClass,
    NodeState,
    Refusal,
    RefusalReason,
    StepStatus,
)
from tests.fakes_repairs import FakeProvider, with_providers
from tests.flow.world import FlowWorld

POWER = "classes: {gpu_off_bus: {ladder: [power_cycle, hold_for_hardware]}}"


def broken(xid=79, **changes):
    world = FlowWorld(**changes)
    world.break_node("a1", xid)
    return world


def with_bmc(**changes):
    world = broken(overlay=POWER)
    bmc = FakeProvider(world, name="redfish", can_compare=False, **changes)
    with_providers(world, power_cycle=bmc)
    return world, bmc


def test_f16_another_event_comes_while_the_repair_is_under_way():
    """A second XID comes while the node reboots for the first one.

    Lost: nothing; it opens no second case and no second reboot, and the validation judges by what
    is there after the reboot.
    """
    world = broken(reboot_works=False)
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.tick()
    world.break_node("a1", 48)
    world.run_for(120)
    assert len(world.ledger.cases(node="a1")) == 1
    world.reboot_works = True
    world.cluster.reboot("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert len(world.ledger.cases(node="a1")) == 1


def test_f16_an_event_that_comes_after_the_repair_is_not_lost():
    """A second XID comes after the reboot, before the node is back in service.

    Lost: nothing; the node does not pass its validation for the first one, and stays out.
    """
    world = broken(overlay="limits: {max_attempts: 1}")
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    world.break_node("a1", 48)
    world.drive(world.ended(), within_s=9000)
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()
    assert len(world.ledger.cases(node="a1")) == 1


def test_f28_the_reboot_is_sent_and_the_boot_id_does_not_change():
    """The pod that reboots ends, and the node still runs the boot it ran before.

    Lost: nothing; the step is unknown and never done, and the node stays out with a person told.
    """
    world = broken(reboot_works=False)
    world.drive(world.ended())
    assert world.steps()["repair-reboot_node-1"] is StepStatus.UNKNOWN
    assert world.case().repaired_at is None
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_f28_the_bmc_takes_the_power_cycle_and_does_nothing():
    """A BMC says yes and PowerState On, and the node never lost its power.

    Lost: nothing; what the BMC says is on the step, which is unknown, and it is not asked twice.
    """
    world, bmc = with_bmc(mood="lies")
    world.drive(world.ended(), within_s=9000)
    assert world.steps()["repair-power_cycle-1"] is StepStatus.UNKNOWN
    assert "the node runs the boot it ran before" in world.why()
    assert len(bmc.sent) == 1
    assert world.is_held_out()


def test_f28_the_node_boots_and_does_not_get_ready():
    """The boot id changes, and the node stays NotReady until the deadline.

    Lost: nothing; the step says booted and not Ready, it failed, and is not called done.
    """
    world, bmc = with_bmc()
    world.drive(world.at_stage(Stage.POWER_CYCLE))
    ready = world.node().conditions
    world.cluster.change_node("a1", conditions=tuple(type(c)(c.type, "False") for c in ready))
    world.drive(world.ended(), within_s=9000)
    (step,) = [s for s in world.ledger.steps(world.case().id) if s.name.startswith("repair-")]
    assert (step.status, len(bmc.sent)) == (StepStatus.FAILED, 1)
    assert step.detail["boot_id_after"] != step.detail["boot_id"]
    assert "was not Ready" in step.detail["text"]
    assert world.is_held_out()


def test_f30_a_reset_and_a_reboot_are_asked_for_the_same_node():
    """Two people ask for a reset and a reboot of one node at the same time.

    Lost: nothing; the first is done, the second is refused with words, and a task of the second
    finds that it is not its case's repair.
    """
    world = FlowWorld()
    asks = [
        open_by_hand(world.services, "a1", c, requester=f"cli:{who}", reason="asked")
        for c, who in ((FailureClass.ECC_UNCORRECTABLE, "ann"), (FailureClass.GPU_OFF_BUS, "bob"))
    ]
    case, no = asks
    assert isinstance(no, Refusal)
    assert no.reason is RefusalReason.CASE_OPEN
    assert case.action is Action.RESET_GPU
    world.road.start(case)
    world.drive(world.at_stage(Stage.RESET_GPU))
    run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence)
    world.drive(lambda: world.case().state is NodeState.RETURNING)
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 0)


@pytest.mark.parametrize("times", [2, 5])
def test_f30_the_same_repair_is_dispatched_again_and_again(times):
    """The task of a repair is cleared while its pod runs.

    Lost: nothing; every further dispatch finds the first, and the node reboots once.
    """
    world = broken()
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    case = world.case()
    for _ in range(times):
        run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence)
    world.drive(world.ended())
    assert world.ran["reboot"] == 1
    assert world.case().end is CaseEnd.RETURNED


def test_f31_nobody_is_there_to_do_the_repair():
    """A ladder begins with a power cycle, and no BMC or webhook is configured.

    Lost: nothing; the node is not even taken out, and the refusal says what to configure.
    """
    world = broken(overlay=POWER)
    swept = world.road.sweep()
    (no,) = [r for r in swept.refusals if r.node == "a1"]
    assert no.reason is RefusalReason.UNSUPPORTED
    assert "BREAKFIX_REPAIR_PROVIDERS" in no.text
    assert not world.ledger.cases()
    assert world.is_in_service()


def test_f31_the_provider_goes_while_the_case_is_open():
    """A restart comes up without the BMC's settings, in the middle of a case.

    Lost: nothing; the case goes to people with that reason, and nothing else is tried.
    """
    world, _ = with_bmc()
    world.drive(world.at_stage(Stage.POWER_CYCLE))
    with_providers(world, open_vendor_case=FakeProvider(world))
    world.drive(world.ended(), within_s=9000)
    assert world.case().end is CaseEnd.ESCALATED
    assert "nobody is configured to do" in world.why()
    assert world.is_held_out()


def test_f31_the_repair_hangs_past_its_deadline():
    """A webhook says `running` and never ends.

    Lost: nothing; the wait ends at the policy's deadline, the step is unknown, a person is told.
    """
    world = broken(95, overlay="limits: {max_attempts: 1}")
    hook = with_providers(world, reset_gpu=FakeProvider(world, mood="never ends"))
    world.drive(world.ended(), within_s=2000)
    assert world.steps()["repair-reset_gpu-1"] is StepStatus.UNKNOWN
    assert len(hook.sent) == 1
    assert world.is_held_out()


def test_f31_a_reboot_takes_42_minutes():
    """The node is gone for 42 minutes and comes back well.

    Lost: nothing; it is waited for, not rebooted again, and returns.
    """
    world = broken(overlay="timing: {reboot: 45m}", reboot_works=False)
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.run_for(42 * 60)
    assert world.case().state is NodeState.REPAIRING
    world.cluster.reboot("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.steps()["repair-reboot_node-1"] is StepStatus.DONE


def test_f32_the_attempts_are_used_up():
    """A reset and a reboot did not help, and policy allows two repairs a week.

    Lost: nothing; the ladder ends, the case says what was tried, and the node is held out.
    """
    world = broken(95, repair_clears=False)
    world.drive(world.ended(), within_s=20000)
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 1)
    assert world.case().end is CaseEnd.ESCALATED
    assert "2 of 2 repairs were tried (tried: reset_gpu, reboot_node)" in world.why()
    assert world.is_held_out()


def test_f32_the_attempts_are_used_up_and_the_vendor_is_called():
    """The same, with a vendor's case at the end of the ladder.

    Lost: nothing; the vendor gets the evidence once, and the node is held out with the number.
    """
    overlay = """
    classes: {ecc_uncorrectable: {ladder: [reset_gpu, reboot_node, open_vendor_case]}}
    """
    world = broken(95, repair_clears=False, overlay=overlay)
    vendor = with_providers(world, open_vendor_case=FakeProvider(world))
    world.drive(world.ended(), within_s=20000)
    assert len(vendor.sent) == 1
    assert world.why().endswith("RMA-1")
    assert world.is_held_out()


def test_f32_a_rung_times_out_and_the_next_one_mends_the_node():
    """The reboot does nothing until its deadline; a power cycle is the next rung.

    Lost: nothing; the reboot stays unknown, its pod is taken away, and the power cycle is asked
    for by a question of its own.
    """
    overlay = "classes: {gpu_off_bus: {ladder: [reboot_node, power_cycle]}}"
    world = broken(overlay=overlay, reboot_works=False)
    bmc = FakeProvider(world, name="redfish", can_compare=False)
    with_providers(world, power_cycle=bmc)
    world.drive(world.ended(), within_s=20000)
    assert world.case().end is CaseEnd.RETURNED
    assert world.steps()["repair-reboot_node-1"] is StepStatus.UNKNOWN
    assert world.steps()["repair-power_cycle-1.r2"] is StepStatus.DONE
    assert len(bmc.sent) == 1
    assert len(world.ledger.approvals(world.case().id)) >= 3  # two repairs and the return


def test_f33_the_external_request_is_deleted_in_mid_flight():
    """The webhook forgets a repair that it has taken.

    Lost: nothing; it is not asked again, the step is unknown, and a person is told.
    """
    world = broken(95, overlay="limits: {max_attempts: 1}")
    hook = with_providers(world, reset_gpu=FakeProvider(world, mood="never ends"))
    world.drive(lambda: hook.sent)
    hook.mood = "forgets"
    world.drive(world.ended(), within_s=2000)
    assert len(hook.sent) == 1
    assert world.steps()["repair-reset_gpu-1"] is StepStatus.UNKNOWN
    assert "does not know the request" in world.why()


def test_f33_the_request_is_forgotten_after_it_was_done():
    """The webhook forgets a power cycle that it has done.

    Lost: nothing; the boot id says that it was done, and the node returns.
    """
    world = broken(overlay=POWER)
    hook = with_providers(world, power_cycle=FakeProvider(world, mood="forgets"))
    world.drive(world.ended(), within_s=9000)
    assert len(hook.sent) == 1
    assert world.steps()["repair-power_cycle-1"] is StepStatus.DONE
    assert world.case().end is CaseEnd.RETURNED


@pytest.mark.parametrize("method", ["node", "nodes", "pods", "create_pod", "config_map"])
def test_f37_the_api_server_is_down_during_the_repair(method):
    """The Kubernetes API fails while a reboot is dispatched and awaited.

    Lost: nothing; the case waits, goes on where the world is, and the node reboots once.
    """
    world = broken()
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.cluster.fail(method, times=3)
    for _ in range(12):
        try:
            world.tick()
        except ClusterError:
            world.clock.sleep(10)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["reboot"] == 1


def test_f37_the_far_side_cannot_be_asked_for_a_while():
    """A webhook took the repair and does not answer for some minutes.

    Lost: nothing; it is asked until the deadline, not asked for twice, and the node returns.
    """
    world = broken(95)
    hook = with_providers(world, reset_gpu=FakeProvider(world))
    hook.is_out_of_reach = True
    world.drive(lambda: hook.sent)
    world.run_for(120)
    assert world.case().state is NodeState.REPAIRING
    hook.is_out_of_reach = False
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert len(hook.sent) == 1
