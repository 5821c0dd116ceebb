"""Our state in NVSentinel's label: only when policy says so, and where it is not at work itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.act.guard import Expected
from breakfix.act.mirror import LABEL, WORDS
from breakfix.act.quarantine import clear_marks, quarantine, release, set_state_label
from breakfix.model import NodeState
from tests.unit.act_world import make_world

NOTE = "breakfix.dev/mirrored-state"


def mirroring(**changes):
    world = make_world(**changes)
    return replace_acting(world, is_on=True)


def replace_acting(world, *, is_on):
    world.acting = replace(world.acting, mirrors_nvsentinel=is_on)
    return world


def seen(world):
    node = world.cluster.node("gpu-1")
    return node.labels.get(LABEL), node.annotations.get(NOTE)


def taken_out(world):
    quarantine(world.acting, world.case, Expected(is_ours=False))
    return world


def test_a_quarantine_is_told_in_the_same_patch():
    world = taken_out(mirroring())
    assert seen(world) == ("quarantined", "quarantined")
    assert sum(method == "patch_node" for method, _ in world.cluster.calls) == 1


def test_nothing_is_mirrored_unless_policy_says_so():
    assert seen(taken_out(make_world())) == (None, None)


@pytest.mark.parametrize(
    ("state", "word"),
    [
        (NodeState.REPAIRING, "remediating"),
        (NodeState.VALIDATING, "remediating"),
        (NodeState.ESCALATED, "remediation-failed"),
        (NodeState.RETURNING, None),
    ],
)
def test_it_follows_our_state_and_calls_nothing_succeeded_that_is_not_in_service(state, word):
    world = taken_out(mirroring())
    set_state_label(world.acting, world.case, state)
    assert seen(world) == (word, word)
    assert "remediation-succeeded" not in WORDS.values()


def test_it_goes_with_the_release():
    world = taken_out(mirroring())
    release(world.acting, world.case, Expected())
    assert seen(world) == (None, None)


@pytest.mark.parametrize("is_on", [True, False])
def test_it_goes_with_our_marks_whatever_policy_says_by_then(is_on):
    world = replace_acting(taken_out(mirroring()), is_on=is_on)
    assert clear_marks(world.cluster, world.case)
    assert seen(world) == (None, None)


@pytest.mark.parametrize(
    "theirs",
    [
        pytest.param({"labels": {LABEL: "draining"}}, id="its label"),
        pytest.param({"annotations": {"quarantineHealthEvent": "{}"}}, id="its annotation"),
        pytest.param(
            {"annotations": {"nvsentinel.nvidia.com/validation-session": "x"}}, id="its session"
        ),
    ],
)
def test_a_node_that_nvsentinel_works_on_is_left_to_it(theirs):
    world = taken_out(mirroring(**theirs))
    set_state_label(world.acting, world.case, NodeState.REPAIRING)
    release(world.acting, world.case, Expected())
    assert clear_marks(world.cluster, world.case)
    node = world.cluster.node("gpu-1")
    assert node.labels.get(LABEL) == theirs.get("labels", {}).get(LABEL)
    assert theirs.get("annotations", {}).items() <= node.annotations.items()
    assert NOTE not in node.annotations


def test_a_label_that_nvsentinel_sets_over_ours_is_its_own_from_then_on():
    world = taken_out(mirroring())
    node = world.cluster.node("gpu-1")
    world.cluster.change_node("gpu-1", labels={**node.labels, LABEL: "draining"})
    set_state_label(world.acting, world.case, NodeState.REPAIRING)
    assert seen(world) == ("draining", None)
    assert clear_marks(world.cluster, world.case)
    assert seen(world) == ("draining", None)


def test_policy_that_turns_it_off_takes_it_away_with_the_next_state():
    world = replace_acting(taken_out(mirroring()), is_on=False)
    set_state_label(world.acting, world.case, NodeState.REPAIRING)
    assert seen(world) == (None, None)
