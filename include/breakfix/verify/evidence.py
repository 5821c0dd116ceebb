"""Outcomes of a repair from what is seen of the node, its GPUs, its signals and its pods."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from breakfix.model import FailureClass, Node, Outcome, Pod, SignalMode, Verdict


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


def boot_outcome(node: Node, booted_before: str) -> Outcome:
    """Fixed: the node runs another boot than the one that was to end. "": no boot was to end."""
    if not booted_before:
        return Outcome.FIXED
    if not node.boot_id:
        return Outcome.CANNOT_TELL
    return Outcome.NOT_FIXED if node.boot_id == booted_before else Outcome.FIXED


def operator_outcome(
    pods: Sequence[Pod], *, since: datetime | None, is_ready: bool | None = None
) -> tuple[Outcome, str]:
    """Of the operator's validator pods on a node: one is Ready, so its init containers are done.

    `since`: when the node was rebooted; a Ready that is older speaks of the boot before. `is_ready`
    is what the operator's metrics say, None where they say nothing.
    """
    if is_ready is False:
        return Outcome.CANNOT_TELL, "the operator's metrics call the node not ready"
    if not pods:
        return Outcome.CANNOT_TELL, "no validator pod of the operator is on the node"
    fresh = [p for p in pods if p.is_ready and (since is None or _changed_since(p, since))]
    if fresh:
        return Outcome.FIXED, f"pod {fresh[0].name} is Ready, all its validations are done"
    pod = pods[0]
    if pod.is_ready:
        return Outcome.CANNOT_TELL, f"pod {pod.name} is Ready from before the reboot"
    why = f"waits for {pod.init_waiting}" if pod.init_waiting else pod.waiting or pod.phase
    return Outcome.CANNOT_TELL, f"pod {pod.name} is not Ready: {why}"


def _changed_since(pod: Pod, since: datetime) -> bool:
    return pod.changed_at is not None and pod.changed_at >= since
