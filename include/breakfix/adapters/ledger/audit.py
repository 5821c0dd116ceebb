"""The audit on Postgres: appended in the transaction of what it tells, in one order per cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger.chain import GENESIS, Sealed, first_fault, seal
from breakfix.adapters.ledger.tables import audit, audit_heads
from breakfix.model import AuditEntry

_FIELDS = ("seq", "at", "actor", "event", "subject", "detail", "previous_hash", "hash")
_PAGE = 1000  # rows of the chain held in memory while it is checked


def append(
    connection: Connection,
    cluster: str,
    event: str,
    subject: str,
    *,
    actor: str,
    detail: Mapping[str, Any],
    now: datetime,
) -> None:
    """Add one entry. Call it last: the head's lock makes every other writer of the cluster wait."""
    head = _locked_head(connection, cluster)
    entry = seal(head, at=now, actor=actor, event=event, subject=subject, detail=detail)
    row = {field: getattr(entry, field) for field in _FIELDS}
    added = insert(audit).values(cluster=cluster, **row).cte("added")  # one round trip for both
    connection.execute(
        update(audit_heads)
        .where(audit_heads.c.cluster == cluster)
        .values(seq=entry.seq, hash=entry.hash)
        .add_cte(added)
    )


def _locked_head(connection: Connection, cluster: str) -> tuple[int, str]:
    query = (
        select(audit_heads.c.seq, audit_heads.c.hash)
        .where(audit_heads.c.cluster == cluster)
        .with_for_update()
    )
    row = connection.execute(query).one_or_none()
    if row is None:
        first = upsert(audit_heads).values(cluster=cluster, seq=0, hash=GENESIS)
        connection.execute(first.on_conflict_do_nothing())
        row = connection.execute(query).one()
    return row.seq, row.hash


def head(connection: Connection, cluster: str) -> tuple[int, str]:
    """(seq, hash) of the last entry, as the head row says."""
    query = select(audit_heads.c.seq, audit_heads.c.hash).where(audit_heads.c.cluster == cluster)
    row = connection.execute(query).one_or_none()
    return (row.seq, row.hash) if row else (0, GENESIS)


def entries(
    connection: Connection, cluster: str, *, after: int, limit: int
) -> Sequence[AuditEntry]:
    """Entries with a higher seq than `after`, by rising seq."""
    query = (
        select(audit)
        .where(audit.c.cluster == cluster, audit.c.seq > after)
        .order_by(audit.c.seq)
        .limit(limit)
    )
    return tuple(_sealed(row).opened() for row in connection.execute(query).mappings())


def verify(connection: Connection, cluster: str) -> tuple[int, str]:
    """Read the whole chain once, a page at a time. Wants a connection with one unchanging view."""
    last = head(connection, cluster)
    query = select(audit).where(audit.c.cluster == cluster).order_by(audit.c.seq)
    with connection.execution_options(yield_per=_PAGE).execute(query) as rows:
        return first_fault((_sealed(row) for row in rows.mappings()), last)


def _sealed(row: Mapping[Any, Any]) -> Sealed:
    return Sealed(**{field: row[field] for field in _FIELDS})
