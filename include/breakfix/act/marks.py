"""What we write on nodes, and how to read it back. Every key starts with `breakfix.dev/`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from breakfix.hands_off import CORDONED_BY_US
from breakfix.model import Case, Node, NodeState, Step, StepStatus, Taint
from breakfix.ports import NodePatch

TAINT = "breakfix.dev/quarantine"
STATE = "breakfix.dev/state"
CASE = "breakfix.dev/case"
FENCE = "breakfix.dev/fence"
MIRRORED = "breakfix.dev/mirrored-state"  # what we wrote into NVSentinel's label

#: The annotations that we write; others under our prefix are people's words to us.
_OURS = frozenset({CASE, FENCE, CORDONED_BY_US, MIRRORED})


def has_taint(node: Node) -> bool:
    """Whether our quarantine taint is on the node."""
    return any(t.key == TAINT for t in node.taints)


def is_of(node: Node, case: Case) -> bool:
    """Whether the node names this case as the one that has it."""
    return node.annotations.get(CASE) == case.id


def is_marked(node: Node) -> bool:
    """Whether anything of ours is on the node."""
    return bool(_OURS & node.annotations.keys()) or STATE in node.labels or has_taint(node)


def picture(node: Node) -> dict[str, Any]:
    """The node as an act finds or leaves it, for the audit: plain JSON values."""
    kept = {**node.labels, **node.annotations}
    return {
        "resource_version": node.resource_version,
        "boot_id": node.boot_id,
        "is_cordoned": node.is_unschedulable,
        "is_ready": node.is_ready,
        "taints": sorted(f"{t.key}={t.value}:{t.effect}" for t in node.taints),
        "marks": {k: v for k, v in sorted(kept.items()) if k in _OURS or k == STATE},
    }


def was_taken_back(node: Node, case: Case, steps: Sequence[Step]) -> bool:
    """Whether a person lifted the quarantine that this case had put on the node.

    Only a quarantine that is recorded as done can be lifted; one that our own release lifted was
    not theirs.
    """
    rounds = [s for s in steps if s.name.startswith("quarantine-")]
    if not rounds or rounds[-1].status is not StepStatus.DONE:
        return False
    number = rounds[-1].name.removeprefix("quarantine-")
    if any(s.name == f"release-{number}" for s in steps):
        return False
    return not (is_of(node, case) and node.is_unschedulable and has_taint(node))


def cordoned_by_us(node: Node) -> bool:
    """Whether the cordon on the node is ours to take away."""
    return node.annotations.get(CORDONED_BY_US) == "true"


def quarantined(node: Node, case: Case) -> NodePatch | None:
    """The patch that quarantines the node for this case; None when it is so already.

    The cordon is ours when the node was schedulable, or when it carries our own earlier mark.
    """
    ours = cordoned_by_us(node) if node.is_unschedulable else True
    taint = Taint(TAINT, "NoSchedule", str(case.failure_class))
    patch = NodePatch(
        is_unschedulable=True,
        taints=(*_others(node), taint),
        labels={STATE: NodeState.QUARANTINED.value},
        annotations={
            CASE: case.id,
            FENCE: str(case.fence),
            CORDONED_BY_US: "true" if ours else "false",
        },
    )
    return None if changes_nothing(patch, node) else patch


def released(node: Node, state: NodeState) -> NodePatch | None:
    """The patch that gives the node back: our taint and, if it was ours, the cordon go."""
    patch = NodePatch(
        is_unschedulable=False if cordoned_by_us(node) else None,
        taints=_others(node) if has_taint(node) else None,
        labels={STATE: state.value},
        annotations={CORDONED_BY_US: None},
    )
    return None if changes_nothing(patch, node) else patch


def labelled(node: Node, state: NodeState) -> NodePatch | None:
    """The patch that makes the state label say `state`."""
    patch = NodePatch(labels={STATE: state.value})
    return None if changes_nothing(patch, node) else patch


def cleared(node: Node) -> NodePatch | None:
    """The patch that takes every taint, label and annotation of ours away; the cordon stays."""
    patch = NodePatch(
        taints=_others(node) if has_taint(node) else None,
        labels={STATE: None},
        annotations={CASE: None, FENCE: None, CORDONED_BY_US: None},
    )
    return None if changes_nothing(patch, node) else patch


def given_back(node: Node) -> NodePatch | None:
    """The patch that takes everything of ours away, and the cordon where it says it is ours."""
    marks = cleared(node) or NodePatch()
    patch = replace(marks, is_unschedulable=False if cordoned_by_us(node) else None)
    return None if changes_nothing(patch, node) else patch


def adopted(node: Node, case: Case) -> NodePatch | None:
    """The patch that names an escalated case as the one that has the node, as it stands there.

    A cordon that does not say whose it is counts as somebody else's.
    """
    patch = NodePatch(
        labels={STATE: NodeState.ESCALATED.value},
        annotations={
            CASE: case.id,
            FENCE: str(case.fence),
            CORDONED_BY_US: "true" if cordoned_by_us(node) else "false",
        },
    )
    return None if changes_nothing(patch, node) else patch


def changes_nothing(patch: NodePatch, node: Node) -> bool:
    """Whether the node is already as the patch would make it (the order of taints is no matter)."""
    wanted_cordon = patch.is_unschedulable
    return (
        wanted_cordon in (None, node.is_unschedulable)
        and (patch.taints is None or set(patch.taints) == set(node.taints))
        and all(node.labels.get(k) == v for k, v in (patch.labels or {}).items())
        and all(node.annotations.get(k) == v for k, v in (patch.annotations or {}).items())
    )


def _others(node: Node) -> tuple[Taint, ...]:
    return tuple(t for t in node.taints if t.key != TAINT)
