"""Our state in the words of NVSentinel's label, for tools that read that one.

Off unless policy says so, and never where NVSentinel itself has a hand on the node.

What we wrote is noted beside it: only a label that still says so is ours to change or to take away.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from breakfix.act import marks
from breakfix.model import Node, NodeState
from breakfix.ports import NodePatch

LABEL = "dgxc.nvidia.com/nvsentinel-state"

#: A node under validation is not proven, hence not "remediation-succeeded"; in service it has none.
WORDS: Mapping[NodeState, str] = {
    NodeState.QUARANTINED: "quarantined",
    NodeState.REPAIRING: "remediating",
    NodeState.VALIDATING: "remediating",
    NodeState.ESCALATED: "remediation-failed",
}

#: Beginning of the annotations that NVSentinel keeps on nodes it works on.
_THEIRS = ("quarantineHealthEvent", "latestFaultRemediationState", "nvsentinel.nvidia.com/")


def is_theirs(node: Node) -> bool:
    """Whether NVSentinel is at work on the node: its annotations, or a label that we did not write.

    A label that was set over ours is theirs, too.
    """
    if any(key.startswith(_THEIRS) for key in node.annotations):
        return True
    label = node.labels.get(LABEL)
    return label is not None and label != node.annotations.get(marks.MIRRORED)


def mirrored(patch: NodePatch | None, node: Node, *, is_on: bool) -> NodePatch | None:
    """The patch, with the mirror made to follow the state that the node has after it."""
    labels = {**node.labels, **((patch and patch.labels) or {})}
    word = _word(labels.get(marks.STATE)) if is_on and not is_theirs(node) else None
    if word is None:
        return _with(patch, node, *_taken_away(node))
    return _with(patch, node, {LABEL: word}, {marks.MIRRORED: word})


def _word(state: str | None) -> str | None:
    return WORDS.get(NodeState(state)) if state in set(NodeState) else None


def _taken_away(node: Node) -> tuple[Mapping[str, str | None], Mapping[str, str | None]]:
    """What we noted goes, and the label with it where it is still ours."""
    if marks.MIRRORED not in node.annotations:
        return {}, {}
    return ({} if is_theirs(node) else {LABEL: None}), {marks.MIRRORED: None}


def _with(
    patch: NodePatch | None,
    node: Node,
    labels: Mapping[str, str | None],
    annotations: Mapping[str, str | None],
) -> NodePatch | None:
    more = NodePatch(labels=labels, annotations=annotations)
    if marks.changes_nothing(more, node):
        return patch
    base = patch or NodePatch()
    return replace(
        base,
        labels={**(base.labels or {}), **labels},
        annotations={**(base.annotations or {}), **annotations},
    )
