"""Steps on Postgres: the intention is on record before the effect, and what became of it after."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields as fields_of
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select, update

from breakfix.adapters.ledger import audit, cases, rules
from breakfix.adapters.ledger.tables import fields, steps
from breakfix.model import Step, StepStatus

_FIELDS = tuple(f.name for f in fields_of(Step))


def begin(
    connection: Connection,
    cluster: str,
    case_id: str,
    fence: int,
    name: str,
    *,
    detail: Mapping[str, Any],
    now: datetime,
) -> tuple[Step, bool]:
    """The case's lock makes one of two beginners the first."""
    case = cases.load(connection, cluster, case_id, lock=True)
    rules.check_fence(case, fence)
    known = _find(connection, cluster, case_id, name)
    if known is not None:
        return known, False
    step = Step(case_id, fence, name, StepStatus.DISPATCHED, started_at=now, detail=detail)
    row = {field: getattr(step, field) for field in _FIELDS}
    connection.execute(insert(steps).values(cluster=cluster, attempt=case.attempt, **row))
    begun = _must_find(connection, cluster, case_id, name)
    told = {"step": name, "node": case.node, "plan_hash": case.plan_hash, "detail": detail}
    audit.append(
        connection, cluster, "step.begun", case_id, actor=f"{case_id}.{fence}", detail=told, now=now
    )
    return begun, True


def finish(
    connection: Connection,
    cluster: str,
    case_id: str,
    fence: int,
    name: str,
    *,
    status: StepStatus,
    detail: Mapping[str, Any],
    now: datetime,
) -> Step:
    """Raises LedgerError when the step was never begun."""
    case = cases.load(connection, cluster, case_id, lock=True)
    rules.check_fence(case, fence)
    before = _find(connection, cluster, case_id, name)
    after = rules.finished(before, name, status, detail=detail, now=now)
    if after is before:
        return after
    connection.execute(
        update(steps)
        .where(*_is(cluster, case_id, name))
        .values(status=after.status, ended_at=after.ended_at, detail=after.detail)
    )
    finished = _must_find(connection, cluster, case_id, name)
    told = {"step": name, "node": case.node, "status": status, "detail": detail}
    audit.append(
        connection,
        cluster,
        "step.finished" if after.ended_at else "step.noted",
        case_id,
        actor=f"{case_id}.{fence}",
        detail=told,
        now=now,
    )
    return finished


def list_steps(connection: Connection, cluster: str, case_id: str) -> Sequence[Step]:
    """The case's steps, in the order they began."""
    query = (
        select(steps)
        .where(steps.c.cluster == cluster, steps.c.case_id == case_id)
        .order_by(steps.c.started_at, steps.c.name)
    )
    return tuple(from_row(row) for row in connection.execute(query).mappings())


def from_row(row: Mapping[Any, Any]) -> Step:
    """A row of the table as the model knows it."""
    return Step(**fields(row, _FIELDS))


def _is(cluster: str, case_id: str, name: str) -> tuple[ColumnElement[bool], ...]:
    return (steps.c.cluster == cluster, steps.c.case_id == case_id, steps.c.name == name)


def _find(connection: Connection, cluster: str, case_id: str, name: str) -> Step | None:
    query = select(steps).where(*_is(cluster, case_id, name))
    row = connection.execute(query).mappings().one_or_none()
    return None if row is None else from_row(row)


def _must_find(connection: Connection, cluster: str, case_id: str, name: str) -> Step:
    query = select(steps).where(*_is(cluster, case_id, name))
    return from_row(connection.execute(query).mappings().one())
