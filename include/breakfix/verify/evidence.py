"""Outcomes of a repair from what is seen of the node, its GPUs, its signals and its pods."""

from __future__ import annotations

from breakfix.model import FailureClass, Node, Outcome, SignalMode, Verdict


def gpus_outcome(node: Node, expected: int) -> Outcome:
    """Fixed: the kubelet of a Ready node offers exactly the GPUs that its SKU has.

    `expected` 0 means that the number is not known. A node that is not Ready reports old numbers.
    """
    if expected <= 0 or not node.is_ready:
        return Outcome.CANNOT_TELL
    is_whole = node.gpus_allocatable == node.gpus_capacity == expected
    return Outcome.FIXED if is_whole else Outcome.NOT_FIXED


def signals_outcome(verdict: Verdict | None, *, required: frozenset[str] | None = None) -> Outcome:
    """Fixed: the node was judged, nothing that counts is unknown, no finding may raise an action.

    `required` names the signals that must be known; None means all of them.
    """
    if verdict is None:
        return Outcome.CANNOT_TELL
    if any(f.mode is not SignalMode.NEVER for f in verdict.findings):
        return Outcome.NOT_FIXED
    missing = set(verdict.unknown) if required is None else required & set(verdict.unknown)
    if missing:
        return Outcome.CANNOT_TELL
    is_blind = verdict.failure_class is FailureClass.TELEMETRY_LOST
    return Outcome.CANNOT_TELL if is_blind else Outcome.FIXED
