"""Learning reports on Postgres: one a day, with its audit entry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger import audit
from breakfix.adapters.ledger.tables import learning_reports
from breakfix.model import digest

EVENT = "learning.reported"


def store(
    connection: Connection,
    cluster: str,
    day: str,
    body: Mapping[str, Any],
    *,
    actor: str,
    now: datetime,
) -> bool:
    """Keep the day's report; False, and nothing is written, when there is one already."""
    row = upsert(learning_reports).values(cluster=cluster, day=day, at=now, body=body)
    row_new = row.on_conflict_do_nothing().returning(learning_reports.c.day)
    if connection.execute(row_new).scalar() is None:
        return False
    audit.append(connection, cluster, EVENT, cluster, actor=actor, detail=told(day, body), now=now)
    return True


def told(day: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """What the audit keeps of a report: its proposals, and the digest of the whole."""
    return {"day": day, "digest": digest(body), "proposals": body.get("proposals", [])}


def newest(connection: Connection, cluster: str, *, limit: int) -> Sequence[Mapping[str, Any]]:
    """The bodies, newest day first."""
    query = (
        select(learning_reports.c.body)
        .where(learning_reports.c.cluster == cluster)
        .order_by(learning_reports.c.day.desc())
        .limit(limit)
    )
    return tuple(connection.execute(query).scalars())
