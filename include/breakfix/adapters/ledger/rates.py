"""Rates that all processes share: one moment per target, moved on under the row's lock."""

from __future__ import annotations

from sqlalchemy import Connection, func, select, update
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger.tables import rates
from breakfix.resilience.rate import reserved


def reserve(
    connection: Connection, cluster: str, target: str, *, count: int, per_s: float
) -> float:
    """Seconds to wait for the first of `count` places; the database's clock counts, not ours."""
    now = func.clock_timestamp()
    new = upsert(rates).values(cluster=cluster, target=target, free_at=now)
    connection.execute(new.on_conflict_do_nothing())
    row = (rates.c.cluster == cluster, rates.c.target == target)
    locked = select(rates.c.free_at).where(*row).with_for_update()
    free_at = connection.execute(locked).scalar_one()
    at = connection.execute(select(now)).scalar_one()  # after the lock, however long that took
    wait_s, free_at = reserved(free_at, at, count=count, per_s=per_s)
    connection.execute(update(rates).where(*row).values(free_at=free_at))
    return wait_s
