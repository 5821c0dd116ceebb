"""Advice on changes, on Postgres: one open row for each change, closed when the change is gone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from breakfix.adapters.ledger import audit
from breakfix.adapters.ledger.tables import change_advices
from breakfix.cohorts import Advice, ChangeAdvice

ADVISED, CLOSED = "change.advised", "change.closed"


def record(
    connection: Connection,
    cluster: str,
    scope: str,
    advice: Advice,
    *,
    reason: str,
    nodes: frozenset[str],
    detail: Mapping[str, Any],
    actor: str,
    now: datetime,
) -> ChangeAdvice:
    """Open the change's row, or renew it; the audit tells of what is new."""
    before = _open(connection, cluster, scope)
    values = {
        "advice": advice,
        "reason": reason,
        "nodes": sorted(nodes),
        "detail": detail,
        "last_seen": now,
    }
    if before is None:
        row = insert(change_advices).values(cluster=cluster, scope=scope, first_seen=now, **values)
        connection.execute(row)
    else:
        mine = change_advices.c.id == before.id
        connection.execute(update(change_advices).where(mine).values(**values))
    if before is None or before.advice is not advice:
        told = {"advice": advice, "reason": reason, "nodes": sorted(nodes)}
        audit.append(connection, cluster, ADVISED, scope, actor=actor, detail=told, now=now)
    mine_now = (change_advices.c.cluster == cluster, change_advices.c.scope == scope)
    query = select(change_advices).where(*mine_now, change_advices.c.closed_at.is_(None))
    return _advice(connection.execute(query).one())


def close(
    connection: Connection, cluster: str, scope: str, *, actor: str, reason: str, now: datetime
) -> None:
    """The change is gone. One that is not open is no error."""
    before = _open(connection, cluster, scope)
    if before is None:
        return
    mine = change_advices.c.id == before.id
    connection.execute(update(change_advices).where(mine).values(closed_at=now))
    told = {"advice": before.advice, "reason": reason}
    audit.append(connection, cluster, CLOSED, scope, actor=actor, detail=told, now=now)


def list_advices(
    connection: Connection, cluster: str, *, open_only: bool
) -> Sequence[ChangeAdvice]:
    """Advice on changes, oldest first."""
    query = select(change_advices).where(change_advices.c.cluster == cluster)
    if open_only:
        query = query.where(change_advices.c.closed_at.is_(None))
    rows = connection.execute(query.order_by(change_advices.c.id))
    return tuple(_advice(row) for row in rows)


def _open(connection: Connection, cluster: str, scope: str) -> Row[Any] | None:
    query = select(change_advices).where(
        change_advices.c.cluster == cluster,
        change_advices.c.scope == scope,
        change_advices.c.closed_at.is_(None),
    )
    return connection.execute(query.with_for_update()).one_or_none()


def _advice(row: Row[Any]) -> ChangeAdvice:
    return ChangeAdvice(
        row.id,
        row.scope,
        row.advice,
        row.reason,
        frozenset(row.nodes),
        row.detail,
        row.first_seen,
        row.last_seen,
        row.closed_at,
    )
