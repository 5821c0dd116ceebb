"""What limits say between admission and end: held where it disturbs, and never half done."""

from __future__ import annotations

import pytest

from breakfix.brakes import Lift
from breakfix.flow import brakes
from breakfix.flow.stages import Stage
from breakfix.model import CaseEnd, NodeState, StepStatus
from tests.flow.world import FlowWorld

ALERTS = """
limits:
  alerts: {watchdog: "", block: [{match: {alertname: KubeAPIDown}}]}
  hold_longest: 2h
"""
FIRES = {"alertname": "KubeAPIDown"}
NODES = ("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2")
STORM = """
limits:
  breaker: {cool_down: 10m, most: {fleet: {share: 0, at_least: 3}}}
  hold_longest: 2h
common_cause: {min_nodes: 99, surge_nodes: 99}
"""


def evictions(world):
    return [c for c in world.cluster.writes() if c[0] == "evict"]


def at_the_drain(overlay, **changes):
    """A case whose node has a pod, cordoned and about to be drained."""
    world = FlowWorld(overlay, **changes)
    world.cluster.add_pod("web-1", "a1")
    world.break_node("a1")
    world.drive(world.at_stage(Stage.DRAIN))
    return world


def test_an_alert_that_fires_before_the_drain_holds_it_until_it_is_over():
    world = at_the_drain(ALERTS)
    world.metrics.firing = [FIRES]
    world.run_for(3600)
    assert world.case().is_open
    assert not evictions(world)
    assert world.steps()["hold.drain.1.patient"] is StepStatus.DISPATCHED
    world.metrics.firing = []
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert StepStatus.DISPATCHED not in world.steps().values()


def test_a_case_that_is_held_for_too_long_is_peoples():
    world = at_the_drain(ALERTS)
    world.metrics.firing = [FIRES]
    world.drive(world.ended(), within_s=3 * 3600)
    assert world.case().end is CaseEnd.ESCALATED
    assert not evictions(world)
    assert "KubeAPIDown" in world.why()
    assert world.is_held_out()


def test_what_holds_disruption_does_not_hold_the_repair_of_an_empty_node():
    world = at_the_drain(ALERTS)
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.metrics.firing = [FIRES]
    world.drive(lambda: world.case().state is NodeState.RETURNING)
    assert world.ran["reboot"] == 1


def test_a_window_that_closes_in_the_drain_leaves_nothing_half_done():
    overlay = 'limits: {windows: [{kind: allowed, from: "03:00", to: "03:10"}]}\n'
    overlay += "drain: {timeout: 30m}"
    world = at_the_drain(overlay)
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.drive(lambda: "drain-1" in world.steps())
    before = len(evictions(world))
    world.clock.sleep(600)
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert len(evictions(world)) > before
    assert world.case().end is CaseEnd.RETURNED


def test_a_storm_that_comes_after_the_admission_holds_the_drain_until_it_is_over():
    world = at_the_drain(STORM, nodes=NODES)
    for name in ("b1", "c1", "d1"):
        world.break_node(name)
    world.road.sweep()
    world.run_for(480)
    assert world.case("a1").is_open
    assert not evictions(world)
    assert [c.node for c in world.ledger.cases()] == ["a1"]
    for name in ("b1", "c1", "d1"):
        world.metrics.xids = [x for x in world.metrics.xids if x[0] != name]
    world.drive(world.ended("a1"))
    assert world.case("a1").end is CaseEnd.RETURNED


@pytest.mark.parametrize("lift", [Lift.ALERTS, Lift.WINDOWS])
def test_an_emergency_lifts_what_it_names_before_acts_too(lift):
    world = at_the_drain(ALERTS)
    world.metrics.firing = [FIRES]
    world.run_for(120)
    assert not evictions(world)
    ask = {"lasts_s": 3600.0, "requester": "ann", "approver": "oncall", "reason": "r"}
    brakes.ask_emergency(world.services, frozenset({lift}), **ask)
    brakes.approve_emergency(world.services, approver="oncall")
    world.run_for(600)
    assert bool(evictions(world)) is (lift is Lift.ALERTS)
