"""Whatever sweeps see and people say, the queue keeps its promises, and both ledgers agree."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from breakfix.evidence import covers, is_in_force, marks_of, may_rest, topic_of
from breakfix.model import Action, FailureClass, Label, RefusalReason, SignalMode
from tests.contract.ledger_builders import NOW
from tests.contract.test_ledger_labels import weak
from tests.contract.test_ledger_sweeps import a_verdict, sweep
from tests.fakes_ledger import FakeLedger

NODES = ("n1", "n2")
VERDICTS = [
    *(weak(n, *signals) for n in NODES for signals in (("a",), ("b",), ("a", "b"))),
    *(weak(n, "a", failure_class=FailureClass.THERMAL) for n in NODES),
    *(weak(n, "a", mode=SignalMode.ALONE) for n in NODES),
    *(weak(n, "a", refusal=RefusalReason.TELEMETRY) for n in NODES),
    *(a_verdict(n) for n in NODES),
    *(replace(a_verdict(n), unknown=("xid",)) for n in NODES),
]


class Queue(RuleBasedStateMachine):
    """Sweeps and answers in any order, on one ledger."""

    def __init__(self):
        super().__init__()
        self.ledgers = self.make_ledgers()
        self.ledger = self.ledgers[0]
        self.now = NOW
        self.seen = {}

    def make_ledgers(self):
        return [FakeLedger("test")]

    @rule(
        verdicts=st.lists(st.sampled_from(VERDICTS), unique_by=lambda v: v.node, max_size=2),
        minutes=st.integers(1, 240),
    )
    def sees(self, verdicts, minutes):
        self.now += timedelta(minutes=minutes)
        for ledger in self.ledgers:
            sweep(ledger, *verdicts, now=self.now)
        self.seen = {v.node: v for v in verdicts}

    @rule(label=st.sampled_from(Label), which=st.integers(0, 20), hours=st.integers(1, 12))
    def says(self, label, which, hours):
        items = self.ledger.reviews(open_only=False)
        if not items:
            return
        until = None if label is Label.REAL else self.now + timedelta(hours=hours)
        for ledger in self.ledgers:
            number = ledger.reviews(open_only=False)[which % len(items)].id
            ledger.answer_review(
                number,
                label,
                actor="ann",
                note="",
                failure_class=None,
                until=until,
                now=self.now,
            )

    @invariant()
    def one_open_item_for_a_node_and_topic(self):
        keys = [(i.node, i.topic) for i in self.ledger.reviews()]
        assert len(keys) == len(set(keys))

    @invariant()
    def what_people_must_see_waits_unless_somebody_answered_just_that(self):
        answers = self.ledger.labellings()
        for node, verdict in self.seen.items():
            if verdict.recommended_action is not Action.REVIEW:
                continue
            topic, marks = topic_of(verdict), marks_of(verdict.findings)
            items = [i for i in self.ledger.reviews() if (i.node, i.topic) == (node, topic)]
            if any(i.is_waiting for i in items):
                continue
            spoken = [
                a for a in answers if covers(a, node, topic, marks) and is_in_force(a, self.now)
            ]
            assert spoken
            assert may_rest(verdict) or any(a.label is Label.REAL for a in spoken)

    @invariant()
    def what_may_act_or_is_lost_is_always_an_open_item(self):
        for node, verdict in self.seen.items():
            if verdict.recommended_action is Action.REVIEW and not may_rest(verdict):
                assert [i for i in self.ledger.reviews() if i.node == node]

    @invariant()
    def nothing_said_is_ever_lost(self):
        kept = [a for i in self.ledger.reviews(open_only=False) for a in i.answers]
        assert sorted(a.id for a in kept) == [a.id for a in self.ledger.labellings()]
        assert self.ledger.verify_audit()[1] == ""


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=20, deadline=None)


def told(ledger):
    """What a person sees of the queue; numbers are a ledger's own."""
    return [
        (
            *(i.node, i.topic, i.at, i.last_seen, i.closed_at, i.times_seen, i.detail),
            *(i.is_waiting, [(a.label, a.until, a.marks) for a in i.answers]),
        )
        for i in ledger.reviews(open_only=False)
    ]


def test_postgres_keeps_the_queue_as_the_fake_does(open_ledger):
    count = 0

    class Both(Queue):
        """The same on two ledgers."""

        def make_ledgers(self):
            nonlocal count
            count += 1
            return [FakeLedger("test"), open_ledger(f"cluster-{count}")]

        @invariant()
        def both_say_the_same(self):
            fake, postgres = self.ledgers
            assert told(fake) == told(postgres)

    both = settings(
        max_examples=15,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Both, settings=both)
