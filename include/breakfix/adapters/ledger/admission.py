"""Admission: the one place where limits are atomic. Lease all and open a case, or refuse."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, func, select, tuple_
from sqlalchemy.dialects.postgresql import insert as upsert

from breakfix.adapters.ledger import audit, cases, emergencies, halts, rules, storms
from breakfix.adapters.ledger.sweep_rules import QUIET, refusal_key
from breakfix.adapters.ledger.tables import leases, refusals, scopes
from breakfix.brakes import Emergency
from breakfix.model import Case, Intent, Refusal, Scope, ScopeKind
from breakfix.ports import Limit

SOURCE = "admission"

# Made once: every admission asks these, and making a statement costs more than running it.
_MAKE_SCOPES = upsert(scopes).on_conflict_do_nothing()
_LOCK_SCOPES = (
    select(scopes.c.kind)
    .where(
        scopes.c.cluster == bindparam("of_cluster"),
        tuple_(scopes.c.kind, scopes.c.value).in_(bindparam("keys", expanding=True)),
    )
    .order_by(scopes.c.kind, scopes.c.value)
    .with_for_update()
)
_SLOTS_TAKEN = (
    select(leases.c.kind, leases.c.value, func.count())
    .where(
        leases.c.cluster == bindparam("of_cluster"),
        tuple_(leases.c.kind, leases.c.value).in_(bindparam("keys", expanding=True)),
        leases.c.node != bindparam("besides"),
    )
    .group_by(leases.c.kind, leases.c.value)
)


def admit(
    connection: Connection,
    cluster: str,
    intent: Intent,
    limits: Sequence[Limit],
    *,
    requester: str,
    now: datetime,
) -> Case | Refusal:
    """One transaction. Locks are taken in one order everywhere: switch, emergency, scopes, case,
    audit.
    """
    halt = halts.level(connection, cluster, lock=True)
    emergency = emergencies.in_force(connection, cluster, now=now)
    lock_scopes(connection, cluster, {*intent.scopes, *(limit.scope for limit in limits)})
    current = cases.load_open(connection, cluster, intent.node)
    no = rules.refuse_by_state(intent, current, halt)
    no = no or _refuse_by_breakers(connection, cluster, intent, limits, emergency, now=now)
    no = no or _refuse_by_limits(connection, cluster, intent, limits, emergency)
    if no is not None:
        _record_refusal(connection, cluster, no, requester=requester, now=now)
        return no
    return _open(connection, cluster, intent, current, emergency, requester=requester, now=now)


def lock_scopes(connection: Connection, cluster: str, wanted: Iterable[Scope]) -> None:
    """Make the rows that are missing, then lock all, sorted, so that two planners never cross."""
    rows = [
        {"cluster": cluster, "kind": kind, "value": value}
        for kind, value in sorted((str(s.kind), s.value) for s in wanted)
    ]
    if not rows:
        return
    connection.execute(_MAKE_SCOPES, rows)
    keys = [(row["kind"], row["value"]) for row in rows]
    connection.execute(_LOCK_SCOPES, {"of_cluster": cluster, "keys": keys})


def _refuse_by_breakers(
    connection: Connection,
    cluster: str,
    intent: Intent,
    limits: Sequence[Limit],
    emergency: Emergency | None,
    *,
    now: datetime,
) -> Refusal | None:
    asked = [rules.heeded_breaker(limit, emergency) for limit in limits]
    if storms.none_refuses(connection, cluster, intent.node, filter(None, asked), now=now):
        return None
    for limit in sorted(limits, key=lambda limit: str(limit.scope)):
        rule = rules.heeded_breaker(limit, emergency)
        if rule is None:
            continue
        why = storms.refuse(connection, cluster, intent.node, rule, now=now)
        if why:
            return rules.refuse_by_breaker(intent, limit, why)
    return None


def _refuse_by_limits(
    connection: Connection,
    cluster: str,
    intent: Intent,
    limits: Sequence[Limit],
    emergency: Emergency | None,
) -> Refusal | None:
    taken = _slots_taken(connection, cluster, intent.node, [limit.scope for limit in limits])
    for limit in sorted(limits, key=lambda limit: str(limit.scope)):
        most_out = taken.get(limit.scope, 0) + len(limit.out_now - {intent.node})
        if most_out < limit.maximum:
            continue  # even if nobody were counted twice
        leased = _leased(connection, cluster, limit.scope)
        no = rules.refuse_by_limit(intent, limit, leased, emergency)
        if no is not None:
            return no
    return None


def _slots_taken(
    connection: Connection, cluster: str, node: str, wanted: Sequence[Scope]
) -> Mapping[Scope, int]:
    """How many other nodes hold a slot of these scopes; one question for all of them."""
    keys = [(str(s.kind), s.value) for s in wanted]
    asked = {"of_cluster": cluster, "keys": keys, "besides": node}
    rows = connection.execute(_SLOTS_TAKEN, asked)
    return {Scope(ScopeKind(kind), value): count for kind, value, count in rows}


def _leased(connection: Connection, cluster: str, scope: Scope) -> Mapping[str, str]:
    """Node -> case of the slots taken in a scope whose row is locked."""
    query = select(leases.c.node, leases.c.case_id).where(
        leases.c.cluster == cluster, leases.c.kind == str(scope.kind), leases.c.value == scope.value
    )
    return {row.node: row.case_id for row in connection.execute(query)}


def _open(
    connection: Connection,
    cluster: str,
    intent: Intent,
    current: Case | None,
    emergency: Emergency | None,
    *,
    requester: str,
    now: datetime,
) -> Case:
    if current is None:
        case_id = rules.new_case_id(now)
        case = rules.opened(intent, case_id=case_id, cluster=cluster, requester=requester, now=now)
        cases.add(connection, case)
    else:
        case = rules.readmitted(current, intent, requester=requester, now=now)
        cases.save(connection, current, case)
    cases.take(connection, case, now=now)
    if not intent.is_by_hand:  # a person's own drains are no storm
        storms.strike(connection, cluster, {case.node: case.scopes}, now=now)
    _forget_refusals(connection, cluster, intent.node)
    event = "case.readmitted" if current else "case.admitted"
    detail = {"intent": intent, "fence": case.fence, "scopes_leased": [str(s) for s in case.scopes]}
    if emergency is not None:
        detail["emergency"] = str(emergency)
    audit.append(connection, cluster, event, case.id, actor=requester, detail=detail, now=now)
    return cases.load(connection, cluster, case.id)


def _record_refusal(
    connection: Connection, cluster: str, no: Refusal, *, requester: str, now: datetime
) -> None:
    """Keep the refusal; audit it when it is new, says something else, or was silent for long."""
    node, reason, failure_class, action, scope = refusal_key(no)
    key = {
        "cluster": cluster,
        "source": SOURCE,
        "node": node,
        "reason": reason,
        "failure_class": failure_class,
        "action": action,
        "scope": scope,
    }
    same = [refusals.c[name] == value for name, value in key.items()]
    query = select(refusals.c.text, refusals.c.last_seen).where(*same)
    known = connection.execute(query).one_or_none()
    row = upsert(refusals).values(**key, text=no.text, first_seen=now, last_seen=now)
    connection.execute(
        row.on_conflict_do_update(
            index_elements=list(key), set_={"text": no.text, "last_seen": now}
        )
    )
    if known and known.text == no.text and now - known.last_seen <= QUIET:
        return
    detail = {"refusal": no, "text": no.text, "reason": no.reason}
    audit.append(
        connection, cluster, "admission.refused", node, actor=requester, detail=detail, now=now
    )


def _forget_refusals(connection: Connection, cluster: str, node: str) -> None:
    """An admitted node is refused no longer; the next refusal is news."""
    connection.execute(
        delete(refusals).where(
            refusals.c.cluster == cluster, refusals.c.source == SOURCE, refusals.c.node == node
        )
    )
