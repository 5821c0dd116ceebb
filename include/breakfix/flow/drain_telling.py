"""What is said of a drain while it goes on: in its step, for the record and for metrics; in an
event on the node; to people once only they can help.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from breakfix.act.drain import DrainProgress
from breakfix.errors import ClusterError, NotFound
from breakfix.flow.services import Services
from breakfix.leaving import Blocker, Standing, holdup
from breakfix.model import Case, Step, StepStatus

log = logging.getLogger(__name__)

_NAMED = 20  # pods that the step names one by one
_BLOCKERS_NAMED = 20


def told(
    services: Services,
    case: Case,
    step: Step,
    progress: DrainProgress,
    *,
    since: datetime,
    deadline: datetime,
) -> dict[str, Any]:
    """Record how far the drain is, and tell of what is new in it. Returns what was recorded.

    `blocked`: kind, pod, name (of a budget or finalizer), message. `pods`: each with its rung and
    what happens to it. `turns`: when the pods of each order began.
    """
    blockers = _blockers(services, case, progress, deadline)
    detail = _detail(step, progress, blockers, since)
    if any(step.detail.get(key) != value for key, value in detail.items()):
        services.book.finish_step(
            case.id,
            case.fence,
            step.name,
            StepStatus.DISPATCHED,
            detail=detail,
            now=services.clock.now(),
        )
    _tell(services, case, step, detail, blockers)
    return detail


def _blockers(
    services: Services, case: Case, progress: DrainProgress, deadline: datetime
) -> tuple[Blocker, ...]:
    """One for each pod: what the API server said of it just now, or else what the pod shows."""
    found = {b.pod: b for b in progress.blocked}
    try:
        is_ready = services.cluster.node(case.node).is_ready
    except NotFound:
        is_ready = False
    for standing in progress.left:
        seen = holdup(
            standing,
            is_node_ready=is_ready,
            now=services.clock.now(),
            deadline=deadline,
            stuck_after_s=services.policy.drain.stuck_after_s,
        )
        if seen is not None:
            found.setdefault(standing.id, seen)
    return tuple(found.values())


def _detail(
    step: Step, progress: DrainProgress, blockers: Sequence[Blocker], since: datetime
) -> dict[str, Any]:
    evicted = int(step.detail.get("evicted", 0)) + len(progress.evicted)
    is_stopped = bool(progress.blocked) and not progress.evicted
    turns = {**step.detail.get("turns", {}), str(progress.turn): since.isoformat()}
    returned = Counter(step.detail.get("returned", {}))
    returned.update(progress.returned)
    return {
        "evicted": evicted,
        "left": len(progress.left),
        "text": _text(evicted, progress.left, blockers),
        "blocked": [_blocker_json(b) for b in blockers[:_BLOCKERS_NAMED]],
        "pods": [_pod_json(s) for s in progress.left[:_NAMED]],
        "turns": turns,
        "returned": dict(returned),
        "tries": int(step.detail.get("tries", 0)) + 1 if is_stopped else 0,
    }


def _text(evicted: int, left: Sequence[Standing], blockers: Sequence[Blocker]) -> str:
    text = f"{evicted} evicted, {len(left)} left"
    waits = Counter(_waiting(s) for s in left)
    known = [f"{n} {what}" for what, n in sorted(waits.items()) if what]
    if known:
        text += f" ({', '.join(known)})"
    for blocker in blockers[:3]:
        text += f"; {blocker.pod} is blocked: {blocker.message}"
    more = len(blockers) - 3
    return f"{text}; and {more} more are blocked" if more > 0 else text


def _waiting(standing: Standing) -> str:
    if standing.pod.is_terminating:
        return "terminating"
    return "" if standing.is_taken_now else standing.says()


def _blocker_json(blocker: Blocker) -> dict[str, Any]:
    return {
        "pod": blocker.pod,
        "kind": blocker.kind.value,
        "name": blocker.name,
        "message": blocker.message,
        "needs_person": blocker.needs_person,
    }


def _pod_json(standing: Standing) -> dict[str, Any]:
    return {
        "pod": standing.id,
        "uid": standing.pod.uid,
        "rung": standing.do.value,
        "order": standing.decision.order,
        "says": standing.says(),
    }


def _tell(
    services: Services,
    case: Case,
    step: Step,
    detail: dict[str, Any],
    blockers: Sequence[Blocker],
) -> None:
    """An event on the node, where people look first, when who is blocked or why has changed."""
    before = {(b["pod"], b["kind"]) for b in step.detail.get("blocked", ())}
    new = [b for b in blockers if (b.pod, b.kind.value) not in before]
    if not new:
        return
    text = str(detail["text"])
    post(services, case, "DrainBlocked", text)
    if any(b.needs_person for b in new):
        services.notifier.tell(f"the drain of {case.node} needs a person", text, case_id=case.id)


def post(services: Services, case: Case, reason: str, text: str) -> None:
    """A warning on the node, for who looks there; the record is in the ledger, so it may fail."""
    node = services.cluster.node(case.node)
    message = f"case {case.id}: {text}"[:1000]
    try:
        services.cluster.post_event(node, reason=reason, message=message, is_warning=True)
    except ClusterError as e:
        log.warning("node=%s no event %s: %s", case.node, reason, e)
