"""Whose answer counts: for this plan, in time, by an approver, who did not ask for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.approve import ANNOTATION, ANNOTATOR, settle
from breakfix.model import Answer, Approval, Decision, Purpose
from breakfix.policy import Approvals

ASKED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXPIRES = ASKED + timedelta(hours=1)
POLICY = SimpleNamespace(approvals=Approvals(approvers=("ann", "bob", "cat")))
QUESTION = Approval("case-1", 1, Purpose.REPAIR, "plan-1", ASKED, EXPIRES)

ALLOWED, REFUSED = Decision.ALLOWED, Decision.REFUSED
EXPIRED, PENDING = Decision.EXPIRED, Decision.PENDING


def yes(who="ann", after_s=60.0, **changes):
    return Answer(who, True, "cli", ASKED + timedelta(seconds=after_s), **changes)


def no(who="ann", after_s=60.0):
    return replace(yes(who, after_s), is_yes=False)


def judge(answers, *, question=QUESTION, requester="fleet_sweep", after_s=120.0, is_final=False):
    now = ASKED + timedelta(seconds=after_s)
    return settle(question, answers, POLICY, requester=requester, now=now, is_final=is_final)


@pytest.mark.parametrize(
    ("answers", "decision", "approver"),
    [
        pytest.param([yes()], ALLOWED, "ann", id="an approver says yes"),
        pytest.param([no()], REFUSED, "ann", id="an approver says no"),
        pytest.param([], PENDING, "", id="nobody has said anything yet"),
        pytest.param([yes("")], PENDING, "", id="a yes without an identity"),
        pytest.param([no("")], PENDING, "", id="a no without an identity"),
        pytest.param([yes("mallory")], PENDING, "", id="a yes of no approver"),
        pytest.param([no("mallory")], PENDING, "", id="a no of no approver"),
        pytest.param([yes("Ann")], PENDING, "", id="a name that only looks like an approver's"),
        pytest.param([yes(plan_hash="plan-1")], ALLOWED, "ann", id="a yes for this very plan"),
        pytest.param([yes(plan_hash="plan-0")], PENDING, "", id="a yes for another plan"),
        pytest.param([yes(after_s=0)], ALLOWED, "ann", id="a yes at the moment of asking"),
        pytest.param([yes(after_s=-1)], PENDING, "", id="a yes older than the question"),
        pytest.param([yes(after_s=3599)], ALLOWED, "ann", id="a yes in the last second"),
        pytest.param([yes(after_s=3600)], PENDING, "", id="a yes when time was up"),
        pytest.param(
            [yes("ann", 10), yes("bob", 20)], ALLOWED, "ann", id="two who agree: the first"
        ),
        pytest.param([yes("ann", 10), no("bob", 20)], REFUSED, "bob", id="one no outweighs a yes"),
        pytest.param([no("bob", 20), yes("ann", 10)], REFUSED, "bob", id="in any order"),
        pytest.param([yes("mallory", 1), yes("bob", 2)], ALLOWED, "bob", id="the one that counts"),
    ],
)
def test_answers_about_a_repair(answers, decision, approver):
    settled = judge(answers)
    assert (settled.decision, settled.approver) == (decision, approver)


@pytest.mark.parametrize(
    ("purpose", "requester", "decision"),
    [
        pytest.param(Purpose.REPAIR, "ann", PENDING, id="nobody approves a repair they asked for"),
        pytest.param(Purpose.REPAIR, "cli:ann", PENDING, id="nor one asked for by command line"),
        pytest.param(Purpose.REPAIR, "bob", ALLOWED, id="a colleague may"),
        pytest.param(Purpose.RETURN, "ann", ALLOWED, id="a return they may approve"),
    ],
)
def test_requester_and_approver(purpose, requester, decision):
    question = replace(QUESTION, purpose=purpose)
    assert judge([yes("ann")], question=question, requester=requester).decision is decision


@pytest.mark.parametrize("decided", [ALLOWED, REFUSED, EXPIRED])
def test_the_first_decision_stands_whatever_is_said_later(decided):
    question = replace(QUESTION, decision=decided, approver="bob", note="first")
    settled = judge([yes("ann"), no("ann")], question=question, is_final=True, after_s=9999)
    assert (settled.decision, settled.approver, settled.note) == (decided, "bob", "first")


@pytest.mark.parametrize(
    ("after_s", "is_final", "decision"),
    [
        pytest.param(3599, False, PENDING, id="there is time left"),
        pytest.param(3600, False, EXPIRED, id="time is up"),
        pytest.param(10, True, EXPIRED, id="the question was closed at its source"),
    ],
)
def test_silence_is_never_a_yes(after_s, is_final, decision):
    assert judge([], after_s=after_s, is_final=is_final).decision is decision


def test_an_answer_in_time_counts_however_late_it_is_read():
    assert judge([yes(after_s=10)], after_s=99999).decision is ALLOWED


def test_what_did_not_count_is_said_with_its_reason():
    note = judge([yes("mallory"), yes("")], is_final=True).note
    assert "mallory does not count: not an approver by policy" in note
    assert "nobody does not count: the answer has no identity" in note


def test_nobody_may_approve_until_policy_names_people():
    policy = SimpleNamespace(approvals=Approvals())
    now = ASKED + timedelta(seconds=1)
    assert settle(QUESTION, [yes()], policy, requester="x", now=now).decision is PENDING


# --------------------------------------------------------------------------- two people

TWO = replace(QUESTION, needed=2)


@pytest.mark.parametrize(
    ("answers", "decision", "approver", "yes"),
    [
        pytest.param([yes("ann")], PENDING, "", ("ann",), id="one of two: it stays open"),
        pytest.param(
            [yes("ann", 10), yes("bob", 20)], ALLOWED, "ann, bob", ("ann", "bob"), id="both"
        ),
        pytest.param([yes("ann", 10), yes("ann", 20)], PENDING, "", ("ann",), id="one, twice"),
        pytest.param(
            [yes("ann", 10), replace(yes("ann", 20), channel="airflow_required_action")],
            PENDING,
            "",
            ("ann",),
            id="one, by two channels",
        ),
        pytest.param([yes("ann", 10), yes("mallory", 20)], PENDING, "", ("ann",), id="a stranger"),
        pytest.param([yes("ann", 10), no("bob", 20)], REFUSED, "bob", (), id="one yes, one no"),
        pytest.param([yes("ann", 10), no("ann", 20)], REFUSED, "ann", (), id="a change of mind"),
        pytest.param(
            [yes("ann", 10, plan_hash="plan-0"), yes("bob", 20)],
            PENDING,
            "",
            ("bob",),
            id="one of them for an older plan",
        ),
    ],
)
def test_a_question_that_wants_two_people(answers, decision, approver, yes):
    settled = judge(answers, question=TWO)
    assert (settled.decision, settled.approver, settled.yes) == (decision, approver, yes)


def test_one_of_two_is_the_requester():
    both = [yes("ann", 10), yes("bob", 20)]
    settled = judge(both, question=TWO, requester="cli:Bob")
    assert (settled.decision, settled.yes) == (PENDING, ("ann",))
    assert settled.objections == ("", "requester and approver are the same person")
    returning = replace(TWO, purpose=Purpose.RETURN)
    assert judge(both, question=returning, requester="cli:bob").decision is ALLOWED


@pytest.mark.parametrize(
    ("after_s", "is_final", "decision"),
    [
        pytest.param(60, True, PENDING, id="closed at its source: another person may be asked"),
        pytest.param(3600, True, EXPIRED, id="time is up"),
        pytest.param(3600, False, EXPIRED, id="time is up, whatever the channel says"),
    ],
)
def test_half_a_yes_is_none(after_s, is_final, decision):
    settled = judge([yes("ann", 10)], question=TWO, after_s=after_s, is_final=is_final)
    assert (settled.decision, settled.yes) == (decision, ("ann",))
    assert "1 of 2 said yes: ann" in settled.note


def test_a_policy_that_became_stricter_asks_for_a_second_person():
    now = ASKED + timedelta(seconds=90)
    settled = settle(QUESTION, [yes("ann")], POLICY, requester="x", now=now, needed=2)
    assert settled.decision is PENDING


@pytest.mark.parametrize(
    ("is_begun", "answers", "decision"),
    [
        pytest.param(False, [yes("ann", 10), no("bob", 20)], REFUSED, id="before the act"),
        pytest.param(True, [yes("ann", 10), no("bob", 20)], ALLOWED, id="after it has begun"),
        pytest.param(False, [yes("ann", 10), no("mallory", 20)], ALLOWED, id="by a stranger"),
        pytest.param(False, [yes("ann", 10), no("bob", 4000)], ALLOWED, id="too late"),
    ],
)
def test_a_no_takes_a_yes_back_until_the_act_begins(is_begun, answers, decision):
    question = replace(QUESTION, decision=ALLOWED, approver="ann")
    now = ASKED + timedelta(seconds=90)
    settled = settle(question, answers, POLICY, requester="x", now=now, is_begun=is_begun)
    assert settled.decision is decision


def test_no_yes_follows_a_no():
    question = replace(QUESTION, decision=REFUSED, approver="bob")
    now = ASKED + timedelta(seconds=90)
    settled = settle(question, [yes("ann")], POLICY, requester="x", now=now, is_begun=False)
    assert (settled.decision, settled.objections) == (
        REFUSED,
        ("the question was refused before",),
    )


# --------------------------------------------------------------------------- an annotation


@pytest.mark.parametrize(
    ("rules", "question", "is_yes", "decision"),
    [
        pytest.param({"annotation_returns": True}, {}, True, ALLOWED, id="a return, by policy"),
        pytest.param({}, {}, True, PENDING, id="unless policy says so it is nobody's word"),
        pytest.param(
            {"annotation_returns": True},
            {"purpose": Purpose.REPAIR},
            True,
            PENDING,
            id="never a disruption",
        ),
        pytest.param(
            {"annotation_returns": True}, {"needed": 2}, True, PENDING, id="nor one of two people"
        ),
        pytest.param({"annotation_returns": True}, {}, False, PENDING, id="nor a no"),
    ],
)
def test_what_an_annotation_may_confirm(rules, question, is_yes, decision):
    policy = SimpleNamespace(approvals=Approvals(approvers=("ann",), **rules))
    asked = replace(QUESTION, **{"purpose": Purpose.RETURN, **question})
    answer = replace(yes(ANNOTATOR), channel=ANNOTATION, is_yes=is_yes)
    now = ASKED + timedelta(seconds=90)
    assert settle(asked, [answer], policy, requester="x", now=now).decision is decision


# --------------------------------------------------------------------------- whatever is said

answers = st.lists(
    st.builds(
        Answer,
        approver=st.sampled_from(["", "ann", "bob", "cat", "mallory", "cli:ann"]),
        is_yes=st.booleans(),
        channel=st.sampled_from(["cli", "airflow_required_action", ANNOTATION]),
        at=st.integers(-100, 4000).map(lambda s: ASKED + timedelta(seconds=s)),
        plan_hash=st.sampled_from(["", "plan-1", "plan-0"]),
    ),
    max_size=6,
)


@given(answers, st.integers(0, 8000), st.booleans(), st.randoms(use_true_random=False))
def test_allowed_only_by_an_approver_in_time_with_no_veto(given_, after_s, is_final, random):
    settled = judge(given_, requester="cli:bob", after_s=after_s, is_final=is_final)
    is_allowed = bool(counted(given_)) and all(a.is_yes for a in counted(given_))
    assert (settled.decision is ALLOWED) is is_allowed
    random.shuffle(given_)
    again = judge(given_, requester="cli:bob", after_s=after_s, is_final=is_final)
    assert again.decision is settled.decision


def counted(answers, requester="cli:bob"):
    """What counts, said once more in other words: the two approvers, but for the requester."""
    approvers = {"ann", "bob", "cat"} - {requester.removeprefix("cli:")}
    return [
        a
        for a in answers
        if a.approver in approvers
        and a.channel != ANNOTATION
        and a.plan_hash != "plan-0"
        and ASKED <= a.at < EXPIRES
    ]


@given(
    answers,
    st.sampled_from(["fleet_sweep", "cli:bob", "ANN"]),
    st.booleans(),
    st.integers(0, 8000),
    st.randoms(use_true_random=False),
)
def test_two_distinct_approvers_and_no_veto_or_it_is_not_allowed(
    given_, requester, is_begun, after_s, random
):
    now = ASKED + timedelta(seconds=after_s)
    how = {"requester": requester, "now": now, "is_begun": is_begun}
    settled = settle(TWO, given_, POLICY, **how)
    mine = counted(given_, requester.casefold())
    people = {a.approver for a in mine}
    is_allowed = len(people) >= 2 and all(a.is_yes for a in mine)
    assert (settled.decision is ALLOWED) is is_allowed
    assert len(settled.objections) == len(given_)
    shuffled = random.sample(given_, len(given_))
    again = settle(TWO, shuffled, POLICY, **how)
    assert (again.decision, again.yes, again.note) == (
        settled.decision,
        settled.yes,
        settled.note,
    )


@given(answers, st.lists(answers, max_size=4), st.integers(0, 8000))
def test_whatever_comes_later_a_no_is_never_overturned(first, more, after_s):
    """Answers come in batches; each is settled with all that counted before it."""
    question, kept = TWO, []
    was_refused = False
    for batch in [first, *more]:
        now = ASKED + timedelta(seconds=after_s)
        settled = settle(question, [*kept, *batch], POLICY, requester="x", now=now, is_begun=False)
        objections = settled.objections[len(kept) :]
        kept += [a for a, why in zip(batch, objections, strict=True) if not why]
        assert not (was_refused and settled.decision is not REFUSED)
        was_refused = settled.decision is REFUSED
        question = replace(question, decision=settled.decision, approver=settled.approver)
    said_no = [a for a in kept if not a.is_yes]
    assert question.decision is not ALLOWED or not said_no
