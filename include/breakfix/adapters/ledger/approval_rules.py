"""What may become of a question, as pure functions. Silence and doubt are never a yes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from breakfix.errors import Refused
from breakfix.model import (
    Answer,
    Approval,
    Decision,
    GivenAnswer,
    Purpose,
    RefusalReason,
    Settlement,
)


def asked(
    case_id: str,
    fence: int,
    purpose: Purpose,
    *,
    plan_hash: str,
    expires_at: datetime,
    now: datetime,
    needed: int = 1,
) -> Approval:
    """A new open question."""
    return Approval(
        case_id=case_id,
        fence=fence,
        purpose=purpose,
        plan_hash=plan_hash,
        asked_at=now,
        expires_at=expires_at,
        needed=needed,
    )


def standing(approval: Approval, *, fence: int, needed: int = 1, now: datetime) -> Approval | None:
    """What asking again finds: the question while it holds, its EXPIRED self, or None.

    A refusal stands for ever at its fence; a yes and an open question only until they expire. An
    open question follows the case to its fence, and its tier only rises; a yes of fewer people than
    are needed now is none.
    """
    is_here = approval.fence == fence
    if approval.decision is Decision.REFUSED:
        return approval if is_here else None
    if approval.decision is Decision.EXPIRED:
        return None
    is_in_time = now <= approval.expires_at
    if approval.decision is Decision.ALLOWED:
        return approval if is_here and is_in_time and approval.needed >= needed else None
    if not is_in_time:
        return replace(approval, decision=Decision.EXPIRED, decided_at=now)
    if is_here and approval.needed >= needed:
        return approval
    return replace(approval, fence=fence, needed=max(approval.needed, needed))


def follows(approval: Approval, purpose: Purpose, plan_hash: str, fence: int) -> bool:
    """Whether a question of the case may be the one meant at that fence.

    About a repair it is the same question while the plan is; about a return each validation, hence
    each fence, has its own.
    """
    is_same = approval.purpose is purpose and approval.plan_hash == plan_hash
    return is_same and (approval.fence == fence or purpose is Purpose.REPAIR)


def new_answers(
    answers: Sequence[Answer], given: Sequence[GivenAnswer]
) -> tuple[tuple[Answer, ...], tuple[Answer, ...]]:
    """(the answers that counted when they were given, those that are not recorded yet)."""
    known = {g.answer for g in given}
    counted = tuple(g.answer for g in given if not g.objection)
    return counted, tuple(dict.fromkeys(a for a in answers if a not in known))


def recorded(question: Approval, answer: Answer, objection: str) -> GivenAnswer:
    """An answer as it is kept."""
    return GivenAnswer(
        case_id=question.case_id,
        purpose=question.purpose,
        asked_at=question.asked_at,
        answer=answer,
        objection=objection,
    )


def told(given: GivenAnswer) -> dict[str, Any]:
    """What the audit keeps of an answer, one that did not count included."""
    return {"given": given, "counts": not given.objection}


def objections_to(answers: Sequence[Answer], given: Sequence[GivenAnswer]) -> tuple[str, ...]:
    """Why each of the answers that were handed in does not count, as it is on record."""
    known = {g.answer: g.objection for g in given}
    return tuple(known[a] for a in answers)


def require_asked(question: Approval | None) -> Approval:
    """Raises Refused (NOT_APPROVED) where nobody was asked."""
    if question is None:
        msg = "nobody was asked about this plan: show the plan again and ask anew"
        raise Refused(RefusalReason.NOT_APPROVED, msg)
    return question


def settled(question: Approval, settlement: Settlement, *, now: datetime) -> Approval:
    """The question with what was settled; the very same object where nothing changes.

    The first decision stands, but a yes may be taken back by a no. Raises Refused (NOT_APPROVED)
    for a yes without a name.
    """
    decision, note = settlement.decision, settlement.note
    is_taken_back = question.decision is Decision.ALLOWED and decision is Decision.REFUSED
    if decision is Decision.PENDING:
        return question
    if question.decision is not Decision.PENDING and not is_taken_back:
        return question
    if decision is Decision.ALLOWED and not settlement.approver.strip():
        msg = "a yes without a name counts for nothing: say who approves"
        raise Refused(RefusalReason.NOT_APPROVED, msg)
    if decision is Decision.ALLOWED and now > question.expires_at:
        decision, note = Decision.EXPIRED, f"yes came too late; {note}".rstrip("; ")
    return replace(
        question,
        decision=decision,
        approver=settlement.approver,
        channel=settlement.channel,
        note=note,
        decided_at=now,
    )
