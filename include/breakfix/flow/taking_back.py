"""What a person takes back: a node that shall serve again, or all that was taken out since then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from breakfix.act import steps
from breakfix.act.guard import halt_level
from breakfix.act.ownership import check_ownership
from breakfix.act.quarantine import quarantine, set_state_label
from breakfix.act.repair import withdraw_pods
from breakfix.approve import person
from breakfix.errors import BreakfixError, Refused
from breakfix.flow.case import put_back
from breakfix.flow.draining import left_to_drain
from breakfix.flow.endings import give_up, is_ending, own_marks
from breakfix.flow.gates import repairs_of
from breakfix.flow.giving_way import acted_upon
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.services import Services
from breakfix.model import (
    Case,
    CaseEnd,
    HaltLevel,
    NodeState,
    RefusalReason,
    StepStatus,
)

#: A repair or diagnostic that nobody has seen the end of may yet reach the node.
_MAY_FIRE = frozenset({StepStatus.DISPATCHED, StepStatus.UNKNOWN})
_OUT = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})


# --------------------------------------------------------------------------- one node


def return_case(services: Services, case_id: str, *, actor: str, reason: str) -> str:
    """A person wants the node back: its case goes on with the validation, and the return's gates.

    An escalated case is opened again for that; what it saw before now was repaired by a person.
    Returns a sentence. Raises Refused while pods run on the node or a repair may yet reach it.
    """
    _check(services)
    case = services.book.case(case_id)
    if case.state is NodeState.RETURNING:
        return f"{case.node} is in service, watched until {case.deadline:%Y-%m-%d %H:%M} UTC"
    taken = _to_validation(services, case, actor=actor, reason=reason)
    set_state_label(acting(services), taken, NodeState.VALIDATING)
    return (
        f"case {case.id} goes on with the validation of {case.node};"
        f" run {taken.run_id} begins with the next reconciliation"
    )


def force_return(services: Services, case_id: str, *, actor: str, reason: str) -> str:
    """An approver takes it upon themselves: the node is in service at once, unproven, watched.

    Raises Refused for anybody else, without a reason, and while a repair may yet reach the node.
    """
    _check(services)
    _check_approver(services, actor, reason)
    case = services.book.case(case_id)
    if case.state is NodeState.RETURNING:
        return f"{case.node} is in service already"
    taken = _to_validation(services, case, actor=actor, reason=reason, is_forced=True)
    detail = {"node": case.node, "reason": reason, "skipped": ["validation", "approval"]}
    services.book.audit(
        "case.return_forced", case.id, actor=actor, detail=detail, now=services.clock.now()
    )
    withdraw_pods(acting(services), taken)
    put_back(services, taken, actor=actor, reason=f"forced by {actor}: {reason}")
    services.notifier.tell(f"{case.node} returned unproven", reason, case_id=case.id)
    return f"{case.node} is in service without validation, and watched"


def _check(services: Services) -> None:
    """Taking a node back is recovery; only a halt of everything, or another's cluster, holds it."""
    settings = services.settings
    if halt_level(services.cluster, services.book, settings.namespace) is HaltLevel.ALL:
        raise Refused(RefusalReason.HALTED, "the kill switch is at all: nothing is touched")
    check_ownership(services.cluster, services.book, settings.namespace, now=services.clock.now())


def _check_approver(services: Services, actor: str, reason: str) -> None:
    if not reason.strip():
        raise Refused(RefusalReason.NOT_APPROVED, "a forced return wants a reason")
    name = person(actor)
    if name not in services.policy.approvals.approvers:
        text = f"{name} is no approver by policy (approvals.approvers): a forced return wants one"
        raise Refused(RefusalReason.NOT_APPROVED, text)


def _to_validation(
    services: Services, case: Case, *, actor: str, reason: str, is_forced: bool = False
) -> Case:
    """The case at its next fence, VALIDATING, its node quarantined as ours."""
    reason = reason or "asked for by a person"
    _check_node(services, case)
    if not case.is_open:
        return _reopened(services, case, actor=actor, reason=reason)
    _check_open(services, case, is_forced=is_forced)
    book, now = services.book, services.clock.now()
    taken = book.take_over(case.id, case.fence, actor=actor, reason=reason, now=now)
    if taken.held_by:
        taken = book.unhold(case.id, actor=actor, reason=reason, now=now)
    why = _why_not_yet(services, taken)
    if why:  # it was begun before the fence moved
        raise Refused(RefusalReason.CASE_OPEN, why)
    return book.move(
        case.id, taken.fence, NodeState.VALIDATING, actor=actor, reason=reason, now=now
    )


def _check_node(services: Services, case: Case) -> None:
    node = services.cluster.node(case.node)
    if node.uid != case.node_uid:
        text = f"{case.node} is another machine now: the next reconciliation closes the record"
        raise Refused(RefusalReason.NODE_CHANGED, text)


def _check_open(services: Services, case: Case, *, is_forced: bool) -> None:
    if is_ending(case) or case.state not in _OUT:
        text = f"case {case.id} is {case.state}, and its end has begun"
        raise Refused(RefusalReason.CASE_OPEN, text)
    why = _why_not_yet(services, case)
    if why:
        raise Refused(RefusalReason.CASE_OPEN, why)
    left = () if is_forced else left_to_drain(services, case)
    if case.state is NodeState.QUARANTINED and left:
        text = (
            f"{len(left)} pods run on {case.node} ({left[0]}), so that it cannot be validated;"
            f" `breakfix case abort {case.id}` gives it back as it was"
        )
        raise Refused(RefusalReason.POD_REFUSED, text)


def _why_not_yet(services: Services, case: Case) -> str:
    for step in repairs_of(services, case):
        if step.status in _MAY_FIRE:
            return (
                f"{step.name} is {step.status} and may yet reach {case.node}:"
                f" wait for it, or `breakfix case abort {case.id}`"
            )
    return ""


def _reopened(services: Services, case: Case, *, actor: str, reason: str) -> Case:
    if case.end is not CaseEnd.ESCALATED:
        text = f"case {case.id} has ended: {case.end}; there is nothing to return"
        raise Refused(RefusalReason.CASE_OPEN, text)
    if not services.cluster.node(case.node).is_unschedulable:
        text = f"{case.node} is in service: the next reconciliation closes the record"
        raise Refused(RefusalReason.OVERRIDDEN, text)
    now = services.clock.now()
    opened = services.book.reopen(case.id, actor=actor, reason=reason, now=now)
    quarantine(own_marks(services), opened, RECOVERY)  # an adopted node has no taint of ours yet
    return opened


# --------------------------------------------------------------------------- all of it


@dataclass(frozen=True, slots=True)
class Undoing:
    """One case that was opened, or took its node out again, since then."""

    node: str
    case_id: str
    is_undone: bool  # in a preview: would be
    text: str


def undoable(services: Services, since: datetime) -> tuple[Undoing, ...]:
    """What `undo` would lift, and what not and why. Reads only."""
    return tuple(
        Undoing(case.node, case.id, not why, why or "our cordon and marks are lifted")
        for case in _since(services, since)
        for why in (_why_not_undone(services, case),)
    )


def undo(services: Services, since: datetime, *, actor: str, reason: str) -> tuple[Undoing, ...]:
    """Give back every node taken out since then that nothing else was done to. Raises Refused.

    Only what is ours is lifted; each case ends as aborted, so that what had been seen until now
    opens no other. Trouble with one node does not keep the others from it.
    """
    if not reason.strip():
        raise Refused(RefusalReason.NOT_APPROVED, "undo wants a reason: it goes into the audit log")
    _check(services)
    found = undoable(services, since)
    detail = {"since": since, "reason": reason, "nodes": [u.node for u in found if u.is_undone]}
    services.book.audit(
        "undo.asked", services.book.cluster, actor=actor, detail=detail, now=services.clock.now()
    )
    return tuple(_undo(services, u, actor, reason) if u.is_undone else u for u in found)


def _undo(services: Services, found: Undoing, actor: str, reason: str) -> Undoing:
    try:
        text = _give_back(services, found.case_id, actor, f"undone: {reason}")
    except BreakfixError as e:
        return Undoing(found.node, found.case_id, is_undone=False, text=str(e))
    return Undoing(found.node, found.case_id, is_undone=not text, text=text or found.text)


def _give_back(services: Services, case_id: str, actor: str, reason: str) -> str:
    """Why it was not done after all; empty when it was. The fence moves first: no act crosses."""
    case, now = services.book.case(case_id), services.clock.now()
    if not case.is_open:
        return f"the case has ended: {case.end}"
    taken = services.book.take_over(case.id, case.fence, actor=actor, reason=reason, now=now)
    why = _why_not_undone(services, taken)
    if why:
        return f"{why} just now; its next run goes on"
    give_up(services, taken, CaseEnd.ABORTED, reason, actor=actor)
    return ""


def _since(services: Services, since: datetime) -> Iterator[Case]:
    """Cases that are open, or escalated, and took their node out since then."""
    for case in services.book.cases(open_only=True):
        rounds = [s for s in services.book.steps(case.id) if s.name.startswith(steps.QUARANTINE)]
        if case.opened_at >= since or (rounds and rounds[-1].started_at >= since):
            yield case
    for case in services.book.cases(opened_since=since):
        if case.end is CaseEnd.ESCALATED:
            yield case


def _why_not_undone(services: Services, case: Case) -> str:
    if case.held_by:
        return f"{case.held_by} holds it: `breakfix case abort` gives it back"
    if case.state is NodeState.RETURNING:
        return "it is in service again, and watched"
    return acted_upon(services, case)
