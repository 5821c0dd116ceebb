"""A case's life and its steps, on the fake and on Postgres."""

from __future__ import annotations

import pytest

from breakfix.errors import IllegalTransition, LedgerError, Refused, StaleFence
from breakfix.model import (
    Action,
    CaseEnd,
    Decision,
    NodeState,
    Purpose,
    StepStatus,
    Tier,
)
from breakfix.ports import Rung
from tests.contract.ledger_builders import (
    NOW,
    admit,
    decide,
    events,
    later,
    to_returning,
    to_validating,
)


def test_a_move_says_when_why_and_until_when(ledger):
    case = admit(ledger, "n1")
    moved = ledger.move(
        case.id,
        1,
        NodeState.REPAIRING,
        actor="dag",
        reason="drained",
        now=later(5),
        deadline=later(600),
        detail={"pods": 3, "names": ("a", "b")},
    )
    assert moved == ledger.case(case.id)
    assert (moved.state, moved.deadline, moved.updated_at) == (
        NodeState.REPAIRING,
        later(600),
        later(5),
    )
    told = {"pods": 3, "names": ["a", "b"], "state_reason": "drained"}
    assert moved.detail == {**case.detail, **told}


def test_the_same_state_again_with_nothing_new_changes_nothing(ledger):
    case = admit(ledger, "n1")
    what = {"actor": "a", "deadline": later(60), "detail": {"x": (1, 2), "at": NOW}}
    ledger.move(case.id, 1, NodeState.REPAIRING, reason="r", now=later(1), **what)
    before, count = ledger.case(case.id), len(events(ledger))
    again = ledger.move(case.id, 1, NodeState.REPAIRING, reason="s", now=later(9), **what)
    assert again == before == ledger.case(case.id)
    assert len(events(ledger)) == count


@pytest.mark.parametrize(
    "news",
    [
        pytest.param({"deadline": later(900)}, id="a watch is prolonged"),
        pytest.param({"repaired_at": later(8)}, id="the repair is timed"),
        pytest.param({"detail": {"x": 1}}, id="evidence is added"),
    ],
)
def test_the_same_state_again_keeps_what_is_new(ledger, news):
    case = to_returning(ledger, admit(ledger, "n1"))
    since = ledger.node_records(now=later(20))["n1"].since
    again = ledger.move(
        case.id, 1, NodeState.RETURNING, actor="a", reason="s", now=later(20), **news
    )
    assert again == ledger.case(case.id) != case
    for name, value in news.items():
        kept = getattr(again, name)
        assert kept == (
            {**case.detail, **value, "state_reason": "s"} if name == "detail" else value
        )
    assert ledger.node_records(now=later(21))["n1"].since == since


def test_a_way_that_the_table_does_not_know_is_refused_and_nothing_is_written(ledger):
    case = admit(ledger, "n1")
    with pytest.raises(IllegalTransition):
        ledger.move(case.id, 1, NodeState.RETURNING, actor="a", reason="r", now=later(1))
    assert ledger.case(case.id) == case
    assert events(ledger) == ["case.admitted"]


@pytest.mark.parametrize("fence", [0, 1, 3])
def test_a_fence_that_is_not_the_cases_own_is_stale_everywhere(ledger, fence):
    case = admit(ledger, "n1")
    ledger.take_over(case.id, 1, actor="reconcile", reason="run died", now=later(1))
    calls = [
        lambda: ledger.move(
            case.id, fence, NodeState.REPAIRING, actor="a", reason="r", now=later(2)
        ),
        lambda: ledger.end_case(case.id, fence, CaseEnd.ABORTED, actor="a", reason="r", now=NOW),
        lambda: ledger.take_over(case.id, fence, actor="a", reason="r", now=later(2)),
        lambda: ledger.begin_step(case.id, fence, "drain", detail={}, now=later(2)),
        lambda: ledger.finish_step(
            case.id, fence, "drain", StepStatus.DONE, detail={}, now=later(2)
        ),
        lambda: ledger.ask(
            case.id, fence, Purpose.REPAIR, plan_hash="p", expires_at=later(99), now=later(2)
        ),
        lambda: decide(ledger, case, Decision.ALLOWED, fence=fence),
    ]
    for call in calls:
        with pytest.raises(StaleFence):
            call()
    assert ledger.case(case.id).fence == 2


def test_an_ended_case_refuses_everything_but_the_same_end(ledger):
    case = admit(ledger, "n1")
    end = ledger.end_case(case.id, 1, CaseEnd.ABORTED, actor="a", reason="r", now=later(1))
    assert (end.end, end.ended_at, end.is_open) == (CaseEnd.ABORTED, later(1), False)
    again = ledger.end_case(case.id, 1, CaseEnd.ABORTED, actor="b", reason="s", now=later(2))
    assert again == end
    for call in (
        lambda: ledger.move(case.id, 1, NodeState.REPAIRING, actor="a", reason="r", now=later(2)),
        lambda: ledger.end_case(case.id, 1, CaseEnd.OVERRIDDEN, actor="a", reason="r", now=NOW),
        lambda: ledger.begin_step(case.id, 1, "drain", detail={}, now=later(2)),
        lambda: ledger.hold(case.id, actor="a", reason="r", now=later(2)),
    ):
        with pytest.raises(StaleFence, match="has ended"):
            call()


def test_returned_is_only_said_of_a_node_that_may_be_healthy(ledger):
    case = to_validating(ledger, admit(ledger, "n1"))
    with pytest.raises(IllegalTransition):
        ledger.end_case(case.id, 1, CaseEnd.RETURNED, actor="a", reason="r", now=later(30))
    ledger.move(case.id, 1, NodeState.RETURNING, actor="a", reason="r", now=later(31))
    end = ledger.end_case(case.id, 1, CaseEnd.RETURNED, actor="a", reason="r", now=later(32))
    assert end.state is NodeState.HEALTHY


def test_an_escalated_end_is_resolved_by_what_became_of_it(ledger):
    case = admit(ledger, "n1")
    end = ledger.end_case(case.id, 1, CaseEnd.ESCALATED, actor="a", reason="hw", now=later(1))
    assert end.state is NodeState.ESCALATED
    done = ledger.end_case(case.id, 1, CaseEnd.RETURNED, actor="ann", reason="new", now=later(9))
    assert (done.end, done.state, done.ended_at) == (
        CaseEnd.RETURNED,
        NodeState.HEALTHY,
        later(9),
    )


def test_a_person_holds_and_lets_go(ledger):
    case = admit(ledger, "n1")
    assert ledger.hold(case.id, actor="ann", reason="look", now=later(1)).held_by == "ann"
    assert ledger.hold(case.id, actor="bob", reason="me too", now=later(2)).held_by == "ann"
    assert ledger.unhold(case.id, actor="ann", reason="done", now=later(3)).held_by == ""
    assert events(ledger)[1:] == ["case.held", "case.unheld"]


def test_a_person_takes_over_from_automations_hold_and_never_the_other_way(ledger):
    case = admit(ledger, "n1")
    ours = "breakfix:drain-overdue"
    assert ledger.hold(case.id, actor=ours, reason="late", now=later(1)).held_by == ours
    assert ledger.hold(case.id, actor="cli:ann", reason="mine", now=later(2)).held_by == "cli:ann"
    assert ledger.hold(case.id, actor=ours, reason="late", now=later(3)).held_by == "cli:ann"
    assert events(ledger)[1:] == ["case.held", "case.held"]


def test_cases_are_listed_by_age_node_and_openness(ledger):
    one = admit(ledger, "n1")
    ledger.end_case(one.id, 1, CaseEnd.ABORTED, actor="a", reason="r", now=later(1))
    two = admit(ledger, "n2", now=later(2))
    three = admit(ledger, "n1", now=later(3))
    assert [c.id for c in ledger.cases()] == [one.id, two.id, three.id]
    assert [c.id for c in ledger.cases(open_only=True)] == [two.id, three.id]
    assert [c.id for c in ledger.cases(node="n1")] == [one.id, three.id]
    assert [c.id for c in ledger.cases(open_only=True, node="n1")] == [three.id]


def test_a_case_that_is_not_there_is_an_error(ledger):
    with pytest.raises(LedgerError, match="no case"):
        ledger.case("c-0")
    with pytest.raises(LedgerError, match="no case"):
        ledger.move("c-0", 1, NodeState.REPAIRING, actor="a", reason="r", now=NOW)


# --------------------------------------------------------------------------- steps


def test_a_step_begins_once_and_keeps_its_first_record(ledger):
    case = admit(ledger, "n1")
    step, is_new = ledger.begin_step(case.id, 1, "drain", detail={"pods": 2}, now=later(1))
    assert is_new
    assert (step.status, step.fence, step.detail) == (StepStatus.DISPATCHED, 1, {"pods": 2})
    ledger.take_over(case.id, 1, actor="r", reason="r", now=later(2))
    same, is_new = ledger.begin_step(case.id, 2, "drain", detail={"pods": 9}, now=later(3))
    assert (same, is_new) == (step, False)


def test_a_step_says_truthfully_what_became_of_it(ledger):
    case = admit(ledger, "n1")
    ledger.begin_step(case.id, 1, "repair.reboot", detail={"pod": "p"}, now=later(1))
    done = ledger.finish_step(
        case.id, 1, "repair.reboot", StepStatus.DONE, detail={"exit": 0}, now=later(2)
    )
    assert (done.status, done.detail, done.ended_at) == (
        StepStatus.DONE,
        {"pod": "p", "exit": 0},
        later(2),
    )
    good = ledger.finish_step(
        case.id, 1, "repair.reboot", StepStatus.VERIFIED, detail={}, now=later(3)
    )
    count = len(events(ledger))
    again = ledger.finish_step(
        case.id, 1, "repair.reboot", StepStatus.VERIFIED, detail={}, now=later(4)
    )
    assert again == good
    assert ledger.steps(case.id) == (good,)
    assert len(events(ledger)) == count


def test_progress_is_noted_on_a_step_until_it_ends(ledger):
    case = admit(ledger, "n1")
    ledger.begin_step(case.id, 1, "drain", detail={"left": 9}, now=later(1))
    noted = ledger.finish_step(
        case.id, 1, "drain", StepStatus.DISPATCHED, detail={"left": 4}, now=later(2)
    )
    assert (noted.status, noted.ended_at, noted.detail) == (
        StepStatus.DISPATCHED,
        None,
        {"left": 4},
    )
    ledger.finish_step(case.id, 1, "drain", StepStatus.DONE, detail={"left": 0}, now=later(3))
    with pytest.raises(LedgerError, match="has ended"):
        ledger.finish_step(
            case.id, 1, "drain", StepStatus.DISPATCHED, detail={"left": 1}, now=later(4)
        )
    assert events(ledger)[1:] == ["step.begun", "step.noted", "step.finished"]


@pytest.mark.parametrize("status", [StepStatus.DONE, StepStatus.DISPATCHED])
def test_a_step_that_was_never_begun_cannot_finish(ledger, status):
    case = admit(ledger, "n1")
    with pytest.raises(LedgerError, match="never begun"):
        ledger.finish_step(case.id, 1, "drain", status, detail={}, now=later(1))


# --------------------------------------------------------------------------- climbing

RUNG = Rung(Action.REBOOT_NODE, 2, "f" * 64, Tier.ONE, after="check_gpus-1")


def climb(ledger, case_id, fence=1, rung=RUNG):
    reason = "check_gpus-1 failed: 7 of 8"
    return ledger.climb(case_id, fence, rung, actor="node_case", reason=reason, now=later(50))


def test_a_case_climbs_into_the_hands_of_its_next_run_and_keeps_its_scopes(ledger):
    case = to_validating(ledger, admit(ledger, "n1"))
    climbed = climb(ledger, case.id)
    assert climbed == ledger.case(case.id)
    assert (climbed.fence, climbed.state, climbed.action, climbed.attempt, climbed.plan_hash) == (
        2,
        NodeState.REPAIRING,
        Action.REBOOT_NODE,
        2,
        "f" * 64,
    )
    assert (climbed.detail["rung"], climbed.detail["needs_approval"]) == (2, True)
    assert "case.climbed" in events(ledger)
    with pytest.raises(StaleFence):
        climb(ledger, case.id)
    assert ledger.move(  # it may still go on: its scopes were never given back
        case.id, 2, NodeState.VALIDATING, actor="dag", reason="r", now=later(51)
    )


@pytest.mark.parametrize("returns", [False, True], ids=["quarantined", "in service"])
def test_only_a_case_under_repair_climbs(ledger, returns):
    case = admit(ledger, "n1")
    if returns:
        to_returning(ledger, case)
    case = ledger.case(case.id)
    with pytest.raises(IllegalTransition):
        climb(ledger, case.id, case.fence)
    assert ledger.case(case.id) == case


def test_a_held_case_does_not_climb(ledger):
    case = to_validating(ledger, admit(ledger, "n1"))
    ledger.hold(case.id, actor="ann", reason="mine", now=later(40))
    with pytest.raises(Refused):
        climb(ledger, case.id)


def test_each_rung_counts_once_however_many_steps_it_took(ledger):
    case = to_validating(ledger, admit(ledger, "n1"))
    for name in ("repair-reset_gpu-1", "repair-reset_gpu-1.2", "diag-1"):
        ledger.begin_step(case.id, 1, name, detail={}, now=later(30))
    climb(ledger, case.id)
    ledger.begin_step(case.id, 2, "repair-reboot_node-1.r2", detail={}, now=later(60))
    record = ledger.node_records(now=later(61))["n1"]
    assert record.attempts == 2
    assert record.repairs == {Action.RESET_GPU: 1, Action.REBOOT_NODE: 1}
