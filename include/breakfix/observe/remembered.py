"""Answers of Prometheus for one instant, kept while several questions of that instant are asked.

What the fleet served until noon is the same for the first node that is compared with its peers and
for the twentieth. A question of another instant is another question: nothing kept here is ever
taken for news. Acts, guards and verdicts ask Prometheus itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.ports import Metrics, QueryResult
from breakfix.resilience.cache import Cache, CacheFigures

SIZE = 64  # answers; a comparison has some ten
TTL_S = 300.0


class RememberedMetrics:
    """The `Metrics` port in front of another. Errors and partial answers are not kept."""

    def __init__(self, metrics: Metrics, *, size: int = SIZE, ttl_s: float = TTL_S) -> None:
        self._metrics = metrics
        self._kept: Cache[tuple[str, datetime], QueryResult] = Cache(size=size, ttl_s=ttl_s)

    @property
    def figures(self) -> CacheFigures:
        return self._kept.figures

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        """One instant query; of several callers at once one asks. Raises MetricsError."""
        result = self._kept.load((promql, at), lambda: self._metrics.query(promql, at=at))
        if result.warnings:
            self._kept.delete((promql, at))
        return result

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        """Asks only what is not kept."""
        known = {name: self._kept.get((promql, at)) for name, promql in queries.items()}
        missing = {name: queries[name] for name, result in known.items() if result is None}
        fresh = self._metrics.query_many(missing, at=at) if missing else {}
        for name, answer in fresh.items():
            if isinstance(answer, QueryResult) and not answer.warnings:
                self._kept.set((queries[name], at), answer)
        return {name: known[name] or fresh[name] for name in queries}
