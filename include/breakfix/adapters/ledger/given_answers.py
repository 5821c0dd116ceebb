"""What people answered, on Postgres: every answer once, in the order in which they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from breakfix.adapters.ledger import approval_rules, audit, chain
from breakfix.adapters.ledger.tables import approval_answers
from breakfix.model import Answer, GivenAnswer

EVENT = "approval.answered"


def storable(answer: Answer) -> Answer:
    """The answer as it will be read again: texts from outside made storable."""
    return replace(
        answer,
        approver=chain.storable(answer.approver),
        channel=chain.storable(answer.channel),
        plan_hash=chain.storable(answer.plan_hash),
        note=chain.storable(answer.note),
    )


def add(
    connection: Connection, cluster: str, question: int, given: GivenAnswer, *, now: datetime
) -> None:
    """Keep one answer and audit it."""
    answer = given.answer
    connection.execute(
        insert(approval_answers).values(
            cluster=cluster,
            case_id=given.case_id,
            approval_id=question,
            purpose=given.purpose,
            asked_at=given.asked_at,
            approver=answer.approver,
            is_yes=answer.is_yes,
            channel=answer.channel,
            at=answer.at,
            plan_hash=answer.plan_hash,
            note=answer.note,
            objection=given.objection,
            role="",  # the database writes who is connected
        )
    )
    detail = approval_rules.told(given)
    actor = answer.approver or answer.channel
    audit.append(connection, cluster, EVENT, given.case_id, actor=actor, detail=detail, now=now)


def of_question(connection: Connection, question: int) -> Sequence[GivenAnswer]:
    """The answers to one question, oldest first."""
    return _read(connection, approval_answers.c.approval_id == question)


def of_case(connection: Connection, cluster: str, case_id: str) -> Sequence[GivenAnswer]:
    """The answers to all questions of a case, oldest first."""
    mine = (approval_answers.c.cluster == cluster) & (approval_answers.c.case_id == case_id)
    return _read(connection, mine)


def _read(connection: Connection, where: Any) -> Sequence[GivenAnswer]:
    query = select(approval_answers).where(where).order_by(approval_answers.c.id)
    return tuple(_given(row) for row in connection.execute(query).mappings())


def _given(row: Mapping[Any, Any]) -> GivenAnswer:
    return GivenAnswer(
        case_id=row["case_id"],
        purpose=row["purpose"],
        asked_at=row["asked_at"],
        answer=Answer(
            approver=row["approver"],
            is_yes=row["is_yes"],
            channel=row["channel"],
            at=row["at"],
            plan_hash=row["plan_hash"],
            note=row["note"],
        ),
        objection=row["objection"],
        role=row["role"],
    )
