"""What every ledger promises: the same cases on the fake and on Postgres."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from breakfix.errors import IllegalTransition, LedgerError, Refused, StaleFence
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    Decision,
    HaltLevel,
    NodeState,
    Purpose,
    Refusal,
    RefusalReason,
    Scope,
    ScopeKind,
    StepStatus,
)
from breakfix.ports import Limit

from tests.contract.ledger_builders import (
    NOW,
    RACK,
    admit,
    an_intent,
    events,
    later,
    limits,
    to_returning,
    to_validating,
)

# --------------------------------------------------------------------------- admission


def test_an_admitted_node_has_an_open_case_with_all_that_was_decided(ledger):
    intent = an_intent("n1")
    case = ledger.admit(intent, limits(), requester="sweep", now=NOW)
    assert isinstance(case, Case)
    assert case == ledger.case(case.id)
    assert (case.node, case.fence, case.state) == ("n1", 1, NodeState.QUARANTINED)
    assert (case.plan_hash, case.scopes) == (intent.hash, intent.scopes)
    assert (case.requester, case.cluster, case.opened_at) == ("sweep", "test", NOW)
    assert case.is_open
    assert events(ledger) == ["case.admitted"]


def test_a_full_scope_refuses_and_names_who_holds_it(ledger):
    first = admit(ledger, "n1")
    no = ledger.admit(an_intent("n2"), limits(rack=1), requester="sweep", now=NOW)
    assert isinstance(no, Refusal)
    assert (no.reason, no.scope) == (RefusalReason.SCOPE_FULL, RACK)
    assert f"n1 (case {first.id})" in no.text
    assert ledger.cases(node="n2") == ()


def test_a_full_fleet_says_fleet_share(ledger):
    admit(ledger, "n1")
    no = ledger.admit(an_intent("n2", rack="r2"), limits(fleet=1), requester="s", now=NOW)
    assert no.reason is RefusalReason.FLEET_SHARE


def test_nodes_out_by_the_clusters_word_count_as_well(ledger):
    no = ledger.admit(an_intent("n1"), limits(rack=1, out={"n9"}), requester="s", now=NOW)
    assert no.reason is RefusalReason.SCOPE_FULL
    assert "n9 (cordoned or not ready)" in no.text


def test_a_node_out_in_ledger_and_cluster_counts_once(ledger):
    admit(ledger, "n1")
    second = ledger.admit(an_intent("n2"), limits(rack=2, out={"n1"}), requester="s", now=NOW)
    assert isinstance(second, Case)


def test_the_candidate_itself_does_not_count(ledger):
    assert isinstance(
        ledger.admit(an_intent("n1"), limits(rack=1, out={"n1"}), requester="s", now=NOW), Case
    )


def test_a_limit_of_zero_admits_nobody(ledger):
    no = ledger.admit(an_intent("n1"), limits(rack=0), requester="s", now=NOW)
    assert no.reason is RefusalReason.SCOPE_FULL


def test_an_open_case_refuses_a_second_one(ledger):
    admit(ledger, "n1")
    no = ledger.admit(an_intent("n1"), limits(), requester="s", now=NOW)
    assert no.reason is RefusalReason.CASE_OPEN


@pytest.mark.parametrize("level", [HaltLevel.DISRUPTION, HaltLevel.ALL])
def test_nothing_is_admitted_while_halted(ledger, level):
    ledger.set_halt(level, actor="ann", reason="drill", now=NOW)
    no = ledger.admit(an_intent("n1"), limits(), requester="s", now=NOW)
    assert no.reason is RefusalReason.HALTED


def test_a_returning_node_is_readmitted_as_the_same_case_at_the_next_fence(ledger):
    case = to_returning(ledger, admit(ledger, "n1"), repaired_at=later(9))
    again = replace(an_intent("n1"), attempt=2, action=Action.HOLD_FOR_HARDWARE, boot_id="b2")
    back = ledger.admit(again, limits(rack=1), requester="s", now=later(60))
    assert (back.id, back.fence, back.state) == (case.id, 2, NodeState.QUARANTINED)
    assert (back.attempt, back.action, back.boot_id) == (2, Action.HOLD_FOR_HARDWARE, "b2")
    assert (back.plan_hash, back.opened_at, back.repaired_at) == (again.hash, NOW, later(9))
    no = ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(61))
    assert no.reason is RefusalReason.SCOPE_FULL


def test_a_returning_node_that_a_person_holds_is_not_readmitted(ledger):
    case = to_returning(ledger, admit(ledger, "n1"))
    ledger.hold(case.id, actor="ann", reason="mine", now=later(50))
    no = ledger.admit(an_intent("n1"), limits(), requester="s", now=later(60))
    assert no.reason is RefusalReason.HELD


def test_the_same_refusal_again_is_not_audited_again_until_it_changes(ledger):
    admit(ledger, "n1")
    for s in range(5):
        ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(15 * s))
    assert events(ledger).count("admission.refused") == 1
    ledger.admit(an_intent("n2"), limits(rack=1, out={"n7"}), requester="s", now=later(90))
    assert events(ledger).count("admission.refused") == 2
    ledger.admit(an_intent("n2"), limits(rack=1, out={"n7"}), requester="s", now=later(9000))
    assert events(ledger).count("admission.refused") == 3


# --------------------------------------------------------------------------- scopes are freed


def test_scopes_are_held_to_the_end_of_validation_and_freed_by_the_return(ledger):
    case = to_validating(ledger, admit(ledger, "n1"))
    no = ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(20))
    assert no.reason is RefusalReason.SCOPE_FULL
    ledger.move(case.id, 1, NodeState.RETURNING, actor="a", reason="fine", now=later(21))
    second = ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(22))
    assert isinstance(second, Case)


def test_no_clock_frees_a_scope(ledger):
    admit(ledger, "n1")
    much_later = NOW + timedelta(days=400)
    no = ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=much_later)
    assert no.reason is RefusalReason.SCOPE_FULL


@pytest.mark.parametrize(
    "end", [CaseEnd.ABORTED, CaseEnd.OVERRIDDEN, CaseEnd.NODE_GONE, CaseEnd.ESCALATED]
)
def test_every_end_frees_the_scopes(ledger, end):
    case = admit(ledger, "n1")
    ledger.end_case(case.id, 1, end, actor="a", reason="r", now=later(1))
    assert isinstance(
        ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(2)), Case
    )


def test_an_escalated_open_case_keeps_its_scopes(ledger):
    case = admit(ledger, "n1")
    ledger.move(case.id, 1, NodeState.ESCALATED, actor="a", reason="r", now=later(1))
    no = ledger.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(2))
    assert no.reason is RefusalReason.SCOPE_FULL


def test_a_case_without_scopes_cannot_go_back_out_of_service_but_by_admission(ledger):
    case = to_returning(ledger, admit(ledger, "n1"))
    with pytest.raises(Refused, match="admitted again") as caught:
        ledger.move(case.id, 1, NodeState.QUARANTINED, actor="a", reason="r", now=later(50))
    assert caught.value.reason is RefusalReason.SCOPE_FULL


# --------------------------------------------------------------------------- a case's life


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
    assert moved.detail == {"pods": 3, "names": ["a", "b"], "state_reason": "drained"}


def test_the_same_state_again_changes_nothing(ledger):
    case = admit(ledger, "n1")
    ledger.move(case.id, 1, NodeState.REPAIRING, actor="a", reason="r", now=later(1))
    before, count = ledger.case(case.id), len(events(ledger))
    again = ledger.move(
        case.id, 1, NodeState.REPAIRING, actor="b", reason="s", now=later(9), detail={"x": 1}
    )
    assert again == before == ledger.case(case.id)
    assert len(events(ledger)) == count


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


@pytest.mark.parametrize("status", [StepStatus.DONE, StepStatus.DISPATCHED])
def test_a_step_that_was_never_begun_cannot_finish(ledger, status):
    case = admit(ledger, "n1")
    with pytest.raises(LedgerError, match="never begun"):
        ledger.finish_step(case.id, 1, "drain", status, detail={}, now=later(1))


# --------------------------------------------------------------------------- approvals


def ask(ledger, case, *, now=None, expires_at=None, plan_hash="p"):
    return ledger.ask(
        case.id,
        case.fence,
        Purpose.REPAIR,
        plan_hash=plan_hash,
        expires_at=expires_at or later(100),
        now=now or later(1),
    )


def decide(ledger, case, decision, *, approver="ann", now=None, plan_hash="p", fence=None):
    return ledger.decide(
        case.id,
        case.fence if fence is None else fence,
        Purpose.REPAIR,
        decision,
        approver=approver,
        channel="cli",
        note="ok",
        plan_hash=plan_hash,
        now=now or later(5),
    )


def test_the_same_question_is_asked_once(ledger):
    case = admit(ledger, "n1")
    first = ask(ledger, case)
    assert ask(ledger, case, now=later(2), expires_at=later(500)) == first
    assert ledger.approvals(case.id) == (first,)


def test_the_first_decision_stands(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    yes = decide(ledger, case, Decision.ALLOWED)
    assert (yes.decision, yes.approver, yes.channel, yes.note, yes.decided_at) == (
        Decision.ALLOWED,
        "ann",
        "cli",
        "ok",
        later(5),
    )
    assert decide(ledger, case, Decision.REFUSED, approver="bob", now=later(6)) == yes
    assert ask(ledger, case, now=later(7)) == yes


def test_a_yes_that_comes_too_late_is_expired(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    late = decide(ledger, case, Decision.ALLOWED, now=later(101))
    assert (late.decision, late.approver) == (Decision.EXPIRED, "ann")


def test_an_answer_to_a_plan_nobody_was_asked_about_is_refused(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    with pytest.raises(Refused, match="nobody was asked") as caught:
        decide(ledger, case, Decision.ALLOWED, plan_hash="another")
    assert caught.value.reason is RefusalReason.NOT_APPROVED


@pytest.mark.parametrize("approver", ["", "  "])
def test_a_yes_without_a_name_is_refused(ledger, approver):
    case = admit(ledger, "n1")
    ask(ledger, case)
    with pytest.raises(Refused, match="without a name"):
        decide(ledger, case, Decision.ALLOWED, approver=approver)
    assert ledger.approvals(case.id)[0].decision is Decision.PENDING


def test_after_silence_the_question_is_asked_anew(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    again = ask(ledger, case, now=later(200), expires_at=later(300))
    assert (again.decision, again.asked_at) == (Decision.PENDING, later(200))
    assert [a.decision for a in ledger.approvals(case.id)] == [Decision.EXPIRED, Decision.PENDING]


def test_a_refusal_stands_even_when_its_time_is_over(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    no = decide(ledger, case, Decision.REFUSED)
    assert ask(ledger, case, now=later(900)) == no


# --------------------------------------------------------------------------- switch and audit


def test_the_kill_switch_is_remembered_with_its_reason(ledger):
    assert ledger.halt_level() is HaltLevel.NONE
    ledger.set_halt(HaltLevel.ALL, actor="ann", reason="fire", now=NOW)
    assert ledger.halt_level() is HaltLevel.ALL
    entry = ledger.audit_entries()[-1]
    assert (entry.event, entry.actor, entry.subject) == ("halt.set", "ann", "test")
    assert entry.detail == {"level": "all", "reason": "fire"}


def test_audit_entries_come_in_order_and_by_pages(ledger):
    for i in range(7):
        ledger.audit("test.event", f"s{i}", actor="a", detail={"i": i}, now=later(i))
    assert [e.seq for e in ledger.audit_entries(limit=3)] == [1, 2, 3]
    assert [e.seq for e in ledger.audit_entries(after=5)] == [6, 7]
    assert ledger.verify_audit() == (7, "")
    last = ledger.audit_entries(after=6)[0]
    assert ledger.head() == (7, last.hash)


def test_the_empty_audit_is_whole(ledger):
    assert ledger.head() == (0, "0" * 64)
    assert ledger.verify_audit() == (0, "")


@pytest.mark.parametrize(
    "detail",
    [
        pytest.param({"x": 0.1 + 0.2, "y": 1e300, "z": -0.0, "big": 2**60}, id="numbers"),
        pytest.param({"a": "\0", "b": "\ud800", "c": "ünï", "d": "\u2028"}, id="hostile text"),
        pytest.param({"at": NOW, "s": Scope(ScopeKind.RACK, "r1"), "n": None}, id="our own types"),
        pytest.param({"b": 1, "a": {"d": [], "c": {}}}, id="nested and unsorted"),
    ],
)
def test_any_detail_goes_through_the_chain_unharmed(ledger, detail):
    ledger.audit("e\0", "s\ud800", actor="a\0", detail=detail, now=NOW)
    assert ledger.verify_audit() == (1, "")


def test_a_limit_counts_a_scope_that_the_intent_does_not_name(ledger):
    extra = Limit(Scope(ScopeKind.SKU, "other"), 0, frozenset())
    no = ledger.admit(an_intent("n1"), [*limits(), extra], requester="s", now=NOW)
    assert no.reason is RefusalReason.SCOPE_FULL
