"""The product's own sweep: observe and judge."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet
from benchmarks.verdicts import summary
from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.decide import judge
from breakfix.model import Budget, Judgement, Node, Pod
from breakfix.observe import observe
from breakfix.policy import Policy
from breakfix.ports import QueryResult

SELECTOR = "nvidia.com/gpu.present=true"


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
    """Notes which queries are asked together."""

    def __init__(self, metrics: PrometheusMetrics) -> None:
        self._metrics = metrics
        self.batches: list[list[str]] = []

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        self.batches.append([promql])
        return self._metrics.query(promql, at=at)

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        self.batches.append(list(queries.values()))
        return self._metrics.query_many(queries, at=at)


def prepare(*, url: str, fleet: Fleet, policy: Policy, queries: Path) -> Callable[[], Judgement]:
    """A sweep from Prometheus to verdicts."""
    metrics, cluster = PrometheusMetrics(url, timeout_s=120.0), ListedCluster(fleet.nodes())

    def work() -> Judgement:
        seen = observe(metrics, cluster, policy, at=fleet.at, gpu_node_selector=SELECTOR)
        return judge(seen, policy, {}, fleet.at)

    return work


def record(*, url: str, fleet: Fleet, policy: Policy, queries: Path) -> None:
    """Write the sweep's queries, in the batches in which they are asked, to a file."""
    metrics = RecordingMetrics(PrometheusMetrics(url, timeout_s=120.0))
    cluster = ListedCluster(fleet.nodes())
    seen = observe(metrics, cluster, policy, at=fleet.at, gpu_node_selector=SELECTOR)
    assert not [w for w in seen.warnings if "could not" in w], seen.warnings
    assert not [c.error for c in seen.coverage.values() if c.error]
    queries.write_text(json.dumps([b for b in metrics.batches if b]))


def told(result: Any) -> dict[str, Any]:
    return summary(result)
