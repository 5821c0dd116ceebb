"""Evidence of before a repair, a person's word or a boot does not count after it: events of such
nodes are read again, since then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from breakfix.model import Reading, SignalKind, boot_time
from breakfix.observe.facts import Facts
from breakfix.observe.fleet import Fleet, run
from breakfix.observe.promql import since_query
from breakfix.observe.signals import Gathered, read_samples
from breakfix.policy import Policy, SignalRule
from breakfix.ports import Metrics

#: Every boot has queries of its own, over the whole fleet: after a reboot of everything only so
#: many nodes are read again in one sweep, the newest boots first (ours).
MOST_BOOTS = 50
_MOST_NAMES = 10  # in a warning


def reread_since(
    gathered: Gathered,
    metrics: Metrics,
    fleet: Fleet,
    policy: Policy,
    *,
    at: datetime,
    floors: Mapping[str, datetime],
    facts: Facts,
) -> None:
    """Replace, in place, the event readings of nodes whose floor lies within the signal's window.

    The floor is the newer of `floors` and the node's boot, where `facts` tell it. Only nodes with
    such a reading need the second query. Where it fails, or too many nodes booted, the reading goes
    and the node counts as not reporting the signal: neither condemned by old evidence nor cleared
    without any.
    """
    boots = _boots(facts, floors, at=at)
    due = _due(gathered.readings, policy, at=at, floors={**floors, **boots})
    kept = _newest(due, boots)
    _drop(gathered, due, {n for nodes in due.values() for n in nodes} - kept)
    todo = {where: nodes & kept for where, nodes in due.items() if nodes & kept}
    if todo:
        _reread(gathered, metrics, fleet, policy, at=at, todo=todo)


Due = Mapping[tuple[str, float], set[str]]  # (signal, seconds since the floor) -> nodes


def _boots(facts: Facts, floors: Mapping[str, datetime], *, at: datetime) -> Mapping[str, datetime]:
    """Node -> boot, where it is newer than the node's floor. A boot to come is a wrong clock."""
    known = {node: boot_time(of_node) for node, of_node in facts.items()}
    return {
        node: boot
        for node, boot in known.items()
        if boot is not None and boot <= at and (node not in floors or boot > floors[node])
    }


def _due(
    readings: Iterable[Reading], policy: Policy, *, at: datetime, floors: Mapping[str, datetime]
) -> Due:
    """What must be read again: events of nodes whose floor lies in the signal's window."""
    rules: dict[str, SignalRule] = {r.name: r for r in policy.signals}
    due: dict[tuple[str, float], set[str]] = defaultdict(set)
    for reading in readings:
        rule, floor = rules[reading.signal], floors.get(reading.node)
        if rule.kind is not SignalKind.EVENT or floor is None:
            continue
        since = (at - floor).total_seconds()
        if since < rule.window_s:
            due[rule.name, max(1.0, float(round(since)))].add(reading.node)
    return due


def _newest(due: Due, boots: Mapping[str, datetime]) -> set[str]:
    """The nodes that are read again: all whose floor is no boot, and so many of the others."""
    nodes = {n for names in due.values() for n in names}
    booted = sorted(nodes & boots.keys(), key=lambda n: (boots[n], n), reverse=True)
    return nodes - set(booted[MOST_BOOTS:])


def _drop(gathered: Gathered, due: Due, left_out: set[str]) -> None:
    if not left_out:
        return
    for (signal, _), nodes in due.items():
        _forget(gathered, signal, nodes & left_out)
    gathered.warnings.append(
        f"{len(left_out)} more nodes booted after events began to count than are read again"
        f" ({MOST_BOOTS}); their events are not used: {_named(left_out)}"
    )


def _reread(
    gathered: Gathered, metrics: Metrics, fleet: Fleet, policy: Policy, *, at: datetime, todo: Due
) -> None:
    rules = {r.name: r for r in policy.signals}
    queries = {(name, since): since_query(rules[name], policy.names, since) for name, since in todo}
    answers = run(metrics, queries.values(), at=at)
    for (name, since), nodes in todo.items():
        answer = answers[queries[name, since]]
        if isinstance(answer, str):
            _forget(gathered, name, nodes)
            gathered.warnings.append(
                f"{name}: could not be read since the repair, override or boot of"
                f" {_named(nodes)}: {answer}"
            )
            continue
        fresh = read_samples(rules[name], answer, fleet, wanted={}).readings
        kept = [r for r in gathered.readings if r.signal != name or r.node not in nodes]
        gathered.readings[:] = kept + [replace(r, age_s=0.0) for r in fresh if r.node in nodes]


def _forget(gathered: Gathered, signal: str, nodes: set[str]) -> None:
    """No reading of the signal, and no claim that the nodes report it."""
    kept = [r for r in gathered.readings if r.signal != signal or r.node not in nodes]
    gathered.readings[:] = kept
    cover = gathered.coverage[signal]
    gathered.coverage[signal] = replace(cover, nodes_seen=cover.nodes_seen - nodes)


def _named(nodes: Iterable[str]) -> str:
    names = sorted(nodes)
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    return ", ".join(names[:_MOST_NAMES]) + more
