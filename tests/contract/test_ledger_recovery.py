"""What recovery asks of the ledger: slots beside cases, cases opened again, figures of one look."""

from __future__ import annotations

import psycopg
import pytest

from breakfix.errors import LedgerError
from breakfix.model import Case, CaseEnd, NodeState, Purpose, RefusalReason
from tests.contract.ledger_builders import (
    NOW,
    RACK,
    admit,
    an_intent,
    ask,
    connect,
    events,
    later,
    limits,
    to_returning,
    together,
)


def escalated(ledger, node="n1"):
    case = admit(ledger, node)
    return ledger.end_case(case.id, 1, CaseEnd.ESCALATED, actor="a", reason="r", now=later(5))


def test_every_case_that_is_out_holds_its_scopes_and_no_other_does(ledger):
    out, back = admit(ledger, "n1"), to_returning(ledger, admit(ledger, "n2"))
    escalated(ledger, "n3")
    assert {(x.node, x.case_id) for x in ledger.leases()} == {("n1", out.id)}
    assert {x.scope for x in ledger.leases()} == set(out.scopes)
    assert ledger.mend_leases(actor="a", now=later(20)) == ()
    assert ledger.case(back.id).state is NodeState.RETURNING


def test_a_slot_of_a_case_that_has_ended_is_freed_and_one_that_was_lost_is_taken(ledger_url):
    from breakfix.adapters.ledger import PostgresLedger

    ledger = PostgresLedger(ledger_url, "test")
    try:
        gone, out = escalated(ledger, "n1"), admit(ledger, "n2")
        with connect(ledger_url) as connection:
            connection.execute("UPDATE breakfix.leases SET node='n1', case_id=%s", [gone.id])
        told = ledger.mend_leases(actor="reconcile_cases", now=later(9))
        assert len(told) == 6
        assert any("freed the slot of rack=r1 by n1" in t for t in told)
        assert {(x.node, x.case_id) for x in ledger.leases()} == {("n2", out.id)}
        assert events(ledger)[-1] == "leases.mended"
        assert ledger.mend_leases(actor="reconcile_cases", now=later(10)) == ()
        assert ledger.verify_audit()[1] == ""
    finally:
        ledger.close()


def test_two_open_cases_for_one_node_cannot_be(open_ledger, ledger_url):
    first, second = open_ledger(), open_ledger()
    results = together(
        [
            lambda ledger=ledger: ledger.admit(an_intent("n1"), limits(), requester="s", now=NOW)
            for ledger in (first, second)
            for _ in range(4)
        ]
    )
    (case,) = (r for r in results if isinstance(r, Case))
    assert {r.reason for r in results if r is not case} == {RefusalReason.CASE_OPEN}
    twin = """
        CREATE TEMPORARY TABLE twin AS SELECT * FROM breakfix.cases;
        UPDATE twin SET id = 'twin';
        INSERT INTO breakfix.cases SELECT * FROM twin;
    """
    with connect(ledger_url) as connection:
        refused = pytest.raises(psycopg.errors.UniqueViolation, match="one_open_case")
        with refused:
            connection.execute(twin)


def test_an_escalated_case_goes_on_with_its_validation_and_holds_its_scopes_again(ledger):
    case = escalated(ledger)
    again = ledger.reopen(case.id, actor="ann", reason="new baseboard", now=later(60))
    assert (again.state, again.fence, again.is_open) == (NodeState.VALIDATING, 2, True)
    assert again.repaired_at == later(60)
    assert {x.scope for x in ledger.leases()} == set(case.scopes)
    assert events(ledger)[-1] == "case.reopened"
    full = ledger.admit(an_intent("n2"), limits(rack=1), requester="sweep", now=later(61))
    assert (full.reason, full.scope) == (RefusalReason.SCOPE_FULL, RACK)


@pytest.mark.parametrize("end", [CaseEnd.ABORTED, CaseEnd.OVERRIDDEN, CaseEnd.NODE_GONE])
def test_only_an_escalated_case_is_opened_again(ledger, end):
    case = admit(ledger, "n1")
    ledger.end_case(case.id, 1, end, actor="a", reason="r", now=later(5))
    with pytest.raises(LedgerError, match="only an escalated one"):
        ledger.reopen(case.id, actor="ann", reason="r", now=later(6))
    assert not ledger.leases()


def test_an_escalated_case_that_another_one_followed_stays_closed(ledger):
    old = escalated(ledger)
    ledger.admit(an_intent("n1"), limits(), requester="sweep", now=later(30))
    with pytest.raises(LedgerError, match="is old"):
        ledger.reopen(old.id, actor="ann", reason="r", now=later(31))


def test_cases_can_be_asked_for_from_a_moment_on(ledger):
    admit(ledger, "n1")
    late = admit(ledger, "n2", now=later(100))
    assert ledger.cases(opened_since=later(50)) == (late,)


def test_figures_count_what_is_open_now(ledger):
    case, ended = admit(ledger, "n1"), admit(ledger, "n2")
    for each in (case, ended):
        ledger.begin_step(each.id, 1, "drain-1", detail={"text": "t"}, now=later(1))
        ask(ledger, each)
    ledger.end_case(ended.id, 1, CaseEnd.ABORTED, actor="a", reason="r", now=later(5))
    found = ledger.figures()
    assert [(s.case_id, s.name) for s in found.steps] == [(case.id, "drain-1")]
    assert [(q.case_id, q.purpose) for q in found.questions] == [(case.id, Purpose.REPAIR)]
    assert found.leases[RACK] == 1
    assert found.head == ledger.head()
    assert found.swept_at is None
    ledger.take_over(case.id, 1, actor="a", reason="r", now=later(6))
    assert ledger.figures().questions == ()
