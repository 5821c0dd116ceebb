"""The slots that cases hold, beside what their cases say that they hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, insert, select, text

from breakfix.adapters.ledger import audit, cases, rules
from breakfix.adapters.ledger.tables import leases
from breakfix.model import Scope, ScopeKind
from breakfix.ports import Lease

EVENT = "leases.mended"


def list_leases(connection: Connection, cluster: str) -> Sequence[Lease]:
    """Every slot taken, by scope and node."""
    query = (
        select(leases)
        .where(leases.c.cluster == cluster)
        .order_by(leases.c.kind, leases.c.value, leases.c.node)
    )
    return tuple(
        Lease(Scope(ScopeKind(r.kind), r.value), r.node, r.case_id, r.taken_at)
        for r in connection.execute(query)
    )


def mend(connection: Connection, cluster: str, *, actor: str, now: datetime) -> Sequence[str]:
    """Make the slots what the cases say; what was changed, each in words.

    The table is locked before anything is read: whoever changes a case changes its slots in the
    same transaction, and waits for this one.
    """
    connection.execute(text("LOCK TABLE breakfix.leases IN SHARE ROW EXCLUSIVE MODE"))
    open_now = cases.list_cases(connection, cluster, open_only=True, node=None)
    drift = rules.lease_drift(open_now, list_leases(connection, cluster))
    for lease in drift.wrong:
        connection.execute(delete(leases).where(*_is(cluster, lease)))
    if drift.missing:
        rows = [
            {
                "cluster": cluster,
                "kind": str(lease.scope.kind),
                "value": lease.scope.value,
                "node": lease.node,
                "case_id": lease.case_id,
                "taken_at": now,
            }
            for lease in drift.missing
        ]
        connection.execute(insert(leases), rows)
    told = drift.told()
    if told:
        detail = {"changes": told}
        audit.append(connection, cluster, EVENT, cluster, actor=actor, detail=detail, now=now)
    return told


def _is(cluster: str, lease: Lease) -> tuple[ColumnElement[bool], ...]:
    return (
        leases.c.cluster == cluster,
        leases.c.kind == str(lease.scope.kind),
        leases.c.value == lease.scope.value,
        leases.c.node == lease.node,
    )
