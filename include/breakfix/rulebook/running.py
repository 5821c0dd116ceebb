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
from breakfix.model import Incident, NodeRecord, Observation, Verdict, digest
from breakfix.observe import observe
from breakfix.policy import Policy, merge_overlay
from breakfix.replay.caching import CachingMetrics
from breakfix.replay.expand import expand
from breakfix.replay.fleet import build_fleet
from breakfix.replay.server import ReplayPrometheus
from breakfix.replay.world import ReplayedCluster, World
from breakfix.rulebook.cases import Remembered, Source
from breakfix.rulebook.grading import Problem, problems
from breakfix.rulebook.placing import Placed, first_node, place

GPU_NODES = "nvidia.com/gpu.present=true"
QUERY_TIMEOUT_S = 120.0

#: What of a signal decide reads: a change of it needs no new look.
_DECIDED = frozenset(
    {
        "weight",
        "mode",
        "group",
        "kind",
        "failure_class",
        "text",
        "source",
        "start_at",
        "is_required",
        "absence_weight",
    }
)


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
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self.placed = place(sources)
        self._worlds = [World(p.trace, build_fleet(p.trace), p.at) for p in self.placed]
        self._clusters = [world.at(0.0) for world in self._worlds]
        self._names = [frozenset(n.name for n in c.nodes()) for c in self._clusters]
        self._server = ReplayPrometheus()
        self._client: PrometheusMetrics | None = None
        self._metrics: CachingMetrics | None = None
        self._seen: dict[tuple[str, datetime], Observation] = {}
        self._split: dict[tuple[str, int], Observation] = {}
        self._overlaid: dict[tuple[str, str], Policy] = {}

    def __enter__(self) -> Self:
        self._server.start()
        self._server.write(s for p in self.placed for s in expand(p.trace, p.at))
        self._client = PrometheusMetrics(self._server.url, timeout_s=QUERY_TIMEOUT_S)
        self._metrics = CachingMetrics(self._client)
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

    def evaluate(self, policy: Policy, *, until_failure: bool = False) -> tuple[Result, ...]:
        """Every case under this policy, in order. Raises SettingsError, MetricsError.

        `until_failure`: stop at the first case that does not pass.
        """
        results = []
        for number in range(len(self.placed)):
            results.append(self._result(number, self._policy(number, policy)))
            if until_failure and not results[-1].has_passed:
                break
        return tuple(results)

    # ------------------------------------------------------------------ one case

    def _result(self, number: int, policy: Policy) -> Result:
        placed = self.placed[number]
        observation = self._of_case(number, policy)
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
        key = (policy.hash, digest(overlay))
        if key not in self._overlaid:
            self._overlaid[key] = _overlaid(policy, overlay, self.placed[number])
        return self._overlaid[key]

    def _of_case(self, number: int, policy: Policy) -> Observation:
        """The look at everything, narrowed to the case's nodes."""
        look = _look_key(policy)
        key = (look, number)
        if key not in self._split:
            everything = self._look(look, policy, self.placed[number].at)
            cluster = self._clusters[number]
            names = self._names[number]
            self._split[key] = narrowed(everything, names, cluster)
        return self._split[key]

    def _look(self, look: str, policy: Policy, at: datetime) -> Observation:
        if (look, at) not in self._seen:
            if self._metrics is None:
                raise RuntimeError("rule tests are run inside their `with` block")
            here = [i for i, p in enumerate(self.placed) if p.at == at]
            clusters = [self._clusters[i] for i in here]
            floors = {k: v for i in here for k, v in _floors(self.placed[i]).items()}
            self._seen[look, at] = observe(
                self._metrics,
                _together(clusters),
                policy,
                at=at,
                gpu_node_selector=GPU_NODES,
                floors=floors,
            )
        return self._seen[look, at]

    def forget_looks(self) -> None:
        """Drop observations, but not answers: for long series of policies."""
        self._seen.clear()
        self._split.clear()
        self._overlaid.clear()


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


def _look_key(policy: Policy) -> str:
    """Policies with one key see the same."""
    plain = policy.model_dump(mode="json", by_alias=True)
    signals = [{k: v for k, v in s.items() if k not in _DECIDED} for s in plain["signals"]]
    return digest(
        [
            signals,
            plain["names"],
            plain["facts"],
            plain["expected_gpus"],
            plain["timing"]["stale_sample"],
            plain["timing"]["boot_grace"],
        ]
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
