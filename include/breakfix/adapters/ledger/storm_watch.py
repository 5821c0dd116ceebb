"""What a sweep says of the weather: who fell ill, who is well, and which breakers that moves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection

from breakfix.adapters.ledger import storms
from breakfix.adapters.ledger.admission import lock_scopes
from breakfix.brakes import Breaker, BreakerRule
from breakfix.model import Scope


def watch(
    connection: Connection,
    cluster: str,
    rules: Mapping[Scope, BreakerRule],
    sick: Mapping[str, Sequence[Scope]],
    well: frozenset[str],
    *,
    actor: str,
    now: datetime,
) -> Sequence[Breaker]:
    """Strike for the newly ill, then open and close; only scopes that this concerns are locked."""
    known = storms.sick(connection, cluster)
    new = {node: scopes for node, scopes in sick.items() if node not in known}
    was_open = {b.scope for b in storms.all_breakers(connection, cluster).values() if b.is_open}
    concerned = was_open | {scope for scopes in new.values() for scope in scopes}
    lock_scopes(connection, cluster, concerned)
    storms.strike(connection, cluster, new, now=now)
    storms.recovered(connection, cluster, known & well)
    storms.forget(connection, cluster, now=now)
    asked = {scope: rules[scope] for scope in concerned if scope in rules}
    return storms.settle(connection, cluster, asked, actor=actor, now=now)


def reset(
    connection: Connection, cluster: str, scope: Scope, *, actor: str, reason: str, now: datetime
) -> Breaker:
    """A person closes a breaker, in its turn among the admissions."""
    lock_scopes(connection, cluster, [scope])
    return storms.reset(connection, cluster, scope, actor=actor, reason=reason, now=now)
