"""Admission, on the fake and on Postgres: who gets a slot, and when it is free again."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.errors import Refused
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    HaltLevel,
    NodeState,
    Refusal,
    RefusalReason,
    Scope,
    ScopeKind,
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


def test_a_node_that_was_given_back_unrepaired_is_another_plan_each_time(ledger):
    plans = [an_intent("n1").hash]
    for minute in (60, 70):
        (case,) = ledger.cases()[-1:] or (admit(ledger, "n1"),)
        to_returning(ledger, case)
        back = ledger.admit(an_intent("n1"), limits(rack=1), requester="s", now=later(minute))
        plans.append(back.plan_hash)
    assert len(set(plans)) == 3


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


def test_a_limit_counts_a_scope_that_the_intent_does_not_name(ledger):
    extra = Limit(Scope(ScopeKind.SKU, "other"), 0, frozenset())
    no = ledger.admit(an_intent("n1"), [*limits(), extra], requester="s", now=NOW)
    assert no.reason is RefusalReason.SCOPE_FULL


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
