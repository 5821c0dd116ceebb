"""A dry run is the real run that stops before it acts."""

from __future__ import annotations

import copy

import pytest

from breakfix.flow.assessment import assess
from breakfix.flow.by_hand import intent_by_hand, open_by_hand, pods_of
from breakfix.flow.looking import look
from breakfix.model import FailureClass, Intent, PodAction, Refusal
from tests.flow.world import FlowWorld


def busy_world():
    """Two racks, pods of all kinds, two faults of which one may be acted upon."""
    world = FlowWorld(overlay="limits: {out: {pool: {nodes: 1}}}")
    for name in ("a1", "a2", "b1"):
        world.cluster.add_pod(f"web-{name}", name, gpus=2)
    world.add_plugin("a1")
    world.break_node("a1")
    world.break_node("b1")
    return world


def everything(world):
    """All that a dry run might have changed, as it is now."""
    return copy.deepcopy(
        (
            world.cluster._nodes,
            world.cluster._pods,
            world.cluster.config_maps,
            world.cluster.namespaces,
            world.cluster.events,
            world.ledger.cases(),
            world.ledger.audit_entries(limit=9999),
            world.ledger.reviews(open_only=False),
            world.ledger.node_records(now=world.clock.now()),
            world.notifier.told,
        )
    )


def test_dry_run_of_the_plan_writes_nothing():
    """Observe, decide and plan run as ever, over two faulty nodes, and stop there.

    Lost: nothing; no node, pod, mark, case, review or audit entry differs from before.
    """
    world = busy_world()
    before = everything(world)
    plan = assess(world.services).plan
    assert plan.intents
    assert everything(world) == before
    assert not world.cluster.writes()


def test_dry_run_shows_exactly_the_plan_that_is_carried_out_then():
    """The dry run names the nodes and refusals, and the sweep of the same instant does just that.

    Lost: nothing; plan hash, intents and refusals are the same ones, no more and no fewer.
    """
    world = busy_world()
    shown = assess(world.services).plan
    done = world.road.sweep()
    assert done.assessment.plan.hash == shown.hash
    assert done.assessment.plan.intents == shown.intents
    assert done.assessment.plan.refusals == shown.refusals
    assert [c.plan_hash for c in done.cases] == [i.hash for i in shown.intents]
    assert [n for n in world.nodes if world.is_held_out(n)] == [i.node for i in shown.intents]


def test_dry_run_of_a_drain_shows_the_pods_that_are_evicted_then():
    """A person asks what a drain would take, then drains.

    Lost: nothing; exactly the pods that were shown are evicted, the others run on.
    """
    world = busy_world()
    before = everything(world)
    shown = pods_of(world.cluster, world.services.policy, ["a1"])["a1"]
    assert everything(world) == before
    world.drive(world.ended())
    mine = [e for e in world.ledger.audit_entries(limit=9999) if e.subject == world.case().id]
    evicted = [e.detail["pod"] for e in mine if e.event == "pod.evicted"]
    assert evicted == [f"{d.namespace}/{d.name}" for d in shown if d.action is PodAction.EVICT]
    assert ("gpu", "plugin-a1") in world.cluster._pods


@pytest.mark.parametrize("node", ["a1", "b1"], ids=["admitted", "refused: the pool is full"])
def test_dry_run_of_a_case_by_hand_says_what_the_case_does(node):
    """A person asks what a case by hand would do, then opens it.

    Lost: nothing; the answer is the case that opens, or the very refusal, and asking wrote nothing.
    """
    world = busy_world()
    if node == "b1":
        world.cluster.change_node("b2", is_unschedulable=True)
    before = everything(world)
    ask = (look(world.services), node, FailureClass.MANUAL)
    shown = intent_by_hand(world.services, *ask, reason="new cables")
    assert everything(world) == before
    done = open_by_hand(world.services, *ask[1:], requester="cli:ann", reason="new cables")
    if isinstance(shown, Intent):
        assert (node, done.plan_hash) == ("a1", shown.hash)
    else:
        assert isinstance(done, Refusal)
        assert (done.reason, done.text) == (shown.reason, shown.text)
