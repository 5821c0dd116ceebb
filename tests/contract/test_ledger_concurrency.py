"""Many hands on one ledger: the limits hold, and one of several wins."""

from __future__ import annotations

import random
from dataclasses import replace
from types import SimpleNamespace

import pytest

from breakfix.approve import settle
from breakfix.errors import StaleFence
from breakfix.model import Answer, Case, CaseEnd, Decision, HaltLevel, Purpose, Scope, ScopeKind
from breakfix.policy_approvals import Approvals
from breakfix.ports import Limit
from tests.contract.ledger_builders import NOW, admit, an_intent, decide, later, limits, together


@pytest.mark.parametrize("seed", range(4))
def test_two_planners_never_exceed_any_limit(open_ledger, seed):
    rng = random.Random(seed)
    planners = [open_ledger(), open_ledger()]
    nodes = [(f"n{i}", f"r{i % 3}", f"p{i % 2}") for i in range(24)]
    maxima = {ScopeKind.FLEET: 5, ScopeKind.RACK: 2, ScopeKind.POOL: 3}

    def propose(planner, node, rack, pool):
        intent = an_intent(node, rack=rack, pool=pool)
        own = [Limit(s, maxima[s.kind], frozenset()) for s in intent.scopes]
        rng_local = random.Random(f"{seed}{node}")
        rng_local.shuffle(own)
        return planner.admit(intent, own, requester="p", now=NOW)

    jobs = [(p, *n) for p in planners for n in nodes]
    rng.shuffle(jobs)
    results = []
    for start in range(0, len(jobs), 8):
        batch = jobs[start : start + 8]
        results += together([lambda j=j: propose(*j) for j in batch])
    assert not [r for r in results if isinstance(r, Exception)]
    admitted = [r for r in results if isinstance(r, Case)]
    assert len(admitted) == 5  # the fleet's limit is reached, and never passed
    assert len({c.node for c in admitted}) == 5
    for kind, maximum in maxima.items():
        counts = {}
        for case in admitted:
            scope = next(s for s in case.scopes if s.kind is kind)
            counts[scope] = counts.get(scope, 0) + 1
        assert max(counts.values()) <= maximum, kind
    assert planners[0].verify_audit()[1] == ""


def test_the_same_node_is_admitted_once_by_many(open_ledger):
    planners = [open_ledger() for _ in range(4)]
    # no scope in common, so that only the node itself can keep them apart
    intents = [an_intent("n1", rack=f"r{i}") for i in range(4)]
    results = together(
        [
            lambda p=p, i=i: p.admit(i, [], requester="s", now=NOW)
            for p, i in zip(planners, intents, strict=True)
        ]
    )
    assert sum(isinstance(r, Case) for r in results) == 1
    assert {r.reason for r in results if not isinstance(r, Case)} == {"case_open"}


def test_nodes_without_any_scope_in_common_are_kept_apart_as_well(open_ledger):
    planners = [open_ledger() for _ in range(4)]
    intents = [replace(an_intent("n1"), scopes=(Scope(ScopeKind.RACK, f"r{i}"),)) for i in range(4)]
    results = together(
        [
            lambda p=p, i=i: p.admit(i, [], requester="s", now=NOW)
            for p, i in zip(planners, intents, strict=True)
        ]
    )
    assert sum(isinstance(r, Case) for r in results) == 1
    assert {r.reason for r in results if not isinstance(r, Case)} == {"case_open"}


def test_admission_and_release_under_fire_never_pass_the_limit(open_ledger):
    ledgers = [open_ledger() for _ in range(4)]
    over = []

    def work(ledger, number):
        for turn in range(6):
            case = ledger.admit(
                an_intent(f"n{number}-{turn}"), limits(rack=2), requester="s", now=later(turn)
            )
            if not isinstance(case, Case):
                continue
            if len(ledger.cases(open_only=True)) > 2:
                over.append(case)
            ledger.end_case(case.id, 1, CaseEnd.ABORTED, actor="a", reason="r", now=later(turn))

    together([lambda n=n, led=led: work(led, n) for n, led in enumerate(ledgers)])
    assert over == []
    assert ledgers[0].verify_audit()[1] == ""


def test_of_two_takeovers_one_wins(open_ledger):
    one, two = open_ledger(), open_ledger()
    case = admit(one, "n1")
    for fence in range(1, 6):
        results = together(
            [
                lambda led=led, fence=fence: led.take_over(
                    case.id, fence, actor="r", reason="r", now=later(1)
                )
                for led in (one, two)
            ]
        )
        assert sorted(isinstance(r, StaleFence) for r in results) == [False, True]
    assert one.case(case.id).fence == 6


def test_a_step_begins_once_however_many_begin_it(open_ledger):
    ledgers = [open_ledger() for _ in range(6)]
    case = admit(ledgers[0], "n1")
    results = together(
        [
            lambda led=led: led.begin_step(case.id, 1, "reboot", detail={}, now=later(1))
            for led in ledgers
        ]
    )
    assert sorted(is_new for _, is_new in results) == [False] * 5 + [True]


def test_of_two_answers_the_first_stands_for_both(open_ledger):
    one, two = open_ledger(), open_ledger()
    case = admit(one, "n1")
    one.ask(case.id, 1, Purpose.REPAIR, plan_hash="p", expires_at=later(99), now=later(1))

    def answer(ledger, decision, who):
        return decide(ledger, case, decision, approver=who, now=later(2))

    first, second = together(
        [lambda: answer(one, Decision.ALLOWED, "ann"), lambda: answer(two, Decision.REFUSED, "bob")]
    )
    assert first == second == one.approvals(case.id)[0]


def by_rule(policy):
    def judge(case, asked, answers):
        return settle(asked, answers, policy, requester="sweep", now=later(3), is_begun=False)

    return judge


@pytest.mark.parametrize("says_no", [False, True], ids=["all say yes", "one of them says no"])
def test_many_answers_at_one_moment_are_all_kept_and_none_is_overlooked(open_ledger, says_no):
    people = [f"p{i}" for i in range(6)]
    policy = SimpleNamespace(approvals=Approvals(approvers=tuple(people)))
    ledgers = [open_ledger() for _ in people]
    case = admit(ledgers[0], "n1")
    key = (case.id, 1, Purpose.REPAIR)
    ledgers[0].ask(*key, plan_hash="p", expires_at=later(99), now=later(1), needed=2)

    def answer(ledger, who):
        is_yes = not (says_no and who == "p3")
        given = [Answer(who, is_yes, "cli", later(2))]
        return ledger.answer(*key, given, plan_hash="p", settle=by_rule(policy), now=later(3))

    results = together([lambda a=a: answer(*a) for a in zip(ledgers, people, strict=True)])
    (approval,) = ledgers[0].approvals(case.id)
    kept = ledgers[0].answers(case.id)
    assert sorted(g.answer.approver for g in kept) == people
    assert not [r for r in results if isinstance(r, Exception)]
    if says_no:
        assert (approval.decision, approval.approver) == (Decision.REFUSED, "p3")
    else:
        assert approval.decision is Decision.ALLOWED
        assert sum(r.approval.decision is Decision.PENDING for r in results) == 1
    decided = [e for e in ledgers[0].audit_entries() if e.event == "approval.decided"]
    assert len(decided) in {1, 2} if says_no else len(decided) == 1
    assert ledgers[0].verify_audit()[1] == ""


def test_eight_writers_make_one_whole_chain(open_ledger):
    ledgers = [open_ledger() for _ in range(8)]

    def write(ledger, number):
        for i in range(12):
            ledger.audit("test.write", f"{number}", actor="a", detail={"i": i}, now=later(i))

    results = together([lambda n=n, led=led: write(led, n) for n, led in enumerate(ledgers)])
    assert results == [None] * 8
    assert ledgers[0].verify_audit() == (96, "")


@pytest.mark.parametrize("seed", range(3))
def test_once_halted_nothing_is_admitted_any_more(open_ledger, seed):
    one, two = open_ledger(), open_ledger()
    after_halt = []

    def halt():
        one.set_halt(HaltLevel.ALL, actor="ann", reason="r", now=NOW)
        after_halt.append(len(one.cases()))

    def plan():
        return [two.admit(an_intent(f"n{seed}-{i}"), [], requester="s", now=NOW) for i in range(10)]

    _, results = together([halt, plan])
    admitted = [r for r in results if isinstance(r, Case)]
    assert [len(admitted)] == after_halt == [len(one.cases())]
