"""How the pods of a trace change over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from breakfix.replay.trace import PodChange, PodSpec, Trace

T = TypeVar("T")
_ENDED = frozenset({"Succeeded", "Failed"})


@dataclass(frozen=True, slots=True)
class PodNow:
    """A pod from `at` until the next change; seconds since the first sweep."""

    at: float
    phase: str
    is_ready: bool
    node: str
    is_there: bool
    reason: str = ""
    waiting: str = ""
    unschedulable: str = ""
    exit_code: int = 0
    ended_at: float | None = None
    run_s: float | None = None


def pod_history(pod: PodSpec, trace: Trace) -> tuple[PodNow, ...]:
    """Every state the pod goes through, the first when it appears."""
    start = -trace.warmup - trace.every if pod.start is None else pod.start
    first = PodNow(start, pod.phase, pod.ready, pod.node, is_there=True)
    first = replace(first, reason=pod.reason, waiting=pod.waiting, unschedulable=pod.unschedulable)
    states = [first]
    for change in sorted(pod.changes, key=lambda c: c.at):
        states.append(_changed(states[-1], change, start))
    return tuple(states)


def _changed(now: PodNow, change: PodChange, start: float) -> PodNow:
    phase = change.phase or now.phase
    ended = phase in _ENDED and now.phase not in _ENDED
    code = 1 if phase == "Failed" else 0
    return replace(
        now,
        at=change.at,
        phase=phase,
        is_ready=_new(change.ready, now.is_ready) and phase not in _ENDED,
        node=_new(change.node, now.node),
        is_there=not change.deleted,
        reason=_new(change.reason, now.reason),
        waiting=_new(change.waiting, now.waiting),
        unschedulable=_new(change.unschedulable, now.unschedulable),
        exit_code=_new(change.exit_code, code if ended else now.exit_code),
        ended_at=change.at if ended else now.ended_at,
        run_s=change.at - start if ended else now.run_s,
    )


def _new(value: T | None, old: T) -> T:
    return old if value is None else value


def pod_at(history: Sequence[PodNow], time: float) -> PodNow | None:
    """The pod at that time; None when it is not there."""
    found = None
    for state in history:
        if state.at <= time:
            found = state
    return found if found is not None and found.is_there else None
