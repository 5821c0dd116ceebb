"""What a sweep asks, asked at once: the server is never idle while one kind of answer is read, and
an answer is read while the server works on the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Self

from breakfix.errors import MetricsError
from breakfix.observe.fleet import run
from breakfix.ports import Arriving, Metrics, QueryResult


class Asked:
    """The `Metrics` port at one instant, with the answers to what was asked beforehand. An error is
    an answer too: nothing is asked twice. Everything else is asked when it is wanted.
    """

    def __init__(
        self, metrics: Metrics, answers: Mapping[str, QueryResult | str], at: datetime
    ) -> None:
        self._metrics = metrics
        self._answers = answers
        self._at = at

    @classmethod
    def of(cls, metrics: Metrics, queries: Iterable[str], *, at: datetime) -> Self:
        """With all of these asked now, in this order."""
        return cls(metrics, run(metrics, queries, at=at), at)

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        answer = self._known(at).get(promql)
        if isinstance(answer, str):
            raise MetricsError(answer)
        return self._metrics.query(promql, at=at) if answer is None else answer

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        known = self._known(at)
        rest = {name: q for name, q in queries.items() if q not in known}
        told = self._metrics.query_many(rest, at=at) if rest else {}
        return Arriving(
            {
                name: partial(told.__getitem__, name)
                if name in rest
                else partial(known.__getitem__, q)
                for name, q in queries.items()
            }
        )

    def _known(self, at: datetime) -> Mapping[str, QueryResult | str]:
        return self._answers if at == self._at else {}
