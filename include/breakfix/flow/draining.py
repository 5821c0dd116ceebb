"""The drain of one case: pass after pass until nothing is left, or the deadline says that it is
overdue.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from breakfix.act import steps
from breakfix.act.drain import DrainProgress, Emptying, drain_once, here
from breakfix.errors import Refused
from breakfix.flow.drain_telling import told
from breakfix.flow.guarding import acting, disruption
from breakfix.flow.replaced import before_drain
from breakfix.flow.services import Services
from breakfix.flow.stages import Wait, WaitKind
from breakfix.leaving import next_change
from breakfix.model import Case, Pod, PodAction, PodDecision, RefusalReason, Step, StepStatus
from breakfix.plan.drain_ladder import decide_drain
from breakfix.policy import Policy
from breakfix.resilience.retry import backoff_s

_LONGEST_BACKOFF_S = 120.0
#: A controller that put so many new pods on the cordoned node tolerates it; no more are evicted.
_RETURNS = 3


@dataclass(frozen=True, slots=True)
class Overdue:
    """The drain has not ended in time; what is left is on record with its step."""

    step: Step
    text: str


def drain_node(services: Services, case: Case) -> Wait | Overdue | None:
    """One pass. None: nothing is left; a Wait: something is, and may still go in time.

    Raises Refused when a guardrail, or a pod that may not go, holds it.
    """
    known = drain_step(services, case)
    if known is not None and known.status is StepStatus.DONE:
        return None
    if known is not None and known.status is not StepStatus.DISPATCHED:
        return Overdue(known, str(known.detail.get("text", "overdue")))
    progress = drain_once(
        acting(services),
        case,
        disruption(services, case),
        Emptying(
            services.policy.drain,
            decider(services.policy),
            lambda turn: since_of(services, case, known, turn),
            {} if known is not None else {"controllers": before_drain(services, case)},
            tolerant_of(known),
        ),
    )
    if progress.refused:
        first = progress.refused[0]
        text = f"drain refused {first.namespace}/{first.name}: {first.reason}"
        raise Refused(RefusalReason.POD_REFUSED, text)
    return None if progress.is_done else _not_done(services, case, progress)


def decider(policy: Policy) -> _Decider:
    """`decide_drain` under this policy, as act asks it."""
    return _Decider(policy)


class _Decider:
    def __init__(self, policy: Policy) -> None:
        self._drain = policy.drain

    def __call__(
        self, pods: Sequence[Pod], daemon_sets: frozenset[tuple[str, str]]
    ) -> Sequence[PodDecision]:
        return decide_drain(pods, daemon_sets=daemon_sets, drain=self._drain)


def left_to_drain(services: Services, case: Case) -> tuple[str, ...]:
    """Pods on the node, besides ours, that a drain would take or refuse; none after a drain."""
    drain, now = services.policy.drain, services.clock.now()
    pods, _ = here(services.cluster, case.node, drain, now)
    step = drain_step(services, case)
    behind = frozenset(step.detail.get("left_behind", ())) if step is not None else frozenset()
    going = {p.uid for p in pods if p.is_terminating}
    decisions = decider(services.policy)(pods, services.cluster.daemon_sets())
    left = [d for d in decisions if d.action is not PodAction.SKIP]
    names = [(d, f"{d.namespace}/{d.name}") for d in left]
    return tuple(name for d, name in names if not (name in behind and d.uid in going))


def drain_step(services: Services, case: Case) -> Step | None:
    """The drain of the case's current round, if it was begun."""
    known = services.book.steps(case.id)
    return steps.step_named(known, f"{steps.DRAIN}-{steps.current_round(known)}")


def began_at(step: Step, case: Case) -> datetime:
    """A case that was held, or that changed hands, has its time anew."""
    return max(step.started_at, case.updated_at)


def since_of(services: Services, case: Case, step: Step | None, turn: int) -> datetime:
    """Since when pods of that order have had their time; one that begins only now has it all."""
    now = services.clock.now()
    if step is None:
        return now
    turns: Mapping[str, Any] = step.detail.get("turns", {})
    if str(turn) in turns:
        return max(began_at(step, case), datetime.fromisoformat(str(turns[str(turn)])))
    return now if turns else began_at(step, case)


def tolerant_of(step: Step | None) -> frozenset[str]:
    """Controllers whose pods came back to the node too often to be evicted once more."""
    returned: Mapping[str, int] = step.detail.get("returned", {}) if step is not None else {}
    return frozenset(uid for uid, times in returned.items() if int(times) >= _RETURNS)


def _not_done(services: Services, case: Case, progress: DrainProgress) -> Wait | Overdue | None:
    step = drain_step(services, case)
    if step is None:  # nothing was begun, so nothing is left: drain_once says so itself
        return None
    now = services.clock.now()
    deadline = began_at(step, case) + timedelta(seconds=services.policy.drain.timeout_s)
    since = since_of(services, case, step, progress.turn)
    detail = told(services, case, step, progress, since=since, deadline=deadline)
    if now >= deadline or _is_out_of_rungs(progress):
        return Overdue(step, f"overdue: {detail['text']}")
    return Wait(
        WaitKind.PODS_GONE,
        case.id,
        case.node,
        min(deadline, _wakes_at(services, progress) or deadline),
        not_before=now + timedelta(seconds=_pause_s(services, progress, detail)),
        since=since,
        turn=progress.turn,
        tolerant=tuple(sorted(tolerant_of(drain_step(services, case)))),
    )


def _is_out_of_rungs(progress: DrainProgress) -> bool:
    """Nothing is left to try, and nothing is on its way out."""
    here = [s for s in progress.left if s.is_its_turn]
    return bool(here) and all(
        (s.is_spent or s.comes_back) and not s.pod.is_terminating for s in here
    )


def _wakes_at(services: Services, progress: DrainProgress) -> datetime | None:
    """When a rung ends, or a pod that terminates is to be called stuck."""
    now = services.clock.now()
    stuck_after = timedelta(seconds=services.policy.drain.stuck_after_s)
    moments = [s.pod.stops_by + stuck_after for s in progress.left if s.pod.stops_by is not None]
    changes = next_change([s for s in progress.left if not s.pod.is_terminating])
    if changes is not None:
        moments.append(changes)
    return min((m for m in moments if m > now), default=None)


def _pause_s(services: Services, progress: DrainProgress, detail: Mapping[str, Any]) -> float:
    """Until the next pass at the earliest: longer each time that the API server would not."""
    poll_s = services.policy.drain.poll_s
    if not progress.blocked:
        return poll_s
    waits = [b.retry_after_s for b in progress.blocked if b.retry_after_s is not None]
    asked = max(waits, default=None)
    tries = max(1, int(detail.get("tries", 1)))
    pause_s = backoff_s(min(tries, 10), first_s=poll_s, longest_s=_LONGEST_BACKOFF_S, asked_s=asked)
    return max(poll_s, pause_s)
