"""Two hundred nodes at once, and an API that fails while they are taken out."""

from __future__ import annotations

import itertools
import threading

import pytest

from breakfix.act import marks
from breakfix.adapters.kubernetes.transport import Unavailable
from breakfix.errors import Conflict
from breakfix.flow.case import run_stage
from breakfix.flow.looking import look
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import take_out
from breakfix.model import Action, FailureClass, Impact, Intent, RefusalReason, StepStatus
from tests.fakes_cluster import FakeCluster
from tests.flow.world import FlowWorld

MANY = tuple(f"{rack}{n:02}" for rack in "abcdefghij" for n in range(20))
AT_ONCE = 8
ROOM = """
limits:
  out:
    fleet: {share: 0.4}
    pool: {nodes: 999}
    sku: {nodes: 999}
    rack: {nodes: 12}
    fabric: {nodes: 999}
"""


class OneAtATime:
    """A fake cluster whose calls, as an API server's, do not run into one another."""

    def __init__(self, cluster):
        self.inner, self.lock = cluster, threading.RLock()

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if not callable(found):
            return found

        def call(*args, **kwargs):
            with self.lock:
                return found(*args, **kwargs)

        return call


def busy_world(nodes=MANY, overlay=ROOM):
    world = FlowWorld(
        overlay,
        nodes=nodes,
        cluster=OneAtATime(FakeCluster()),
        settings={"acts_at_once": AT_ONCE},
    )
    world.road.sweep()  # the ledger claims the cluster
    return world


def intents(world):
    return [
        Intent(
            node=n.name,
            node_uid=n.uid,
            boot_id=n.boot_id,
            failure_class=FailureClass.GPU_OFF_BUS,
            action=Action.REBOOT_NODE,
            confidence=0.97,
            reason="XID 79 on GPU 3",
            impact=Impact(pods_evicted=0, gpus_stopped=0, gpus_free_after=0),
            scopes=tuple(n.scopes()),
            is_by_hand=True,  # so that no telemetry is needed for their reason to stand
        )
        for n in world.cluster.nodes()
    ]


def take_all(world):
    return take_out(world.services, intents(world), look(world.services), requester="sweep")


def quarantines(world):
    """What the ledger has of each open case's quarantine."""
    steps = {c.node: world.ledger.steps(c.id) for c in world.ledger.cases(open_only=True)}
    return {node: next((s.status for s in of), None) for node, of in steps.items()}


def test_f43_two_hundred_nodes_break_at_once():
    """Every node of ten racks breaks in one sweep, eight quarantines run side by side.

    Lost: nothing; just as many as the limits allow are taken out, each is marked and recorded once,
    every other one is refused with the limit's name, and the audit is whole.
    """
    world = busy_world()
    cases, refusals = take_all(world)
    assert len(cases) == 80  # 40 % of 200
    assert len(cases) + len(refusals) == len(MANY)
    assert {r.reason for r in refusals} <= {RefusalReason.FLEET_SHARE, RefusalReason.SCOPE_FULL}
    for rack in "abcdefghij":
        assert sum(c.node.startswith(rack) for c in cases) <= 12
    taken = {c.node for c in cases}
    assert {n.name for n in world.cluster.nodes() if n.is_unschedulable} == taken
    assert all(marks.has_taint(world.node(n)) for n in taken)
    assert quarantines(world) == dict.fromkeys(taken, StepStatus.DONE)
    patched = [args[0] for name, args in world.cluster.calls if name == "patch_node"]
    assert sorted(patched) == sorted(taken)
    assert world.is_audit_sound()


def test_f43_the_head_that_the_cluster_knows_is_behind_no_act_of_the_storm():
    """Acts that run side by side mark the audit's head together.

    Lost: nothing; the mark in the cluster covers the end of every quarantine that was recorded.
    """
    world = busy_world()
    take_all(world)
    owner = world.cluster.config_map("breakfix", "breakfix-ledger")
    entries = world.ledger.audit_entries(limit=10_000)
    finished = [e.seq for e in entries if e.event == "step.finished"]
    assert len(finished) == 80
    assert int(owner["audit_seq"]) >= max(finished)


def test_f43_a_halt_in_the_middle_stops_what_is_not_done():
    """A person halts automation while two hundred nodes are being taken out.

    Lost: nothing; no node is patched after the halt, and what was admitted is held by its case.
    """
    world = busy_world()
    patches = itertools.count(1)

    def halt():
        if next(patches) == 20:
            world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "all"}
        else:
            world.cluster.before["patch_node"] = halt

    world.cluster.before["patch_node"] = halt
    cases, _ = take_all(world)
    out = {n.name for n in world.cluster.nodes() if n.is_unschedulable}
    # those whose guard had read the switch before it was thrown were on their way
    assert 20 <= len(out) <= 20 + AT_ONCE
    assert out < {c.node for c in cases}
    assert world.is_audit_sound()


@pytest.mark.parametrize(
    ("method", "error"),
    [
        pytest.param("node", Unavailable("GET /api/v1/nodes/a00: 500"), id="a 500 on GET node"),
        pytest.param("node", Unavailable("GET /api/v1/nodes/a00: 503"), id="a 503 on GET node"),
        pytest.param("patch_node", Conflict("the object has been modified"), id="a 409 on PATCH"),
        pytest.param("patch_node", Unavailable("PATCH: no answer"), id="no answer to a PATCH"),
    ],
)
def test_f29_an_api_that_fails_for_a_moment_while_a_node_is_taken_out(method, error):
    """One request of a quarantine fails and the next one would work.

    Lost: nothing; the node is cordoned once, under the case that has it, at once or by its own run.
    """
    world = FlowWorld(nodes=("a1", "b1"))
    world.break_node("a1")
    world.cluster.fail(method, error)
    world.drive(lambda: world.is_held_out("a1"), within_s=900)
    assert [c.node for c in world.ledger.cases()] == ["a1"]
    assert world.node("a1").annotations[marks.CASE] == world.case("a1").id
    world.drive(world.ended("a1"))
    assert world.is_in_service("a1")
    assert world.is_audit_sound()


def test_f29_an_api_that_fails_for_some_of_many_nodes():
    """A tenth of the requests of two hundred quarantines fail.

    Lost: nothing; a node whose quarantine failed keeps its case, which takes it out later.
    """
    world = busy_world()
    flaky = [Unavailable("PATCH: 503")] * 8 + [Conflict("modified")] * 5
    for error in flaky:
        world.cluster.fail("patch_node", error)
    cases, _ = take_all(world)
    done = quarantines(world)
    assert len(cases) == 80
    left = {n for n, status in done.items() if status is not StepStatus.DONE}
    assert len(left) == 8
    for case in cases:
        run_stage(world.services, Stage.BEGIN, case.id, case.fence)
    assert set(quarantines(world).values()) == {StepStatus.DONE}
    assert {n.name for n in world.cluster.nodes() if n.is_unschedulable} == {c.node for c in cases}
    assert world.is_audit_sound()
