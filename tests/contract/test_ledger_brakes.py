"""Breakers and emergencies, on the fake and on Postgres: opened, closed, lifted, never passed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.brakes import BreakerRule, Lift
from breakfix.errors import LedgerError, Refused
from breakfix.model import Case, CaseEnd, NodeState, RefusalReason, Scope, ScopeKind
from breakfix.ports import Limit
from tests.contract.ledger_builders import (
    FLEET,
    NOW,
    RACK,
    an_intent,
    events,
    later,
    to_returning,
    together,
)

WINDOW_S, COOL_S = 3600.0, 1800.0


def rule(most, scope=FLEET):
    return BreakerRule(scope, most, WINDOW_S, COOL_S)


def held(most, **lift):
    return [Limit(FLEET, 100, frozenset(), breaker=rule(most), **lift)]


def admit(ledger, node, most=2, *, s=0, **lift):
    return ledger.admit(an_intent(node), held(most, **lift), requester="sweep", now=later(s))


def watch(ledger, sick=(), well=(), *, most=2, s=0, scopes=(FLEET,)):
    return ledger.watch_storms(
        {scope: rule(most, scope) for scope in scopes},
        dict.fromkeys(sick, (FLEET, RACK)),
        frozenset(well),
        actor="sweep",
        now=later(s),
    )


def is_open(ledger, scope=FLEET):
    return ledger.storms(since=later(-99999)).breaker(scope).is_open


# --------------------------------------------------------------------------- it opens


def test_one_node_too_many_is_refused_and_opens_it(ledger):
    assert isinstance(admit(ledger, "n1"), Case)
    assert isinstance(admit(ledger, "n2"), Case)
    assert not is_open(ledger)
    no = admit(ledger, "n3", s=5)
    assert (no.reason, no.scope) == (RefusalReason.BREAKER, FLEET)
    assert "3 distinct nodes" in no.text
    assert is_open(ledger)
    assert "breaker.opened" in events(ledger)
    assert ledger.cases(node="n3") == ()


def test_an_open_one_refuses_though_nothing_counts_any_more(ledger):
    for node in ("n1", "n2", "n3"):
        admit(ledger, node)
    no = admit(ledger, "n9", s=10 * WINDOW_S)
    assert no.reason is RefusalReason.BREAKER
    assert "breakfix breaker reset" in no.text


def test_the_window_slides(ledger):
    for number in range(6):
        assert isinstance(admit(ledger, f"n{number}", s=number * WINDOW_S / 2 + number), Case)


def test_one_node_that_breaks_again_and_again_is_one_node(ledger):
    for turn in range(5):
        case = admit(ledger, "n1", most=1, s=60 * turn)
        assert isinstance(case, Case)
        ledger.end_case(
            case.id, case.fence, CaseEnd.ABORTED, actor="a", reason="r", now=later(60 * turn + 1)
        )
        watch(ledger, ["n1"] * (turn % 2), ["n1"] * (1 - turn % 2), most=1, s=60 * turn + 2)
    assert not is_open(ledger)


def test_nodes_that_turn_ill_open_it_without_any_admission(ledger):
    assert watch(ledger, ["n1", "n2"]) == ()
    (opened,) = watch(ledger, ["n1", "n2", "n3"], s=60)
    assert opened.is_open
    assert "3 distinct nodes of fleet" in opened.reason
    assert admit(ledger, "n4", s=61).reason is RefusalReason.BREAKER


def test_a_node_that_stays_ill_strikes_once(ledger):
    watch(ledger, ["n1", "n2"])
    watch(ledger, ["n1", "n2"], s=2 * WINDOW_S)
    assert watch(ledger, ["n1", "n2", "n3"], s=2 * WINDOW_S + 60) == ()


def test_a_node_that_nobody_can_judge_is_neither_ill_anew_nor_well(ledger):
    watch(ledger, ["n1"])
    watch(ledger, [], [], s=600)
    watch(ledger, ["n1"], s=1200)
    strikes = ledger.storms(since=later(-1)).strikes[FLEET]
    assert [s.at for s in strikes] == [NOW]


def test_a_node_that_was_well_in_between_strikes_anew(ledger):
    watch(ledger, ["n1"])
    watch(ledger, [], ["n1"], s=600)
    watch(ledger, ["n1"], s=1200)
    assert [s.at for s in ledger.storms(since=later(-1)).strikes[FLEET]] == [later(1200)]


def test_one_scope_opens_and_the_others_do_not(ledger):
    watch(ledger, ["n1", "n2", "n3"], scopes=(RACK,))
    assert is_open(ledger, RACK)
    assert not is_open(ledger)
    assert isinstance(admit(ledger, "n4", most=9, s=1), Case)


def test_a_persons_own_drain_is_no_strike_but_an_open_one_holds_it(ledger):
    by_hand = replace(an_intent("n1"), is_by_hand=True)
    assert isinstance(ledger.admit(by_hand, held(2), requester="cli:ann", now=NOW), Case)
    assert FLEET not in ledger.storms(since=later(-1)).strikes
    watch(ledger, ["n5", "n6", "n7"])
    other = replace(an_intent("n2"), is_by_hand=True)
    no = ledger.admit(other, held(2), requester="cli:ann", now=later(1))
    assert no.reason is RefusalReason.BREAKER


# --------------------------------------------------------------------------- it closes


def test_it_closes_once_no_other_node_was_struck_for_long_enough(ledger):
    watch(ledger, ["n1", "n2", "n3"])
    watch(ledger, ["n1", "n2", "n3", "n4"], s=COOL_S - 1)
    assert watch(ledger, ["n1", "n2", "n3", "n4"], s=COOL_S + 1) == ()
    (closed,) = watch(ledger, ["n1", "n2", "n3", "n4"], s=2 * COOL_S)
    assert not closed.is_open
    assert isinstance(admit(ledger, "n5", s=2 * COOL_S + 1), Case)
    assert events(ledger).count("breaker.closed") == 1


def test_time_alone_closes_nothing_while_nobody_looks(ledger):
    watch(ledger, ["n1", "n2", "n3"])
    assert admit(ledger, "n5", s=99 * COOL_S).reason is RefusalReason.BREAKER


def test_a_reset_counts_nothing_of_before(ledger):
    watch(ledger, ["n1", "n2", "n3"])
    made = ledger.reset_breaker(FLEET, actor="cli:ann", reason="the switch is back", now=later(9))
    assert (made.is_open, made.reset_by) == (False, "cli:ann")
    assert watch(ledger, ["n1", "n2", "n3"], s=10) == ()
    assert isinstance(admit(ledger, "n1", s=11), Case)
    assert isinstance(admit(ledger, "n2", s=12), Case)
    assert admit(ledger, "n9", s=13).reason is RefusalReason.BREAKER
    entry = next(e for e in ledger.audit_entries() if e.event == "breaker.reset")
    assert (entry.actor, entry.detail["reason"]) == ("cli:ann", "the switch is back")


def test_what_never_opened_cannot_be_reset(ledger):
    with pytest.raises(LedgerError, match="never opened"):
        ledger.reset_breaker(FLEET, actor="cli:ann", reason="r", now=NOW)


def test_an_open_breaker_holds_no_return(ledger):
    case = admit(ledger, "n1")
    watch(ledger, ["n1", "n2", "n3"])
    assert to_returning(ledger, case).state is NodeState.RETURNING
    ended = ledger.end_case(
        case.id, case.fence, CaseEnd.RETURNED, actor="a", reason="fine", now=later(99)
    )
    assert ended.end is CaseEnd.RETURNED


# --------------------------------------------------------------------------- many hands


def test_a_restart_in_a_storm_forgets_nothing(open_ledger):
    before = open_ledger()
    admit(before, "n1")
    watch(before, ["n2"])
    before.close()
    after = open_ledger()
    assert admit(after, "n3", s=60).reason is RefusalReason.BREAKER


@pytest.mark.parametrize("seed", range(2))
def test_two_planners_at_once_never_pass_it(open_ledger, seed):
    planners = [open_ledger() for _ in range(4)]
    nodes = [f"n{seed}-{i}" for i in range(20)]

    def propose(planner, node):
        number = int(node.partition("-")[2])
        own = an_intent(node, rack=f"r{number % 3}")
        rack = Scope(ScopeKind.RACK, f"r{number % 3}")
        limits = [*held(5), Limit(rack, 100, frozenset(), breaker=rule(2, rack))]
        return planner.admit(own, limits, requester="p", now=later(number))

    jobs = [lambda p=p, n=n: propose(p, n) for p in planners for n in nodes]
    results = [r for i in range(0, len(jobs), 8) for r in together(jobs[i : i + 8])]
    assert not [r for r in results if isinstance(r, Exception)]
    admitted = [r for r in results if isinstance(r, Case)]
    assert len({c.node for c in admitted}) == len(admitted) <= 5
    assert is_open(planners[0]) or len(admitted) < 5
    assert planners[0].verify_audit()[1] == ""


# --------------------------------------------------------------------------- emergencies


def ask(ledger, *lifts, s=0, requester="ann", approver="bob"):
    return ledger.ask_emergency(
        frozenset(lifts or (Lift.FLEET,)),
        lasts_s=7200.0,
        requester=requester,
        approver=approver,
        reason="power goes at three",
        answer_by=later(s + 1800),
        now=later(s),
    )


def full(**lift):
    return [Limit(FLEET, 0, frozenset(), **lift)]


def try_full(ledger, node, s, lifted=2):
    return ledger.admit(an_intent(node), full(lifted=lifted), requester="s", now=later(s))


def test_an_emergency_lifts_nothing_until_it_is_approved_and_ends_by_itself(ledger):
    ask(ledger)
    assert try_full(ledger, "n1", 1).reason is RefusalReason.FLEET_SHARE
    made = ledger.approve_emergency(approver="bob", now=later(60))
    assert made.until == later(60 + 7200)
    assert isinstance(try_full(ledger, "n1", 61), Case)
    admitted = next(e for e in ledger.audit_entries() if e.event == "case.admitted")
    assert "by ann and bob: power goes at three" in admitted.detail["emergency"]
    assert try_full(ledger, "n2", 60 + 7200).reason is RefusalReason.FLEET_SHARE
    assert events(ledger)[:1] == ["emergency.asked"]
    assert "emergency.approved" in events(ledger)


def test_a_lifted_limit_has_a_last_one(ledger):
    ask(ledger)
    ledger.approve_emergency(approver="bob", now=later(1))
    assert isinstance(try_full(ledger, "n1", 2), Case)
    assert isinstance(try_full(ledger, "n2", 2), Case)
    assert try_full(ledger, "n3", 2).reason is RefusalReason.FLEET_SHARE


def test_what_it_does_not_name_or_policy_does_not_let_it_lift_holds(ledger):
    ask(ledger, Lift.RACK, Lift.BREAKER)
    ledger.approve_emergency(approver="bob", now=later(1))
    assert try_full(ledger, "n1", 2).reason is RefusalReason.FLEET_SHARE
    assert admit(ledger, "n1", most=0, s=3).reason is RefusalReason.BREAKER
    assert isinstance(admit(ledger, "n2", most=0, s=4, may_lift_breaker=True), Case)


def test_it_may_be_ended_at_once(ledger):
    ask(ledger)
    ledger.approve_emergency(approver="bob", now=later(1))
    ended = ledger.end_emergency(actor="cli:eve", reason="over", now=later(2))
    assert ended.ended_by == "cli:eve"
    assert try_full(ledger, "n1", 3).reason is RefusalReason.FLEET_SHARE
    assert ledger.end_emergency(actor="cli:eve", reason="", now=later(4)) is None


@pytest.mark.parametrize(
    ("who", "s", "says"),
    [
        pytest.param("ann", 1, "same person", id="the requester"),
        pytest.param("eve", 1, "was not asked", id="somebody else"),
        pytest.param("", 1, "was not asked", id="nobody"),
        pytest.param("bob", 1800, "its time is over", id="too late"),
    ],
)
def test_a_yes_that_does_not_count(ledger, who, s, says):
    ask(ledger)
    with pytest.raises(Refused, match=says) as caught:
        ledger.approve_emergency(approver=who, now=later(s))
    assert caught.value.reason is RefusalReason.NOT_APPROVED


def test_there_is_one_at_a_time(ledger):
    ask(ledger)
    with pytest.raises(Refused, match="asked for already"):
        ask(ledger, s=1)
    ledger.approve_emergency(approver="bob", now=later(2))
    with pytest.raises(Refused, match="in force already"):
        ask(ledger, s=3)
    with pytest.raises(Refused, match="none was asked"):
        ledger.approve_emergency(approver="bob", now=later(4))
    assert ask(ledger, s=9000).is_asked(later(9001))
    assert [e.requester for e in ledger.emergencies()] == ["ann", "ann"]


def test_of_two_that_ask_at_once_one_is_refused(open_ledger):
    ledgers = [open_ledger() for _ in range(4)]
    results = together([lambda led=led: ask(led) for led in ledgers])
    assert sum(isinstance(r, Refused) for r in results) == 3
    assert len(ledgers[0].emergencies()) == 1


def test_repairs_are_counted_by_class(ledger):
    case = admit(ledger, "n1")
    ledger.begin_step(case.id, case.fence, "repair-reboot-1", detail={}, now=later(1))
    known = ledger.node_records(now=later(2))["n1"]
    assert (known.attempts, dict(known.attempts_by_class)) == (1, {case.failure_class: 1})
    assert ledger.node_records(now=NOW + timedelta(days=9))["n1"].attempts_by_class == {}
