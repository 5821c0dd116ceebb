"""Emergencies on Postgres: asked for, approved by another person, ended, or over by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select, update

from breakfix.adapters.ledger import audit, rules
from breakfix.adapters.ledger.tables import emergencies
from breakfix.brakes import Emergency, Lift
from breakfix.errors import LedgerError


def in_force(connection: Connection, cluster: str, *, now: datetime) -> Emergency | None:
    """The emergency that holds now, kept so until the transaction ends."""
    last = _last(connection, cluster, read=True)
    return last if last is not None and last.is_in_force(now) else None


def ask(connection: Connection, cluster: str, asked: Emergency) -> Emergency:
    """Record the question. Raises Refused while another one is asked or in force."""
    _one_at_a_time(connection, cluster)
    rules.check_emergency_free(_last(connection, cluster), asked.asked_at)
    row = insert(emergencies).values(
        cluster=cluster,
        lifts=sorted(asked.lifts),
        lasts_s=asked.lasts_s,
        requester=asked.requester,
        approver=asked.approver,
        reason=asked.reason,
        asked_at=asked.asked_at,
        answer_by=asked.answer_by,
        ended_by="",
    )
    connection.execute(row)
    return _told(connection, cluster, "emergency.asked", asked.requester, asked.asked_at)


def approve(connection: Connection, cluster: str, *, approver: str, now: datetime) -> Emergency:
    """It is in force from now on, for as long as was asked. Raises Refused."""
    _one_at_a_time(connection, cluster)
    asked = rules.approvable(_last(connection, cluster), approver, now)
    values = {"approved_at": now, "until": now + timedelta(seconds=asked.lasts_s)}
    _update(connection, asked, values)
    return _told(connection, cluster, "emergency.approved", approver, now)


def end(
    connection: Connection, cluster: str, *, actor: str, reason: str, now: datetime
) -> Emergency | None:
    """End or withdraw it; None when there is nothing."""
    _one_at_a_time(connection, cluster)
    last = _last(connection, cluster)
    if last is None or not (last.is_in_force(now) or last.is_asked(now)):
        return None
    _update(connection, last, {"ended_at": now, "ended_by": actor})
    return _told(connection, cluster, "emergency.ended", actor, now, why=reason)


def history(connection: Connection, cluster: str, *, limit: int) -> Sequence[Emergency]:
    """Newest first."""
    query = select(emergencies).where(emergencies.c.cluster == cluster)
    rows = connection.execute(query.order_by(emergencies.c.id.desc()).limit(limit))
    return tuple(_emergency(row) for row in rows)


def _one_at_a_time(connection: Connection, cluster: str) -> None:
    """Of two that ask at once the second finds the first."""
    key = f"breakfix emergency of {cluster}"
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


def _last(connection: Connection, cluster: str, *, read: bool = False) -> Emergency | None:
    query = select(emergencies).where(emergencies.c.cluster == cluster)
    query = query.order_by(emergencies.c.id.desc()).limit(1).with_for_update(read=read)
    row = connection.execute(query).one_or_none()
    return None if row is None else _emergency(row)


def _update(connection: Connection, which: Emergency, values: Mapping[str, object]) -> None:
    connection.execute(update(emergencies).where(emergencies.c.id == which.id).values(**values))


def _told(
    connection: Connection, cluster: str, event: str, actor: str, now: datetime, *, why: str = ""
) -> Emergency:
    found = _last(connection, cluster)
    if found is None:
        msg = "the emergency that was just written is not there"
        raise LedgerError(msg)
    detail = rules.told_emergency(found, why)
    audit.append(connection, cluster, event, cluster, actor=actor, detail=detail, now=now)
    return found


def _emergency(row: Row[Any]) -> Emergency:
    return Emergency(
        row.id,
        frozenset(Lift(x) for x in row.lifts),
        row.lasts_s,
        row.requester,
        row.approver,
        row.reason,
        row.asked_at,
        row.answer_by,
        row.approved_at,
        row.until,
        row.ended_at,
        row.ended_by,
    )
