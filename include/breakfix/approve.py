"""approve: whether what people answered counts. Pure; the record of it is the ledger's.

The same rules for every channel: the answer must be about this plan, in time, from an approver by
policy, who is not the requester of a destructive step. Each approver counts once; it takes as many
as the question's tier says. One "no" of an approver is no. Silence is never yes.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from breakfix.model import Answer, Approval, Decision, Purpose
from breakfix.model import Settlement as Settlement  # noqa: PLC0414 - part of this module's words
from breakfix.policy import Policy

#: The channel that names nobody: who may annotate a node could take it back as well, no more.
ANNOTATION = "node_annotation"
ANNOTATOR = "whoever annotated the node"


def settle(
    approval: Approval,
    answers: Sequence[Answer],
    policy: Policy,
    *,
    requester: str,
    now: datetime,
    is_final: bool = False,
    needed: int = 1,
    is_begun: bool = True,
) -> Settlement:
    """Judge the answers to one question, in whatever order they came.

    `needed`: people by the policy in force; the stricter of it and what the question says holds.
    PENDING means: too few who count have said yes, nobody who counts has said no, and there is time
    left. With `is_final` (the question is closed at its source) nobody's yes is EXPIRED, while the
    first yes of two keeps it open.

    A decision stands, but for one thing: until the act `is_begun`, a no takes a yes back.
    """
    needed = max(1, approval.needed, needed)
    objections = _objections(approval, answers, policy, requester=requester, needed=needed)
    counted = sorted(
        (a for a, objection in zip(answers, objections, strict=True) if not objection),
        key=_order,
    )
    said_no = next((a for a in counted if not a.is_yes), None)
    if approval.decision is not Decision.PENDING:
        if approval.decision is Decision.ALLOWED and said_no is not None and not is_begun:
            return _refused(said_no, answers, objections, note="took the yes back")
        return _as_decided(approval, len(answers))
    if said_no is not None:
        return _refused(said_no, answers, objections)
    yes = tuple(a.approver for a in counted)
    notes = _notes(answers, objections)
    if len(counted) >= needed:
        first = counted[:needed]
        return Settlement(
            Decision.ALLOWED,
            ", ".join(a.approver for a in first),
            ", ".join(dict.fromkeys(a.channel for a in first)),
            _joined([*(a.note for a in first), *notes]),
            objections,
            yes,
        )
    lacking = f"{len(yes)} of {needed} said yes: {', '.join(yes)}" if yes else ""
    if now >= approval.expires_at or (is_final and not yes):
        text = lacking or "no answer that counts"
        return Settlement(
            Decision.EXPIRED, note=_joined([text, *notes]), objections=objections, yes=yes
        )
    return Settlement(
        Decision.PENDING, note=_joined([lacking, *notes]), objections=objections, yes=yes
    )


def why_not(
    answer: Answer, approval: Approval, policy: Policy, *, requester: str, needed: int = 1
) -> str:
    """Why this answer by itself does not count, or an empty string when it does."""
    if answer.plan_hash and answer.plan_hash != approval.plan_hash:
        return "it was given for another plan"
    if answer.at < approval.asked_at:
        return "it is older than the question"
    if answer.at >= approval.expires_at:
        return "it came after the question expired"
    if answer.channel == ANNOTATION:
        return _why_not_annotation(answer, approval, policy, needed)
    if answer.approver not in policy.approvals.approvers:
        known = answer.approver.strip()
        return "not an approver by policy" if known else "the answer has no identity"
    if approval.purpose is Purpose.REPAIR and is_same_person(answer.approver, requester):
        return "requester and approver are the same person"
    return ""


def _why_not_annotation(answer: Answer, approval: Approval, policy: Policy, needed: int) -> str:
    """It names nobody, so it says no more than its writer could do alone: give the node back."""
    if approval.purpose is not Purpose.RETURN:
        return "an annotation names nobody, and only a return may be confirmed by nobody"
    if not answer.is_yes:
        return "an annotation only confirms"
    if not policy.approvals.annotation_returns:
        return "policy takes no annotation for a yes (approvals.annotation_returns)"
    if needed > 1:
        return "an annotation names nobody, and this return wants two people"
    return ""


def person(requester: str) -> str:
    """The name in a requester: `cli:ann` and `ann` are one person."""
    return requester.rpartition(":")[2]


def is_same_person(one: str, other: str) -> bool:
    """Whether two names may be one person's; in doubt they are."""
    return person(one).strip().casefold() == person(other).strip().casefold()


def _objections(
    approval: Approval,
    answers: Sequence[Answer],
    policy: Policy,
    *,
    requester: str,
    needed: int,
) -> tuple[str, ...]:
    """One for each answer; of several yeses of one person only the first counts."""
    found = [why_not(a, approval, policy, requester=requester, needed=needed) for a in answers]
    said: list[str] = []
    for i in sorted(range(len(answers)), key=lambda i: _order(answers[i])):
        answer = answers[i]
        if found[i] or not answer.is_yes:
            continue
        if any(is_same_person(answer.approver, name) for name in said):
            found[i] = "the same person has said yes already"
        said.append(answer.approver)
    return tuple(found)


def _order(answer: Answer) -> tuple[datetime, str, str, str, str, bool]:
    """Oldest first; of the same instant, always the same one."""
    text = (answer.approver, answer.channel, answer.plan_hash, answer.note)
    return (answer.at, *text, answer.is_yes)


def _refused(
    no: Answer, answers: Sequence[Answer], objections: tuple[str, ...], *, note: str = ""
) -> Settlement:
    text = _joined([note, no.note, *_notes(answers, objections)])
    return Settlement(Decision.REFUSED, no.approver, no.channel, text, objections)


def _as_decided(approval: Approval, answers: int) -> Settlement:
    text = f"the question was {approval.decision} before"
    return Settlement(
        approval.decision, approval.approver, approval.channel, approval.note, (text,) * answers
    )


def _notes(answers: Sequence[Answer], objections: Sequence[str]) -> list[str]:
    return [
        f"{a.approver or 'nobody'} does not count: {objection}"
        for a, objection in sorted(
            zip(answers, objections, strict=True), key=lambda p: _order(p[0])
        )
        if objection
    ]


def _joined(notes: Sequence[str]) -> str:
    return "; ".join(n for n in notes if n)
