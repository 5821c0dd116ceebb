"""Outcomes of a repair from what is seen of the node, its GPUs, its signals and its pods."""

from __future__ import annotations

from collections.abc import Mapping

from breakfix.model import FailureClass, Node, Outcome, SignalMode, Verdict


def reboot_outcome(before: Node, after: Node) -> Outcome:
    """Fixed: the same machine, another boot, Ready. A boot id that is missing proves nothing."""
    if before.uid != after.uid or not before.boot_id or not after.boot_id:
        return Outcome.CANNOT_TELL
    if before.boot_id == after.boot_id:
        return Outcome.NOT_FIXED
    if after.is_ready:
        return Outcome.FIXED
    ready = after.condition("Ready")
    is_known = ready is not None and ready.status == "False"
    return Outcome.NOT_FIXED if is_known else Outcome.CANNOT_TELL


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


def pod_outcome(phase: str, exit_code: int | None) -> Outcome:
    """Fixed: it ended, and with 0. A pod that is lost, or whose code nobody told, cannot tell."""
    if phase == "Succeeded" and exit_code == 0:
        return Outcome.FIXED
    is_failure = phase == "Failed" or (phase == "Succeeded" and exit_code is not None)
    return Outcome.NOT_FIXED if is_failure else Outcome.CANNOT_TELL


def validation(outcomes: Mapping[str, Outcome]) -> tuple[Outcome, str]:
    """All checks together, with a sentence: one that failed fails, one that cannot tell holds.

    Keys are the checks' names. No check at all cannot tell.
    """
    if not outcomes:
        return Outcome.CANNOT_TELL, "nothing was checked"
    for worst, text in (
        (Outcome.NOT_FIXED, "failed"),
        (Outcome.CANNOT_TELL, "cannot tell"),
    ):
        named = [name for name, outcome in outcomes.items() if outcome is worst]
        if named:
            return worst, f"{', '.join(named)}: {text}"
    return Outcome.FIXED, f"{', '.join(outcomes)}: passed"
