"""Tests of rules, run: every case's telemetry in one real Prometheus, looked at by the real observe
in few looks, and judged case by case by the real decide.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self

from pydantic import ValidationError

from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.decide import judge
from breakfix.errors import SettingsError
from breakfix.model import Incident, NodeRecord, Observation, Verdict
from breakfix.policy import Policy, merge_overlay
from breakfix.replay.caching import CachingMetrics
from breakfix.replay.expand import expand
from breakfix.replay.fleet import build_fleet
from breakfix.replay.server import ReplayPrometheus
from breakfix.replay.world import ReplayedCluster, World
from breakfix.rulebook.cases import Remembered, Source
from breakfix.rulebook.grading import Problem, problems
from breakfix.rulebook.looks import Looks, Sight, sight_of
from breakfix.rulebook.placing import Placed, first_node, place

QUERY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one case; verdicts by the case's own names."""

    source: Source
    problems: tuple[Problem, ...]
    verdicts: Mapping[str, Verdict]
    incidents: tuple[Incident, ...]

    @property
    def has_passed(self) -> bool:
        return not self.problems


class RuleTests:
    """A context manager around a private Prometheus that holds all cases; `evaluate` may be asked
    of many policies: what was looked at once is not asked again.

    `url`: a Prometheus that holds these very cases already, of another RuleTests.
    """

    def __init__(self, sources: Sequence[Source], *, url: str = "") -> None:
        self._url = url
        self.placed = place(sources)
        self._clusters = [World(p.trace, build_fleet(p.trace), p.at).at(0.0) for p in self.placed]
        self._names = [frozenset(n.name for n in c.nodes()) for c in self._clusters]
        self._server = ReplayPrometheus()
        self._client: PrometheusMetrics | None = None
        self._looks: dict[datetime, Looks] = {}
        self._seen: dict[tuple[str, datetime], Observation] = {}
        self._overlaid: dict[tuple[str, int], Policy] = {}
        self._sights: dict[str, Sight] = {}

    def __enter__(self) -> Self:
        if not self._url:
            self._server.start()
            self._server.write(s for p in self.placed for s in expand(p.trace, p.at))
        self._client = PrometheusMetrics(self.url, timeout_s=QUERY_TIMEOUT_S)
        metrics = CachingMetrics(self._client)
        for at in {p.at for p in self.placed}:
            here = [i for i, p in enumerate(self.placed) if p.at == at]
            floors = {k: v for i in here for k, v in _floors(self.placed[i]).items()}
            cluster = _together([self._clusters[i] for i in here])
            self._looks[at] = Looks(metrics, cluster, at, floors)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._client is not None:
            self._client.close()
        self._server.stop()

    @property
    def url(self) -> str:
        """Where the Prometheus that holds the cases answers."""
        return self._url or self._server.url

    def evaluate(self, policy: Policy) -> tuple[Result, ...]:
        """Every case under this policy, in order. Raises SettingsError, MetricsError."""
        return tuple(self._result(i, policy) for i in range(len(self.placed)))

    def first_failure(self, policy: Policy, order: Iterable[int]) -> Result | None:
        """The first of these cases, by their numbers, that does not pass under this policy."""
        results = (self._result(i, policy) for i in order)
        return next((r for r in results if not r.has_passed), None)

    def forget(self) -> None:
        """Drop what was seen under policies that are not asked of again; answers stay."""
        self._seen.clear()
        self._overlaid.clear()
        self._sights.clear()

    # ------------------------------------------------------------------ one case

    def _result(self, number: int, base: Policy) -> Result:
        placed = self.placed[number]
        policy = self._policy(number, base)
        everything = self._look(policy, placed.at)
        observation = narrowed(everything, self._names[number], self._clusters[number])
        records = _records(placed, {n.name for n in observation.nodes})
        judgement = judge(observation, policy, records, placed.at)
        verdicts = {placed.plain(v.node): _plain(v, placed) for v in judgement.verdicts}
        incidents = tuple(_plain_incident(i, placed) for i in judgement.incidents)
        found = problems(placed.case.expect, first_node(placed.case), verdicts, incidents)
        return Result(placed.source, tuple(found), verdicts, incidents)

    def _policy(self, number: int, policy: Policy) -> Policy:
        overlay = self.placed[number].case.policy
        if not overlay:
            return policy
        key = (policy.hash, number)
        if key not in self._overlaid:
            self._overlaid[key] = _overlaid(policy, overlay, self.placed[number])
        return self._overlaid[key]

    def _look(self, policy: Policy, at: datetime) -> Observation:
        if not self._looks:
            raise RuntimeError("rule tests are run inside their `with` block")
        if policy.hash not in self._sights:
            self._sights[policy.hash] = sight_of(policy)
        sight = self._sights[policy.hash]
        key = (sight.key, at)
        if key not in self._seen:
            self._seen[key] = self._looks[at].look(policy, sight)
        return self._seen[key]


def _together(clusters: Iterable[ReplayedCluster]) -> ReplayedCluster:
    everyone = list(clusters)
    return ReplayedCluster(
        [n for c in everyone for n in c.nodes()],
        [p for c in everyone for p in c.pods()],
        [e for c in everyone for e in c.node_events()],
    )


def narrowed(
    everything: Observation, names: frozenset[str], cluster: ReplayedCluster
) -> Observation:
    """What a look would have seen, had there been these nodes alone."""
    judged = (everything.gpu_nodes or frozenset()) & names
    coverage = {
        signal: replace(c, nodes_seen=c.nodes_seen & names, nodes_expected=len(judged))
        for signal, c in everything.coverage.items()
    }
    return replace(
        everything,
        nodes=tuple(n for n in everything.nodes if n.name in names),
        pods=tuple(cluster.pods()),
        gpu_nodes=judged,
        readings=tuple(r for r in everything.readings if r.node in names),
        coverage=coverage,
        facts={n: f for n, f in everything.facts.items() if n in names},
    )


def _overlaid(policy: Policy, overlay: Mapping[str, Any], placed: Placed) -> Policy:
    base = policy.model_dump(mode="json", by_alias=True)
    try:
        return Policy.model_validate(merge_overlay(base, overlay))
    except ValidationError as e:
        wrong = "; ".join(
            f"{'.'.join(map(str, x['loc']))}: {x['msg']}" for x in e.errors(include_url=False)
        )
        where = f"{placed.source.file}:{placed.source.line}"
        raise SettingsError(f"{where}: policy: {wrong}") from None


# --------------------------------------------------------------------------- names and memory


def _records(placed: Placed, nodes: Iterable[str]) -> Mapping[str, NodeRecord]:
    known = placed.case.records
    return {
        node: _record(node, known[placed.plain(node)], placed.at)
        for node in nodes
        if placed.plain(node) in known
    }


def _record(node: str, known: Remembered, at: datetime) -> NodeRecord:
    return NodeRecord(
        node,
        known.state,
        since=at - timedelta(seconds=known.since),
        attempts=known.attempts,
        evidence_floor=_floor(known, at),
    )


def _floor(known: Remembered, at: datetime) -> datetime | None:
    return None if known.repaired is None else at - timedelta(seconds=known.repaired)


def _floors(placed: Placed) -> Mapping[str, datetime]:
    found: dict[str, datetime] = {}
    for node, known in placed.case.records.items():
        floor = _floor(known, placed.at)
        if floor is not None:
            found[placed.prefix + node] = floor
    return found


def _plain(verdict: Verdict, placed: Placed) -> Verdict:
    return replace(verdict, node=placed.plain(verdict.node), reason=placed.plain(verdict.reason))


def _plain_incident(incident: Incident, placed: Placed) -> Incident:
    return replace(
        incident,
        scope=placed.plain(incident.scope),
        nodes=tuple(placed.plain(n) for n in incident.nodes),
        reason=placed.plain(incident.reason),
    )
