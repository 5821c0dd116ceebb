"""Questions on Postgres: one open per case, fence, purpose and plan; one answer of record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from breakfix.adapters.ledger import approval_rules, audit, cases, rules
from breakfix.adapters.ledger.tables import approvals, fields
from breakfix.model import Approval, Decision, Purpose

_FIELDS = tuple(f.name for f in fields_of(Approval))


@dataclass(frozen=True, slots=True)
class Question:
    """What identifies a question."""

    cluster: str
    case_id: str
    fence: int
    purpose: Purpose
    plan_hash: str


def ask(
    connection: Connection, question: Question, *, expires_at: datetime, now: datetime
) -> Approval:
    """The question that stands, or a new one."""
    _check(connection, question)
    number, last = _last(connection, question)
    if last is not None:
        kept = approval_rules.standing(last, now=now)
        if kept is last:
            return last
        if kept is not None:
            _settle(connection, question, number, kept, actor="breakfix", now=now)
    asked = approval_rules.asked(
        question.case_id,
        question.fence,
        question.purpose,
        plan_hash=question.plan_hash,
        expires_at=expires_at,
        now=now,
    )
    row = {field: getattr(asked, field) for field in _FIELDS}
    connection.execute(insert(approvals).values(cluster=question.cluster, **row))
    actor = f"{question.case_id}.{question.fence}"
    _tell(connection, question, "approval.asked", asked, actor=actor, now=now)
    return _stored(connection, question)


def decide(
    connection: Connection,
    question: Question,
    decision: Decision,
    *,
    approver: str,
    channel: str,
    note: str,
    now: datetime,
) -> Approval:
    """The answer of record: the first that came."""
    _check(connection, question)
    number, before = _last(connection, question)
    after = approval_rules.decided(
        before, decision, approver=approver, channel=channel, note=note, now=now
    )
    if after is not before:
        _settle(connection, question, number, after, actor=approver or channel, now=now)
    return _stored(connection, question)


def list_approvals(connection: Connection, cluster: str, case_id: str) -> Sequence[Approval]:
    """The case's questions, oldest first."""
    query = (
        select(approvals)
        .where(approvals.c.cluster == cluster, approvals.c.case_id == case_id)
        .order_by(approvals.c.id)
    )
    return tuple(Approval(**fields(row, _FIELDS)) for row in connection.execute(query).mappings())


def _check(connection: Connection, question: Question) -> None:
    """Lock the case: two answers come one after the other."""
    case = cases.load(connection, question.cluster, question.case_id, lock=True)
    rules.check_fence(case, question.fence)


def _last(connection: Connection, question: Question) -> tuple[int, Approval | None]:
    query = (
        select(approvals)
        .where(
            approvals.c.cluster == question.cluster,
            approvals.c.case_id == question.case_id,
            approvals.c.fence == question.fence,
            approvals.c.purpose == question.purpose,
            approvals.c.plan_hash == question.plan_hash,
        )
        .order_by(approvals.c.id.desc())
        .limit(1)
    )
    row = connection.execute(query).mappings().one_or_none()
    return (0, None) if row is None else (row["id"], Approval(**fields(row, _FIELDS)))


def _stored(connection: Connection, question: Question) -> Approval:
    _, found = _last(connection, question)
    if found is None:  # we hold the case's lock and have just written it
        msg = "the question vanished inside its own transaction"
        raise RuntimeError(msg)
    return found


def _settle(
    connection: Connection,
    question: Question,
    number: int,
    after: Approval,
    *,
    actor: str,
    now: datetime,
) -> None:
    connection.execute(
        update(approvals)
        .where(approvals.c.id == number)
        .values(
            decision=after.decision,
            approver=after.approver,
            channel=after.channel,
            note=after.note,
            decided_at=after.decided_at,
        )
    )
    _tell(connection, question, "approval.decided", after, actor=actor, now=now)


def _tell(
    connection: Connection,
    question: Question,
    event: str,
    approval: Approval,
    *,
    actor: str,
    now: datetime,
) -> None:
    audit.append(
        connection,
        question.cluster,
        event,
        question.case_id,
        actor=actor,
        detail={"approval": approval},
        now=now,
    )
