"""Evidence of before a repair does not count after it: events of such nodes are read again, since
the repair.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime

from breakfix.model import Reading, SignalKind
from breakfix.observe.promql import since_query
from breakfix.observe.signals import Fleet, Gathered, read_samples, run
from breakfix.policy import Policy, SignalRule
from breakfix.ports import Metrics


def reread_since_repair(
    gathered: Gathered,
    metrics: Metrics,
    fleet: Fleet,
    policy: Policy,
    *,
    at: datetime,
    floors: Mapping[str, datetime],
) -> None:
    """Replace, in place, the event readings of nodes that were repaired within the signal's window.

    Only nodes with such a reading need the second query. If it fails, the reading goes and the node
    counts as not reporting the signal: neither condemned by old evidence nor cleared without any.
    """
    todo = _due(gathered.readings, policy, at=at, floors=floors)
    if not todo:
        return
    rules = {r.name: r for r in policy.signals}
    queries = {(name, since): since_query(rules[name], policy.names, since) for name, since in todo}
    answers = run(metrics, queries.values(), at=at)
    for (name, since), nodes in todo.items():
        kept = [r for r in gathered.readings if r.signal != name or r.node not in nodes]
        answer = answers[queries[name, since]]
        if isinstance(answer, str):
            _forget(gathered, name, nodes, why=answer)
        else:
            fresh = read_samples(rules[name], answer, fleet, wanted={}).readings
            kept += [replace(r, age_s=0.0) for r in fresh if r.node in nodes]
        gathered.readings[:] = kept


def _due(
    readings: list[Reading], policy: Policy, *, at: datetime, floors: Mapping[str, datetime]
) -> dict[tuple[str, float], set[str]]:
    """(signal, seconds since the repair) -> nodes, where the repair lies in the signal's window."""
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


def _forget(gathered: Gathered, signal: str, nodes: set[str], *, why: str) -> None:
    cover = gathered.coverage[signal]
    gathered.coverage[signal] = replace(cover, nodes_seen=cover.nodes_seen - nodes)
    gathered.warnings.append(
        f"{signal}: could not be read since the repair of {', '.join(sorted(nodes))}: {why}"
    )
