"""The drain of one case: pass after pass until nothing is left, or the deadline says that it is overdue."""

from __future__ import annotations

from datetime import datetime, timedelta

from breakfix.act.drain import DrainProgress, drain_once
from breakfix.errors import Refused
from breakfix.flow.guarding import guarded
from breakfix.flow.services import Services
from breakfix.flow.stages import Wait, WaitKind
from breakfix.model import Case, Node, RefusalReason, Step, StepStatus


def drain_node(services: Services, case: Case) -> Wait | bool:
    """One pass. True: drained and verified; False: overdue; a Wait: something is left.

    Raises Refused when a guardrail, or a pod that may not go, holds it; nothing was evicted then in this pass.
    """
    step = _begin(services, case)
    if step.status in {StepStatus.VERIFIED, StepStatus.FAILED}:
        return step.status is StepStatus.VERIFIED
    node = guarded(services, case)
    now = services.clock.now()
    progress = drain_once(services.cluster, case, services.policy.drain, now=now)
    if progress.refused:
        raise Refused(RefusalReason.POD_REFUSED, f"drain refused: {progress.refused[0]}")
    detail = _detail(step, progress)
    if progress.is_done:
        _finish(services, case, step, StepStatus.VERIFIED, detail)
        return True
    deadline = datetime.fromisoformat(str(step.detail["deadline"]))
    if now >= deadline:
        _finish(services, case, step, StepStatus.FAILED, {**detail, "text": f"overdue: {detail['text']}"})
        return False
    _note(services, case, node, step, detail, progress)
    again = now + timedelta(seconds=services.policy.drain.poll_s)
    return Wait(WaitKind.PODS_GONE, case.id, case.node, deadline, not_before=again)


def _begin(services: Services, case: Case) -> Step:
    now = services.clock.now()
    until = now + timedelta(seconds=services.policy.drain.timeout_s)
    step, _ = services.book.begin_step(
        case.id,
        case.fence,
        f"drain.{case.attempt}",
        detail={"deadline": until.isoformat(), "evicted": 0, "left": 0, "text": ""},
        now=now,
    )
    return step


def _detail(step: Step, progress: DrainProgress) -> dict[str, object]:
    evicted = int(step.detail.get("evicted", 0)) + progress.evicted
    text = f"{evicted} evicted, {progress.left} left"
    if progress.blocked:
        pod, why = progress.blocked[0]
        text += f"; {pod} is blocked: {why}"
    return {"evicted": evicted, "left": progress.left, "text": text}


def _note(
    services: Services,
    case: Case,
    node: Node,
    step: Step,
    detail: dict[str, object],
    progress: DrainProgress,
) -> None:
    """Keep the progress on the case; who blocks the drain is told once, as an event on the node."""
    if detail["text"] == step.detail.get("text"):
        return
    _finish(services, case, step, StepStatus.DISPATCHED, detail)
    if progress.blocked:
        message = f"case {case.id}: {detail['text']}"[:1000]
        services.cluster.post_event(node, reason="DrainBlocked", message=message, is_warning=True)


def _finish(
    services: Services, case: Case, step: Step, status: StepStatus, detail: dict[str, object]
) -> None:
    services.book.finish_step(
        case.id, case.fence, step.name, status, detail=detail, now=services.clock.now()
    )
