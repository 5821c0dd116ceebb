"""The `Metrics` port over a trace's own series, its queries evaluated at all instants at once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

import numpy as np

from breakfix.errors import MetricsError
from breakfix.ports import QueryResult, Sample
from breakfix.replay.promql import Element, Evaluator, parse
from breakfix.replay.promql.syntax import NotPromql
from breakfix.replay.promql.vectors import Bools, Millis, Store


class DirectMetrics:
    """Answers for the prepared instants (ms); any other instant is evaluated by itself.

    A query that `promql` does not understand raises MetricsError: to leave it out would be to
    judge by less than the policy says.
    """

    def __init__(self, store: Store, instants: Millis) -> None:
        self._evaluator = Evaluator(store)
        self._instants = instants
        self._places = {int(t): i for i, t in enumerate(instants)}
        self._vectors: dict[str, list[Element]] = {}

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        when = round(at.timestamp() * 1000)
        place = self._places.get(when)
        if place is None:
            return _answer(self._evaluate(promql, np.array([when], np.int64)), 0)
        return _answer(self._vector(promql), place)

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        return {name: self.query(promql, at=at) for name, promql in queries.items()}

    def changes(self, queries: Iterable[str]) -> Bools:
        """At which of the prepared instants any answer differs from the one before."""
        changed = np.zeros(len(self._instants), np.bool_)
        for query in queries:
            for e in self._vector(query):
                changed[1:] |= e.there[1:] != e.there[:-1]
                changed[1:] |= e.there[1:] & (e.values[1:] != e.values[:-1])
        return changed

    def _vector(self, promql: str) -> list[Element]:
        if promql not in self._vectors:
            self._vectors[promql] = self._evaluate(promql, self._instants)
        return self._vectors[promql]

    def _evaluate(self, promql: str, instants: Millis) -> list[Element]:
        try:
            return self._evaluator.vector(parse(promql), instants)
        except NotPromql as e:
            raise MetricsError(f"a direct replay cannot evaluate {promql[:120]}: {e}") from e


def _answer(vector: Iterable[Element], place: int) -> QueryResult:
    return QueryResult(
        tuple(Sample(e.labels, float(e.values[place])) for e in vector if e.there[place])
    )
