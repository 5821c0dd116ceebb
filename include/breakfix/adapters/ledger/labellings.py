"""What people say of review items and cases, on Postgres: only ever added to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields as fields_of
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, or_, select
from sqlalchemy.dialects.postgresql import distinct_on

from breakfix.adapters.ledger import audit
from breakfix.adapters.ledger.review_rules import is_same_word
from breakfix.adapters.ledger.tables import fields, labellings, reviews
from breakfix.model import Labelling

_FIELDS = tuple(f.name for f in fields_of(Labelling))


def history(
    connection: Connection,
    cluster: str,
    *,
    review_id: int | None = None,
    case_id: str | None = None,
) -> list[Labelling]:
    """All labellings of the cluster, or those of one item or case, oldest first."""
    query = select(labellings).where(labellings.c.cluster == cluster).order_by(labellings.c.id)
    if review_id is not None:
        query = query.where(labellings.c.review_id == review_id)
    if case_id is not None:
        query = query.where(labellings.c.case_id == case_id)
    return [_from_row(row) for row in connection.execute(query).mappings()]


def in_force(connection: Connection, cluster: str, *, now: datetime) -> list[Labelling]:
    """The last labelling of each review item that is open, or whose time is not over."""
    last = (
        select(labellings)
        .ext(distinct_on(labellings.c.review_id))
        .where(labellings.c.cluster == cluster, labellings.c.review_id.is_not(None))
        .order_by(labellings.c.review_id, labellings.c.id.desc())
        .subquery()
    )
    query = (
        select(last)
        .join(reviews, reviews.c.id == last.c.review_id)
        .where(or_(reviews.c.closed_at.is_(None), last.c.until > now))
        .order_by(last.c.id)
    )
    return [_from_row(row) for row in connection.execute(query).mappings()]


def add(connection: Connection, cluster: str, labelling: Labelling) -> Labelling:
    """Add one, with its audit entry; the last one as it stands when it says nothing new.

    `labelling.id` is not used. The item or case must be locked by the caller.
    """
    before = history(
        connection,
        cluster,
        review_id=labelling.review_id,
        case_id=labelling.case_id or None,
    )
    last = before[-1] if before else None
    if last is not None and is_same_word(last, labelling):
        return last
    values = {name: getattr(labelling, name) for name in _FIELDS if name != "id"}
    query = insert(labellings).values(cluster=cluster, **values).returning(labellings.c.id)
    stored = replace(labelling, id=connection.execute(query).scalar_one())
    audit.append(
        connection,
        cluster,
        event_of(labelling),
        labelling.case_id or labelling.node,
        actor=labelling.actor,
        detail=told(stored, last),
        now=labelling.at,
    )
    return stored


def event_of(labelling: Labelling) -> str:
    """The name of the audit entry."""
    return "case.labelled" if labelling.case_id else "review.answered"


def told(labelling: Labelling, before: Labelling | None) -> dict[str, Any]:
    """What the audit keeps of it: the whole answer, and what it replaces."""
    kept = {name: getattr(labelling, name) for name in _FIELDS if name not in {"at", "actor"}}
    return {**kept, "before": before.label if before else None}


def _from_row(row: Mapping[Any, Any]) -> Labelling:
    found = fields(row, _FIELDS)
    return Labelling(**{**found, "marks": tuple(found["marks"])})
