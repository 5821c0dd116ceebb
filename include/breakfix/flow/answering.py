"""An answer from any channel: into the ledger first, then whoever waits for it is woken.

One way for all channels, so that the same rules hold for all of them: `breakfix.approve` judges,
inside the ledger's transaction, over every answer that there is.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from breakfix.approve import settle
from breakfix.errors import BreakfixError, Refused, StaleFence
from breakfix.flow.services import Services
from breakfix.flow.tiers import tier_of
from breakfix.model import (
    Answer,
    Approval,
    Case,
    Decision,
    NodeState,
    Purpose,
    RefusalReason,
    Settlement,
)
from breakfix.policy import Policy
from breakfix.ports import Answered, Waker

log = logging.getLogger(__name__)

#: While the case is in it, what was allowed has not been done, and a no takes it back.
_BEFORE = {Purpose.REPAIR: NodeState.QUARANTINED, Purpose.RETURN: NodeState.VALIDATING}


@dataclass(frozen=True, slots=True)
class Given:
    """What became of one answer. `objection`: why it did not count; empty when it did."""

    case: Case
    approval: Approval
    objection: str = ""
    yes: tuple[str, ...] = ()
    is_woken: bool = False


def give_answer(
    services: Services, case_id: str, answer: Answer, *, waker: Waker | None = None
) -> Given:
    """Answer what the case asks now, or take back a yes to what has not begun.

    Raises Refused (NOT_APPROVED) when there is nothing to answer; that is audited, too. A run that
    could not be woken is woken by the next sweep: the answer stands.
    """
    services = services.refreshed()
    case = services.book.case(case_id)
    try:
        question = _answerable(services, case)
        answered = record_answers(services, case, question.purpose, [answer])
    except (Refused, StaleFence) as e:
        void(services, case, [answer], str(e))
        raise
    approval, objection = answered.approval, answered.objections[0]
    tell_progress(services, case, answered)
    is_woken = approval.decision is not Decision.PENDING and _wake(waker, case, approval.purpose)
    return Given(case, approval, objection, answered.yes, is_woken)


def record_answers(
    services: Services,
    case: Case,
    purpose: Purpose,
    answers: Sequence[Answer],
    *,
    is_final: bool = False,
) -> Answered:
    """Record answers to the question that the case asks, and settle it by the policy in force."""
    policy, now = services.policy, services.clock.now()
    needed = tier_of(services, case, purpose).people

    def judge(locked: Case, asked: Approval, given: Sequence[Answer]) -> Settlement:
        return _settled(locked, asked, given, policy, now=now, is_final=is_final, needed=needed)

    return services.book.answer(
        case.id,
        case.fence,
        purpose,
        answers,
        plan_hash=case.plan_hash,
        settle=judge,
        now=now,
    )


def _settled(
    case: Case,
    asked: Approval,
    answers: Sequence[Answer],
    policy: Policy,
    *,
    now: datetime,
    is_final: bool,
    needed: int,
) -> Settlement:
    return settle(
        asked,
        answers,
        policy,
        requester=case.requester,
        now=now,
        is_final=is_final,
        needed=needed,
        is_begun=case.state is not _BEFORE[asked.purpose],
    )


def void(services: Services, case: Case, answers: Sequence[Answer], why: str) -> None:
    """Answers for which there is no question are in the audit all the same."""
    for answer in answers:
        services.book.audit(
            "approval.answered",
            case.id,
            actor=answer.approver or answer.channel,
            detail={"given": {"answer": answer, "objection": why}, "counts": False},
            now=services.clock.now(),
        )


def tell_progress(services: Services, case: Case, answered: Answered) -> None:
    """People hear when a question lacks nothing but another person's yes."""
    approval, yes = answered.approval, answered.yes
    if approval.decision is Decision.PENDING and yes:
        until = f"{approval.expires_at:%Y-%m-%d %H:%M} UTC"
        text = f"{', '.join(yes)} said yes; one more person must, until {until}"
        subject = f"{approval.purpose} of {case.node} half approved"
        services.notifier.tell(subject, text, case_id=case.id)


def _answerable(services: Services, case: Case) -> Approval:
    """The question that is open, else the one whose yes may still be taken back."""
    if not case.is_open:
        raise Refused(RefusalReason.NOT_APPROVED, f"case {case.id} has ended: {case.end}")
    here = [
        a
        for a in services.book.approvals(case.id)
        if a.plan_hash == case.plan_hash and (a.fence == case.fence or a.purpose is Purpose.REPAIR)
    ]
    for approval in reversed(here):
        may_be_taken_back = case.state is _BEFORE[approval.purpose]
        if approval.decision is Decision.PENDING or (
            approval.decision is Decision.ALLOWED and may_be_taken_back
        ):
            return approval
    what = f"it was {here[-1].decision} by {here[-1].approver or 'nobody'}" if here else "none"
    raise Refused(
        RefusalReason.NOT_APPROVED,
        f"case {case.id} waits for no answer (its last question: {what})",
    )


def _wake(waker: Waker | None, case: Case, purpose: Purpose) -> bool:
    if waker is None:
        return False
    try:
        waker.wake(case, purpose)
    except BreakfixError as e:
        log.warning("case=%s is answered; its run is not woken yet: %s", case.id, e)
        return False
    return True
