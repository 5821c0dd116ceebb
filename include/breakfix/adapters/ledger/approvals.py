"""Questions on Postgres: one open per case, purpose and plan; every answer kept, one decision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import datetime

from sqlalchemy import Connection, insert, select, update

from breakfix.adapters.ledger import approval_rules, audit, cases, given_answers, rules
from breakfix.adapters.ledger.tables import approvals, fields
from breakfix.adapters.ledger.tables import cases as cases_table
from breakfix.model import Answer, Approval, Case, Decision, Purpose
from breakfix.ports import Answered, Settle

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
    connection: Connection, question: Question, *, expires_at: datetime, now: datetime, needed: int
) -> Approval:
    """The question that stands, or a new one."""
    _locked(connection, question)
    number, last = _last(connection, question)
    if last is not None:
        kept = approval_rules.standing(last, fence=question.fence, needed=needed, now=now)
        if kept is last:
            return last
        if kept is not None and kept.decision is Decision.PENDING:
            return _carry(connection, question, number, kept, now=now)
        if kept is not None:
            _settle(connection, question, number, kept, actor="breakfix", now=now)
    asked = approval_rules.asked(
        question.case_id,
        question.fence,
        question.purpose,
        plan_hash=question.plan_hash,
        expires_at=expires_at,
        now=now,
        needed=needed,
    )
    row = {field: getattr(asked, field) for field in _FIELDS}
    connection.execute(insert(approvals).values(cluster=question.cluster, **row))
    actor = f"{question.case_id}.{question.fence}"
    _tell(connection, question, "approval.asked", asked, actor=actor, now=now)
    return _stored(connection, question)


def _carry(
    connection: Connection, question: Question, number: int, kept: Approval, *, now: datetime
) -> Approval:
    """The open question goes on at the case's fence, or with more people."""
    connection.execute(
        update(approvals)
        .where(approvals.c.id == number)
        .values(fence=kept.fence, needed=kept.needed)
    )
    actor = f"{question.case_id}.{question.fence}"
    _tell(connection, question, "approval.asked", kept, actor=actor, now=now)
    return _stored(connection, question)


def answer(
    connection: Connection,
    question: Question,
    answers: Sequence[Answer],
    settle: Settle,
    *,
    now: datetime,
) -> Answered:
    """Record the answers and what all of them amount to."""
    case = _locked(connection, question)
    number, last = _last(connection, question)
    before = approval_rules.require_asked(last)
    answers = [given_answers.storable(a) for a in answers]
    counted, fresh = approval_rules.new_answers(
        answers, given_answers.of_question(connection, number)
    )
    settlement = settle(case, before, (*counted, *fresh))
    objections = dict(zip(fresh, settlement.objections[len(counted) :], strict=True))
    for one, objection in objections.items():
        record = approval_rules.recorded(before, one, objection)
        given_answers.add(connection, question.cluster, number, record, now=now)
    after = approval_rules.settled(before, settlement, now=now)
    if after is not before:
        actor = settlement.approver or settlement.channel or "breakfix"
        _settle(connection, question, number, after, actor=actor, now=now)
    told = approval_rules.objections_to(answers, given_answers.of_question(connection, number))
    return Answered(_stored(connection, question), told, settlement.yes)


def list_approvals(connection: Connection, cluster: str, case_id: str) -> Sequence[Approval]:
    """The case's questions, oldest first."""
    query = (
        select(approvals)
        .where(approvals.c.cluster == cluster, approvals.c.case_id == case_id)
        .order_by(approvals.c.id)
    )
    return tuple(Approval(**fields(row, _FIELDS)) for row in connection.execute(query).mappings())


def open_questions(connection: Connection, cluster: str) -> Sequence[Approval]:
    """Undecided questions of open cases, at the fence and about the plan that the case has now."""
    query = (
        select(approvals)
        .join(
            cases_table,
            (cases_table.c.cluster == approvals.c.cluster)
            & (cases_table.c.id == approvals.c.case_id),
        )
        .where(
            approvals.c.cluster == cluster,
            approvals.c.decision == Decision.PENDING,
            cases_table.c.ended_at.is_(None),
            cases_table.c.fence == approvals.c.fence,
            cases_table.c.plan_hash == approvals.c.plan_hash,
        )
        .order_by(approvals.c.id)
    )
    return tuple(Approval(**fields(row, _FIELDS)) for row in connection.execute(query).mappings())


def _locked(connection: Connection, question: Question) -> Case:
    """Lock the case: two answers come one after the other."""
    case = cases.load(connection, question.cluster, question.case_id, lock=True)
    rules.check_fence(case, question.fence)
    return case


def _last(connection: Connection, question: Question) -> tuple[int, Approval | None]:
    """The newest question that is the one meant; its number."""
    query = (
        select(approvals)
        .where(approvals.c.cluster == question.cluster, approvals.c.case_id == question.case_id)
        .order_by(approvals.c.id.desc())
    )
    for row in connection.execute(query).mappings():
        found = Approval(**fields(row, _FIELDS))
        if approval_rules.follows(found, question.purpose, question.plan_hash, question.fence):
            return row["id"], found
    return 0, None


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
