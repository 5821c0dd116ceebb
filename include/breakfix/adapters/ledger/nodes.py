"""What the ledger remembers of every node, from its cases, its repairs and the last sweep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.postgresql import distinct_on

from breakfix.adapters.ledger import cases as case_rows
from breakfix.adapters.ledger.rules import REPAIR_STEP, attempts_by_class, repairs_by_rung
from breakfix.adapters.ledger.sweep_rules import ANSWERED, node_record
from breakfix.adapters.ledger.tables import cases, node_states, steps
from breakfix.model import CaseEnd, FailureClass, NodeRecord, OpenFinding


def records(
    connection: Connection, cluster: str, *, repairs_since: datetime
) -> Mapping[str, NodeRecord]:
    """One record a node; four statements, whatever the size of the fleet."""
    swept = _swept(connection, cluster)
    last = _last_cases(connection, cluster)
    history = _history(connection, cluster)
    repairs, classes = _repairs(connection, cluster, repairs_since)
    return {
        node: node_record(
            node,
            **swept.get(node, {"swept": None}),
            attempts_by_class=attempts_by_class(repairs.get(node, ()), classes),
            repairs=repairs_by_rung(repairs.get(node, ())),
            **last.get(node, {"last": None}),
            **history.get(node, {}),
        )
        for node in sorted(swept.keys() | last.keys())
    }


def _swept(connection: Connection, cluster: str) -> dict[str, dict[str, Any]]:
    rows = connection.execute(select(node_states).where(node_states.c.cluster == cluster))
    return {
        row.node: {
            "swept": (row.state, row.since),
            "open_findings": open_findings_of(row.open_findings),
        }
        for row in rows
    }


def open_findings_of(stored: Any) -> tuple[OpenFinding, ...]:
    """As the column holds them."""
    return msgspec.convert(stored, tuple[OpenFinding, ...]) if stored else ()


def _last_cases(connection: Connection, cluster: str) -> dict[str, dict[str, Any]]:
    query = (
        select(cases)
        .ext(distinct_on(cases.c.node))
        .where(cases.c.cluster == cluster)
        .order_by(cases.c.node, cases.c.opened_at.desc(), cases.c.id.desc())
    )
    return {
        row["node"]: {"last": case_rows.from_row(row), "last_state_since": row["state_since"]}
        for row in connection.execute(query).mappings()
    }


def _history(connection: Connection, cluster: str) -> dict[str, dict[str, Any]]:
    ended_at = func.max(cases.c.ended_at)
    answered_at = ended_at.filter(cases.c.end.in_(sorted(ANSWERED)))
    query = (
        select(
            cases.c.node,
            # greatest() passes over NULL
            func.greatest(func.max(cases.c.repaired_at), answered_at).label("evidence_floor"),
            ended_at.label("last_ended_at"),
            ended_at.filter(cases.c.end == CaseEnd.OVERRIDDEN).label("overridden_at"),
        )
        .where(cases.c.cluster == cluster)
        .group_by(cases.c.node)
    )
    rows = connection.execute(query).mappings()
    return {row["node"]: {k: v for k, v in row.items() if k != "node"} for row in rows}


def _repairs(
    connection: Connection, cluster: str, since: datetime
) -> tuple[dict[str, set[tuple[str, int, str]]], dict[str, FailureClass]]:
    """Steps of repairs begun after `since`, as (case, attempt, name), by node; and the class of
    each case.
    """
    query = (
        select(cases.c.node, cases.c.failure_class, steps.c.case_id, steps.c.attempt, steps.c.name)
        .join(cases, (cases.c.cluster == steps.c.cluster) & (cases.c.id == steps.c.case_id))
        .where(
            steps.c.cluster == cluster,
            steps.c.started_at > since,
            steps.c.name.startswith(REPAIR_STEP, autoescape=True),
        )
    )
    found: dict[str, set[tuple[str, int, str]]] = defaultdict(set)
    classes: dict[str, FailureClass] = {}
    for row in connection.execute(query):
        found[row.node].add((row.case_id, row.attempt, row.name))
        classes[row.case_id] = row.failure_class
    return found, classes
