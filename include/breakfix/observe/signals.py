"""Answers of Prometheus to readings and coverage. Only what is beyond a threshold travels; who
reports at all is asked separately, so that silence is never taken for health.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from breakfix.model import Coverage, Reading
from breakfix.observe.coverage import cover_queries, read_covers
from breakfix.observe.expected import expected_gpus
from breakfix.observe.fleet import Fleet, odd, run
from breakfix.observe.labels import Missed, NodeNames, printable
from breakfix.observe.peers import Place, unlike_peers
from breakfix.observe.promql import BLANK, BLANKS, signal_query
from breakfix.observe.threshold import is_beyond
from breakfix.policy import Policy, SignalRule
from breakfix.ports import Labels, Metrics, QueryResult

_NONE: Labels = ("",)  # no series has a label without a name


@dataclass(slots=True)
class Gathered:
    """What one sweep's queries gave, while it is put together."""

    readings: list[Reading] = field(default_factory=list)
    coverage: dict[str, Coverage] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def signal_queries(fleet: Fleet, policy: Policy) -> Iterable[str]:
    """What all signals ask of Prometheus; first those whose every value travels, as their answers
    are read while the server works on the others.
    """
    rules = _of_prometheus(policy)
    asked = _asked(rules, fleet, policy)
    return [*(asked[r.name] for r in _by_size(rules)), *cover_queries(rules, policy).values()]


def _of_prometheus(policy: Policy) -> Sequence[SignalRule]:
    return [r for r in policy.signals if not r.is_kubernetes]


def _by_size(rules: Iterable[SignalRule]) -> Sequence[SignalRule]:
    return sorted(rules, key=lambda r: r.peers is None)


def _asked(rules: Iterable[SignalRule], fleet: Fleet, policy: Policy) -> Mapping[str, str]:
    most = max((expected_gpus(node, policy) for node in fleet.nodes.values()), default=0)
    return {r.name: signal_query(r, policy.names, most_gpus=most) for r in rules}


def read_signals(metrics: Metrics, fleet: Fleet, policy: Policy, *, at: datetime) -> Gathered:
    """All signals of Prometheus: readings beyond their thresholds, coverage, and what was odd."""
    rules = _of_prometheus(policy)
    wanted = {n: expected_gpus(node, policy) for n, node in fleet.nodes.items()}
    asked = _asked(rules, fleet, policy)
    answers = run(metrics, signal_queries(fleet, policy), at=at)
    told: dict[str, Found | str] = {}
    for rule in _by_size(rules):  # as they arrive
        answer = answers[asked[rule.name]]
        told[rule.name] = (
            answer if isinstance(answer, str) else read_samples(rule, answer, fleet, wanted=wanted)
        )
    gathered = Gathered()
    seen = read_covers(metrics, rules, answers, fleet, policy, at=at)
    for rule in rules:
        cover, found = seen[rule.name], told[rule.name]
        gathered.warnings += cover.warnings
        if isinstance(found, str):
            cover = cover.broken(found)
        else:
            cover = cover.without(found.in_doubt).incomplete(found.partial)
            gathered.warnings += found.warnings
            gathered.readings += [replace(r, age_s=cover.age(r.node)) for r in found.readings]
        gathered.coverage[rule.name] = cover.of(rule)
    return gathered


@dataclass(frozen=True, slots=True)
class Found:
    """The readings of one answer, and the nodes about which it contradicts itself."""

    readings: tuple[Reading, ...]
    in_doubt: frozenset[str]
    warnings: tuple[str, ...]
    partial: tuple[str, ...] = ()  # what Prometheus says of its answer


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
        is_number = -BLANK < raw < BLANK and raw not in BLANKS  # which is false of NaN
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
    warnings = odd(rule, 0, doubted)
    return Found(readings, frozenset(doubted & set(fleet.nodes)), warnings, answer.warnings)


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
