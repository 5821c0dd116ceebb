"""Who reports a signal at all, and how fresh it is: silence is never taken for health."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from breakfix.model import Coverage
from breakfix.observe.fleet import Fleet, odd, run
from breakfix.observe.labels import Missed, printable
from breakfix.observe.promql import ALL, FEW, REST, coverage_query
from breakfix.policy import Policy, SignalRule
from breakfix.ports import Metrics, QueryResult

#: PromQL annotations that say nothing about completeness (Prometheus 3 has them in a list of their
#: own).
_BENIGN = ("PromQL info:",)


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


def with_gpu_telemetry(coverage: Mapping[str, Coverage], policy: Policy) -> frozenset[str] | None:
    """The nodes of which Prometheus has any GPU signal; None where nobody can tell."""
    rules = (r for r in policy.signals if _is_of_gpus(r) and not r.is_kubernetes)
    found = [coverage[r.name] for r in rules]
    if not found or any(c.error for c in found):
        return None
    return frozenset().union(*(c.nodes_seen for c in found))


def cover_queries(
    rules: Sequence[SignalRule], policy: Policy, *, gpus: str = FEW
) -> Mapping[str, str]:
    """By signal, who reports it; of GPU signals by two GPUs of each node (FEW) or the REST."""
    aged = _with_ages(rules)
    stale_s = policy.timing.stale_sample_s
    return {
        r.name: coverage_query(
            r,
            policy.names,
            stale_s=stale_s,
            with_ages=r.name in aged,
            gpus=gpus if _is_of_gpus(r) else ALL,
        )
        for r in rules
    }


def read_covers(
    metrics: Metrics,
    rules: Sequence[SignalRule],
    answers: Mapping[str, QueryResult | str],
    fleet: Fleet,
    policy: Policy,
    *,
    at: datetime,
) -> Mapping[str, Seen]:
    """By signal, from the answers of `cover_queries`. Several signals may share one query: it is
    read once.

    The other GPUs are asked about where two leave a node unseen: first for the signals with ages,
    then for those without of the nodes that are there at all. Where coverage tells no ages, a node
    that no GPU signal with ages sees freshly is not seen.
    """
    few, rest = cover_queries(rules, policy), cover_queries(rules, policy, gpus=REST)
    first = {few[r.name]: r for r in reversed(rules)}
    stale_s = policy.timing.stale_sample_s
    seen = {q: read_coverage(r, answers[q], fleet, stale_s=stale_s) for q, r in first.items()}

    def complete(queries: Collection[str], wanted: Collection[str]) -> None:
        more = {q: rest[first[q].name] for q in queries if seen[q].lacks(wanted)}
        told = run(metrics, more.values(), at=at) if more else {}
        for q, other in more.items():
            seen[q] |= read_coverage(first[q], told[other], fleet, stale_s=stale_s)

    aged = _with_ages(rules)
    of_gpus = {q for q, r in first.items() if _is_of_gpus(r)}
    with_ages = {q for q in of_gpus if first[q].name in aged}
    complete(with_ages, fleet.nodes)
    known: dict[str, float] = {}
    for query in with_ages:
        known |= {n: min(a, known.get(n, a)) for n, a in seen[query].ages.items()}
    complete(of_gpus - with_ages, known or fleet.nodes)
    return {
        r.name: seen[few[r.name]] if r.name in aged else seen[few[r.name]].aged(known)
        for r in rules
    }


@dataclass(frozen=True, slots=True)
class Seen:
    """Ages by node of one signal's samples, before it becomes a Coverage."""

    ages: Mapping[str, float]
    expected: int
    error: str = ""
    warnings: tuple[str, ...] = ()
    doubted: frozenset[str] = frozenset()  # nodes whose series cannot be told apart

    def __or__(self, other: Seen) -> Seen:
        """With what the other GPUs of the nodes told. An error of either is the error of both."""
        both = Seen(
            {**other.ages, **self.ages},
            self.expected,
            warnings=(*self.warnings, *other.warnings),
        ).without(self.doubted | other.doubted)
        return both.broken(error) if (error := self.error or other.error) else both

    def lacks(self, wanted: Collection[str]) -> bool:
        """Whether any of the wanted is unseen, and could be seen."""
        return not self.error and not (self.ages.keys() | self.doubted).issuperset(wanted)

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
        doubted = self.doubted.union(nodes)
        ages = {n: a for n, a in self.ages.items() if n not in doubted}
        return replace(self, ages=ages, doubted=doubted)

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
    warnings = odd(rule, unmatched, doubted)
    return (
        Seen(ages, len(fleet.nodes), warnings=warnings).without(doubted).incomplete(answer.warnings)
    )
