"""Cases on Postgres: read under lock, asked of the rules, written with their audit entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from breakfix.adapters.ledger import audit, rules
from breakfix.adapters.ledger.tables import cases, fields, leases
from breakfix.errors import LedgerError
from breakfix.model import Case

_FIELDS = tuple(f.name for f in fields_of(Case))


@dataclass(frozen=True, slots=True)
class Change:
    """Who changes a case, by what event, why and when."""

    event: str
    actor: str
    reason: str
    now: datetime


def load(connection: Connection, cluster: str, case_id: str, *, lock: bool = False) -> Case:
    """One case; `lock` keeps it as it is until the transaction ends. Raises LedgerError."""
    query = select(cases).where(cases.c.cluster == cluster, cases.c.id == case_id)
    found = connection.execute(query.with_for_update() if lock else query).mappings().one_or_none()
    if found is None:
        msg = f"no case {case_id} of cluster {cluster}"
        raise LedgerError(msg)
    return from_row(found)


def load_open(connection: Connection, cluster: str, node: str) -> Case | None:
    """The node's open case, locked."""
    query = (
        select(cases)
        .where(cases.c.cluster == cluster, cases.c.node == node, cases.c.ended_at.is_(None))
        .with_for_update()
    )
    found = connection.execute(query).mappings().one_or_none()
    return None if found is None else from_row(found)


def list_cases(
    connection: Connection,
    cluster: str,
    *,
    open_only: bool,
    node: str | None,
    opened_since: datetime | None = None,
) -> Sequence[Case]:
    """Cases by age, oldest first."""
    query = select(cases).where(cases.c.cluster == cluster).order_by(cases.c.opened_at, cases.c.id)
    if open_only:
        query = query.where(cases.c.ended_at.is_(None))
    if node is not None:
        query = query.where(cases.c.node == node)
    if opened_since is not None:
        query = query.where(cases.c.opened_at >= opened_since)
    return tuple(from_row(row) for row in connection.execute(query).mappings())


def add(connection: Connection, case: Case) -> None:
    """Insert a new case."""
    connection.execute(insert(cases).values(state_since=case.opened_at, **_values(case)))


def save(connection: Connection, before: Case, after: Case) -> None:
    """Write what became of a locked case."""
    values = _values(after)
    if after.state is not before.state:
        values["state_since"] = after.updated_at
    connection.execute(
        update(cases)
        .where(cases.c.cluster == after.cluster, cases.c.id == after.id)
        .values(**values)
    )


def holds_scopes(connection: Connection, case: Case) -> bool:
    """Whether the case still has its slots."""
    query = select(leases.c.node).where(
        leases.c.cluster == case.cluster, leases.c.case_id == case.id
    )
    return connection.execute(query.limit(1)).first() is not None


def change(
    connection: Connection,
    cluster: str,
    case_id: str,
    rule: Callable[[Case], Case],
    what: Change,
) -> Case:
    """Lock, ask the rule, write, free the scopes when it says so, audit; the case as stored."""
    before = load(connection, cluster, case_id, lock=True)
    after = rule(before)
    if after is before:
        return before
    save(connection, before, after)
    freed = rules.frees_scopes(after) and _free(connection, after)
    detail: dict[str, Any] = {"reason": what.reason, **_difference(before, after)}
    if freed:
        detail["scopes_freed"] = [str(s) for s in after.scopes]
    audit.append(
        connection, cluster, what.event, case_id, actor=what.actor, detail=detail, now=what.now
    )
    return load(connection, cluster, case_id)


def take(connection: Connection, case: Case, *, now: datetime) -> None:
    """Hold every scope of the case; whether there is room was asked before."""
    slots = [
        {
            "cluster": case.cluster,
            "kind": str(scope.kind),
            "value": scope.value,
            "node": case.node,
            "case_id": case.id,
            "taken_at": now,
        }
        for scope in dict.fromkeys(case.scopes)
    ]
    if slots:
        connection.execute(insert(leases), slots)


def reopen(connection: Connection, cluster: str, case_id: str, what: Change) -> Case:
    """An escalated case goes on, and holds its scopes again."""
    before = load(connection, cluster, case_id, lock=True)
    newest = list_cases(connection, cluster, open_only=False, node=before.node)[-1]
    after = rules.reopened(before, newest=newest, reason=what.reason, now=what.now)
    save(connection, before, after)
    take(connection, after, now=what.now)
    detail = {
        "reason": what.reason,
        **_difference(before, after),
        "scopes_leased": [str(s) for s in after.scopes],
    }
    audit.append(
        connection, cluster, what.event, case_id, actor=what.actor, detail=detail, now=what.now
    )
    return load(connection, cluster, case_id)


def _free(connection: Connection, case: Case) -> bool:
    query = delete(leases).where(leases.c.cluster == case.cluster, leases.c.case_id == case.id)
    return connection.execute(query).rowcount > 0


def _difference(before: Case, after: Case) -> dict[str, Any]:
    """What a reader of the audit needs to rebuild the case: every changed field."""
    changed = {
        name: getattr(after, name)
        for name in _FIELDS
        if name != "updated_at" and getattr(before, name) != getattr(after, name)
    }
    return {"node": after.node, "fence": after.fence, "from": before.state, **changed}


def from_row(row: Mapping[Any, Any]) -> Case:
    """A row of the table as the model knows it."""
    return Case(**fields(row, _FIELDS))


def _values(case: Case) -> dict[str, Any]:
    return {name: getattr(case, name) for name in _FIELDS}
