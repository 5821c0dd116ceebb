"""approve: whether what people answered counts. Pure; the record of it is the ledger's.

The same rules for every channel: the answer must be about this plan, in time, from an approver by
policy, who is not the requester of a destructive step. One "no" of an approver is no. Silence is
never yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from breakfix.model import Answer, Approval, Decision, Purpose
from breakfix.policy import Policy


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the answers amount to. `note` says why, also for each answer that did not count."""

    decision: Decision
    approver: str = ""
    channel: str = ""
    note: str = ""


def settle(
    approval: Approval,
    answers: Sequence[Answer],
    policy: Policy,
    *,
    requester: str,
    now: datetime,
    is_final: bool = False,
) -> Settlement:
    """Judge the answers to one question.

    An approval already decided stays as it is. PENDING means: nobody who counts has answered, and
    there is time left; with `is_final` (the question is closed at its source) that is EXPIRED too.
    """
    if approval.decision is not Decision.PENDING:
        return Settlement(approval.decision, approval.approver, approval.channel, approval.note)
    notes: list[str] = []
    counted: list[Answer] = []
    for answer in sorted(answers, key=lambda a: a.at):
        objection = why_not(answer, approval, policy, requester=requester)
        if objection:
            notes.append(f"{answer.approver or 'nobody'} does not count: {objection}")
        else:
            counted.append(answer)
    no = next((a for a in counted if not a.is_yes), None)
    if no is not None:
        return Settlement(Decision.REFUSED, no.approver, no.channel, _joined([no.note, *notes]))
    if counted:
        yes = counted[0]
        return Settlement(Decision.ALLOWED, yes.approver, yes.channel, _joined([yes.note, *notes]))
    if is_final or now >= approval.expires_at:
        return Settlement(Decision.EXPIRED, note=_joined(["no answer that counts", *notes]))
    return Settlement(Decision.PENDING, note=_joined(notes))


def why_not(answer: Answer, approval: Approval, policy: Policy, *, requester: str) -> str:
    """Why this answer does not count, or an empty string when it does."""
    if not answer.approver:
        return "the answer has no identity"
    if answer.plan_hash and answer.plan_hash != approval.plan_hash:
        return "it was given for another plan"
    if answer.at < approval.asked_at:
        return "it is older than the question"
    if answer.at >= approval.expires_at:
        return "it came after the question expired"
    if answer.approver not in policy.approvals.approvers:
        return "not an approver by policy"
    if approval.purpose is Purpose.REPAIR and answer.approver == person(requester):
        return "requester and approver are the same person"
    return ""


def person(requester: str) -> str:
    """The name in a requester: `cli:ann` and `ann` are one person."""
    return requester.rpartition(":")[2]


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(n for n in notes if n)
