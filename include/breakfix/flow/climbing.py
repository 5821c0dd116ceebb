"""When a repair did not help: the next rung of the ladder, or the end of it.

The case changes hands by climbing: its next run asks for the new rung, which has a plan of its own,
and does it. A rung that nobody may or can do ends the case, and says so.
"""

from __future__ import annotations

from breakfix.act.guard import halt_level
from breakfix.act.repair import known_boot_id, withdraw_pods
from breakfix.flow.endings import ACTOR, escalation
from breakfix.flow.guarding import acting
from breakfix.flow.lemons import lemon_words
from breakfix.flow.providers import available
from breakfix.flow.repairs import current_step
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage
from breakfix.flow.tiers import rung_tier
from breakfix.model import (
    BOOTS,
    REPAIRS,
    RUNGS,
    Action,
    Case,
    HaltLevel,
    Impact,
    Intent,
    NodeRecord,
    NodeState,
    Outcome,
    Step,
    StepStatus,
)
from breakfix.ports import Rung


def next_rung(services: Services, case: Case) -> Go:
    """Climb, or go to the escalation with the reason on record. Raises Refused (not now)."""
    failed = _what_failed(services, case)
    if failed is None:
        return Go(Stage.ESCALATE, "nothing shows that another repair would help")
    said = f"{failed.name} {failed.status}: {failed.detail.get('text', '')}"
    if halt_level(services.cluster, services.book, services.settings.namespace) is HaltLevel.ALL:
        return Go(Stage.SETTLE_RUN, f"{said}; halted: the ladder goes on when that is lifted")
    action, why_not = _wanted(services, case, failed)
    if why_not:
        return escalation(services, case, Stage.NEXT_RUNG, f"{said}; {why_not}")
    withdraw_pods(acting(services), case)
    climbed = services.book.climb(
        case.id,
        case.fence,
        _rung(services, case, action, after=failed.name),
        actor=ACTOR,
        reason=said,
        now=services.clock.now(),
    )
    text = f"{said}; next: {action}, by run {climbed.run_id}"
    services.notifier.tell(f"{case.node}: {action} is next", text, case_id=case.id)
    return Go(Stage.SETTLE_RUN, text)


def _what_failed(services: Services, case: Case) -> Step | None:
    """The repair, or the check after it, that shows a broken node; None where nothing is shown.

    What could not be told of a node, or of a repair, is no reason to do more to it.
    """
    if case.state is NodeState.REPAIRING:
        step = current_step(services, case)
        is_ended = step is not None and step.status in {StepStatus.FAILED, StepStatus.UNKNOWN}
        return step if is_ended else None
    for step in reversed(services.book.steps(case.id)):
        is_check = step.fence == case.fence and step.status is StepStatus.FAILED
        if is_check and "outcome" in step.detail:
            return step if step.detail["outcome"] == Outcome.NOT_FIXED else None
    return None


def _wanted(services: Services, case: Case, failed: Step) -> tuple[Action, str]:
    """The next rung, and why it is not to be tried ("" when it is)."""
    rule, limits = services.policy.class_rule(case.failure_class), services.policy.limits
    if case.fence >= limits.max_runs:
        return case.action, f"{case.fence} runs did not finish it"
    record = _record(services, case)
    action = rule.action_for(record.attempts + 1, record.repairs)
    exhausted = _exhausted(services, case, record)
    if exhausted and action is not Action.OPEN_VENDOR_CASE:
        action = rule.hardware(record.repairs)
    tried = ", ".join(a for a in RUNGS if record.repairs.get(a)) or "nothing"
    if action not in REPAIRS:
        return action, f"{exhausted or 'the ladder has no further rung'} (tried: {tried})"
    if rule.mode not in ("approve", "auto"):
        return action, f"{action} would be next; policy mode of {case.failure_class} is {rule.mode}"
    if action not in available(services):
        return action, f"{action} would be next, and nobody is configured to do it"
    if failed.status is StepStatus.UNKNOWN and not _is_safe_after(failed, action):
        return action, f"{action} would be next, but what {case.action} did is not known"
    return action, ""


def _is_safe_after(unknown: Step, action: Action) -> bool:
    """Only what compares the boot cannot come late once the node runs another one."""
    return unknown.detail.get("provider") == "pod" and action in BOOTS


def _exhausted(services: Services, case: Case, record: NodeRecord) -> str:
    limit = services.policy.limits.max_attempts
    if record.attempts >= limit:
        return f"{record.attempts} of {limit} repairs were tried"
    return lemon_words(services, case.node)


def _record(services: Services, case: Case) -> NodeRecord:
    return services.book.node_records(now=services.clock.now())[case.node]


def _rung(services: Services, case: Case, action: Action, *, after: str) -> Rung:
    """The plan of the next rung: another one than was approved, whatever it is."""
    attempt = _record(services, case).attempts + 1
    intent = Intent(
        node=case.node,
        node_uid=case.node_uid,
        boot_id=known_boot_id(acting(services), case),
        failure_class=case.failure_class,
        action=action,
        confidence=case.confidence,
        reason=case.reason,
        impact=Impact(0, 0, 0),
        scopes=case.scopes,
        attempt=attempt,
        policy_hash=services.policy.hash,
    )
    return Rung(action, attempt, intent.hash, rung_tier(services, case, action), after)
