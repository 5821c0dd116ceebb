"""When repairs of one kind fail, the next one is not begun: what becomes of its node is policy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from breakfix.act import steps
from breakfix.flow.draining import drain_step
from breakfix.flow.endings import escalate, give_up, is_ending
from breakfix.flow.holds import FAILING_HOLD, hold
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage
from breakfix.model import Action, Case, CaseEnd, NodeState, Step, StepStatus
from breakfix.policy_recovery import Others

_GAVE_WAY = "gave_way_at"  # in a case's detail: a person who lets it go on is not overruled
_REPAIRS = frozenset(Action) - {
    Action.NONE,
    Action.REVIEW,
    Action.HOLD_FOR_HARDWARE,
    Action.DRAIN_ONLY,
}


def acted_upon(services: Services, case: Case) -> str:
    """What has been done to the case's node beside its quarantine, in words; empty when nothing.

    A drain counts from its first step on: an eviction may be under way that nobody has recorded.
    """
    if case.state is not NodeState.QUARANTINED:
        return f"it is {case.state}"
    if is_ending(case):
        return "its end has begun"
    drain = drain_step(services, case)
    if drain is not None:
        return "its drain has ended" if drain.ended_at else "its drain has begun"
    known = services.book.steps(case.id)
    begun = [s.name for s in known if _is_repair_of_round(s, known)]
    return f"{begun[0]} has begun" if begun else ""


def _is_repair_of_round(step: Step, known: Sequence[Step]) -> bool:
    is_repair = step.name.startswith(f"{steps.REPAIR}-")
    number = step.name.rpartition("-")[2].partition(".")[0]
    return is_repair and number == str(steps.current_round(known))


def failures_beside(services: Services, case: Case) -> tuple[Case, ...]:
    """Cases of the same class, opened about the same time, that a drain or repair could not help.

    Of those that a person has let go on past it, only what failed since then.
    """
    rule = services.policy.recovery
    window = timedelta(seconds=rule.window_s)
    since = datetime.fromisoformat(str(case.detail.get(_GAVE_WAY, case.opened_at - window)))
    found = [
        c
        for c in services.book.cases(opened_since=case.opened_at - window)
        if c.id != case.id
        and c.failure_class is case.failure_class
        and c.opened_at <= case.opened_at + window
        and c.action in _REPAIRS
        and c.state is NodeState.ESCALATED
        and c.ended_at is not None
        and c.ended_at > since
    ]
    return tuple(c for c in found if _was_worked_on(services, c))


def _was_worked_on(services: Services, case: Case) -> bool:
    """Escalated because work failed, and not for want of a yes or by a person's abort."""
    if case.detail.get("ending", {}).get("end") == CaseEnd.ESCALATED:
        return False
    done = {StepStatus.DISPATCHED, StepStatus.FAILED, StepStatus.UNKNOWN}
    return case.repaired_at is not None or any(
        s.name.startswith((f"{steps.REPAIR}-", f"{steps.DRAIN}-")) and s.status in done
        for s in services.book.steps(case.id)
    )


def why_give_way(services: Services, case: Case) -> str:
    """Why the case's work is not begun; empty when it may be."""
    limit = services.policy.recovery.failures
    if not limit or case.action not in _REPAIRS or case.detail.get("is_by_hand"):
        return ""
    if case.held_by or acted_upon(services, case):
        return ""
    failed = failures_beside(services, case)
    if len(failed) < limit:
        return ""
    names = ", ".join(sorted(c.node for c in failed)[:5])
    return f"{len(failed)} others of {case.failure_class} could not be repaired: {names}"


def give_way(services: Services, case: Case, *, actor: str) -> Go | None:
    """What policy wants for a node that nothing was done to yet; None when it goes on."""
    why = why_give_way(services, case)
    if not why:
        return None
    match services.policy.recovery.others:
        case Others.UNCORDON:
            return give_up(services, case, CaseEnd.ABORTED, why, actor=actor)
        case Others.ESCALATE:
            return escalate(services, case, actor=actor, reason=why)
        case Others.HOLD:
            return _hold(services, case, why, actor)


def _hold(services: Services, case: Case, why: str, actor: str) -> Go:
    """Until a person lets it go on; it escalates when nobody comes, as every hold of ours does."""
    now = services.clock.now()
    hold(services, case, FAILING_HOLD, why)
    services.book.move(
        case.id,
        case.fence,
        case.state,
        actor=actor,
        reason=why,
        now=now,
        detail={_GAVE_WAY: now.isoformat()},
    )
    return Go(Stage.SETTLE_RUN, f"held: {why}")
