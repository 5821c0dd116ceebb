"""How a case ends other than well: refused, given up, taken back, gone, aborted, escalated.

What the end is to be is noted in the case before the node is touched, so that whoever comes after a
crash completes that end instead of beginning anew.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import datetime, timedelta

from breakfix.act.guard import Acting
from breakfix.act.quarantine import clear_marks, release, set_state_label
from breakfix.act.repair import withdraw_pods
from breakfix.errors import NotFound, Refused
from breakfix.flow.answers import last_refused_return
from breakfix.flow.draining import drain_step
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import (
    Action,
    Approval,
    Case,
    CaseEnd,
    Decision,
    HaltLevel,
    NodeState,
    Purpose,
    RefusalReason,
    StepStatus,
)

log = logging.getLogger(__name__)

ACTOR = "node_case"

#: Key of the case's detail under which an end that was begun is noted.
ENDING = "ending"

#: Refusals that mean: a person lifted our quarantine, or cordoned before it; the node is theirs.
_TAKEN_BACK = frozenset({RefusalReason.OVERRIDDEN, RefusalReason.FOREIGN_CORDON})
#: Refusals that mean: our hands off this node, with our quarantine still on it.
_HANDS_OFF = frozenset({RefusalReason.EXCLUDED, RefusalReason.OTHER_OWNER})
#: Refusals that nobody lifts soon: people get the case.
_FOR_PEOPLE = frozenset(
    {
        RefusalReason.POD_REFUSED,
        RefusalReason.PROTECTED,
        RefusalReason.MODE_RECOMMEND,
        RefusalReason.MODE_OFF,
        RefusalReason.UNSUPPORTED,
    }
)
#: Refusals that may pass: the case waits for that, up to its deadline.
_MAY_PASS = frozenset(
    {
        RefusalReason.TELEMETRY,
        RefusalReason.COMMON_CAUSE,
        RefusalReason.MAINTENANCE,
        RefusalReason.RECENT_CHANGE,
        RefusalReason.NOT_CORROBORATED,
        RefusalReason.COOLDOWN,
        RefusalReason.SCOPE_FULL,
        RefusalReason.FLEET_SHARE,
        RefusalReason.HEADROOM,
        RefusalReason.BUDGET,
    }
)
#: Those of them that pass only with the calendar, or when a storm is over: the case has patience.
_PATIENT = frozenset({RefusalReason.WINDOW, RefusalReason.ALERT, RefusalReason.BREAKER})
_PATIENT_POLL_S = 60.0
_HOLD = "hold."  # a step's name: what may pass holds the case
#: Refusals that stop the run and leave the case to whoever lifts them.
_NOT_NOW = frozenset(
    {
        RefusalReason.HALTED,
        RefusalReason.HELD,
        RefusalReason.UNOWNED_CLUSTER,
        RefusalReason.STALE_FENCE,
    }
)


def refused(services: Services, case: Case, stage: Stage, refusal: Refused) -> Go | Wait:
    """What a guardrail's no means for the case. Raises Refused when even the end must wait."""
    text = str(refusal)
    match refusal.reason:
        case reason if reason in _TAKEN_BACK:
            return give_up(services, case, CaseEnd.OVERRIDDEN, text)
        case reason if reason in _HANDS_OFF:
            return _hands_off(services, case, stage, text)
        case RefusalReason.REASON_GONE:
            return _stop(services, case, stage, text)
        case RefusalReason.NODE_CHANGED:
            return _node_changed(services, case, stage, text)
        case reason if reason in _MAY_PASS:
            return _wait_or_escalate(services, case, stage, text)
        case reason if reason in _PATIENT:
            return _wait_or_escalate(services, case, stage, text, is_patient=True)
        case reason if reason in _FOR_PEOPLE:
            return escalation(services, case, stage, text)
    return Go(Stage.SETTLE_RUN, f"{refusal.reason}: {text}")


def _hands_off(services: Services, case: Case, stage: Stage, text: str) -> Go:
    """Nothing was repaired yet: the node is given over as it was before us, our cordon included.

    Later it is no good node to give to anybody: it stays out, marked, and people are told.
    """
    drain = drain_step(services, case)
    is_drained = drain is not None and drain.status is StepStatus.DONE
    if case.state is NodeState.QUARANTINED and case.repaired_at is None and not is_drained:
        return give_up(services, case, CaseEnd.OVERRIDDEN, text, releases=True)
    return escalation(services, case, stage, text)


def _stop(services: Services, case: Case, stage: Stage, text: str) -> Go:
    """Nothing was done to the node yet: give it back. Under repair it only returns validated."""
    if case.state is NodeState.QUARANTINED:
        return give_up(services, case, CaseEnd.ABORTED, text)
    return escalation(services, case, stage, text)


def escalation(services: Services, case: Case, stage: Stage, text: str) -> Go:
    """To the escalation, with the reason on record for the people who get it."""
    _refusal_step(services, case, f"refused.{stage}.{case.fence}", text)
    return Go(Stage.ESCALATE, text)


def _refusal_step(services: Services, case: Case, name: str, text: str) -> None:
    now, detail = services.clock.now(), {"text": text}
    services.book.begin_step(case.id, case.fence, name, detail=detail, now=now)
    services.book.finish_step(case.id, case.fence, name, StepStatus.FAILED, detail=detail, now=now)


def _wait_or_escalate(
    services: Services, case: Case, stage: Stage, text: str, *, is_patient: bool = False
) -> Go | Wait:
    """A hold that may pass ends at the drain's deadline, counted from when it was first met; one
    that the calendar or a storm may lift, at the end of policy's `limits.hold_longest`.
    """
    name, now = f"{_HOLD}{stage}.{case.fence}", services.clock.now()
    wait_s, poll_s = services.policy.drain.timeout_s, services.policy.drain.poll_s
    if is_patient:
        name += ".patient"
        wait_s, poll_s = services.policy.limits.hold_longest_s, _PATIENT_POLL_S
    until = now + timedelta(seconds=wait_s)
    step, _ = services.book.begin_step(
        case.id,
        case.fence,
        name,
        detail={"text": text, "deadline": until.isoformat()},
        now=now,
    )
    deadline = datetime.fromisoformat(str(step.detail["deadline"]))
    if now >= deadline:
        services.book.finish_step(
            case.id, case.fence, name, StepStatus.FAILED, detail={"text": text}, now=now
        )
        return Go(Stage.ESCALATE, text)
    again = now + timedelta(seconds=poll_s)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=again)


def hold_passed(services: Services, case: Case) -> None:
    """A stage went on, so what held this run or an earlier one is over, and its steps say so. Not
    of a case that ended.
    """
    pending = [
        s for s in services.book.steps(case.id) if s.name.startswith(_HOLD) and s.ended_at is None
    ]
    if not pending or not services.book.case(case.id).is_open:
        return
    now, detail = services.clock.now(), {"text": "it passed"}
    for step in pending:
        services.book.finish_step(
            case.id, case.fence, step.name, StepStatus.DONE, detail=detail, now=now
        )


# --------------------------------------------------------------------------- the node is let go


def give_up(
    services: Services,
    case: Case,
    end: CaseEnd,
    text: str,
    *,
    actor: str = ACTOR,
    releases: bool = False,
) -> Go:
    """Take our marks off, leave what others did, and end the case. Raises Refused (not now).

    A cordon of ours goes too, unless a person took the node back (OVERRIDDEN): any cordon is theirs
    by then. `releases`: it was no person's hand on the cordon, so ours goes even so.
    """
    _note_ending(services, case, end, text, actor, releases=releases)
    withdraw_pods(acting(services), case)
    _heed_halt(services)
    if end is CaseEnd.OVERRIDDEN and not releases:
        clear_marks(services.cluster, case)
    else:
        _let_go(services, case)
    now = services.clock.now()
    services.book.end_case(case.id, case.fence, end, actor=actor, reason=text, now=now)
    services.notifier.tell(f"case of {case.node} ended: {end}", text, case_id=case.id)
    return Go(Stage.SETTLE_RUN, text)


def _note_ending(
    services: Services, case: Case, end: CaseEnd, text: str, actor: str, *, releases: bool = False
) -> None:
    services.book.move(
        case.id,
        case.fence,
        case.state,
        actor=actor,
        reason=text,
        now=services.clock.now(),
        detail={
            ENDING: {"end": end.value, "text": text, "actor": actor, "releases": releases},
        },
    )


def is_ending(case: Case) -> bool:
    """Whether an end was begun and cut short."""
    return ENDING in case.detail


def complete_ending(services: Services, case: Case) -> Go:
    """Go on with the end that was begun."""
    begun = case.detail[ENDING]
    end, text, actor = CaseEnd(begun["end"]), str(begun["text"]), str(begun["actor"])
    if is_gone(services, case):
        return node_gone(services, case, text)
    if end is CaseEnd.ESCALATED:
        return escalate(services, case, actor=actor, reason=text)
    releases = bool(begun.get("releases", False))
    return give_up(services, case, end, text, actor=actor, releases=releases)


def own_marks(services: Services) -> Acting:
    """To take back or relabel what is ours: "hands off" asks for that, so it does not forbid it.

    Kill switch, fence, hold, ownership and the node's identity hold it as ever.
    """
    act = acting(services)
    hands: dict[str, object] = {
        "exclusion_labels": {},
        "hands_off_labels": {},
        "hands_off_unless": {},
        "hands_off_annotations": (),
        "hands_off_taints": (),
        "hands_off_conditions": {},
        "hands_off_times": (),
        "maintenance": (),
    }
    return replace(act, limits=act.limits.model_copy(update=hands))


def _heed_halt(services: Services) -> None:
    """Taking off the last marks asks no other guard: halt `all` holds it, too."""
    if acting(services).halt_level() is HaltLevel.ALL:
        raise Refused(RefusalReason.HALTED, f"the kill switch is at {HaltLevel.ALL}")


def _let_go(services: Services, case: Case) -> None:
    """Give the node back as it was before us, and take every mark off."""
    try:
        release(own_marks(services), case, RECOVERY, NodeState.HEALTHY)
    except Refused as e:
        if e.reason in _NOT_NOW:
            raise
        log.info("case=%s node=%s is not ours to release: %s", case.id, case.node, e)
    clear_marks(services.cluster, case)


def _node_changed(services: Services, case: Case, stage: Stage, text: str) -> Go:
    """Gone, another machine of that name, or the same one after a boot that was not ours."""
    if is_gone(services, case):
        return node_gone(services, case, text)
    return _stop(services, case, stage, text)


def is_gone(services: Services, case: Case) -> bool:
    """Whether the case's machine is no longer in the cluster."""
    try:
        return services.cluster.node(case.node).uid != case.node_uid
    except NotFound:
        return True


def node_gone(services: Services, case: Case, text: str) -> Go:
    """There is nothing left to do for this node; no pod of ours waits for another of its name."""
    withdraw_pods(acting(services), case)
    services.book.end_case(
        case.id,
        case.fence,
        CaseEnd.NODE_GONE,
        actor=ACTOR,
        reason=text,
        now=services.clock.now(),
    )
    services.notifier.tell(f"{case.node} is gone", text, case_id=case.id)
    return Go(Stage.SETTLE_RUN, text)


# --------------------------------------------------------------------------- the node stays out


def escalate(services: Services, case: Case, *, actor: str = ACTOR, reason: str = "") -> Go:
    """A person or hardware is needed: the node stays out, and everybody is told why."""
    reason = reason or why_escalated(services, case)
    withdraw_pods(acting(services), case)
    try:
        set_state_label(own_marks(services), case, NodeState.ESCALATED)
    except Refused as e:
        if e.reason in _NOT_NOW:
            raise
        log.warning("case=%s node=%s escalates unlabelled: %s", case.id, case.node, e)
    services.book.end_case(
        case.id,
        case.fence,
        CaseEnd.ESCALATED,
        actor=actor,
        reason=reason,
        now=services.clock.now(),
    )
    services.notifier.tell(f"{case.node} escalated", reason, case_id=case.id)
    return Go(Stage.SETTLE_RUN, reason)


def why_escalated(services: Services, case: Case) -> str:
    """The reason, from the records: the last question that was not a yes, or the last step that
    failed; and the vendor's case, where one was opened.
    """
    why = _why_escalated(services, case)
    for step in reversed(services.book.steps(case.id)):
        is_vendors = step.name.startswith(f"repair-{Action.OPEN_VENDOR_CASE}-")
        if is_vendors and step.status is StepStatus.DONE:
            return f"{why}; {step.detail.get('text', '')}"
    return why


def _why_escalated(services: Services, case: Case) -> str:
    for approval in reversed(services.book.approvals(case.id)):
        if _is_no(approval, case):
            who = approval.approver or "nobody"
            return f"{approval.purpose} {approval.decision} by {who}"
    refusal = last_refused_return(services, case)
    if refusal is not None:
        return f"{refusal.purpose} {refusal.decision} by {refusal.approver or 'nobody'}"
    for step in reversed(services.book.steps(case.id)):
        if step.status in {StepStatus.FAILED, StepStatus.UNKNOWN}:
            return f"{step.name} {step.status}: {step.detail.get('text', '')}"
    if case.action in {Action.HOLD_FOR_HARDWARE, Action.OPEN_VENDOR_CASE}:
        return f"{case.failure_class}, attempt {case.attempt}: held for hardware"
    return f"{case.failure_class}: no further automatic step"


def _is_no(approval: Approval, case: Case) -> bool:
    """Not answered with a yes at this fence; a refused plan stays refused at every fence."""
    if approval.fence == case.fence:
        return approval.decision in {Decision.REFUSED, Decision.EXPIRED}
    is_plan = approval.purpose is Purpose.REPAIR and approval.plan_hash == case.plan_hash
    return is_plan and approval.decision is Decision.REFUSED


def abort_case(services: Services, case_id: str, *, actor: str, reason: str) -> str:
    """A person ends a case: a node not yet under repair is released, any other stays out,
    escalated.

    Returns a sentence on what became of the node. Raises Refused when even that may not be done
    now.
    """
    case = services.book.case(case_id)
    if not case.is_open:
        return f"case {case.id} had ended already: {case.end}"
    reason, now = reason or "aborted", services.clock.now()
    taken = services.book.take_over(case.id, case.fence, actor=actor, reason=reason, now=now)
    is_begun = taken.state in {NodeState.REPAIRING, NodeState.VALIDATING}
    end = CaseEnd.ESCALATED if is_begun else CaseEnd.ABORTED
    _note_ending(services, taken, end, reason, actor)
    if taken.held_by:
        services.book.unhold(case.id, actor=actor, reason=reason, now=now)
    complete_ending(services, services.book.case(case.id))
    return _what_became(services.book.case(case.id))


def _what_became(case: Case) -> str:
    match case.end:
        case CaseEnd.NODE_GONE:
            return f"case {case.id} ended; {case.node} is gone"
        case CaseEnd.ESCALATED:
            return (
                f"case {case.id} ended; {case.node} was under repair and stays out:"
                " look at it first"
            )
        case _:
            return f"case {case.id} aborted; what it had put on {case.node} is taken off"
