"""Random lives of cases on Postgres beside the ledger in memory; promises kept throughout."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from breakfix.adapters.ledger import rules
from breakfix.errors import BreakfixError
from breakfix.model import Answer, CaseEnd, Decision, HaltLevel, NodeState, Purpose, StepStatus
from breakfix.ports import Limit
from tests.contract.ledger_builders import an_intent, deciding, later
from tests.fakes_ledger import FakeLedger

NODES = [f"n{i}" for i in range(5)]
MAXIMUM = {"fleet": 3, "pool": 3, "rack": 1}
clusters = itertools.count()


class TwinLedgers(RuleBasedStateMachine):
    """Every call goes to both; both must answer alike, and raise alike."""

    open_ledger = None

    def __init__(self):
        super().__init__()
        self.at = 0

    @initialize()
    def begin(self):
        cluster = f"twin-{next(clusters)}"
        self.real, self.fake = self.open_ledger(cluster), FakeLedger(cluster)

    def both(self, call):
        self.at += 1
        answers = []
        for ledger in (self.real, self.fake):
            try:
                answers.append(call(ledger, later(self.at)))
            except BreakfixError as e:
                answers.append((type(e), str(e)))
        assert answers[0] == answers[1]
        return answers[0]

    def a_case(self, number):
        cases = self.fake.cases()
        return cases[number % len(cases)] if cases else None

    @rule(node=st.sampled_from(NODES), out=st.sets(st.sampled_from(NODES), max_size=1))
    def admit(self, node, out):
        intent = an_intent(node, rack=f"r{int(node[1:]) % 2}")
        limits = [Limit(s, MAXIMUM[s.kind], frozenset(out)) for s in intent.scopes]
        self.both(lambda led, now: led.admit(intent, limits, requester="s", now=now))

    @rule(
        number=st.integers(0, 9),
        behind=st.sampled_from([0, 0, 0, 1]),
        to=st.sampled_from(NodeState),
    )
    def move(self, number, behind, to):
        case = self.a_case(number)
        if case:
            fence = case.fence - behind
            self.both(
                lambda led, now: led.move(
                    case.id, fence, to, actor="a", reason="r", now=now, repaired_at=now
                )
            )

    @rule(number=st.integers(0, 9))
    def go_on(self, number):
        """The good way, so that random lives come far."""
        case = self.a_case(number)
        way = {
            NodeState.QUARANTINED: NodeState.REPAIRING,
            NodeState.REPAIRING: NodeState.VALIDATING,
            NodeState.VALIDATING: NodeState.RETURNING,
        }
        if case and case.state in way:
            to = way[case.state]
            self.both(
                lambda led, now: led.move(case.id, case.fence, to, actor="a", reason="r", now=now)
            )

    @rule(number=st.integers(0, 9), end=st.sampled_from(CaseEnd))
    def end(self, number, end):
        case = self.a_case(number)
        if case:
            self.both(
                lambda led, now: led.end_case(
                    case.id, case.fence, end, actor="a", reason="r", now=now
                )
            )

    @rule(number=st.integers(0, 9), what=st.sampled_from(["take_over", "hold", "unhold"]))
    def hands(self, number, what):
        case = self.a_case(number)
        if case:
            fence = (case.fence,) if what == "take_over" else ()
            self.both(
                lambda led, now: getattr(led, what)(
                    case.id, *fence, actor="ann", reason="r", now=now
                )
            )

    @rule(
        number=st.integers(0, 9),
        name=st.sampled_from(["drain-1", "repair-1"]),
        status=st.sampled_from(StepStatus),
    )
    def step(self, number, name, status):
        case = self.a_case(number)
        if case:
            self.both(
                lambda led, now: led.begin_step(case.id, case.fence, name, detail={}, now=now)
            )
            self.both(
                lambda led, now: led.finish_step(
                    case.id, case.fence, name, status, detail={"s": status}, now=now
                )
            )

    @rule(number=st.integers(0, 9), wait=st.integers(0, 3), decision=st.sampled_from(Decision))
    def question(self, number, wait, decision):
        case = self.a_case(number)
        if case:
            until = later(self.at + wait)
            key = (case.id, case.fence, Purpose.REPAIR)
            self.both(lambda led, now: led.ask(*key, plan_hash="p", expires_at=until, now=now))
            self.both(
                lambda led, now: led.answer(
                    *key,
                    [Answer("ann", decision is Decision.ALLOWED, "c", now)],
                    plan_hash="p",
                    settle=deciding(decision),
                    now=now,
                )
            )

    @rule(level=st.sampled_from([HaltLevel.NONE, HaltLevel.NONE, HaltLevel.DISRUPTION]))
    def halt(self, level):
        self.both(lambda led, now: led.set_halt(level, actor="ann", reason="r", now=now))

    @invariant()
    def both_remember_the_same(self):
        self.both(lambda led, now: led.cases())
        self.both(lambda led, now: led.node_records(now=now))
        self.both(lambda led, now: [led.steps(c.id) for c in led.cases()])
        self.both(lambda led, now: [led.approvals(c.id) for c in led.cases()])
        self.both(lambda led, now: [(e.event, e.subject, e.actor) for e in led.audit_entries()])

    @invariant()
    def no_scope_holds_more_than_its_limit(self):
        out = [c for c in self.real.cases(open_only=True) if c.state in rules.HOLDS_SCOPES]
        for scope, number in Counter(s for c in out for s in c.scopes).items():
            assert number <= MAXIMUM[scope.kind], scope
        assert max(Counter(c.node for c in out).values(), default=0) <= 1

    @invariant()
    def the_audit_is_whole(self):
        assert self.real.verify_audit()[1] == ""

    def teardown(self):
        if hasattr(self, "real"):
            self.real.close()


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_postgres_and_memory_live_the_same_lives(open_ledger, monkeypatch):
    monkeypatch.setattr(rules, "new_case_id", lambda now: f"c{now:%H%M%S}")
    monkeypatch.setattr(TwinLedgers, "open_ledger", staticmethod(open_ledger))
    run_state_machine_as_test(
        TwinLedgers,
        settings=settings(
            max_examples=15,
            stateful_step_count=30,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
