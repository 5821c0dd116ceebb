"""Changes from the first look to the last: advice, holds, people, and the soak after a return."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.cohorts import Advice
from breakfix.decide.soak import SIGNAL, soak_of
from breakfix.errors import LedgerError, SettingsError
from breakfix.flow.assessment import assess
from breakfix.flow.change_canary import accept_change, advise_on_changes
from breakfix.flow.services import Services
from breakfix.flow.soak import soak_returned
from breakfix.flow.sweep import sweep
from breakfix.model import CaseEnd, NodeState, RefusalReason
from breakfix.observe.promql import FEW, fact_query
from breakfix.ports import QueryResult, Sample
from tests.flow.world import FlowWorld, policy_with

NAMES = tuple(f"{rack}{i}" for rack in "ab" for i in range(1, 6))
SCOPE = "driver_version=B sku=H100 pool=train"


class Metrics:
    """The world's telemetry, and on top drivers and what vLLM served, by node."""

    def __init__(self, world, policy):
        self.world, self.below = world, world.metrics
        self.driver_query = fact_query(policy.facts["driver_version"], policy.names, gpus=FEW)
        self.drivers, self.errors, self.requests = {}, {}, dict.fromkeys(NAMES, 500.0)
        self.changed_at, self.is_past_down = world.clock.now() - timedelta(hours=2), False

    def __getattr__(self, name):
        return getattr(self.below, name)

    def query(self, promql, *, at):
        return self.below.query(promql, at=at)

    def query_many(self, queries, *, at):
        plain = {n: q for n, q in queries.items() if self._own(q, at) is None}
        answers = dict(self.below.query_many(plain, at=at))
        return answers | {n: self._own(q, at) for n, q in queries.items() if n not in plain}

    def _own(self, promql, at):
        if promql == self.driver_query:
            return self._drivers(at)
        if "http_requests_total" not in promql or "handler" not in promql:
            return None
        counts = self.errors if 'status="5xx"' in promql else self.requests
        found = (Sample({"instance": f"{n}:8000"}, float(v)) for n, v in counts.items())
        return QueryResult(tuple(found))

    def _drivers(self, at):
        is_past = at < self.world.clock.now()
        if is_past and self.is_past_down:
            return "connection refused"
        is_before = at < self.changed_at
        found = (
            Sample({"node": n, "DCGM_FI_DRIVER_VERSION": "A" if is_before else v}, 1.0)
            for n, v in self.drivers.items()
        )
        return QueryResult(tuple(found))


class World(FlowWorld):
    """Ten nodes of one SKU and pool, with drivers."""

    def __init__(self, overlay=""):
        super().__init__(overlay=overlay, nodes=NAMES)
        for name in NAMES:
            self.cluster.change_node(name, sku="H100", pool="train")
        policy = policy_with(overlay)
        self.metrics = self.served = Metrics(self, policy)
        self.services = Services(
            self.served,
            self.cluster,
            policy,
            self.services.settings,
            self.clock,
            self.notifier,
            self.ledger,
        )
        self.road.services = self.services

    def drive_to(self, drivers):
        """A driver for each node: `BBAAAAAAAA`."""
        self.served.drivers = dict(zip(NAMES, drivers, strict=True))

    def fail(self, *nodes, share=0.2):
        self.served.errors = dict.fromkeys(nodes, 500 * share)

    def look(self, **how):
        return advise_on_changes(self.services, **how)

    def advice(self, scope=SCOPE):
        return next((a for a in self.ledger.advices() if a.scope == scope), None)

    def subjects(self):
        return [subject for subject, _ in self.notifier.told]


@pytest.fixture
def world():
    return World()


def test_a_driver_that_fails_requests_is_advised_against_and_told_once(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    for _ in range(3):
        world.look()
        world.clock.sleep(3600)
    assert world.advice().advice is Advice.ROLL_BACK
    assert world.advice().nodes == {"a1", "a2", "a3"}
    assert world.subjects() == [f"change {SCOPE}: roll_back"]
    assert [e.event for e in world.ledger.audit_entries()] == ["change.advised"]


def test_a_driver_that_does_as_well_may_proceed(world):
    world.drive_to("BBBAAAAAAA")
    (seen,) = world.look().advised
    assert seen.advice is Advice.PROCEED, seen.report.reason
    names = {c.name for c in seen.report.checks}
    assert {"vllm error rate", "nodes with findings"} <= names


def test_sick_nodes_count_without_any_request(world):
    world.served.requests = {}
    world.drive_to("BBBBAAAAAA")
    for name in ("a1", "a2", "a3", "a4"):
        world.metrics.below.xids.append((name, 79, world.clock.now()))
    (seen,) = world.look().advised
    sick = next(c for c in seen.report.checks if c.name == "nodes with findings")
    assert (sick.canary, sick.stable) == (1.0, 0.0)
    assert sick.p_value == pytest.approx(1 / 210)
    assert seen.advice is Advice.ROLL_BACK


def test_a_change_to_roll_back_holds_repairs_in_its_scope_and_nowhere_else(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    world.look()
    world.break_node("a1")
    world.break_node("b1")
    result = sweep(world.services)
    assert [c.node for c in result.cases] == ["b1"]
    refusal = next(r for r in result.refusals if r.node == "a1")
    assert refusal.reason is RefusalReason.COMMON_CAUSE
    assert SCOPE in [i.scope for i in result.assessment.plan.incidents]
    assert not world.node("a1").is_unschedulable


def test_a_case_under_way_waits_when_the_change_turns_out_bad(world):
    world.drive_to("BBBAAAAAAA")
    world.break_node("a1")
    sweep(world.services)
    world.fail("a1", "a2", "a3")
    world.look()
    verdict = assess(world.services).judgement.verdict("a1")
    assert verdict.refusal is RefusalReason.COMMON_CAUSE


def test_seeing_less_does_not_lift_a_hold_and_a_clear_look_does(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    world.look()
    world.served.requests = {}
    (seen,) = world.look().advised
    assert seen.report.advice is Advice.PROCEED  # of what is left: three nodes without findings
    assert world.advice().advice is Advice.ROLL_BACK
    assert "Since then: " in world.advice().reason
    world.served.requests, world.served.errors = dict.fromkeys(NAMES, 500.0), {}
    world.look()
    assert world.advice().advice is Advice.PROCEED
    world.break_node("a1")
    assert [c.node for c in sweep(world.services).cases] == ["a1"]


def test_a_change_that_is_rolled_back_is_over(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    world.look()
    world.drive_to("AAAAAAAAAA")
    assert world.look().gone == (SCOPE,)
    assert world.advice() is None
    assert world.subjects()[-1] == f"change {SCOPE}: over"


def test_when_the_past_cannot_be_read_nothing_is_guessed_and_nothing_is_lifted(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    world.look()
    world.served.is_past_down = True
    result = world.look()
    assert (result.advised, result.gone) == ((), ())
    assert "driver_version could not be read" in result.notes[0]
    assert world.advice().advice is Advice.ROLL_BACK


def test_past_the_deadline_people_are_told_once_more_and_no_oftener(world):
    world.drive_to("BBBAAAAAAA")
    world.served.requests = dict.fromkeys(NAMES, 10.0)
    for _ in range(10):
        world.look()
        world.clock.sleep(3600)
    assert world.subjects() == [f"change {SCOPE}: continue"] * 2
    assert "a person has to decide" in world.notifier.told[-1][1]


def test_a_dry_run_writes_and_tells_nothing_and_needs_no_ledger(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3")
    (seen,) = world.look(is_dry_run=True).advised
    assert seen.advice is Advice.ROLL_BACK
    assert (world.ledger.advices(), world.notifier.told) == ((), [])


def test_without_the_ledger_nothing_is_advised(world):
    world.drive_to("BBBAAAAAAA")
    world.ledger.is_down = True
    with pytest.raises(LedgerError):
        world.look()


def test_only_some_changes_are_asked_for(world):
    world.drive_to("BBBAAAAAAA")
    assert world.look(only="kernel").advised == ()
    assert len(world.look(only="driver_version=B").advised) == 1


@pytest.mark.parametrize(
    ("ago", "is_found"),
    [
        pytest.param(timedelta(hours=20), True, id="twenty hours ago"),
        pytest.param(timedelta(hours=30), False, id="thirty hours ago: no longer new"),
    ],
)
def test_a_driver_is_new_for_a_day(world, ago, is_found):
    world.drive_to("BBBAAAAAAA")
    world.served.changed_at = world.clock.now() - ago
    assert bool(world.look().advised) is is_found


@pytest.mark.parametrize(
    ("ago", "sizes"),
    [
        pytest.param(timedelta(minutes=7), (0, 7), id="within the window: in neither cohort"),
        pytest.param(timedelta(minutes=15), (3, 7), id="before it"),
    ],
)
def test_a_node_counts_once_the_whole_window_lies_after_its_change(world, ago, sizes):
    world.drive_to("BBBAAAAAAA")
    world.served.changed_at = world.clock.now() - ago
    (seen,) = world.look().advised
    assert (seen.report.canary_size, seen.report.stable_size) == sizes


@pytest.mark.parametrize(
    ("hours", "times"), [(5, 1), (7, 2)], ids=["before the deadline", "after it"]
)
def test_people_are_told_after_six_hours_without_an_answer(world, hours, times):
    world.drive_to("BBBAAAAAAA")
    world.served.requests = dict.fromkeys(NAMES, 10.0)
    world.look()
    world.clock.sleep(hours * 3600)
    world.look()
    assert world.subjects() == [f"change {SCOPE}: continue"] * times


def test_more_changes_than_one_run_looks_at_are_said(world):
    world.drive_to("BCDAAAAAAA")
    few = world.services.policy.canary.model_copy(update={"max_changes": 2})
    policy = world.services.policy.model_copy(update={"canary": few})
    result = advise_on_changes(replace(world.services, policy=policy))
    assert len(result.advised) == 2
    assert result.notes == ("1 more changes than are looked at in one run",)
    assert result.gone == ()


def test_a_driver_that_silences_its_nodes_is_neither_gone_nor_cleared_by_the_survivors(world):
    world.drive_to("BBBBBAAAAA")
    world.fail("a1", "a2", "a3")
    world.look()
    assert world.advice().advice is Advice.ROLL_BACK
    for name in ("a1", "a2", "a3"):
        del world.served.drivers[name]
        del world.served.requests[name]
        world.metrics.below.silent.add(name)
    world.served.errors = {}
    world.clock.sleep(3600)
    (seen,) = world.look().advised
    assert seen.report.canary_size == 5
    assert seen.report.advice is not Advice.PROCEED
    assert "2 of 5 nodes could be judged" in str(seen.report.checks)
    for name in ("a4", "a5"):
        del world.served.drivers[name]
    world.clock.sleep(3600)
    assert world.look().gone == ()
    assert world.advice().advice is Advice.ROLL_BACK
    assert len(world.advice().nodes) == 5


def test_what_a_person_accepts_holds_repairs_no_more_until_something_else_fails(world):
    world.drive_to("BBBAAAAAAA")
    world.fail("a1", "a2", "a3", share=0.04)
    world.look()
    accept_change(world.services, SCOPE, actor="cli:ann", reason="known, fixed in 581")
    world.break_node("a1")
    assert [c.node for c in sweep(world.services).cases] == ["a1"]
    for _ in range(2):
        world.clock.sleep(3600)
        world.look()
        assert world.advice().advice is Advice.CONTINUE
    assert world.advice().detail["accepted"]["by"] == "cli:ann"
    assert world.advice().reason.startswith("a person accepted this: vllm error rate")
    world.fail("a1", "a2", "a3", share=0.2)
    world.look()
    assert world.advice().advice is Advice.ROLL_BACK
    told = [e for e in world.ledger.audit_entries() if e.event == "change.advised"]
    assert [(e.actor, e.detail["advice"]) for e in told] == [
        ("change_canary", "roll_back"),
        ("cli:ann", "continue"),
        ("change_canary", "roll_back"),
    ]


def test_only_a_change_to_be_rolled_back_is_accepted(world):
    world.drive_to("BBBAAAAAAA")
    world.look()
    for scope in (SCOPE, "driver_version=Z"):
        with pytest.raises(SettingsError, match="is to be rolled back"):
            accept_change(world.services, scope, actor="cli:ann", reason="")


# --------------------------------------------------------------------------- the soak


SOAK = """
canary: {watch_returned: true, watch_every: 10m}
timing: {watch: 60m}
"""


def returning(world):
    """The world when a1 has just come back."""
    world.break_node("a1")
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    return world


def test_a_node_that_does_as_its_peers_ends_its_watch_with_that_on_record():
    world = returning(World(SOAK))
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert "against its peers: proceed" in world.why()
    assert soak_of(world.case())["looks"] >= 3


def test_a_node_that_does_worse_is_a_review_and_its_watch_goes_on():
    world = returning(World(SOAK))
    world.fail("a1")
    world.run_for(2 * 3600)
    case = world.case()
    assert (case.state, case.fence) == (NodeState.RETURNING, 1)
    verdict = assess(world.services).judgement.verdict("a1")
    assert [f.signal for f in verdict.findings] == [SIGNAL]
    assert any(r.node == "a1" and "its peers" in r.reason for r in world.ledger.reviews())
    assert not world.node("a1").is_unschedulable
    assert world.subjects().count("a1 under watch") == 1
    world.served.errors = {}
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.is_audit_sound()


def test_a_node_nothing_is_seen_of_ends_its_watch_as_ever():
    world = returning(World(SOAK))
    world.served.requests = {}
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert "against its peers: continue" in world.why()


def test_the_soak_of_an_earlier_return_says_nothing_of_a_later_one():
    world = returning(World(SOAK))
    world.fail("a1")
    world.run_for(1200)
    assert soak_of(world.case())["advice"] == "roll_back"
    assert soak_of(replace(world.case(), fence=2)) is None


def test_a_soak_that_cannot_be_read_holds_nothing_up():
    world = returning(World(SOAK))
    served = world.served.query_many

    def broken(queries, *, at):
        answers = served(queries, at=at)
        return answers | {n: "timed out" for n, q in queries.items() if "http_requests" in q}

    world.served.query_many = broken
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert "timed out" in world.why()


def test_many_nodes_under_watch_ask_what_their_peers_did_once():
    world = returning(World(SOAK))
    asked, served = [], world.served.query_many

    def counting(queries, *, at):
        asked.extend((q, at) for q in queries.values() if "http_requests" in q)
        return served(queries, at=at)

    world.served.query_many = counting
    assessment = assess(world.services)
    case = world.case()
    others = [replace(case, id=f"c{i}", node=f"a{i}") for i in range(2, 6)]
    world.ledger._cases |= {c.id: c for c in others}
    world.clock.sleep(1800)
    assert soak_returned(world.services, assessment, actor="sweep") == 1 + len(others)
    assert asked
    assert len(asked) == len(set(asked))
