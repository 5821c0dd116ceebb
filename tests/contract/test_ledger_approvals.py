"""Questions, the kill switch and the audit, on the fake and on Postgres."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from breakfix.approve import settle
from breakfix.errors import Refused, StaleFence
from breakfix.model import (
    Answer,
    CaseEnd,
    Decision,
    HaltLevel,
    Purpose,
    RefusalReason,
    Scope,
    ScopeKind,
    Settlement,
)
from breakfix.policy_approvals import Approvals
from tests.contract.ledger_builders import (
    NOW,
    admit,
    ask,
    decide,
    later,
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


# --------------------------------------------------------------------------- every answer


def an_answer(who, *, is_yes=True, at=5, **changes):
    return Answer(who, is_yes, "cli", later(at), **changes)


def answer(ledger, case, *answers, now=None, needed=1, fence=None, is_begun=False):
    """Answer the question about plan `p` by the real rules, with two approvers."""

    def judge(locked, asked, given):
        policy = SimpleNamespace(approvals=Approvals(approvers=("ann", "bob")))
        return settle(
            asked,
            given,
            policy,
            requester=locked.requester,
            now=now or later(6),
            needed=needed,
            is_begun=is_begun,
        )

    return ledger.answer(
        case.id,
        case.fence if fence is None else fence,
        Purpose.REPAIR,
        answers,
        plan_hash="p",
        settle=judge,
        now=now or later(6),
    )


def test_two_yeses_are_kept_until_they_are_enough(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case, needed=2)
    first = answer(ledger, case, an_answer("ann"))
    assert (first.approval.decision, first.yes, first.objections) == (
        Decision.PENDING,
        ("ann",),
        ("",),
    )
    second = answer(ledger, case, an_answer("bob", note="fine"))
    assert (second.approval.decision, second.approval.approver) == (Decision.ALLOWED, "ann, bob")
    assert [(g.answer.approver, g.objection) for g in ledger.answers(case.id)] == [
        ("ann", ""),
        ("bob", ""),
    ]


def test_the_same_answer_is_recorded_once_and_one_that_did_not_count_with_its_reason(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case, needed=2)
    given = [an_answer("ann"), an_answer("mallory", note="x" * 5000), an_answer("")]
    again = [answer(ledger, case, *given) for _ in range(3)]
    assert again[0].objections == again[2].objections
    assert [(g.answer.approver, g.objection) for g in ledger.answers(case.id)] == [
        ("ann", ""),
        ("mallory", "not an approver by policy"),
        ("", "the answer has no identity"),
    ]
    kept = [e for e in ledger.audit_entries() if e.event == "approval.answered"]
    assert [e.detail["counts"] for e in kept] == [True, False, False]
    assert ledger.verify_audit()[1] == ""


def test_what_did_not_count_never_will(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    assert answer(ledger, case, an_answer("mallory")).approval.decision is Decision.PENDING

    def everybody_counts(locked, asked, given):
        assert not given
        return Settlement(Decision.PENDING)

    key = (case.id, 1, Purpose.REPAIR)
    known = ledger.answer(*key, [], plan_hash="p", settle=everybody_counts, now=later(7))
    assert known.approval.decision is Decision.PENDING


def test_the_database_says_under_which_role_an_answer_was_written(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    answer(ledger, case, an_answer("ann"))
    (given,) = ledger.answers(case.id)
    assert given.role == ledger.role != ""


def test_a_no_takes_a_yes_back_only_where_the_rules_say_so(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    answer(ledger, case, an_answer("ann"))
    no = an_answer("bob", is_yes=False, at=7)
    stands = answer(ledger, case, no, now=later(8), is_begun=True)
    assert (stands.approval.decision, stands.objections) == (
        Decision.ALLOWED,
        ("the question was allowed before",),
    )
    again = an_answer("bob", is_yes=False, at=9)
    back = answer(ledger, case, again, now=later(10))
    assert (back.approval.decision, back.approval.approver) == (Decision.REFUSED, "bob")
    last = answer(ledger, case, an_answer("ann", at=11), now=later(12))
    assert last.approval == back.approval


def test_an_open_question_about_a_repair_follows_its_case_with_its_answers(ledger):
    case = admit(ledger, "n1")
    first = ask(ledger, case, needed=2)
    answer(ledger, case, an_answer("ann"))
    taken = ledger.take_over(case.id, 1, actor="a", reason="r", now=later(10))
    again = ask(ledger, taken, now=later(11), expires_at=later(900), needed=2)
    assert again == replace(first, fence=2)
    done = answer(ledger, taken, an_answer("bob", at=12), now=later(13))
    assert done.approval.decision is Decision.ALLOWED
    assert len(ledger.approvals(case.id)) == 1
    with pytest.raises(StaleFence):
        answer(ledger, taken, an_answer("bob", at=14), fence=1)


def test_a_question_learns_that_it_takes_more_people(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    answer(ledger, case, an_answer("mallory"))
    assert ask(ledger, case, needed=2).needed == 2
    assert ask(ledger, case, needed=1).needed == 2
    answer(ledger, case, an_answer("ann"), an_answer("bob"))
    assert ledger.approvals(case.id)[-1].decision is Decision.ALLOWED


def test_a_yes_of_one_is_none_where_two_are_wanted_now(ledger):
    case = admit(ledger, "n1")
    ask(ledger, case)
    answer(ledger, case, an_answer("ann"))
    again = ask(ledger, case, now=later(8), needed=2)
    assert (again.decision, again.needed) == (Decision.PENDING, 2)
    assert [a.decision for a in ledger.approvals(case.id)] == [Decision.ALLOWED, Decision.PENDING]


def test_open_questions_are_those_of_open_cases_about_their_plan(ledger):
    cases = [admit(ledger, f"n{i}") for i in range(4)]
    for case in cases:
        ask(ledger, case, plan_hash=case.plan_hash)
    ask(ledger, cases[0])
    ledger.end_case(cases[1].id, 1, CaseEnd.ABORTED, actor="a", reason="r", now=later(3))
    ledger.take_over(cases[2].id, 1, actor="a", reason="r", now=later(3))
    decide(ledger, cases[3], Decision.ALLOWED, plan_hash=cases[3].plan_hash)
    assert [q.case_id for q in ledger.questions()] == [cases[0].id]


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
