"""The `Metrics` port with a memory: the past does not change, so no query is asked twice."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.errors import MetricsError
from breakfix.ports import Metrics, QueryResult


class CachingMetrics:
    """Answers by (query, instant). Errors are not kept. For traces, whose past is complete."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._answers: dict[tuple[str, datetime], QueryResult] = {}
        self.asked = 0  # queries that went to the server

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        answer = self.query_many({"": promql}, at=at)[""]
        if isinstance(answer, str):
            raise MetricsError(answer)
        return answer

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        missing = {q: q for q in queries.values() if (q, at) not in self._answers}
        found: Mapping[str, QueryResult | str] = {}
        if missing:
            found = self._metrics.query_many(missing, at=at)
            self.asked += len(missing)
            self._answers |= {(q, at): a for q, a in found.items() if not isinstance(a, str)}
        return {
            name: self._answers[q, at] if (q, at) in self._answers else found[q]
            for name, q in queries.items()
        }

    def forget(self) -> None:
        """Drop every answer."""
        self._answers.clear()
