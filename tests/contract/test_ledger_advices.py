"""Advice on changes, in every ledger."""

from __future__ import annotations

from breakfix.cohorts import Advice
from tests.contract.ledger_builders import NOW, events, later

SCOPE = "driver_version=580.95.05 sku=H100 pool=train"
NODES = frozenset({"n2", "n1"})


def advise(ledger, advice=Advice.CONTINUE, *, reason="too few requests", now=NOW, scope=SCOPE):
    detail = {"what": "driver_version", "value": "580.95.05"}
    return ledger.record_advice(
        scope, advice, reason=reason, nodes=NODES, detail=detail, actor="change_canary", now=now
    )


def test_an_advice_is_kept_as_it_was_given(ledger):
    given = advise(ledger)
    assert ledger.advices() == (given,)
    assert (given.scope, given.advice, given.nodes) == (SCOPE, Advice.CONTINUE, NODES)
    assert (given.first_seen, given.last_seen, given.closed_at) == (NOW, NOW, None)
    assert given.detail["value"] == "580.95.05"


def test_the_same_change_is_renewed_and_only_another_advice_is_audited(ledger):
    advise(ledger)
    advise(ledger, reason="still too few", now=later(60))
    last = advise(ledger, Advice.ROLL_BACK, reason="errors", now=later(120))
    assert ledger.advices() == (last,)
    assert (last.first_seen, last.last_seen, last.reason) == (NOW, later(120), "errors")
    told = [e for e in ledger.audit_entries() if e.event == "change.advised"]
    assert [e.detail["advice"] for e in told] == ["continue", "roll_back"]
    assert told[1].detail["nodes"] == ["n1", "n2"]
    assert told[1].subject == SCOPE


def test_a_change_that_is_gone_is_closed_once_and_may_come_again(ledger):
    first = advise(ledger, Advice.ROLL_BACK)
    for _ in range(2):
        ledger.close_advice(SCOPE, actor="change_canary", reason="gone", now=later(60))
    assert ledger.advices() == ()
    assert events(ledger) == ["change.advised", "change.closed"]
    again = advise(ledger, now=later(120))
    assert again.id != first.id
    assert [a.closed_at for a in ledger.advices(open_only=False)] == [later(60), None]
    assert ledger.verify_audit()[1] == ""


def test_changes_do_not_mix(ledger):
    advise(ledger)
    advise(ledger, Advice.PROCEED, scope="deploy=x")
    ledger.close_advice("deploy=x", actor="a", reason="gone", now=later(1))
    assert [a.scope for a in ledger.advices()] == [SCOPE]
