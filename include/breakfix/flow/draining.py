"""The drain of one case: pass after pass until nothing is left, or the deadline says that it is
overdue.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from breakfix.act import steps
from breakfix.act.drain import OUR_PODS, DrainProgress, drain_once
from breakfix.errors import Refused
from breakfix.flow.guarding import acting, disruption
from breakfix.flow.services import Services
from breakfix.flow.stages import Wait, WaitKind
from breakfix.model import Case, Pod, PodAction, PodDecision, RefusalReason, Step, StepStatus
from breakfix.plan.drain_pods import decide_pods
from breakfix.policy import Policy


def drain_node(services: Services, case: Case) -> Wait | bool:
    """One pass. True: nothing is left; False: overdue; a Wait: something is left.

    Raises Refused when a guardrail, or a pod that may not go, holds it.
    """
    known = drain_step(services, case)
    if known is not None and known.status is not StepStatus.DISPATCHED:
        return known.status is StepStatus.DONE
    progress = drain_once(
        acting(services),
        case,
        disruption(services, case),
        services.policy.drain,
        decider(services.policy),
    )
    if progress.refused:
        first = progress.refused[0]
        text = f"drain refused {first.namespace}/{first.name}: {first.reason}"
        raise Refused(RefusalReason.POD_REFUSED, text)
    return progress.is_done or _not_done(services, case, progress)


def decider(policy: Policy) -> _Decider:
    """`decide_pods` under this policy, as act asks it."""
    return _Decider(policy)


class _Decider:
    def __init__(self, policy: Policy) -> None:
        self._drain = policy.drain

    def __call__(
        self, pods: Sequence[Pod], daemon_sets: frozenset[tuple[str, str]]
    ) -> Sequence[PodDecision]:
        return decide_pods(
            pods,
            daemon_sets=daemon_sets,
            allow_disk_empty_dir=self._drain.may_delete_disk_empty_dir,
            allow_unmanaged=self._drain.may_delete_unmanaged,
        )


def left_to_drain(services: Services, case: Case) -> tuple[str, ...]:
    """Pods on the node, besides ours, that a drain would take or refuse; none after a drain."""
    pods = [p for p in services.cluster.pods(case.node) if OUR_PODS not in p.labels]
    decisions = decider(services.policy)(pods, services.cluster.daemon_sets())
    return tuple(f"{d.namespace}/{d.name}" for d in decisions if d.action is not PodAction.SKIP)


def drain_step(services: Services, case: Case) -> Step | None:
    """The drain of the case's current round, if it was begun."""
    known = services.book.steps(case.id)
    return steps.step_named(known, f"{steps.DRAIN}-{steps.current_round(known)}")


def _not_done(services: Services, case: Case, progress: DrainProgress) -> Wait | bool:
    step = drain_step(services, case)
    now = services.clock.now()
    if step is None:  # nothing was begun, so nothing is left: drain_once says so itself
        return True
    # a case that was held, or that changed hands, has its time anew
    since = max(step.started_at, case.updated_at)
    deadline = since + timedelta(seconds=services.policy.drain.timeout_s)
    detail = _told(step, progress)
    if now >= deadline:
        overdue = {**detail, "text": f"overdue: {detail['text']}"}
        steps.finish(acting(services), case, step.name, StepStatus.FAILED, overdue)
        return False
    if detail["text"] != step.detail.get("text"):
        services.book.finish_step(
            case.id, case.fence, step.name, StepStatus.DISPATCHED, detail=detail, now=now
        )
        if progress.blocked:
            _tell(services, case, str(detail["text"]))
    again = now + timedelta(seconds=services.policy.drain.poll_s)
    return Wait(WaitKind.PODS_GONE, case.id, case.node, deadline, not_before=again)


def _told(step: Step, progress: DrainProgress) -> dict[str, object]:
    evicted = int(step.detail.get("evicted", 0)) + len(progress.evicted)
    text = f"{evicted} evicted, {len(progress.left)} left"
    if progress.blocked:
        text += f"; {progress.blocked[0].pod} is blocked: {progress.blocked[0].message}"
    return {"evicted": evicted, "left": len(progress.left), "text": text}


def _tell(services: Services, case: Case, text: str) -> None:
    """Who blocks a drain is an event on the node, besides the case: there people look first."""
    node = services.cluster.node(case.node)
    message = f"case {case.id}: {text}"[:1000]
    services.cluster.post_event(node, reason="DrainBlocked", message=message, is_warning=True)
