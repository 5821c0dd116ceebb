"""People's word: too late, twice, for something else, by the wrong person, or not heard."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.errors import AirflowError, LedgerError, Refused
from breakfix.flow.confirmations import CONFIRMED, heed_annotations
from breakfix.flow.stages import Stage
from breakfix.model import Answer, CaseEnd, Decision, NodeState, Purpose
from breakfix_airflow.approvals import QuestionReader
from tests.airflow.fake_airflow import ASKED, RUN, TASK, FakeAirflow
from tests.flow.approval_world import (
    TWO_BEFORE_REPAIR,
    ServiceUser,
    answer_in_airflow,
    answered,
    asked,
    asking_world,
    run_of,
    say,
)
from tests.flow.world import policy_with

CONFIRMS = "approvals: {annotation_returns: true}"


def annotate(world, value="", name="a1"):
    notes = {**world.node(name).annotations, CONFIRMED: value}
    world.cluster.change_node(name, annotations=notes)


def heed(world):
    return heed_annotations(world.services, waker=ServiceUser(world))


# --------------------------------------------------------------------------- F35


def test_f35_out_until_annotated():
    """Nobody confirms a validated node in time; later somebody annotates it with any value.

    Lost: nothing; it stays out, is asked about again, and returns only after the annotation.
    """
    world = asking_world(Purpose.RETURN, overlay=CONFIRMS)
    world.run_for(2700)
    assert heed(world) == []
    assert world.is_held_out()
    assert world.case().fence > 1
    world.drive(lambda: run_of(world).stage is Stage.APPROVE_RETURN)
    annotate(world, "yes, ann looked at it")
    assert heed(world) == [world.case().id]
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert asked(world).channel == "node_annotation"
    assert world.node().annotations[CONFIRMED] == "yes, ann looked at it"


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("true", id="of last time"),
        pytest.param("20260101-abcdefgh.1", id="naming another question"),
    ],
)
def test_f35_an_old_annotation_confirms_nothing(before):
    """The node carries the annotation of an earlier confirmation when it is asked about.

    Lost: nothing; it stays out until the annotation names the question that is open now.
    """
    world = asking_world(overlay=CONFIRMS)
    annotate(world, before)
    answer_in_airflow(world, "oncall")
    world.drive(world.at_stage(Stage.APPROVE_RETURN))
    assert heed(world) == []
    assert heed(world) == []
    assert asked(world).decision is Decision.PENDING
    assert answered(world)[1:] == [("whoever annotated the node", False)]
    annotate(world, world.case().run_id)
    assert heed(world) == [world.case().id]
    assert run_of(world).stage is Stage.RETURN_NODE


@pytest.mark.parametrize(
    ("overlay", "why"),
    [
        pytest.param("", "policy takes no annotation", id="policy does not say so"),
        pytest.param(
            "approvals: {annotation_returns: true, tiers: [{needs: two, before: return}]}",
            "wants two people",
            id="two people are wanted",
        ),
    ],
)
def test_f35_an_annotation_names_nobody(overlay, why):
    """The node is annotated as healthy where policy wants people with names.

    Lost: nothing; the annotation is in the audit with the reason, and the node stays out.
    """
    world = asking_world(Purpose.RETURN, overlay=overlay)
    annotate(world)
    assert heed(world) == []
    assert why in world.ledger.answers(world.case().id)[-1].objection
    assert asked(world).decision is Decision.PENDING
    assert world.is_held_out()


def test_f35_an_annotation_approves_no_disruption():
    """The node is annotated as healthy while people are asked whether to repair it.

    Lost: nothing; no pod is moved, and the question waits for a person.
    """
    world = asking_world(overlay=CONFIRMS)
    annotate(world)
    assert heed(world) == []
    given = say(world, "whoever annotated the node", channel="node_annotation")
    assert "only a return" in given.objection
    assert asked(world).decision is Decision.PENDING
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.ESCALATED, 0)


# --------------------------------------------------------------------------- F45


@pytest.mark.parametrize("purpose", [Purpose.REPAIR, Purpose.RETURN])
def test_f45_expired(purpose):
    """A yes comes when the time to answer is over.

    Lost: nothing; a repair is not done and escalates, a node stays out and is asked about again.
    """
    world = asking_world(purpose)
    question = asked(world)
    world.clock.at = question.expires_at
    writes = len(world.cluster.writes())
    given = say(world, "second")
    assert given.objection == "it came after the question expired"
    assert asked(world).decision is Decision.EXPIRED
    assert len(world.cluster.writes()) == writes
    assert world.is_held_out()
    if purpose is Purpose.REPAIR:
        world.drive(world.ended())
        assert (world.case().end, world.ran["reboot"]) == (CaseEnd.ESCALATED, 0)
    else:
        world.drive(lambda: world.case().fence == 2)
        assert any(subject == "return unanswered" for subject, _ in world.notifier.told)


@pytest.mark.parametrize("purpose", [Purpose.REPAIR, Purpose.RETURN])
def test_f45_rejected(purpose):
    """An approver says no, and others say yes afterwards.

    Lost: nothing; the no stands, the node stays out, escalated, and nothing more is done to it.
    """
    world = asking_world(purpose)
    assert say(world, "second", is_yes=False).approval.decision is Decision.REFUSED
    with pytest.raises(Refused, match="waits for no answer"):
        say(world, "oncall")
    answer_in_airflow(world, "oncall")
    assert asked(world).decision is Decision.REFUSED
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, f"{purpose} refused by second")
    assert world.is_held_out()


def test_f45_approved_twice():
    """Two approvers say yes to a question that wants one, by two channels.

    Lost: nothing; the repair is done once, and both answers are on record.
    """
    world = asking_world()
    say(world, "oncall")
    answer_in_airflow(world, "second")
    assert (asked(world).decision, asked(world).approver) == (Decision.ALLOWED, "oncall")
    world.silence.clear()
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.RETURNED, 1)
    assert answered(world)[:2] == [("oncall", True), ("second", False)]


def test_f45_second_approver_same_as_first():
    """One person answers twice where two people are wanted, under a name in other letters, too.

    Lost: nothing; it counts as one yes, and the repair is not done.
    """
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    say(world, "oncall")
    assert say(world, "oncall").objection == "the same person has said yes already"
    assert say(world, "OnCall").objection == "not an approver by policy"
    assert answer_in_airflow(world, "oncall").to is Stage.APPROVE_REPAIR_SECOND
    assert (asked(world).decision, asked(world).needed) == (Decision.PENDING, 2)
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.ESCALATED, 0)


def test_f45_older_plan():
    """A yes is for the plan of before; the node has broken again since, with another plan.

    Lost: nothing; it does not count for the new plan, which waits for a yes of its own.
    """
    world = asking_world()
    old = world.case().plan_hash
    answer_in_airflow(world, "oncall")
    world.silence.clear()
    world.drive(lambda: world.case().state is NodeState.RETURNING)
    world.clock.sleep(5)
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(lambda: world.case().fence == 2 and run_of(world).stage is Stage.APPROVE_REPAIR)
    assert world.case().plan_hash != old
    assert say(world, "second", plan_hash=old).objection == "it was given for another plan"
    assert asked(world).decision is Decision.PENDING
    assert world.ran["reboot"] == 1


@pytest.mark.parametrize("requester", ["oncall", "cli:oncall", "cli:OnCall"])
def test_f45_requester_is_approver(requester):
    """Who asked for the repair says yes to it.

    Lost: nothing; it does not count, and a colleague is still waited for.
    """
    world = asking_world()
    case = world.case()
    world.ledger._cases[case.id] = replace(case, requester=requester)
    assert say(world, "oncall").objection == "requester and approver are the same person"
    assert asked(world).decision is Decision.PENDING
    assert say(world, "second").approval.decision is Decision.ALLOWED


def test_f45_the_ledger_is_away():
    """The ledger cannot be reached when a person answers.

    Lost: nothing; the answer is an error and nothing is done. Given again later, it counts.
    """
    world = asking_world()
    case = world.case()
    world.ledger.is_down = True
    with pytest.raises(LedgerError):
        world.services.book.answer(
            case.id, 1, Purpose.REPAIR, [], plan_hash="", settle=None, now=world.clock.now()
        )
    world.ledger.is_down = False
    assert asked(world).decision is Decision.PENDING
    assert say(world, "oncall").approval.decision is Decision.ALLOWED


def test_f45_airflow_is_away():
    """An approver answered in Airflow, and its API is away when the answer is to be read.

    Lost: nothing; nothing is settled by what could not be read. Read later, the answer counts.
    """
    world = asking_world()
    airflow = FakeAirflow()
    said_at = asked(world).asked_at + timedelta(seconds=30)
    airflow.answered("oncall", "Approve", seconds=(said_at - ASKED).total_seconds())
    airflow.broken = [500] * 20
    reader = QuestionReader(airflow.api())
    with pytest.raises(AirflowError):
        reader.read("node_case", RUN, TASK)
    assert (asked(world).decision, answered(world)) == (Decision.PENDING, [])
    airflow.broken = []
    world.clock.sleep(600)
    run = run_of(world)
    reading = reader.read("node_case", RUN, TASK)
    assert world.road.settle(run, Purpose.REPAIR, reading.answers).to is Stage.DRAIN
    assert asked(world).approver == "oncall"


def test_f45_the_channel_is_lost_with_its_worker():
    """The task that asks dies after one of two has said yes by another channel.

    Lost: nothing; the next run asks again, and the first yes need not be said again.
    """
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    say(world, "oncall")
    world.road.kill(world.case().run_id)
    world.drive(lambda: world.case().fence == 2 and run_of(world).stage is Stage.APPROVE_REPAIR)
    answer_in_airflow(world, "second")
    assert (asked(world).decision, asked(world).approver) == (Decision.ALLOWED, "oncall, second")


def test_f45_no_longer_an_approver():
    """One of two who said yes is taken off the list of approvers before the other answers.

    Lost: nothing; the yes counts no longer, and the repair waits for another person.
    """
    world = asking_world(overlay=TWO_BEFORE_REPAIR)
    say(world, "oncall")
    fewer = TWO_BEFORE_REPAIR.replace("{tiers", "{approvers: [second, third], tiers")
    world.services = replace(world.services, policy=policy_with(fewer))
    given = say(world, "second")
    assert (given.approval.decision, given.yes) == (Decision.PENDING, ("second",))


def test_f45_an_answer_for_an_ended_case():
    """A yes comes for a case that a person has ended.

    Lost: nothing; it is refused, is in the audit, and the node stays as the person left it.
    """
    world = asking_world()
    case = world.case()
    world.ledger.end_case(
        case.id, 1, CaseEnd.ABORTED, actor="ann", reason="mine", now=world.clock.now()
    )
    with pytest.raises(Refused, match="has ended"):
        say(world, "oncall")
    assert answered(world) == [("oncall", False)]


def test_f45_a_late_reading_of_an_old_runs_answer():
    """An old run's task reads its answer when the case has changed hands.

    Lost: nothing; the old answer is in the audit as void, and the new run's question stays open.
    """
    world = asking_world(Purpose.RETURN)
    old = run_of(world)
    world.drive(lambda: world.case().fence == 2 and run_of(world).stage is Stage.APPROVE_RETURN)
    late = Answer("oncall", True, "airflow_required_action", asked(world).asked_at)
    late = replace(late, at=late.at - timedelta(hours=1))
    old.stage = Stage.APPROVE_RETURN
    assert world.road.settle(old, Purpose.RETURN, [late]).to is Stage.SETTLE_RUN
    assert asked(world).decision is Decision.PENDING
    assert answered(world)[-1] == ("oncall", False)
