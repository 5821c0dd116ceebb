"""The product's own sweep: observe and judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast
from urllib.parse import urlencode

from benchmarks.verdicts import summary
from benchmarks.ways import Setup
from breakfix.adapters.prometheus import PrometheusMetrics, request
from breakfix.decide import judge
from breakfix.model import Budget, Judgement, Node, Observation, Pod
from breakfix.observe import observe
from breakfix.ports import Cluster, Metrics, QueryResult

SELECTOR = "nvidia.com/gpu.present=true"
_TIMEOUT_S = 280.0  # a busy machine shall make it slow, not different


class ListedCluster:
    """A cluster that has been listed already: what Kubernetes costs is measured by itself."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes

    def nodes(self) -> Sequence[Node]:
        return self._nodes

    def pods(self, node: str | None = None) -> Sequence[Pod]:
        return ()

    def budgets(self) -> Sequence[Budget]:
        return ()

    def daemon_sets(self) -> frozenset[tuple[str, str]]:
        return frozenset()

    def __getattr__(self, name: str) -> Callable[..., tuple[()]]:
        return lambda *_args, **_options: ()  # any other listing: nothing


class RecordingMetrics:
    """Notes which queries are asked together: their paths and forms."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics
        self.batches: list[list[tuple[str, str]]] = []

    def _note(self, queries: Iterable[str], at: datetime) -> None:
        asked = (request(q, at) for q in queries)
        self.batches.append([(path, urlencode(form)) for path, form in asked])

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        self._note([promql], at)
        return self._metrics.query(promql, at=at)

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        self._note(queries.values(), at)
        return self._metrics.query_many(queries, at=at)


def prepare(setup: Setup) -> Callable[[], Judgement]:
    """A sweep from Prometheus to verdicts."""
    metrics = PrometheusMetrics(setup.url, timeout_s=_TIMEOUT_S)
    cluster = _listed(setup)

    def work() -> Judgement:
        seen = _observed(metrics, cluster, setup)
        return judge(seen, setup.policy, {}, setup.fleet.at)

    return work


def record(setup: Setup) -> None:
    """Write the sweep's queries, in the batches in which they are asked, to a file."""
    metrics = RecordingMetrics(PrometheusMetrics(setup.url, timeout_s=_TIMEOUT_S))
    seen = _observed(metrics, _listed(setup), setup)
    assert not [w for w in seen.warnings if "could not" in w], seen.warnings
    assert not [c.error for c in seen.coverage.values() if c.error]
    setup.queries.write_text(json.dumps([b for b in metrics.batches if b]))


def _listed(setup: Setup) -> Cluster:
    return cast("Cluster", ListedCluster(setup.fleet.nodes()))


def _observed(metrics: Metrics, cluster: Cluster, setup: Setup) -> Observation:
    at = setup.fleet.at
    return observe(metrics, cluster, setup.policy, at=at, gpu_node_selector=SELECTOR)


def told(result: Any) -> dict[str, Any]:
    return summary(result)
