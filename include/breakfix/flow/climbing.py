"""When a repair did not help: the next rung of the ladder, or the end of it.

The case changes hands by climbing: its next run asks for the new rung, which has a plan of its own,
and does it. A rung that nobody may or can do ends the case, and says so.
"""

from __future__ import annotations

from breakfix.act.guard import halt_level
from breakfix.act.repair import known_boot_id, withdraw_pods
from breakfix.flow.endings import ACTOR, escalation
from breakfix.flow.gates import REMEDY, remedy_asked
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
    Step,
    StepStatus,
)
from breakfix.plan.limits import why_no_attempt
from breakfix.ports import Rung
from breakfix.verify import Remedy

#: A step that did not show what it should.
_NOT_WELL = frozenset({StepStatus.FAILED, StepStatus.UNKNOWN})


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
    """The repair, or the check after it, that was not what it should be; None where none is."""
    if case.state is NodeState.REPAIRING:
        step = current_step(services, case)
        return step if step is not None and step.status in _NOT_WELL else None
    checks = [
        s
        for s in services.book.steps(case.id)
        if s.fence == case.fence and s.status in _NOT_WELL and REMEDY in s.detail
    ]
    return max(checks, key=lambda s: s.ended_at or s.started_at, default=None)


def _wanted(services: Services, case: Case, failed: Step) -> tuple[Action, str]:
    """The next rung, and why it is not to be tried ("" when it is)."""
    limits, record = services.policy.limits, _record(services, case)
    if case.fence >= limits.max_runs:
        return case.action, f"{case.fence} runs did not finish it"
    remedy = remedy_asked(failed) if case.state is NodeState.VALIDATING else Remedy.NEXT_RUNG
    if remedy is Remedy.PERSON:
        return case.action, "no repair is justified by that: a person must look"
    action, why = _rung_after(services, case, record, remedy)
    if action not in REPAIRS:
        tried = ", ".join(a for a in RUNGS if record.repairs.get(a)) or "nothing"
        return action, f"{why} (tried: {tried})"
    return action, _why_not(services, case, failed, action)


def _rung_after(
    services: Services, case: Case, record: NodeRecord, remedy: Remedy
) -> tuple[Action, str]:
    """One rung up. At the ladder's end what the check itself asks for may be done once more, where
    the ladder names it.
    """
    rule = services.policy.class_rule(case.failure_class)
    exhausted = _exhausted(services, case, record)
    if remedy is Remedy.HOLD_FOR_HARDWARE or exhausted:
        why = exhausted or "the check says that it is the hardware"
        return rule.hardware(record.repairs), why
    action = rule.action_for(record.attempts + 1, record.repairs)
    asked = remedy.action
    if action not in REPAIRS - {Action.OPEN_VENDOR_CASE} and asked in rule.ladder:
        return asked or action, ""
    return action, "the ladder has no further rung"


def _why_not(services: Services, case: Case, failed: Step, action: Action) -> str:
    mode = services.policy.class_rule(case.failure_class).mode
    if mode not in ("approve", "auto"):
        return f"{action} would be next; policy mode of {case.failure_class} is {mode}"
    if action not in available(services):
        return f"{action} would be next, and nobody is configured to do it"
    is_unclear = case.state is NodeState.REPAIRING and failed.status is StepStatus.UNKNOWN
    if is_unclear and not _is_safe_after(failed, action):
        return f"{action} would be next, but what {case.action} did is not known"
    return ""


def _is_safe_after(unknown: Step, action: Action) -> bool:
    """Only what compares the boot cannot come late once the node runs another one."""
    return unknown.detail.get("provider") == "pod" and action in BOOTS


def _exhausted(services: Services, case: Case, record: NodeRecord) -> str:
    spent = why_no_attempt(record, case.failure_class, services.policy.limits)
    return spent or lemon_words(services, case.node)


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
