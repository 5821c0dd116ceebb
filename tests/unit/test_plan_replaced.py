"""Whether what ran on a drained node runs elsewhere: controller by controller."""

from __future__ import annotations

import pytest

from breakfix.model import Owner
from breakfix.plan.replaced import (
    Controller,
    Gap,
    are_ready_elsewhere,
    controllers_on,
    shortfalls,
)
from tests.fakes_cluster import make_pod

RS = Owner("ReplicaSet", "web", "rs")


def web(name, node="gpu-1", **changes):
    return make_pod(name, node, owners=(RS,), **changes)


def test_only_ready_pods_of_controllers_that_will_leave_are_to_be_replaced():
    pods = [
        web("a"),
        web("b", "gpu-2"),
        make_pod("bare", owners=()),
        make_pod("ds", owners=(Owner("DaemonSet", "d", "ds"),)),
        make_pod("job", owners=(Owner("Job", "j", "job"),), phase="Succeeded", is_ready=False),
        make_pod("sick", owners=(Owner("ReplicaSet", "sick", "s"),), is_ready=False),
    ]
    found = controllers_on(pods, frozenset(p.uid for p in pods if p.node == "gpu-1"))
    assert [(c.uid, c.ready, c.was_whole) for c in found] == [("rs", 2, True)]


def test_a_controller_with_an_unready_pod_was_not_whole():
    pods = [web("a"), web("b", "gpu-2", is_ready=False)]
    (found,) = controllers_on(pods, frozenset({"uid-a"}))
    assert (found.ready, found.was_whole) == (1, False)


BEFORE = Controller("rs", "ReplicaSet", "work", "web", 2, was_whole=True)
STAYED = web("b", "gpu-2")


@pytest.mark.parametrize(
    ("successors", "gap"),
    [
        pytest.param([web("c", "gpu-3")], None, id="Ready elsewhere"),
        pytest.param([web("c", "gpu-3", phase="Succeeded", is_ready=False)], None, id="done well"),
        pytest.param([], Gap.MISSING, id="none was made"),
        pytest.param([web("c", "", is_ready=False)], Gap.PENDING, id="it finds no node"),
        pytest.param([web("c", "gpu-3", is_ready=False)], Gap.FAILING, id="it fails there"),
        pytest.param([web("c", "gpu-1")], Gap.MISSING, id="one on the drained node is none"),
        pytest.param([web("c", "gpu-3", is_terminating=True)], Gap.MISSING, id="one that goes"),
    ],
)
def test_a_successor_counts_once_it_is_ready_elsewhere(successors, gap):
    pods = [STAYED, *successors]
    found = shortfalls([BEFORE], pods, "gpu-1")
    assert [s.gap for s in found] == ([gap] if gap else [])
    assert are_ready_elsewhere({"rs": 2}, pods, "gpu-1") is (gap is None)


def test_why_it_fails_there_is_said():
    bad = web("c", "gpu-3", is_ready=False, waiting="ImagePullBackOff")
    (found,) = shortfalls([BEFORE], [STAYED, bad], "gpu-1")
    assert "1 of 2 Ready elsewhere; c is not Ready on gpu-3 (ImagePullBackOff)" in found.text
    assert Controller.from_json(BEFORE.to_json()) == BEFORE
