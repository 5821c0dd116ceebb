"""The review queue on Postgres: one open item per node and topic, closed when seen no more."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields as fields_of
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select, update

from breakfix.adapters.ledger.chain import json_text, storable
from breakfix.adapters.ledger.sweep_rules import Left, ReviewKey
from breakfix.adapters.ledger.tables import fields, reviews
from breakfix.ports import ReviewItem

_FIELDS = tuple(f.name for f in fields_of(ReviewItem))


def record(connection: Connection, cluster: str, left: Left, *, now: datetime) -> dict[str, Any]:
    """Open what is new, renew what is still seen, close what is gone and was judged in full."""
    known = _open_items(connection, cluster)
    wanted = left.reviews
    new = {key: item for key, item in wanted.items() if key not in known}
    changed = {
        known[key][0]: item
        for key, item in wanted.items()
        if key in known and known[key][1:] != (storable(item[0]), json_text(item[1]))
    }
    gone = [key for key in known if key not in wanted and key[0] not in left.silent]
    _insert(connection, cluster, new, now=now)
    for number, (reason, detail) in changed.items():
        values = {"reason": reason, "detail": detail}
        connection.execute(update(reviews).where(reviews.c.id == number).values(values))
    _stamp(connection, [known[k][0] for k in known if k in wanted], last_seen=now)
    _stamp(connection, [known[k][0] for k in gone], closed_at=now)
    return {"reviews_opened": sorted(new), "reviews_closed": sorted(gone)}


def _open_items(connection: Connection, cluster: str) -> dict[ReviewKey, tuple[int, str, str]]:
    query = select(reviews).where(reviews.c.cluster == cluster, reviews.c.closed_at.is_(None))
    return {
        (row.node, row.topic): (row.id, row.reason, json_text(row.detail))
        for row in connection.execute(query)
    }


def _insert(
    connection: Connection, cluster: str, new: dict[ReviewKey, tuple[str, Any]], *, now: datetime
) -> None:
    rows = [
        {
            "cluster": cluster,
            "node": node,
            "topic": topic,
            "at": now,
            "reason": reason,
            "detail": detail,
            "last_seen": now,
        }
        for (node, topic), (reason, detail) in sorted(new.items())
    ]
    if rows:
        connection.execute(insert(reviews), rows)


def _stamp(connection: Connection, numbers: Sequence[int], **when: datetime) -> None:
    if numbers:
        connection.execute(update(reviews).where(reviews.c.id.in_(numbers)).values(**when))


def list_reviews(connection: Connection, cluster: str, *, open_only: bool) -> Sequence[ReviewItem]:
    """Review items, oldest first."""
    query = select(reviews).where(reviews.c.cluster == cluster).order_by(reviews.c.id)
    if open_only:
        query = query.where(reviews.c.closed_at.is_(None))
    return tuple(ReviewItem(**fields(row, _FIELDS)) for row in connection.execute(query).mappings())
