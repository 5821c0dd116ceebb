"""Answers of Prometheus to readings and coverage. Only what is beyond a threshold travels; who
reports at all is asked separately, so that silence is never taken for health.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from breakfix.model import Coverage, Node, Reading
from breakfix.observe.expected import expected_gpus
from breakfix.observe.labels import Missed, NodeNames, printable
from breakfix.observe.peers import Place, unlike_peers
from breakfix.observe.promql import BLANK, coverage_query, signal_query
from breakfix.observe.threshold import is_beyond
from breakfix.policy import Policy, SignalRule
from breakfix.ports import Labels, Metrics, QueryResult

_NONE: Labels = ("",)  # no series has a label without a name
#: PromQL annotations that say nothing about completeness (Prometheus 3 has them in a list of their
#: own).
_BENIGN = ("PromQL info:",)


@dataclass(slots=True)
class Gathered:
    """What one sweep's queries gave, while it is put together."""

    readings: list[Reading] = field(default_factory=list)
    coverage: dict[str, Coverage] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Fleet:
    """The GPU nodes that are judged, and the names of all nodes of the cluster."""

    nodes: Mapping[str, Node]
    names: NodeNames


def run(
    metrics: Metrics, queries: Iterable[str], *, at: datetime
) -> Mapping[str, QueryResult | str]:
    """Each distinct query once; the answer, or the error's text, by query."""
    return metrics.query_many({q: q for q in dict.fromkeys(queries)}, at=at)


def read_signals(metrics: Metrics, fleet: Fleet, policy: Policy, *, at: datetime) -> Gathered:
    """All signals of Prometheus: readings beyond their thresholds, coverage, and what was odd."""
    rules = [r for r in policy.signals if not r.is_kubernetes]
    wanted = {n: expected_gpus(node, policy) for n, node in fleet.nodes.items()}
    most = max(wanted.values(), default=0)
    asked = {r.name: signal_query(r, policy.names, most_gpus=most) for r in rules}
    stale_s = policy.timing.stale_sample_s
    aged = _with_ages(rules)
    covers = {
        r.name: coverage_query(r, policy.names, stale_s=stale_s, with_ages=r.name in aged)
        for r in rules
    }
    answers = run(metrics, [*asked.values(), *covers.values()], at=at)
    gathered = Gathered()
    seen = _coverage(rules, covers, answers, fleet, aged=aged, stale_s=stale_s)
    for rule in rules:
        cover = seen[covers[rule.name]]
        gathered.warnings += cover.warnings
        answer = answers[asked[rule.name]]
        if isinstance(answer, str):
            cover = cover.broken(answer)
        else:
            found = read_samples(rule, answer, fleet, wanted=wanted)
            cover = cover.without(found.in_doubt).incomplete(answer.warnings)
            gathered.warnings += found.warnings
            gathered.readings += [replace(r, age_s=cover.age(r.node)) for r in found.readings]
        gathered.coverage[rule.name] = cover.of(rule)
    return gathered


def _with_ages(rules: Sequence[SignalRule]) -> frozenset[str]:
    """The signals whose coverage tells the ages of samples, which costs the server three times as
    much: one scrape brings all metrics of a GPU, so those of the first required one are enough.
    """
    first = next((r.name for r in rules if _is_of_gpus(r) and r.is_required), None)
    return frozenset(
        r.name for r in rules if first is None or r.name == first or not _is_of_gpus(r)
    )


def _is_of_gpus(rule: SignalRule) -> bool:
    return rule.input == "gpu" or rule.per == "gpu"


def _coverage(
    rules: Sequence[SignalRule],
    covers: Mapping[str, str],
    answers: Mapping[str, QueryResult | str],
    fleet: Fleet,
    *,
    aged: frozenset[str],
    stale_s: float,
) -> Mapping[str, Seen]:
    """By coverage query, of which several signals may share one: read once.

    Where coverage tells no ages, a node that no GPU signal with ages sees freshly is not seen.
    """
    first = {covers[r.name]: r for r in reversed(rules)}
    seen = {q: read_coverage(r, answers[q], fleet, stale_s=stale_s) for q, r in first.items()}
    known: dict[str, float] = {}
    for query, rule in first.items():
        if rule.name in aged and _is_of_gpus(rule):
            known |= {n: min(a, known.get(n, a)) for n, a in seen[query].ages.items()}
    return {q: seen[q] if r.name in aged else seen[q].aged(known) for q, r in first.items()}


@dataclass(frozen=True, slots=True)
class Seen:
    """Ages by node of one signal's samples, before it becomes a Coverage."""

    ages: Mapping[str, float]
    expected: int
    error: str = ""
    warnings: tuple[str, ...] = ()

    def broken(self, error: str) -> Seen:
        """The signal itself could not be read: nobody is covered, whatever coverage said."""
        return replace(self, ages={}, error=error)

    def aged(self, known: Mapping[str, float]) -> Seen:
        """With the ages that others tell; where none tells any, presence alone is believed."""
        if not known:
            return self
        return replace(
            self, ages={n: own or known[n] for n, own in self.ages.items() if n in known}
        )

    def without(self, nodes: Iterable[str]) -> Seen:
        """Nodes whose series cannot be told apart are not covered."""
        doubted = set(nodes)
        return replace(self, ages={n: a for n, a in self.ages.items() if n not in doubted})

    def incomplete(self, warnings: Sequence[str]) -> Seen:
        """A partial answer: what it holds is true, what it lacks is unknown."""
        serious = [w for w in warnings if not w.startswith(_BENIGN)]
        return self.broken(f"partial answer: {printable(serious[0])}") if serious else self

    def age(self, node: str) -> float:
        return self.ages.get(node, 0.0)

    def of(self, rule: SignalRule) -> Coverage:
        oldest = max(self.ages.values(), default=None)
        return Coverage(rule.name, frozenset(self.ages), self.expected, oldest, self.error)


def read_coverage(
    rule: SignalRule, answer: QueryResult | str, fleet: Fleet, *, stale_s: float
) -> Seen:
    """Who reports the signal freshly enough."""
    if isinstance(answer, str):
        return Seen({}, len(fleet.nodes), error=answer)
    ages: dict[str, float] = {}
    doubted: set[str] = set()
    unmatched = 0
    names, mine, found = fleet.names, fleet.nodes, fleet.names.found
    limit = math.nextafter(stale_s, math.inf)  # an age of just so much is still fresh
    for (labels,), value in zip(answer.rows(names.names.node), answer.values, strict=True):
        node = found.get(labels) or names.node_named(labels)
        if node is Missed.CONFLICT:
            doubted |= names.claimed(labels)
        elif node is Missed.UNKNOWN:
            unmatched += 1
        elif node in mine and -stale_s <= value < ages.get(node, limit):
            ages[node] = value if value > 0 else 0.0
    warnings = _odd(rule, unmatched, doubted)
    return (
        Seen(ages, len(fleet.nodes), warnings=warnings).without(doubted).incomplete(answer.warnings)
    )


@dataclass(frozen=True, slots=True)
class Found:
    """The readings of one answer, and the nodes about which it contradicts itself."""

    readings: tuple[Reading, ...]
    in_doubt: frozenset[str]
    warnings: tuple[str, ...]


def read_samples(
    rule: SignalRule, answer: QueryResult, fleet: Fleet, *, wanted: Mapping[str, int]
) -> Found:
    """Samples to readings: the largest of duplicates, nothing that is no number or names two."""
    names, mine = fleet.names, fleet.nodes
    best: dict[Place, float] = {}
    doubted: set[str] = set()
    found = names.found
    rows = answer.rows(names.names.node, *_columns(rule, names))
    for (labels, gpus, (key,)), raw in zip(rows, answer.values, strict=True):
        node = found.get(labels) or names.node_named(labels)
        if node is Missed.CONFLICT:
            doubted |= names.claimed(labels)
        is_number = -BLANK < raw < BLANK  # which is false of NaN
        if not is_number or isinstance(node, Missed) or node not in mine:
            continue
        value = wanted[node] - raw if rule.expects else raw
        gpu = gpus[0] or next(filter(None, gpus), "")
        place = (node, gpu, printable(key) if key else "")
        if (rule.peers or is_beyond(rule, value)) and value > best.setdefault(place, value):
            best[place] = value
    doubted |= _on_two_nodes(best)
    if rule.peers:
        best = unlike_peers(rule, best, fleet.nodes)
    readings = tuple(
        Reading(rule.name, node, printable(gpu), value, key)
        for (node, gpu, key), value in sorted(best.items())
        if node not in doubted
    )
    return Found(readings, frozenset(doubted & set(fleet.nodes)), _odd(rule, 0, doubted))


def _columns(rule: SignalRule, names: NodeNames) -> tuple[Labels, Labels]:
    return names.names.gpu if rule.per == "gpu" else _NONE, (rule.key_label,)


def _on_two_nodes(places: Collection[Place]) -> set[str]:
    """Nodes that claim the same GPU: a UUID is in one machine."""
    if len({gpu for _, gpu, _ in places}) == len(places):
        return set()  # no GPU is named twice: nearly always so
    owner: dict[str, str] = {}
    doubted: set[str] = set()
    for node, gpu, _ in places:
        if gpu.startswith("GPU-") and owner.setdefault(gpu, node) != node:
            doubted |= {node, owner[gpu]}
    return doubted


def _odd(rule: SignalRule, unmatched: int, doubted: Iterable[str]) -> tuple[str, ...]:
    lines = []
    if unmatched:
        lines.append(f"{rule.name}: {unmatched} series name no node of the cluster")
    if names := sorted(doubted):
        lines.append(
            f"{rule.name}: series name more than one node, so they are not used: {', '.join(names)}"
        )
    return tuple(lines)
