"""Storms on Postgres: who was struck when, and which breakers are open.

A row for each node and scope, with the last time it struck, is all that a sliding count of
distinct nodes needs: it survives any restart, and a node that flaps is one node.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger import audit
from breakfix.adapters.ledger.tables import breakers, strikes
from breakfix.brakes import (
    Breaker,
    BreakerRule,
    Storms,
    Strike,
    counted_since,
    open_text,
    over_most,
    stable_from,
    storms_of,
)
from breakfix.errors import LedgerError
from breakfix.model import Scope, ScopeKind

#: Strikes of nodes that are well are kept so long: longer than any window that makes sense.
_KEEP = timedelta(days=7)

# Made once: every admission asks these.
_STRUCK = (
    select(strikes.c.kind, strikes.c.value, func.count())
    .where(
        strikes.c.cluster == bindparam("of_cluster"),
        tuple_(strikes.c.kind, strikes.c.value).in_(bindparam("keys", expanding=True)),
        strikes.c.at > bindparam("since"),
        strikes.c.node != bindparam("besides"),
    )
    .group_by(strikes.c.kind, strikes.c.value)
)
_BREAKERS = select(breakers).where(
    breakers.c.cluster == bindparam("of_cluster"),
    tuple_(breakers.c.kind, breakers.c.value).in_(bindparam("keys", expanding=True)),
)


@dataclass(frozen=True, slots=True)
class Turn:
    """Who turns a breaker, by what event, why and when."""

    event: str
    why: str
    actor: str
    now: datetime


def none_refuses(
    connection: Connection,
    cluster: str,
    node: str,
    rules: Iterable[BreakerRule],
    *,
    now: datetime,
) -> bool:
    """Whether all these breakers surely let the node through: none is open, and none would open
    though all were counted that struck since the earliest count began. Two questions for all;
    where they do not settle it, `refuse` asks of each.
    """
    by_scope = {rule.scope: rule for rule in rules}
    if not by_scope:
        return True
    known = all_breakers(connection, cluster, by_scope)
    if any(breaker.is_open for breaker in known.values()):
        return False
    since = min(
        counted_since(rule, known.get(scope) or Breaker(scope), now)
        for scope, rule in by_scope.items()
    )
    asked = {"of_cluster": cluster, "keys": _keys(by_scope), "since": since, "besides": node}
    rows = connection.execute(_STRUCK, asked)
    struck = {Scope(ScopeKind(k), value): count for k, value, count in rows}
    return not any(over_most(rule, struck.get(s, 0) + 1) for s, rule in by_scope.items())


def refuse(
    connection: Connection, cluster: str, node: str, rule: BreakerRule, *, now: datetime
) -> str:
    """Why the breaker holds this node; empty when it does not. The scope's row is locked.

    One node too many opens it: that is recorded, and stands though the node is refused.
    """
    before = _breaker(connection, cluster, rule.scope)
    last = _last_strike(connection, cluster, rule.scope)
    if before.is_open:
        return open_text(rule, before, last)
    struck = _count(connection, cluster, rule, before, now=now, besides=node)
    over = over_most(rule, struck + 1)
    if not over:
        return ""
    turn = Turn("breaker.opened", f"{over}, {node} with them", "admission", now)
    opened = _open(connection, cluster, before, turn)
    return open_text(rule, opened, last)


def strike(
    connection: Connection, cluster: str, nodes: Mapping[str, Iterable[Scope]], *, now: datetime
) -> None:
    """Each of these nodes strikes its scopes; their rows in `scopes` are locked."""
    rows = [
        _key(cluster, scope) | {"node": node, "at": now, "is_sick": True}
        for node, own in sorted(nodes.items())
        for scope in sorted(set(own), key=str)
    ]
    if not rows:
        return
    row = upsert(strikes)
    row = row.on_conflict_do_update(
        index_elements=["cluster", "kind", "value", "node"],
        set_={"at": func.greatest(strikes.c.at, row.excluded.at), "is_sick": True},
    )
    connection.execute(row, rows)


def sick(connection: Connection, cluster: str) -> frozenset[str]:
    """Nodes whose illness, or whose case, has been counted and goes on."""
    query = select(strikes.c.node).where(strikes.c.cluster == cluster, strikes.c.is_sick)
    return frozenset(connection.execute(query.distinct()).scalars())


def recovered(connection: Connection, cluster: str, well: Iterable[str]) -> None:
    """These are well: if they fall ill again it strikes anew."""
    names = sorted(well)
    if names:
        mine = (strikes.c.cluster == cluster, strikes.c.node.in_(names), strikes.c.is_sick)
        connection.execute(update(strikes).where(*mine).values(is_sick=False))


def forget(connection: Connection, cluster: str, *, now: datetime) -> None:
    """Rows that no count needs any more."""
    old = (strikes.c.cluster == cluster, strikes.c.at < now - _KEEP, ~strikes.c.is_sick)
    connection.execute(delete(strikes).where(*old))


def settle(
    connection: Connection,
    cluster: str,
    rules: Mapping[Scope, BreakerRule],
    *,
    actor: str,
    now: datetime,
) -> Sequence[Breaker]:
    """Open or close the breakers of these scopes, whose rows are locked; those that changed."""
    known = all_breakers(connection, cluster, rules)
    changed: list[Breaker] = []
    for scope in sorted(rules, key=str):
        rule, before = rules[scope], known.get(scope) or Breaker(scope)
        if before.opened_at is not None:
            last = _last_strike(connection, cluster, scope)
            if now >= stable_from(rule, before.opened_at, last):
                why = f"stable for {rule.cool_down_s / 60:g} min"
                turn = Turn("breaker.closed", why, actor, now)
                changed.append(_close(connection, cluster, before, turn))
            continue
        over = over_most(rule, _count(connection, cluster, rule, before, now=now))
        if over:
            turn = Turn("breaker.opened", over, actor, now)
            changed.append(_open(connection, cluster, before, turn))
    return tuple(changed)


def reset(
    connection: Connection, cluster: str, scope: Scope, *, actor: str, reason: str, now: datetime
) -> Breaker:
    """A person closes it; what struck until now does not count again. Raises LedgerError."""
    before = all_breakers(connection, cluster, [scope]).get(scope)
    if before is None:
        msg = f"the breaker of {scope} never opened: `breakfix breaker show` lists those that did"
        raise LedgerError(msg)
    turn = Turn("breaker.reset", reason, actor, now)
    return _close(connection, cluster, replace(before, reset_by=actor), turn)


def read(connection: Connection, cluster: str, *, since: datetime) -> Storms:
    """Breakers, strikes after that instant, and who is ill."""
    query = select(strikes).where(strikes.c.cluster == cluster, strikes.c.at > since)
    found = [
        Strike(Scope(ScopeKind(row.kind), row.value), row.node, row.at)
        for row in connection.execute(query)
    ]
    known = all_breakers(connection, cluster)
    return storms_of(known.values(), found, sick(connection, cluster))


def all_breakers(
    connection: Connection, cluster: str, scopes: Iterable[Scope] | None = None
) -> dict[Scope, Breaker]:
    """The breakers that ever opened, of these scopes or of all."""
    if scopes is None:
        rows = connection.execute(select(breakers).where(breakers.c.cluster == cluster))
    else:
        rows = connection.execute(_BREAKERS, {"of_cluster": cluster, "keys": _keys(scopes)})
    found = {}
    for row in rows:
        scope = Scope(ScopeKind(row.kind), row.value)
        found[scope] = Breaker(scope, row.opened_at, row.reason, row.counts_from, row.reset_by)
    return found


def _keys(scopes: Iterable[Scope]) -> list[tuple[str, str]]:
    return [(str(s.kind), s.value) for s in scopes]


def _breaker(connection: Connection, cluster: str, scope: Scope) -> Breaker:
    return all_breakers(connection, cluster, [scope]).get(scope) or Breaker(scope)


def _count(
    connection: Connection,
    cluster: str,
    rule: BreakerRule,
    breaker: Breaker,
    *,
    now: datetime,
    besides: str = "",
) -> int:
    query = select(func.count()).where(
        *_of(cluster, rule.scope),
        strikes.c.at > counted_since(rule, breaker, now),
        strikes.c.node != besides,
    )
    return int(connection.execute(query).scalar_one())


def _last_strike(connection: Connection, cluster: str, scope: Scope) -> datetime | None:
    query = select(func.max(strikes.c.at)).where(*_of(cluster, scope))
    found: datetime | None = connection.execute(query).scalar_one()
    return found


def _of(cluster: str, scope: Scope) -> tuple[Any, ...]:
    return (
        strikes.c.cluster == cluster,
        strikes.c.kind == str(scope.kind),
        strikes.c.value == scope.value,
    )


def _open(connection: Connection, cluster: str, before: Breaker, turn: Turn) -> Breaker:
    opened = replace(before, opened_at=turn.now, reason=turn.why, reset_by="")
    _save(connection, cluster, opened, turn)
    return opened


def _close(connection: Connection, cluster: str, before: Breaker, turn: Turn) -> Breaker:
    closed = replace(before, opened_at=None, counts_from=turn.now)
    _save(connection, cluster, closed, turn)
    return closed


def _save(connection: Connection, cluster: str, it: Breaker, turn: Turn) -> None:
    """The breaker as it is now, and the audit's word on it."""
    values = {
        "opened_at": it.opened_at,
        "reason": it.reason,
        "counts_from": it.counts_from,
        "reset_by": it.reset_by,
    }
    row = upsert(breakers).values(**_key(cluster, it.scope), **values)
    row = row.on_conflict_do_update(index_elements=["cluster", "kind", "value"], set_=values)
    connection.execute(row)
    audit.append(
        connection,
        cluster,
        turn.event,
        str(it.scope),
        actor=turn.actor,
        detail={"scope": str(it.scope), "reason": turn.why},
        now=turn.now,
    )


def _key(cluster: str, scope: Scope) -> dict[str, Any]:
    return {"cluster": cluster, "kind": str(scope.kind), "value": scope.value}
