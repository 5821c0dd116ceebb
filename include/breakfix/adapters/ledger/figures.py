"""What the metrics want of the ledger, in one look: a handful of statements, whatever the fleet."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, Table, func, select

from breakfix.adapters.ledger import audit
from breakfix.adapters.ledger.steps import from_row
from breakfix.adapters.ledger.sweeps import SOURCE
from breakfix.adapters.ledger.tables import (
    approvals,
    cases,
    circuits,
    incidents,
    leases,
    refusals,
    reviews,
    steps,
    sweeps,
)
from breakfix.model import Decision, Scope, ScopeKind, Step, StepStatus
from breakfix.ports import Figures, OpenQuestion


def figures(connection: Connection, cluster: str) -> Figures:
    """Wants a connection with one unchanging view."""
    return Figures(
        swept_at=connection.execute(
            select(func.max(sweeps.c.at)).where(sweeps.c.cluster == cluster)
        ).scalar(),
        refusals=_refusals(connection, cluster),
        leases=_leases(connection, cluster),
        steps=_steps(connection, cluster),
        questions=_questions(connection, cluster),
        reviews=_open(connection, cluster, reviews),
        incidents=_open(connection, cluster, incidents),
        head=audit.head(connection, cluster),
        circuits=_circuits(connection, cluster),
    )


def _refusals(connection: Connection, cluster: str) -> Mapping[str, int]:
    query = (
        select(refusals.c.reason, func.count().label("n"))
        .where(refusals.c.cluster == cluster, refusals.c.source == SOURCE)
        .group_by(refusals.c.reason)
    )
    return {row.reason: row.n for row in connection.execute(query)}


def _leases(connection: Connection, cluster: str) -> Mapping[Scope, int]:
    query = (
        select(leases.c.kind, leases.c.value, func.count().label("n"))
        .where(leases.c.cluster == cluster)
        .group_by(leases.c.kind, leases.c.value)
    )
    return {Scope(ScopeKind(r.kind), r.value): r.n for r in connection.execute(query)}


def _steps(connection: Connection, cluster: str) -> tuple[Step, ...]:
    query = (
        select(steps)
        .join(cases, (cases.c.cluster == steps.c.cluster) & (cases.c.id == steps.c.case_id))
        .where(
            steps.c.cluster == cluster,
            steps.c.status == StepStatus.DISPATCHED,
            cases.c.ended_at.is_(None),
        )
        .order_by(steps.c.started_at, steps.c.case_id, steps.c.name)
    )
    return tuple(from_row(row) for row in connection.execute(query).mappings())


def _questions(connection: Connection, cluster: str) -> tuple[OpenQuestion, ...]:
    """The open ones of the run that has the case; an older run's are nobody's any more."""
    ask = approvals.c
    query = (
        select(ask.case_id, ask.purpose, ask.asked_at, ask.expires_at)
        .join(cases, (cases.c.cluster == ask.cluster) & (cases.c.id == ask.case_id))
        .where(
            ask.cluster == cluster,
            ask.decision == Decision.PENDING,
            cases.c.ended_at.is_(None),
            cases.c.fence == ask.fence,
        )
        .order_by(ask.asked_at, ask.case_id)
    )
    return tuple(OpenQuestion(*row) for row in connection.execute(query))


def _circuits(connection: Connection, cluster: str) -> Mapping[str, str]:
    query = select(circuits.c.name, circuits.c.state).where(circuits.c.cluster == cluster)
    return {row.name: str(row.state) for row in connection.execute(query)}


def _open(connection: Connection, cluster: str, table: Table) -> int:
    query = select(func.count()).where(table.c.cluster == cluster, table.c.closed_at.is_(None))
    return int(connection.execute(query).scalar_one())
