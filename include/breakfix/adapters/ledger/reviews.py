"""The review queue on Postgres: one open item per node and topic, closed when seen no more."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from breakfix.adapters.ledger import labellings
from breakfix.adapters.ledger.review_rules import ReviewKey, Wanted, queue_change
from breakfix.adapters.ledger.sweep_rules import Left
from breakfix.adapters.ledger.tables import fields, reviews
from breakfix.errors import LedgerError
from breakfix.model import Labelling
from breakfix.ports import ReviewItem

_FIELDS = (
    *("id", "at", "node", "reason", "detail", "last_seen", "closed_at", "topic", "times_seen"),
)


def record(connection: Connection, cluster: str, left: Left, *, now: datetime) -> dict[str, Any]:
    """Bring the queue to what the sweep left; what changed, for the audit."""
    change = queue_change(
        _open_items(connection, cluster),
        left.reviews,
        left.silent,
        labellings.in_force(connection, cluster, now=now),
        now=now,
    )
    _close(connection, list(change.closed.values()), now=now)
    _insert(connection, cluster, change.opened, now=now)
    _renew(connection, change.renewed, now=now)
    return {"reviews_opened": sorted(change.opened), "reviews_closed": sorted(change.closed)}


def _open_items(connection: Connection, cluster: str) -> dict[ReviewKey, int]:
    query = select(reviews.c.id, reviews.c.node, reviews.c.topic).where(
        reviews.c.cluster == cluster, reviews.c.closed_at.is_(None)
    )
    return {(row.node, row.topic): row.id for row in connection.execute(query)}


def _close(connection: Connection, numbers: Sequence[int], *, now: datetime) -> None:
    if numbers:
        connection.execute(update(reviews).where(reviews.c.id.in_(numbers)).values(closed_at=now))


def _insert(
    connection: Connection, cluster: str, new: Mapping[ReviewKey, Wanted], *, now: datetime
) -> None:
    rows = [
        {
            "cluster": cluster,
            "node": node,
            "topic": topic,
            "at": now,
            "reason": item.reason,
            "detail": item.detail,
            "last_seen": now,
            "times_seen": 1,
        }
        for (node, topic), item in sorted(new.items())
    ]
    if rows:
        connection.execute(insert(reviews), rows)


def _renew(connection: Connection, renewed: Mapping[int, Wanted], *, now: datetime) -> None:
    rows = [
        {"number": number, "reason": item.reason, "detail": item.detail, "last_seen": now}
        for number, item in sorted(renewed.items())
    ]
    if rows:
        query = update(reviews).where(reviews.c.id == bindparam("number"))
        connection.execute(query.values(times_seen=reviews.c.times_seen + 1), rows)


def list_reviews(connection: Connection, cluster: str, *, open_only: bool) -> Sequence[ReviewItem]:
    """Review items with what was said of them, oldest first."""
    query = select(reviews).where(reviews.c.cluster == cluster).order_by(reviews.c.id)
    if open_only:
        query = query.where(reviews.c.closed_at.is_(None))
    said: dict[int | None, list[Labelling]] = defaultdict(list)
    for labelling in labellings.history(connection, cluster):
        said[labelling.review_id].append(labelling)
    rows = connection.execute(query).mappings()
    return tuple(ReviewItem(**fields(row, _FIELDS), answers=tuple(said[row["id"]])) for row in rows)


def load(connection: Connection, cluster: str, review_id: int, *, lock: bool = False) -> ReviewItem:
    """One item; `lock` keeps others from answering it meanwhile. Raises LedgerError."""
    query = select(reviews).where(reviews.c.cluster == cluster, reviews.c.id == review_id)
    found = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if found is None:
        raise LedgerError(f"no review item {review_id} of cluster {cluster}")
    answers = labellings.history(connection, cluster, review_id=review_id)
    return ReviewItem(**fields(found, _FIELDS), answers=tuple(answers))
