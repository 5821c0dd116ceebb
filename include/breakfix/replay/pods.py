"""How the pods of a trace change over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from breakfix.replay.trace import PodSpec, Trace


@dataclass(frozen=True, slots=True)
class PodNow:
    """A pod from `at` until the next change; seconds since the first sweep."""

    at: float
    phase: str
    is_ready: bool
    node: str
    is_there: bool


def pod_history(pod: PodSpec, trace: Trace) -> tuple[PodNow, ...]:
    """Every state the pod goes through, the first when it appears."""
    start = -trace.warmup - trace.every if pod.start is None else pod.start
    states = [PodNow(start, pod.phase, pod.ready, pod.node, is_there=True)]
    for change in sorted(pod.changes, key=lambda c: c.at):
        now = states[-1]
        states.append(
            replace(
                now,
                at=change.at,
                phase=change.phase or now.phase,
                is_ready=now.is_ready if change.ready is None else change.ready,
                node=now.node if change.node is None else change.node,
                is_there=not change.deleted,
            )
        )
    return tuple(states)


def pod_at(history: Sequence[PodNow], time: float) -> PodNow | None:
    """The pod at that time; None when it is not there."""
    found = None
    for state in history:
        if state.at <= time:
            found = state
    return found if found is not None and found.is_there else None
