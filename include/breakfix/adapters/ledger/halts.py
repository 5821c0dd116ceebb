"""The kill switch on Postgres: once `set_halt` has returned, nothing is admitted."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, select
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger import audit
from breakfix.adapters.ledger.tables import halts
from breakfix.model import HaltLevel


def level(connection: Connection, cluster: str, *, lock: bool = False) -> HaltLevel:
    """The level in force; `lock` keeps it so until the transaction ends."""
    query = select(halts.c.level).where(halts.c.cluster == cluster)
    if not lock:
        found = connection.execute(query).scalar_one_or_none()
        return HaltLevel.NONE if found is None else HaltLevel(found)
    locked = query.with_for_update(read=True)
    found = connection.execute(locked).scalar_one_or_none()
    if found is None:
        _ensure(connection, cluster)
        found = connection.execute(locked).scalar_one()
    return HaltLevel(found)


def _ensure(connection: Connection, cluster: str) -> None:
    """The row must be there to be locked."""
    query = select(halts.c.cluster).where(halts.c.cluster == cluster)
    if connection.execute(query).first() is None:
        never = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
        row = upsert(halts).values(
            cluster=cluster, level=HaltLevel.NONE, actor="", reason="", at=never
        )
        connection.execute(row.on_conflict_do_nothing())


def set_level(
    connection: Connection,
    cluster: str,
    to: HaltLevel,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> None:
    """Set and audit; waits for admissions that are under way."""
    values = {"level": to, "actor": actor, "reason": reason, "at": now}
    row = upsert(halts).values(cluster=cluster, **values)
    connection.execute(row.on_conflict_do_update(index_elements=["cluster"], set_=values))
    detail = {"level": to, "reason": reason}
    audit.append(connection, cluster, "halt.set", cluster, actor=actor, detail=detail, now=now)
