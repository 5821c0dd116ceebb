"""The ladder: what comes after a repair that did not help, and who is asked about it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.flow.case import run_stage
from breakfix.flow.questions import wording
from breakfix.flow.stages import Go, Stage
from breakfix.model import Action, CaseEnd, Decision, NodeState, Purpose, RefusalReason, StepStatus
from tests.fakes_repairs import FakeProvider, WorkerDied, with_providers
from tests.flow.world import FlowWorld

LADDER = """
limits: {max_attempts: 9, max_attempts_of_class: 9}
classes:
  ecc_uncorrectable:
    ladder: [reset_gpu, reboot_node, power_cycle, open_vendor_case]
"""


def broken(xid=95, overlay="", **changes):
    world = FlowWorld(overlay=overlay, **changes)
    world.break_node("a1", xid)
    return world


def approvals(world, purpose=Purpose.REPAIR):
    return [a for a in world.ledger.approvals(world.case().id) if a.purpose is purpose]


def actions_asked(world):
    return [
        s.name.split("-")[1] for s in world.ledger.steps(world.case().id) if "repair-" in s.name
    ]


def laddered(**changes):
    """A node that neither reset nor reboot mends, with somebody to cut its power and a vendor."""
    world = broken(overlay=LADDER, repair_clears=False, **changes)
    power = FakeProvider(world, name="redfish", can_compare=False)
    vendor = FakeProvider(world)
    with_providers(world, power_cycle=power, open_vendor_case=vendor)
    return world, power, vendor


def test_a_node_that_stays_broken_climbs_to_the_vendor_and_is_held():
    world, power, vendor = laddered()
    world.drive(world.ended(), within_s=40000)
    assert actions_asked(world) == ["reset_gpu", "reboot_node", "power_cycle", "open_vendor_case"]
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 1)
    assert (len(power.sent), len(vendor.sent)) == (1, 1)
    assert world.case().end is CaseEnd.ESCALATED
    assert world.why().endswith("the webhook says done RMA-1")
    assert world.is_held_out()
    assert world.is_audit_sound()


def test_each_rung_is_asked_for_by_its_own_plan_and_the_vendor_is_called_unasked():
    world, *_ = laddered()
    world.drive(world.ended(), within_s=40000)
    asked = approvals(world)
    assert [a.decision for a in asked] == [Decision.ALLOWED] * 3
    assert len({a.plan_hash for a in asked}) == 3


def test_the_question_about_a_rung_says_what_was_tried_before():
    world, *_ = laddered()
    world.drive(lambda: world.ran["reset"] == 1, within_s=9000)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR), within_s=9000)
    asked = wording(world.ledger, world.case(), approvals(world)[-1])
    assert asked["subject"] == "Approve reboot node of a1?"
    assert "| after | check\\_signals-1 failed" in asked["body"]
    assert "0 pods, 0 GPUs stop" in asked["body"]


def test_the_vendor_gets_what_was_seen_and_tried():
    world, _, vendor = laddered()
    world.drive(world.ended(), within_s=40000)
    (request,) = vendor.sent
    evidence = request.evidence
    assert evidence["failure_class"] == "ecc_uncorrectable"
    assert [f["signal"] for f in evidence["findings"]] == ["xid_last"]
    tried = [s["name"] for s in evidence["steps"] if s["name"].startswith("repair-")]
    assert tried == ["repair-reset_gpu-1", "repair-reboot_node-1.r2", "repair-power_cycle-1.r3"]


def test_a_no_to_the_next_rung_ends_the_ladder():
    world, power, _ = laddered()
    world.drive(lambda: world.ran["reboot"] == 1, within_s=9000)
    world.refused.add(Purpose.REPAIR)
    world.drive(world.ended(), within_s=40000)
    assert world.case().end is CaseEnd.ESCALATED
    assert world.why() == "repair refused by oncall"
    assert not power.sent


def test_silence_about_the_next_rung_is_no():
    world, power, _ = laddered()
    world.drive(lambda: world.ran["reboot"] == 1, within_s=9000)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.ended(), within_s=40000)
    assert world.case().end is CaseEnd.ESCALATED
    assert not power.sent


def test_a_yes_to_the_last_rung_is_none_to_the_next():
    """The stage is sent to by hand, without the question."""
    world, *_ = laddered()
    world.silence.add(Purpose.RETURN)
    world.drive(world.at_stage(Stage.CHECK_SIGNALS), within_s=9000)
    world.silence.add(Purpose.REPAIR)
    world.drive(lambda: world.case().action is Action.REBOOT_NODE, within_s=9000)
    case = world.case()
    result = run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence)
    assert isinstance(result, Go)
    assert result.to is Stage.SETTLE_RUN
    assert RefusalReason.NOT_APPROVED in result.note
    assert world.ran["reboot"] == 0


@pytest.mark.parametrize(
    ("stage", "action"),
    [(Stage.RESET_GPU, Action.REBOOT_NODE), (Stage.POWER_CYCLE, Action.REBOOT_NODE)],
    ids=["a lower one", "a higher one"],
)
def test_a_task_of_another_repair_does_nothing(stage, action):
    world = broken(79)
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    case = world.case()
    assert case.action is action
    result = run_stage(world.services, stage, case.id, case.fence)
    assert result.to is Stage.SETTLE_RUN
    assert world.ran.total() == 0


def test_the_leases_are_kept_while_the_case_climbs():
    world, *_ = laddered()
    world.break_node("a2", 95)  # the same rack: one at a time
    world.drive(world.ended("a1"), within_s=40000)
    assert not world.ledger.cases(node="a2")


def test_a_recurrence_under_watch_starts_above_what_was_tried():
    world = broken(95)
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    world.break_node("a1", 95)
    world.drive(lambda: world.case().fence > 1)
    assert world.case().action is Action.REBOOT_NODE
    assert world.case().detail["rung"] == 1
    assert "climbed_because" not in world.case().detail


def test_a_recurrence_of_another_class_does_not_start_at_its_bottom():
    """The reboot did not last; the ladder of the new fault begins with a reset."""
    world = broken(79, overlay="limits: {max_attempts: 9}")
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    assert world.ran["reboot"] == 1
    world.break_node("a1", 95)
    world.drive(lambda: world.case().fence > 1)
    assert world.case().action is Action.HOLD_FOR_HARDWARE  # its ladder ends with a reboot


def test_the_reason_of_a_rung_is_looked_at_again_before_it_is_done():
    """A GPU was missing after the repair; while people are asked about the next rung, it is
    back.
    """
    world = broken(95)
    world.drive(world.at_stage(Stage.RESET_GPU))
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.silence.add(Purpose.REPAIR)
    world.drive(lambda: world.case().action is Action.REBOOT_NODE, within_s=9000)
    world.cluster.change_node("a1", gpus_allocatable=8)
    world.silence.clear()
    world.drive(world.ended(), within_s=9000)
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["reboot"] == 0


def test_what_cannot_be_told_of_a_node_is_no_reason_to_do_more_to_it():
    world = broken(95)
    world.drive(world.at_stage(Stage.CHECK_SIGNALS), within_s=9000)
    world.metrics.silent.add("a1")
    world.drive(world.ended(), within_s=9000)
    assert world.case().end is CaseEnd.ESCALATED
    assert "a person must look" in world.why()
    assert world.ran["reboot"] == 0


def test_a_rung_that_nobody_can_do_is_told_in_words():
    world = broken(95, overlay=LADDER, repair_clears=False)
    world.drive(world.ended(), within_s=40000)
    assert world.case().end is CaseEnd.ESCALATED
    assert "power_cycle would be next, and nobody is configured to do it" in world.why()


def test_a_class_that_may_no_longer_act_climbs_no_further():
    world = broken(95, repair_clears=False)
    world.drive(world.at_stage(Stage.CHECK_SIGNALS), within_s=9000)
    rules = dict(world.services.policy.classes)
    name = world.case().failure_class
    rules[name] = rules[name].model_copy(update={"mode": "recommend"})
    policy = world.services.policy.model_copy(update={"classes": rules})
    world.services = replace(world.services, policy=policy)
    world.road.services = world.services
    world.drive(world.ended(), within_s=9000)
    assert "mode of ecc_uncorrectable is recommend" in world.why()
    assert world.ran["reboot"] == 0


# --------------------------------------------------------------------------- crashes, two workers


@pytest.mark.parametrize("crash", ["before", "after"])
def test_a_far_side_that_compares_is_asked_again_with_the_same_key(crash):
    world = broken(79)
    hook = with_providers(world, reboot_node=FakeProvider(world, crashes=[crash]))
    with pytest.raises(WorkerDied):
        world.drive(world.ended())
    world.road.kill(world.case().run_id)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.case().fence > 1
    assert len(hook.acted) == 1
    assert len({r.key for r in hook.sent}) == 1
    assert hook.sent[0].key == f"{world.case().id}/1/repair-reboot_node-1"


POWER = "classes: {gpu_off_bus: {ladder: [power_cycle, hold_for_hardware]}}"


@pytest.mark.parametrize(
    ("crash", "end"),
    [("before", CaseEnd.ESCALATED), ("after", CaseEnd.RETURNED)],
    ids=["it was never sent, which nobody knows", "it was sent, and the node shows it"],
)
def test_a_far_side_that_cannot_compare_is_asked_once(crash, end):
    world = broken(79, overlay=POWER)
    bmc = FakeProvider(world, name="redfish", can_compare=False, crashes=[crash])
    with_providers(world, power_cycle=bmc)
    with pytest.raises(WorkerDied):
        world.drive(world.ended())
    world.road.kill(world.case().run_id)
    world.drive(world.ended(), within_s=20000)
    assert world.case().end is end
    assert len(bmc.sent) == (0 if crash == "before" else 1)
    status = world.steps()["repair-power_cycle-1"]
    assert status is (StepStatus.UNKNOWN if crash == "before" else StepStatus.DONE)


def test_two_workers_of_one_fence_ask_a_bmc_once():
    world = broken(79, overlay=POWER)
    bmc = FakeProvider(world, name="redfish", can_compare=False, mood="lies")
    with_providers(world, power_cycle=bmc)
    world.drive(world.at_stage(Stage.POWER_CYCLE))
    case = world.case()
    for _ in range(2):
        run_stage(world.services, Stage.POWER_CYCLE, case.id, case.fence)
    assert len(bmc.sent) == 1


@pytest.mark.parametrize(
    ("mood", "end"),
    [
        ("unclear, and acts", CaseEnd.RETURNED),
        ("unclear", CaseEnd.ESCALATED),
        ("does not take it", CaseEnd.ESCALATED),
        ("has no way", CaseEnd.ESCALATED),
        ("says it failed", CaseEnd.ESCALATED),
    ],
)
def test_what_became_of_a_power_cycle_is_what_the_node_shows(mood, end):
    world = broken(79, overlay=POWER)
    bmc = FakeProvider(world, name="redfish", can_compare=False, mood=mood)
    with_providers(world, power_cycle=bmc)
    world.drive(world.ended(), within_s=20000)
    assert world.case().end is end
    assert len(bmc.sent) == (0 if mood == "has no way" else 1)
    if end is CaseEnd.ESCALATED:
        assert world.is_held_out()


def test_a_power_cycle_is_asked_about_whatever_the_mode():
    overlay = "classes: {gpu_off_bus: {mode: auto, ladder: [power_cycle, hold_for_hardware]}}"
    world = broken(79, overlay=overlay)
    with_providers(world, power_cycle=FakeProvider(world, name="redfish", can_compare=False))
    world.drive(world.ended(), within_s=20000)
    assert [a.decision for a in approvals(world)] == [Decision.ALLOWED]


def test_a_machine_that_is_replaced_ends_its_case():
    world = broken(79, overlay="classes: {gpu_off_bus: {ladder: [replace_node]}}")
    world.approver = "oncall"
    hook = FakeProvider(world, mood="never ends")
    with_providers(world, replace_node=hook)
    answers = iter(["oncall", "second"] * 9)
    says = world.road.says

    def two_people(run, purpose):
        world.approver = next(answers)
        return says(run, purpose)

    world.road.says = two_people
    world.drive(lambda: hook.sent, within_s=20000)
    world.cluster.remove_node("a1")
    world.cluster.add_node("a1", rack="a", uid="uid-a1-new")
    world.drive(world.ended(), within_s=20000)
    assert world.case().end is CaseEnd.NODE_GONE
    assert world.steps()["repair-replace_node-1"] is StepStatus.DONE
    assert world.is_in_service()  # it is another machine, and nothing of ours is on it


# --------------------------------------------------------------------------- repeat offenders

LEMON = """
learning: {lemon: {score: 2}}
limits: {max_attempts: 9, max_attempts_of_class: 9}
classes: {ecc_uncorrectable: {ladder: [reset_gpu, reset_gpu, reset_gpu, reboot_node]}}
"""


def offender():
    """A node that was repaired twice, and broke again each time it was well for a while."""
    world = FlowWorld(overlay=LEMON)
    for n in (1, 2):
        world.break_node("a1", 95)
        world.drive(lambda n=n: len(world.ledger.cases(node="a1")) == n)
        world.drive(world.ended(), within_s=9000)
        assert world.case().end is CaseEnd.RETURNED
    world.break_node("a1", 95)
    return world


def test_a_repeat_offender_is_held_for_hardware_instead_of_another_repair():
    world = offender()
    world.drive(lambda: len(world.ledger.cases(node="a1")) == 3)
    case = world.case()
    assert case.action is Action.HOLD_FOR_HARDWARE
    assert "repeat offender: 2 cases in 30 days (ecc_uncorrectable)" in case.reason
    world.drive(world.ended(), within_s=9000)
    assert world.case().end is CaseEnd.ESCALATED
    assert world.ran["reset"] == 2


def test_a_refusal_says_that_the_node_is_a_repeat_offender():
    world = offender()
    world.cluster.change_node("a2", is_unschedulable=True)  # the rack is full
    swept = world.road.sweep()
    (no,) = [r for r in swept.refusals if r.node == "a1"]
    assert no.reason is RefusalReason.SCOPE_FULL
    assert "repeat offender" in no.text
