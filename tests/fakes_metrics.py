"""A Prometheus of canned answers: the `Metrics` port for tests of observe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import product

from breakfix.errors import MetricsError
from breakfix.observe.promql import ALL, FEW, coverage_query, signal_query
from breakfix.policy import Policy
from breakfix.ports import QueryResult, Sample

Answer = QueryResult | str


def samples(*pairs: tuple[Mapping[str, str], float]) -> QueryResult:
    """A vector of (labels, value)."""
    return QueryResult(tuple(Sample(labels, value) for labels, value in pairs))


def _nothing(_promql: str) -> Answer:
    return QueryResult(())


@dataclass
class FakeMetrics:
    """`answers` by query; others get `default`. `asked` has every query."""

    answers: dict[str, Answer] = field(default_factory=dict)
    default: Callable[[str], Answer] = _nothing
    asked: list[str] = field(default_factory=list)

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        answer = self.query_many({"": promql}, at=at)[""]
        if isinstance(answer, str):
            raise MetricsError(answer)
        return answer

    def query_many(self, queries: Mapping[str, str], *, at: datetime) -> Mapping[str, Answer]:
        self.asked += queries.values()
        return {k: self.answers.get(q, self.default(q)) for k, q in queries.items()}

    def say(self, policy: Policy, signal: str, answer: Answer, *, most_gpus: int = 8) -> None:
        """What the fleet's query of a signal gives."""
        rule = next(s for s in policy.signals if s.name == signal)
        self.answers[signal_query(rule, policy.names, most_gpus=most_gpus)] = answer

    def cover(self, policy: Policy, signal: str, answer: Answer) -> None:
        """Who reports a signal: the value is the age in seconds, where it is asked for."""
        rule = next(s for s in policy.signals if s.name == signal)
        stale_s = policy.timing.stale_sample_s
        for ages, gpus in product((True, False), (ALL, FEW)):
            query = coverage_query(rule, policy.names, stale_s=stale_s, with_ages=ages, gpus=gpus)
            self.answers[query] = answer
