"""What sweeps leave, on Postgres: a few statements for a thousand nodes."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    Connection,
    bindparam,
    delete,
    func,
    insert,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger import audit, reviews
from breakfix.adapters.ledger.nodes import open_findings_of
from breakfix.adapters.ledger.sweep_rules import Left, left_by
from breakfix.adapters.ledger.tables import incidents, node_states, plans, refusals, sweeps
from breakfix.model import Incident, Judgement, NodeState, OpenFinding, Plan

SOURCE = "sweep"
#: Sweeps are kept so long; what they changed stays in the audit for ever.
_KEEP = timedelta(days=30)
_KEY = ("node", "reason", "failure_class", "action", "scope")


def record(
    connection: Connection,
    cluster: str,
    judgement: Judgement,
    plan: Plan,
    *,
    actor: str,
    now: datetime,
) -> str:
    """Store one sweep; one audit entry tells of all that changed by it, none when nothing did."""
    _one_at_a_time(connection, cluster)
    left = left_by(judgement, plan)
    changes = {
        **_states(connection, cluster, left.states, now=now),
        **_refusals(connection, cluster, left, now=now),
        **_incidents(connection, cluster, left.incidents, now=now),
        **reviews.record(connection, cluster, left, now=now),
    }
    _open_findings(connection, cluster, left.open_findings)
    sweep_id = _sweep(connection, cluster, judgement, plan, actor=actor, now=now)
    told = {name: change for name, change in changes.items() if change}
    if told:
        detail = {"sweep": sweep_id, "plan_hash": plan.hash, "policy": plan.policy_hash, **told}
        audit.append(
            connection, cluster, "sweep.changed", cluster, actor=actor, detail=detail, now=now
        )
    return sweep_id


def _one_at_a_time(connection: Connection, cluster: str) -> None:
    """Two sweeps that cross would each close what the other opened."""
    key = f"breakfix sweep of {cluster}"
    connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(key, 0))))


def _states(
    connection: Connection, cluster: str, wanted: Mapping[str, NodeState], *, now: datetime
) -> dict[str, Any]:
    query = select(node_states.c.node, node_states.c.state).where(node_states.c.cluster == cluster)
    known = {row.node: row.state for row in connection.execute(query)}
    changed = {n: s for n, s in wanted.items() if known.get(n) is not s}
    if changed:
        row = upsert(node_states)
        row = row.on_conflict_do_update(
            index_elements=["cluster", "node"],
            set_={"state": row.excluded.state, "since": row.excluded.since},
        )
        connection.execute(
            row,
            [
                {"cluster": cluster, "node": node, "state": state, "since": now}
                for node, state in sorted(changed.items())
            ],
        )
    return _told_states(changed, known)


def _open_findings(
    connection: Connection, cluster: str, wanted: Mapping[str, tuple[OpenFinding, ...]]
) -> None:
    """What the next sweep must see end, where it is not what is kept."""
    query = select(node_states.c.node, node_states.c.open_findings)
    rows = connection.execute(query.where(node_states.c.cluster == cluster))
    known = {row.node: row.open_findings for row in rows}
    changed = [
        {"name": node, "open": findings}
        for node, findings in sorted(wanted.items())
        if node in known and open_findings_of(known[node]) != findings
    ]
    if changed:
        row = update(node_states).where(
            node_states.c.cluster == cluster, node_states.c.node == bindparam("name")
        )
        connection.execute(row.values(open_findings=bindparam("open")), changed)


def _told_states(
    changed: Mapping[str, NodeState], known: Mapping[str, NodeState]
) -> dict[str, Any]:
    """Nodes by their new state; those first seen healthy are only counted."""
    news = {n: s for n, s in changed.items() if n in known or s is not NodeState.HEALTHY}
    told: dict[str, Any] = {
        state.value: sorted(n for n, s in news.items() if s is state)
        for state in sorted(set(news.values()))
    }
    return {**told, "first_seen_healthy": len(changed) - len(news)}


def _refusals(connection: Connection, cluster: str, left: Left, *, now: datetime) -> dict[str, Any]:
    mine = (refusals.c.cluster == cluster, refusals.c.source == SOURCE)
    known = {tuple(r) for r in connection.execute(select(*_columns()).where(*mine))}
    if left.refusals:
        row = upsert(refusals)
        row = row.on_conflict_do_update(
            index_elements=["cluster", "source", *_KEY],
            set_={"text": row.excluded.text, "last_seen": row.excluded.last_seen},
        )
        rows = [
            dict(zip(_KEY, key, strict=True))
            | {"cluster": cluster, "source": SOURCE, "text": refusal.text}
            | {"first_seen": now, "last_seen": now}
            for key, refusal in sorted(left.refusals.items())
        ]
        connection.execute(row, rows)
    gone = sorted(known - left.refusals.keys())
    if gone:
        connection.execute(delete(refusals).where(*mine, tuple_(*_columns()).in_(gone)))
    new = [r for key, r in sorted(left.refusals.items()) if key not in known]
    return {"refused": new, "refused_no_more": [key[:2] for key in gone]}


def _columns() -> list[Any]:
    return [refusals.c[name] for name in _KEY]


def _incidents(
    connection: Connection, cluster: str, found: Mapping[str, Incident], *, now: datetime
) -> dict[str, Any]:
    open_now = (incidents.c.cluster == cluster, incidents.c.closed_at.is_(None))
    query = select(incidents.c.scope, incidents.c.nodes).where(*open_now)
    known = {row.scope: frozenset(row.nodes) for row in connection.execute(query)}
    for scope, incident in sorted(found.items()):
        values = {
            "nodes": incident.nodes,
            "failure_classes": incident.failure_classes,
            "reason": incident.reason,
            "last_seen": now,
        }
        row = upsert(incidents).values(cluster=cluster, scope=scope, first_seen=now, **values)
        connection.execute(
            row.on_conflict_do_update(
                index_elements=["cluster", "scope"],
                index_where=text("closed_at IS NULL"),
                set_=values,
            )
        )
    over = sorted(known.keys() - found.keys())
    if over:
        query_over = update(incidents).where(*open_now, incidents.c.scope.in_(over))
        connection.execute(query_over.values(closed_at=now))
    news = [i for s, i in sorted(found.items()) if known.get(s) != frozenset(i.nodes)]
    return {"incidents": news, "incidents_over": over}


def _sweep(
    connection: Connection,
    cluster: str,
    judgement: Judgement,
    plan: Plan,
    *,
    actor: str,
    now: datetime,
) -> str:
    body = upsert(plans).values(cluster=cluster, hash=plan.hash, body=plan, first_seen=now)
    connection.execute(body.on_conflict_do_nothing())
    sweep_id = f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
    connection.execute(
        insert(sweeps).values(
            cluster=cluster,
            id=sweep_id,
            at=judgement.at,
            actor=actor,
            policy_version=judgement.policy_version,
            policy_hash=judgement.policy_hash,
            plan_hash=plan.hash,
            nodes=len(judgement.verdicts),
        )
    )
    old = delete(sweeps).where(sweeps.c.cluster == cluster, sweeps.c.at < now - _KEEP)
    connection.execute(old)
    return sweep_id
