"""Questions, the kill switch and the audit, on the fake and on Postgres."""

from __future__ import annotations

import pytest

from breakfix.errors import Refused
from breakfix.model import (
    Decision,
    HaltLevel,
    RefusalReason,
    Scope,
    ScopeKind,
)
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
