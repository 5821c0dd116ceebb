"""Every limit at one look: what it allows, what of it is used, and what holds everything now."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from breakfix.brakes import LIFT_OF, Emergency, Lift, stable_from
from breakfix.flow.looking import look
from breakfix.flow.services import Services
from breakfix.hands_off import hands_off
from breakfix.model import Action, FailureClass, HaltLevel, Node, Scope
from breakfix.plan.limits import Candidate, excluded, protected
from breakfix.plan.windows import of_node, words
from breakfix.plan.world import World

_NAMED = 5  # nodes named in a row
_NO_LEDGER = (
    "not known without BREAKFIX_DATABASE_URL: the ledger's kill switch, open breakers, an"
    " emergency, and nodes that cases have out"
)
_KINDS = ("fleet", "pool", "sku", "rack", "fabric")


def limits_report(services: Services) -> dict[str, Any]:
    """Plain values: `holds` (sentences: what keeps every node, or many, from being taken out),
    `scopes`, `breakers`, `windows`, `alerts`, `headroom`, `emergency`, `left_alone`, `modes`,
    `numbers`.
    """
    world = look(services)
    now = world.observation.at
    scopes = sorted(world.members, key=lambda s: (_KINDS.index(s.kind), s.value))
    report: dict[str, Any] = {
        "at": now,
        "policy": {"version": services.policy.version, "hash": services.policy.hash},
        "nodes": len(world.fleet),
        "halt": world.halt,
        "emergency": emergency_json(world.brakes.emergency, now),
        "scopes": [_scope(world, s) for s in scopes],
        "breakers": _breakers(world, scopes, now) if services.ledger is not None else [],
        "windows": list(_windows(world)),
        "alerts": _alerts(world),
        "headroom": _headroom(world),
        "left_alone": _left_alone(world, now),
        "modes": {str(c): rule.mode for c, rule in sorted(services.policy.classes.items())},
        "numbers": _numbers(world),
    }
    holds = list(_holds(report, world))
    if services.ledger is None:
        holds.append(_NO_LEDGER)
    return {"holds": holds, **report}


def emergency_json(emergency: Emergency | None, now: datetime) -> dict[str, Any] | None:
    """The emergency that is asked for or in force; None when neither is."""
    if emergency is None or not (emergency.is_in_force(now) or emergency.is_asked(now)):
        return None
    return {
        "state": "in force" if emergency.is_in_force(now) else "asked",
        "lifts": sorted(emergency.lifts),
        "requester": emergency.requester,
        "approver": emergency.approver,
        "reason": emergency.reason,
        "until": emergency.until,
        "answer_by": emergency.answer_by,
        "text": str(emergency),
    }


def _scope(world: World, scope: Scope) -> dict[str, Any]:
    out, maximum = sorted(world.out_of.get(scope, ())), world.allowed_out(scope)
    return {
        "kind": scope.kind,
        "scope": str(scope),
        "size": len(world.members[scope]),
        "out": len(out),
        "maximum": maximum,
        "is_full": len(out) >= maximum,
        "is_lifted": world.is_lifted(LIFT_OF[scope.kind]),
        "who": out,
    }


def _breakers(world: World, scopes: list[Scope], now: datetime) -> list[dict[str, Any]]:
    return [row for s in scopes if (row := _breaker(world, s, now)) is not None]


def _breaker(world: World, scope: Scope, now: datetime) -> dict[str, Any] | None:
    rule = world.breaker_rule(scope)
    if rule is None:
        return None
    storms = world.brakes.storms
    breaker, struck = storms.breaker(scope), sorted(storms.nodes(rule, now))
    last = storms.last_strike(scope)
    opened = breaker.opened_at
    return {
        "scope": str(scope),
        "is_open": breaker.is_open,
        "struck": len(struck),
        "most": rule.most,
        "window_s": rule.window_s,
        "opened_at": opened,
        "closes_at": stable_from(rule, opened, last) if opened is not None else None,
        "reason": breaker.reason if breaker.is_open else "",
        "who": struck,
    }


def _windows(world: World) -> Iterator[dict[str, Any]]:
    """For each set of nodes that the same windows speak of: open or closed, and until when."""
    windows = world.policy.limits.windows
    groups: dict[tuple[int, ...], list[Node]] = {}
    for node in world.fleet:
        groups.setdefault(of_node(node, windows), []).append(node)
    for numbers, nodes in sorted(groups.items()):
        if not numbers:
            continue
        closed = world.closed_for(nodes[0])
        yield {
            "windows": [f"{windows[i].kind}: {words(windows[i])}" for i in numbers],
            "nodes": len(nodes),
            "is_open": closed is None,
            "opens_at": closed.opens_at if closed else None,
            "text": closed.text if closed else "open",
        }


def _alerts(world: World) -> dict[str, Any]:
    rules, holds = world.policy.limits.alerts, world.alerts
    return {
        "named": len(rules.block),
        "fleet": holds.fleet,
        "parts": {f"{kind}={value}": why for (kind, value), why in sorted(holds.parts.items())},
    }


def _headroom(world: World) -> list[dict[str, Any]]:
    wanted = world.policy.limits.headroom_gpus
    return [
        {"sku": sku, "pool": pool, "free": free, "must_stay_free": wanted}
        for (sku, pool), free in sorted(world.headroom.free_now().items())
    ]


def _left_alone(world: World, now: datetime) -> dict[str, list[str]]:
    """Nodes that no automation takes, by why."""
    found: dict[str, list[str]] = {"protected": [], "excluded": [], "other owner": []}
    for node in sorted(world.fleet, key=lambda n: n.name):
        candidate = Candidate(node, FailureClass.MANUAL, Action.DRAIN_ONLY, now)
        if protected(candidate, world):
            found["protected"].append(node.name)
        elif excluded(candidate, world):
            found["excluded"].append(node.name)
        elif hands_off(node, world.policy.limits, now):
            found["other owner"].append(node.name)
    return found


def _numbers(world: World) -> dict[str, Any]:
    limits = world.policy.limits
    return {
        "max_attempts": limits.max_attempts,
        "max_attempts_of_class": limits.max_attempts_of_class,
        "attempts_window_s": limits.attempts_window_s,
        "cooldown_s": limits.cooldown_s,
        "cooldown_factor": limits.cooldown_factor,
        "max_runs": limits.max_runs,
        "hold_longest_s": limits.hold_longest_s,
    }


def _holds(report: dict[str, Any], world: World) -> Iterator[str]:
    """What keeps the whole fleet, or much of it, in service whatever breaks; not what an emergency
    lifts.
    """
    if report["halt"] is not HaltLevel.NONE:
        yield f"the kill switch is at {report['halt']}: `breakfix resume`, or the ConfigMap"
    if report["emergency"] and report["emergency"]["state"] == "asked":
        yield f"an emergency waits for {report['emergency']['approver']}"
    if not world.is_lifted(Lift.WINDOWS):
        closed = [w for w in report["windows"] if not w["is_open"]]
        yield from (f"{w['nodes']} nodes: {w['text']}" for w in closed)
    if not world.is_lifted(Lift.ALERTS):
        yield from _alerting(report["alerts"])
    for row in report["breakers"]:
        if row["is_open"] and not world.is_lifted(Lift.BREAKER):
            until = f"{row['closes_at']:%H:%M} UTC"
            yield f"the breaker of {row['scope']} is open until {until}: {row['reason']}"
    yield from _full(report)
    if not world.is_lifted(Lift.HEADROOM):
        yield from _short_of_gpus(report)


def _alerting(alerts: dict[str, Any]) -> Iterator[str]:
    if alerts["fleet"]:
        yield alerts["fleet"]
    yield from (f"{where}: {why}" for where, why in alerts["parts"].items())


def _full(report: dict[str, Any]) -> Iterator[str]:
    for row in report["scopes"]:
        if row["is_full"] and row["kind"] != "rack":
            who = ", ".join(row["who"][:_NAMED]) or "nobody, and nobody may be"
            yield f"{row['scope']} is full, {row['out']} of {row['maximum']} out: {who}"
    racks = [r["scope"] for r in report["scopes"] if r["is_full"] and r["kind"] == "rack"]
    if racks:
        yield f"{len(racks)} racks are full: {', '.join(racks[:_NAMED])}"


def _short_of_gpus(report: dict[str, Any]) -> Iterator[str]:
    for row in report["headroom"]:
        if row["free"] < row["must_stay_free"]:
            yield f"{row['sku'] or '-'} in pool {row['pool'] or '-'} has {row['free']} free GPUs"
