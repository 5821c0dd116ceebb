"""What a script would do: prometheus-api-client, a MetricSnapshotDataFrame per signal, and a loop
over its rows that compares each value with the threshold. The verdicts are the same judge's.

It asks the same questions of the same server (signals, who reports them, facts), one after the
other, without what makes answers small: of a signal every series travels, with its value, and once
more for each instant of its hold.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pandas as pd
from prometheus_api_client import MetricSnapshotDataFrame, PrometheusConnect

from benchmarks.verdicts import summary
from benchmarks.ways import Setup
from breakfix.decide import judge
from breakfix.model import Coverage, Judgement, Node, Observation, Reading
from breakfix.observe.promql import coverage_query, fact_query, fill, hold_points
from breakfix.observe.threshold import is_beyond
from breakfix.policy import Policy, SignalRule

_STALE_S = 180.0


def prepare(setup: Setup) -> Callable[[], Judgement]:
    """Snapshot, loop, judge."""
    client = PrometheusConnect(setup.url, timeout=280)
    nodes, policy, at = setup.fleet.nodes(), setup.policy, setup.fleet.at

    def work() -> Judgement:
        return judge(_observation(client, nodes, policy, at), policy, {}, at)

    return work


def _observation(
    client: PrometheusConnect, nodes: tuple[Node, ...], policy: Policy, at: datetime
) -> Observation:
    by_name = {n.name: n for n in nodes}
    readings: list[Reading] = []
    coverage: dict[str, Coverage] = {}
    for rule in policy.signals:
        if rule.is_kubernetes:
            continue
        readings += _readings(client, rule, policy, by_name, at)
        seen = frozenset(_fresh(client, rule, policy, at))
        coverage[rule.name] = Coverage(rule.name, seen, len(nodes), 5.0)
    return Observation(
        at=at,
        nodes=nodes,
        gpu_nodes=frozenset(by_name),
        readings=tuple(sorted(readings, key=lambda r: (r.node, r.signal, r.gpu, r.key))),
        coverage=coverage,
        facts=_facts(client, policy, at),
    )


def _readings(
    client: PrometheusConnect,
    rule: SignalRule,
    policy: Policy,
    nodes: dict[str, Node],
    at: datetime,
) -> list[Reading]:
    """Beyond the threshold now, and so at every instant of the hold."""
    query = fill(rule.query, policy.names, rule.window_s)
    found = _rows(rule, _snapshot(client, query, at), nodes)
    for ago in hold_points(rule.hold_s) if rule.hold_s else ():
        then = _rows(rule, _snapshot(client, query, at - timedelta(seconds=ago)), nodes)
        held = {(r.node, r.gpu, r.key) for r in then}
        found = [r for r in found if (r.node, r.gpu, r.key) in held]
    return found


def _fresh(client: PrometheusConnect, rule: SignalRule, policy: Policy, at: datetime) -> set[str]:
    """The nodes that report the signal: the same question, and its answer row by row."""
    query = coverage_query(rule, policy.names, stale_s=_STALE_S, with_ages=False)
    return {str(row["node"]) for _, row in _snapshot(client, query, at).iterrows()}


def _snapshot(client: PrometheusConnect, promql: str, at: datetime) -> pd.DataFrame:
    answer = client.custom_query(promql, params={"time": at.timestamp()})
    return MetricSnapshotDataFrame(answer) if answer else pd.DataFrame()


def _rows(rule: SignalRule, frame: pd.DataFrame, nodes: dict[str, Node]) -> list[Reading]:
    crowds: dict[tuple[str, str], list[Reading]] = defaultdict(list)
    found: list[Reading] = []
    for _, row in frame.iterrows():
        node = nodes[row["node"]]
        value = float(row["value"])
        gpu = str(row["UUID"]) if rule.per == "gpu" else ""
        key = str(row[rule.key_label]) if rule.key_label else ""
        if rule.expects:
            value = node.gpus_capacity - value
        reading = Reading(rule.name, node.name, gpu, value, key)
        if rule.peers:
            crowds[node.sku, node.pool].append(reading)
        elif is_beyond(rule, value):
            found.append(reading)
    for crowd in crowds.values():
        found += _unlike(rule, crowd)
    return found


def _unlike(rule: SignalRule, crowd: list[Reading]) -> list[Reading]:
    """The readings far from the median of their crowd, as ratios to it."""
    assert rule.peers is not None
    middle = statistics.median(r.value for r in crowd)
    spread = 1.4826 * statistics.median(abs(r.value - middle) for r in crowd)
    base = max(middle, rule.peers.floor)
    if base <= 0 or (rule.op == "<" and middle <= rule.peers.floor):
        return []
    far = [r for r in crowd if abs(r.value - middle) >= rule.peers.z * spread]
    ratios = [Reading(rule.name, r.node, r.gpu, r.value / base, r.key) for r in far]
    return [r for r in ratios if is_beyond(rule, r.value) and math.isfinite(r.value)]


def _facts(client: PrometheusConnect, policy: Policy, at: datetime) -> dict[str, dict[str, str]]:
    facts: dict[str, dict[str, str]] = defaultdict(dict)
    for name, rule in policy.facts.items():
        frame = _snapshot(client, fact_query(rule, policy.names), at)
        for _, row in frame.iterrows():
            facts[row["node"]][name] = str(row[rule.label]) if rule.label else repr(row["value"])
    return facts


def told(result: Any) -> dict[str, Any]:
    return summary(result)
