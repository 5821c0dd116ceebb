"""What may become of a question, as pure functions. Silence and doubt are never a yes."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from breakfix.errors import LedgerError, Refused
from breakfix.model import Approval, Decision, Purpose, RefusalReason


def asked(
    case_id: str,
    fence: int,
    purpose: Purpose,
    *,
    plan_hash: str,
    expires_at: datetime,
    now: datetime,
) -> Approval:
    """A new open question."""
    return Approval(
        case_id=case_id,
        fence=fence,
        purpose=purpose,
        plan_hash=plan_hash,
        asked_at=now,
        expires_at=expires_at,
    )


def standing(approval: Approval, *, now: datetime) -> Approval | None:
    """What asking again finds: the question while it holds, its EXPIRED self, or None.

    A refusal stands for ever; a yes and an open question only until they expire.
    """
    if approval.decision is Decision.REFUSED or (
        approval.decision is not Decision.EXPIRED and now <= approval.expires_at
    ):
        return approval
    if approval.decision is Decision.PENDING:
        return replace(approval, decision=Decision.EXPIRED, decided_at=now)
    return None


def decided(
    question: Approval | None,
    decision: Decision,
    *,
    approver: str,
    channel: str,
    note: str,
    now: datetime,
) -> Approval:
    """The question with its answer; the very same object when it was answered before."""
    if decision is Decision.PENDING:
        msg = "an answer is allowed, refused or expired, not pending"
        raise LedgerError(msg)
    if question is None:
        msg = "nobody was asked about this plan: show the plan again and ask anew"
        raise Refused(RefusalReason.NOT_APPROVED, msg)
    if question.decision is not Decision.PENDING:
        return question
    if decision is Decision.ALLOWED and not approver.strip():
        msg = "a yes without a name counts for nothing: say who approves"
        raise Refused(RefusalReason.NOT_APPROVED, msg)
    if decision is Decision.ALLOWED and now > question.expires_at:
        decision, note = Decision.EXPIRED, f"yes came too late; {note}".rstrip("; ")
    return replace(
        question, decision=decision, approver=approver, channel=channel, note=note, decided_at=now
    )
