"""Headroom is counted once and kept up to date: it is what counting anew would give."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from breakfix.model import HaltLevel, Observation, PodAction, Taint, Toleration
from breakfix.plan.limits import free_gpus_after
from breakfix.plan.selectors import fits
from breakfix.plan.world import BUSY, build_world
from tests.fakes_cluster import make_node, make_pod
from tests.unit.plan_world import NOW, case, policy

few = st.sampled_from


@st.composite
def fleets(draw):
    """(nodes, pods, cases) of up to ten nodes in two pools, some out, with up to 25 pods."""
    nodes = [
        make_node(
            f"n{i}",
            pool=draw(few(["p1", "p2"])),
            gpus_allocatable=draw(few([8, 8, 4])),
            is_unschedulable=draw(few([False] * 4 + [True])),
            is_ready=draw(few([True] * 4 + [False])),
            taints=draw(few([(), (), (Taint("team", "NoSchedule", "a"),)])),
        )
        for i in range(draw(st.integers(1, 10)))
    ]
    places = [n.name for n in nodes] + ["", ""]
    pods = [
        make_pod(
            f"pod-{i}",
            draw(few(places)),
            gpus=draw(few([0, 1, 2, 8])),
            phase=draw(few(["Running"] * 4 + ["Succeeded"])),
            is_terminating=draw(few([False] * 4 + [True])),
            node_selector=draw(few([{}, {}, {"zone": "none"}])),
            tolerations=draw(few([(), (Toleration("team", "Exists"),)])),
        )
        for i in range(draw(st.integers(0, 25)))
    ]
    cases = [case(n.name, draw(few(list(BUSY)))) for n in nodes if draw(few([False] * 5 + [True]))]
    return nodes, pods, cases


def world_of(fleet):
    nodes, pods, cases = fleet
    return build_world(
        Observation(NOW, tuple(nodes), tuple(pods)),
        frozenset(n.name for n in nodes),
        policy(),
        records={},
        cases=cases,
        halt=HaltLevel.NONE,
    )


def counted_anew(node, world):
    """The definition, word by word."""
    group = [n for n in world.fleet if (n.sku, n.pool) == (node.sku, node.pool)]
    gone = world.taken | world.out | {node.name}
    leaving = [n.name for n in group if n.name == node.name or world.is_leaving(n)]
    free = sum(n.gpus_allocatable for n in group if n.name not in gone)
    for pod in world.observation.pods:
        stays = pod.node in {n.name for n in group} - gone
        free -= pod.gpus * (stays and not pod.is_finished)
        free -= pod.gpus * (pod.node in leaving and moves(pod, world))
        waits = not pod.node and not pod.is_finished
        free -= pod.gpus * (waits and any(fits(pod, n, heed_taints=False) for n in group))
    return free


def moves(pod, world):
    evicted = {d.uid for d in world.pods_to_drain(pod.node) if d.action is PodAction.EVICT}
    return pod.uid in evicted and not pod.is_terminating and not pod.is_finished


@settings(max_examples=120)
@given(fleets(), st.data())
def test_it_is_what_counting_anew_gives_whoever_the_plan_takes(fleet, data):
    world = world_of(fleet)
    for _ in range(3):
        for node in world.fleet:
            assert free_gpus_after(node, world) == counted_anew(node, world)
        world.take(data.draw(few(list(world.fleet))))


@settings(max_examples=120)
@given(fleets())
def test_a_pod_is_a_misfit_exactly_when_no_node_alone_has_room_for_it(fleet):
    world = world_of(fleet)
    for node in world.fleet:
        for pod in world.moving(node.name):
            found = world.headroom.misfit(node, [pod])
            room = [
                n
                for n in world.fleet
                if (n.sku, n.pool) == (node.sku, node.pool)
                and n.name not in world.out | {node.name}
                and fits(pod, n)
                and n.gpus_allocatable - in_use(n, world) >= pod.gpus
            ]
            assert (found is None) is bool(room) or pod.gpus == 0


def in_use(node, world):
    return sum(p.gpus for p in world.pods_on.get(node.name, ()) if not p.is_finished)


def test_two_pods_do_not_share_one_place():
    nodes = [make_node(f"n{i}") for i in range(2)]
    pods = [make_pod("a", "n0", gpus=4), make_pod("b", "n0", gpus=4), make_pod("c", "n1", gpus=2)]
    world = world_of((nodes, pods, []))
    pod, most = world.headroom.misfit(nodes[0], world.moving("n0"))
    assert (pod.name, most) == ("b", 2)
