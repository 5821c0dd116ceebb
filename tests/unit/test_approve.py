"""Whose answer counts: for this plan, in time, by an approver, who did not ask for it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.approve import settle
from breakfix.model import Answer, Approval, Decision, Purpose
from breakfix.policy import Approvals

ASKED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
EXPIRES = ASKED + timedelta(hours=1)
POLICY = SimpleNamespace(approvals=Approvals(approvers=("ann", "bob")))
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


answers = st.lists(
    st.builds(
        Answer,
        approver=st.sampled_from(["", "ann", "bob", "mallory", "cli:ann"]),
        is_yes=st.booleans(),
        channel=st.just("cli"),
        at=st.integers(-100, 4000).map(lambda s: ASKED + timedelta(seconds=s)),
        plan_hash=st.sampled_from(["", "plan-1", "plan-0"]),
    ),
    max_size=6,
)


@given(answers, st.integers(0, 8000), st.booleans(), st.randoms(use_true_random=False))
def test_allowed_only_by_an_approver_in_time_with_no_veto(given_, after_s, is_final, random):
    settled = judge(given_, requester="cli:bob", after_s=after_s, is_final=is_final)
    counted = [
        a
        for a in given_
        if a.approver == "ann" and a.plan_hash != "plan-0" and ASKED <= a.at < EXPIRES
    ]
    is_allowed = bool(counted) and all(a.is_yes for a in counted)
    assert (settled.decision is ALLOWED) is is_allowed
    random.shuffle(given_)
    again = judge(given_, requester="cli:bob", after_s=after_s, is_final=is_final)
    assert again.decision is settled.decision
