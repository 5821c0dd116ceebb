"""An API server that is away, or whose answers get lost, while cases are under way."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.act import marks
from breakfix.act.quarantine import release
from breakfix.adapters.kubernetes.transport import LeftAlone, Unavailable
from breakfix.errors import SourceError
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.stages import Stage
from breakfix.model import CaseEnd, StepStatus
from breakfix.resilience.breaker import Breaker
from breakfix.resilience.circuits import CircuitsInMemory
from tests.fakes_cluster import FakeCluster
from tests.flow.world import FlowWorld


class Line:
    """The way to a fake API server: it can be cut, or lose answers; a breaker stands before it."""

    def __init__(self, cluster):
        self.inner, self.is_cut, self.reached, self.loses = cluster, False, 0, []
        self.circuits, self.breaker = CircuitsInMemory(), None

    def guard(self, now):
        self.breaker = Breaker(
            "kubernetes", on=(Unavailable,), store=self.circuits, now=now, opens_as=LeftAlone
        )

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if not callable(found) or name in {"fail", "writes", "change_node", "add_node", "settle"}:
            return found

        def once(*args, **kwargs):
            self.reached += 1
            if self.is_cut:
                raise Unavailable(f"{name}: no answer")
            answer = found(*args, **kwargs)
            if name in self.loses:
                self.loses.remove(name)
                raise Unavailable(f"{name}: the answer was lost")
            return answer

        def call(*args, **kwargs):
            if self.breaker is None:
                return once(*args, **kwargs)
            return self.breaker.call(lambda: once(*args, **kwargs))

        return call


@pytest.fixture
def world():
    return FlowWorld(cluster=Line(FakeCluster()))


def tick(world):
    """As Airflow does: a task that fails is run again later, the others go on."""
    try:
        world.tick()
    except SourceError:
        world.clock.sleep(10.0)


def run_for(world, seconds):
    end = world.clock.now() + timedelta(seconds=seconds)
    while world.clock.now() < end:
        tick(world)


def drive(world, until, *, within_s=7200.0):
    end = world.clock.now() + timedelta(seconds=within_s)
    while not until():
        assert world.clock.now() < end, [r.trail for r in world.road.runs.values()]
        tick(world)


@pytest.mark.parametrize(
    "stage", [Stage.DRAIN, Stage.REBOOT_NODE, Stage.CHECK_GPUS, Stage.RETURN_NODE]
)
def test_f37_the_api_server_is_away_for_five_minutes_of_the_repair(world, stage):
    """The API server stops answering while a case is at one of its stages, and comes back.

    Lost: nothing; nothing is done twice, and the node is back in service at the end.
    """
    world.break_node("a1")
    drive(world, world.at_stage(stage))
    world.cluster.is_cut = True
    run_for(world, 300)
    assert world.case().is_open
    world.cluster.is_cut = False
    drive(world, world.ended("a1"))
    assert world.case().end is CaseEnd.RETURNED
    assert world.is_in_service("a1")
    assert world.ran["reboot"] == 1
    assert world.is_audit_sound()


def test_f37_the_api_server_is_away_for_longer_than_any_deadline_of_the_repair(world):
    """The API server is away for three hours in mid repair, other nodes fault meanwhile.

    Lost: nothing; when it is back every case ends, no repair ran twice, and every node is in
    service or held out by a case that says why.
    """
    world.break_node("a1")
    drive(world, world.at_stage(Stage.REBOOT_NODE))
    world.cluster.is_cut = True
    world.break_node("b1")
    run_for(world, 3 * 3600)
    world.cluster.is_cut = False
    drive(world, world.ended("a1"))
    run_for(world, 3600)
    assert world.ran["reboot"] <= 2  # one a node
    for name in world.nodes:
        assert world.is_in_service(name) or (world.is_held_out(name) and world.why(name))
    assert world.is_audit_sound()


def test_f37_an_api_server_that_is_away_is_not_beaten_by_all_that_waits_for_it(world):
    """For twenty minutes all calls fail, of sweeps, cases, waits and reconciliations.

    Lost: nothing; after five failures one call in thirty seconds looks whether it is back, acts are
    held meanwhile, and all goes on by itself.
    """
    world.cluster.guard(world.clock.now)
    world.break_node("a1")
    drive(world, world.at_stage(Stage.REBOOT_NODE))
    world.cluster.is_cut, before = True, world.cluster.reached
    run_for(world, 1200)
    assert world.cluster.reached - before <= 5 + 1200 / 30 + 1
    assert world.cluster.circuits.load("kubernetes").state == "open"
    world.cluster.is_cut = False
    drive(world, world.ended("a1"))
    assert world.cluster.circuits.load("kubernetes").state == "closed"
    assert world.is_in_service("a1")
    assert world.is_audit_sound()


def test_f37_a_breaker_that_is_open_does_not_keep_a_node_out(world):
    """The API server is back, but its breaker is still open when a node is to be released.

    Lost: nothing; what gives a node back does not wait for the breaker, and its answer closes it.
    """
    world.cluster.guard(world.clock.now)
    world.break_node("a1")
    drive(world, world.at_stage(Stage.RETURN_NODE))
    world.cluster.is_cut = True
    for _ in range(5):
        with pytest.raises(Unavailable):
            world.cluster.node("a1")
    world.cluster.is_cut = False
    with pytest.raises(LeftAlone):
        world.cluster.node("a1")
    release(acting(world.services), world.case(), RECOVERY)
    assert not world.node("a1").is_unschedulable
    assert world.cluster.circuits.load("kubernetes").state == "closed"


@pytest.mark.parametrize("method", ["patch_node", "create_pod", "update_config_map", "post_event"])
def test_api_timeout_of_a_write_that_had_its_effect(world, method):
    """A write reaches the API server, and its answer never comes back.

    Lost: nothing; what was done is found done, is recorded once, and is not done again.
    """
    world.break_node("a1")
    world.cluster.loses = [method]
    drive(world, world.ended("a1"))
    assert world.cluster.loses == []
    assert world.is_in_service("a1")
    assert world.ran["reboot"] == 1
    assert set(world.steps().values()) <= {StepStatus.DONE, StepStatus.VERIFIED}
    assert world.is_audit_sound()


def test_api_timeout_of_every_reading_of_the_kill_switch(world):
    """The ConfigMap of the kill switch cannot be read, everything else can.

    Lost: nothing; no node is taken out on a switch that nobody could read, until it can be.
    """
    world.road.sweep()
    read = world.cluster.inner.config_map

    def unreadable(namespace, name):
        if name == "breakfix-halt":
            raise Unavailable("GET configmaps/breakfix-halt: no answer")
        return read(namespace, name)

    world.cluster.inner.config_map = unreadable
    world.break_node("a1")
    run_for(world, 600)
    assert not world.ledger.cases()
    assert marks.TAINT not in {t.key for t in world.node("a1").taints}
    world.cluster.inner.config_map = read
    drive(world, lambda: world.is_held_out("a1"))
