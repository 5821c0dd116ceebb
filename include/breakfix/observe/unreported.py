"""What spoke on a node, speaks no more, and is not reported either: nobody has seen it end.

Coverage tells which nodes report a signal. A field that one GPU of a node loses while its others
report it, or that the whole fleet loses at once, is no loss there; what spoke before is asked for
by itself.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from breakfix.model import Coverage, Node, OpenFinding, Reading, SignalKind, SignalMode
from breakfix.observe.expected import expectation
from breakfix.observe.fleet import Fleet, run
from breakfix.observe.labels import Missed, printable
from breakfix.observe.promql import reporting_query
from breakfix.policy import Policy, SignalRule
from breakfix.ports import Metrics, QueryResult


@dataclass(frozen=True, slots=True)
class _Quiet:
    """An open finding that does not speak now."""

    node: str
    rule: SignalRule
    finding: OpenFinding


def read_unreported(
    metrics: Metrics,
    fleet: Fleet,
    policy: Policy,
    *,
    at: datetime,
    readings: Iterable[Reading],
    coverage: Mapping[str, Coverage],
    open_findings: Mapping[str, Collection[OpenFinding]],
) -> tuple[Mapping[str, tuple[OpenFinding, ...]], tuple[str, ...]]:
    """Node -> those of its open findings that neither speak nor are reported, each with when it was
    first missed; and in words what could not be asked.

    A finding of a GPU has ended when that GPU reports the signal, or when as many others as the
    node should have do: it was replaced. One of a node, or of a signal that nobody reports by GPU,
    has ended when the node reports it. An event counts for its window, so long it is missed.
    Prometheus is asked only where a GPU's finding fell silent while its node reports the signal;
    where it does not answer, nothing ended.
    """
    quiet = list(_quiet(fleet, policy, at, readings, open_findings))
    dark = [q for q in quiet if q.node not in coverage[q.rule.name].nodes_seen]
    seen = [q for q in quiet if q.node in coverage[q.rule.name].nodes_seen]
    doubtful = [q for q in seen if q.finding.gpu]
    asked = {
        rule.name: reporting_query(rule, policy.names, nodes)
        for rule, nodes in _by_rule(doubtful).values()
    }
    answers = run(metrics, asked.values(), at=at) if asked else {}
    told = {signal: answers[query] for signal, query in asked.items()}
    missed = [*dark, *_silent_gpus(told, fleet, policy, doubtful)]
    found: dict[str, list[OpenFinding]] = defaultdict(list)
    for q in missed:
        found[q.node].append(replace(q.finding, missed_at=q.finding.missed_at or at))
    ordered = {n: tuple(sorted(fs, key=lambda f: (f.signal, f.gpu))) for n, fs in found.items()}
    return ordered, tuple(
        f"{signal}: which GPUs report it could not be read: {answer}"
        for signal, answer in sorted(told.items())
        if isinstance(answer, str)
    )


def _quiet(
    fleet: Fleet,
    policy: Policy,
    at: datetime,
    readings: Iterable[Reading],
    open_findings: Mapping[str, Collection[OpenFinding]],
) -> Iterable[_Quiet]:
    speaking = {(r.node, r.signal, r.gpu) for r in readings}
    rules = {r.name: r for r in policy.signals if is_missed(r)}
    for node in sorted(open_findings.keys() & fleet.nodes.keys()):
        for finding in open_findings[node]:
            rule = rules.get(finding.signal)
            is_quiet = (node, finding.signal, finding.gpu) not in speaking
            if rule is None or not is_quiet or is_over(finding, rule, at):
                continue
            if not _is_older(fleet.nodes[node], finding):
                yield _Quiet(node, rule, finding)


def is_missed(rule: SignalRule) -> bool:
    """Whether its silence may be lost telemetry: Prometheus tells it of a node or its GPUs. What
    never acts cannot have made a node suspect.
    """
    return rule.is_of_node and not rule.is_kubernetes and rule.mode is not SignalMode.NEVER


def _is_older(node: Node, finding: OpenFinding) -> bool:
    """Whether it was missed on another node, whose name this one has now."""
    born, missed_at = node.created_at, finding.missed_at
    return born is not None and missed_at is not None and missed_at < born


def is_over(finding: OpenFinding, rule: SignalRule, at: datetime) -> bool:
    """Whether an event was missed for so long that it would count no more."""
    if rule.kind is not SignalKind.EVENT or finding.missed_at is None:
        return False
    return at - finding.missed_at >= timedelta(seconds=rule.window_s)


def _by_rule(quiet: Iterable[_Quiet]) -> Mapping[str, tuple[SignalRule, set[str]]]:
    """Signal -> its rule, and the nodes that are asked about."""
    found: dict[str, tuple[SignalRule, set[str]]] = {}
    for q in quiet:
        found.setdefault(q.rule.name, (q.rule, set()))[1].add(q.node)
    return found


def _silent_gpus(
    told: Mapping[str, QueryResult | str],
    fleet: Fleet,
    policy: Policy,
    quiet: Collection[_Quiet],
) -> Iterable[_Quiet]:
    """Those whose GPU does not report the signal."""
    nodes = {q.node for q in quiet}
    gpus_of = {signal: _gpus_by_node(answer, fleet, nodes) for signal, answer in told.items()}
    due = expectation(policy, fleet.nodes.values())
    for q in quiet:
        gpus = gpus_of[q.rule.name][q.node]
        wanted = due(fleet.nodes[q.node])
        if q.finding.gpu not in gpus and gpus != {""} and not 0 < wanted <= _count(gpus):
            yield q


def _count(gpus: Collection[str]) -> int:
    """How many GPUs these names are: two exporters may name one of them in two ways."""
    kinds = Counter(gpu.startswith("GPU-") for gpu in gpus if gpu)
    return max(kinds.values(), default=0)


def _gpus_by_node(
    answer: QueryResult | str, fleet: Fleet, nodes: Collection[str]
) -> Mapping[str, set[str]]:
    """The GPUs of these nodes that report."""
    gpus_of: dict[str, set[str]] = {n: set() for n in nodes}
    if isinstance(answer, str):
        return gpus_of
    names = fleet.names
    for labels, gpus in answer.rows(names.names.node, names.names.gpu):
        node = names.found.get(labels) or names.node_named(labels)
        if not isinstance(node, Missed) and node in gpus_of:
            gpu = gpus[0] or next(filter(None, gpus), "")
            gpus_of[node].add(printable(gpu))
    return gpus_of
