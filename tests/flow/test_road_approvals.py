"""People on the road: two of them, other channels than Airflow, and changes of mind."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.errors import AirflowError, Refused
from breakfix.flow.answering import give_answer
from breakfix.flow.open_questions import open_questions, token_of
from breakfix.flow.stages import Stage
from breakfix.model import Answer, CaseEnd, Decision, NodeState, Owner, Purpose, Tier
from tests.flow.approval_world import (
    TWO_BEFORE_REPAIR,
    TWO_BEFORE_RETURN,
    ServiceUser,
    answer_in_airflow,
    answered,
    asked,
    asking_world,
    run_of,
    say,
)
from tests.flow.world import FlowWorld, policy_with


def with_policy(world, overlay):
    world.services = replace(world.services, policy=policy_with(overlay))
    world.road.services = world.services


# --------------------------------------------------------------------------- two people


def test_the_first_yes_of_two_asks_a_second_person_and_changes_nothing():
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    writes = len(world.cluster.writes())
    go = answer_in_airflow(world, "oncall")
    assert go.to is Stage.APPROVE_REPAIR_SECOND
    assert "2 people; yes so far: oncall" in go.detail["body"].replace("\\", "")
    assert asked(world).decision is Decision.PENDING
    assert len(world.cluster.writes()) == writes
    assert any("half approved" in subject for subject, _ in world.notifier.told)
    answer_in_airflow(world, "second")
    assert (asked(world).decision, asked(world).approver) == (Decision.ALLOWED, "oncall, second")
    world.silence.clear()
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.RETURNED, 1)
    assert world.is_audit_sound()


def test_a_half_approved_repair_goes_on_being_asked_about_by_the_next_run():
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    answer_in_airflow(world, "oncall")
    first = asked(world)
    assert answer_in_airflow(world, "oncall").to is Stage.SETTLE_RUN
    world.drive(lambda: world.case().fence == 2 and run_of(world).stage is Stage.APPROVE_REPAIR)
    assert asked(world) == replace(first, fence=2)
    answer_in_airflow(world, "second")
    assert asked(world).approver == "oncall, second"
    assert answered(world) == [("oncall", True), ("oncall", False), ("second", True)]


def test_a_half_approved_repair_is_none_when_time_is_up():
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    answer_in_airflow(world, "oncall")
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "repair expired by nobody")
    assert "1 of 2 said yes: oncall" in asked(world).note
    assert not world.ran


def test_two_yeses_about_a_return_are_about_one_validation():
    world = asking_world(Purpose.RETURN, overlay=TWO_BEFORE_RETURN)
    answer_in_airflow(world, "oncall")
    assert run_of(world).stage is Stage.APPROVE_RETURN_SECOND
    world.drive(lambda: world.case().fence == 2 and run_of(world).stage is Stage.APPROVE_RETURN)
    assert asked(world).asked_at > world.case().opened_at
    answer_in_airflow(world, "second")
    assert asked(world).decision is Decision.PENDING
    answer_in_airflow(world, "oncall")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_policy_that_became_stricter_meanwhile_asks_for_the_second_person():
    world = asking_world()
    answer_in_airflow(world, "oncall")
    assert run_of(world).stage is Stage.DRAIN
    with_policy(world, TWO_BEFORE_REPAIR)
    world.road._step(run_of(world))
    assert "not approved" in run_of(world).trail[-1]
    world.drive(lambda: world.case().fence == 2 and run_of(world).stage is Stage.APPROVE_REPAIR)
    assert (asked(world).decision, asked(world).needed) == (Decision.PENDING, 2)


@pytest.mark.parametrize("round_", [1, 2], ids=["its first time out", "when it broke again"])
def test_a_job_that_came_after_the_plan_is_counted_before_people_are_asked(round_):
    world = FlowWorld(
        overlay="classes: {gpu_off_bus: {mode: auto}}\napprovals: {gang_gpus: 8}",
    )
    for _ in range(round_ - 1):
        world.break_node("a1")
        world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
        world.clock.sleep(5)
    job = {"owners": (Owner("Job", "llm", "u"),), "gpus": 8}

    def a_job_comes(*args):
        world.cluster.add_pod("llm-0", "a1", **job)
        world.cluster.add_pod("llm-1", "b1", **job)

    world.cluster.before["patch_node"] = a_job_comes
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    assert world.case().detail["impact"]["gang_gpus"] == 16
    (question,) = open_questions(world.services)
    assert (question.tier, question.cost.gpus_stopped) == (Tier.ONE, 16)
    assert "Job work/llm (2 pods, 16 GPUs on 2 nodes)" in question.cost.gangs


# --------------------------------------------------------------------------- other channels


def test_an_answer_in_the_ledger_wakes_the_run_and_is_what_counts():
    world = asking_world()
    service = ServiceUser(world)
    given = say(world, "second", note="go", waker=service)
    assert (given.approval.decision, given.is_woken) == (Decision.ALLOWED, True)
    assert service.woken == ["approve_repair"]
    assert run_of(world).stage is Stage.DRAIN
    assert (asked(world).approver, asked(world).channel) == ("second", "cli")


def test_one_answers_in_airflow_and_the_other_at_the_command_line():
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    service = ServiceUser(world)
    given = say(world, "second", waker=service)
    assert (given.approval.decision, given.yes, service.woken) == (
        Decision.PENDING,
        ("second",),
        [],
    )
    assert answer_in_airflow(world, "oncall").to is Stage.DRAIN
    assert asked(world).channel == "cli, airflow_required_action"


def test_an_answer_stands_when_its_run_cannot_be_woken():
    world = asking_world()
    service = ServiceUser(world)
    service.is_down = AirflowError("away", is_transient=True)
    given = say(world, "second", waker=service)
    assert (given.approval.decision, given.is_woken) == (Decision.ALLOWED, False)
    service.is_down = None
    service.wake(world.case(), Purpose.REPAIR)
    assert run_of(world).stage is Stage.DRAIN


def test_there_is_nothing_to_answer_and_that_is_in_the_audit():
    world = asking_world()
    answer_in_airflow(world, "oncall", is_yes=False)
    with pytest.raises(Refused, match="waits for no answer"):
        say(world, "second")
    assert answered(world) == [("oncall", True), ("second", False)]
    assert asked(world).decision is Decision.REFUSED


# --------------------------------------------------------------------------- a change of mind


def test_a_no_takes_a_yes_back_as_long_as_nothing_was_repaired():
    world = asking_world()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    answer_in_airflow(world, "oncall")
    world.drive(lambda: any(s.startswith("drain") for s in world.steps()))
    assert say(world, "second", is_yes=False).approval.decision is Decision.REFUSED
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "repair refused by second")
    assert not world.ran
    assert world.is_held_out()


def test_a_no_to_the_second_asking_is_not_undone_by_the_first_yes():
    """The drain outlives its yes and its run; asked again people say yes, and then no."""
    world = asking_world(overlay="drain: {timeout: 3h}")
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    answer_in_airflow(world, "oncall")
    world.drive(lambda: any(s.startswith("drain") for s in world.steps()))
    world.run_for(1900)
    world.road.kill(world.case().run_id)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    answer_in_airflow(world, "oncall")
    assert say(world, "second", is_yes=False).approval.decision is Decision.REFUSED
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "repair refused by second")
    assert not world.ran
    assert [p.name for p in world.cluster._pods.values()] == ["web-1"]


def test_after_the_repair_began_a_no_changes_nothing():
    world = asking_world()
    answer_in_airflow(world, "oncall")
    world.drive(lambda: world.case().state is NodeState.REPAIRING)
    with pytest.raises(Refused, match="waits for no answer"):
        say(world, "second", is_yes=False)
    world.drive(lambda: world.case().state is NodeState.VALIDATING)
    assert asked(world).decision is Decision.ALLOWED


def test_the_next_rung_has_a_question_of_its_own_for_every_channel():
    world = FlowWorld(reset_exit=19)
    world.break_node("a1", 95)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    first = world.case()
    say(world, "second", waker=ServiceUser(world))
    world.drive(lambda: world.case().plan_hash != first.plan_hash)
    world.drive(lambda: world.ledger.questions() and run_of(world).stage is Stage.APPROVE_REPAIR)
    assert world.case().state is NodeState.REPAIRING
    old = say(world, "oncall", plan_hash=first.plan_hash)
    assert old.objection == "it was given for another plan"
    given = say(world, "oncall", waker=ServiceUser(world))
    assert (given.approval.decision, given.is_woken) == (Decision.ALLOWED, True)
    world.silence.clear()
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.RETURNED, 1)


# --------------------------------------------------------------------------- many at once


def test_many_returns_are_answered_each_by_itself():
    world = asking_world(Purpose.RETURN, nodes=("a1", "b1", "c1", "d1"))
    world.break_node("b1")
    returns = {"purpose": Purpose.RETURN, "pool": "train"}
    world.drive(lambda: len(open_questions(world.services, **returns)) == 2)
    questions = open_questions(world.services, **returns)
    assert open_questions(world.services, purpose=Purpose.RETURN, pool="other") == []
    assert token_of(questions) != token_of(questions[:1])
    for question in questions:
        case = question.case
        yes = Answer("oncall", True, "cli", world.clock.now(), question.approval.plan_hash)
        give_answer(world.services, case.id, yes, waker=ServiceUser(world))
    kept = [world.ledger.answers(q.case.id)[1] for q in questions]  # the first was to the repair
    assert [g.answer.plan_hash for g in kept] == [q.case.plan_hash for q in questions]
    world.silence.clear()
    world.drive(world.ended("a1", "b1"))
    assert {world.case(n).end for n in ("a1", "b1")} == {CaseEnd.RETURNED}
