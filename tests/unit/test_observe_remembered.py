"""What Prometheus said of an instant is asked once; of another instant, or in doubt, again."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from breakfix.errors import MetricsError
from breakfix.observe.remembered import RememberedMetrics
from breakfix.ports import QueryResult
from tests.fakes_metrics import FakeMetrics, samples

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
UP = samples(({"node": "a"}, 1.0))


def test_the_same_question_of_the_same_instant_is_asked_once():
    metrics = FakeMetrics({"up": UP})
    kept = RememberedMetrics(metrics)
    for _ in range(20):
        assert kept.query_many({"x": "up", "y": "down"}, at=NOON)["x"] == UP
    assert kept.query("up", at=NOON) == UP
    assert sorted(metrics.asked) == ["down", "up"]
    assert (kept.figures.misses, kept.figures.hits) == (2, 39)


def test_another_instant_is_another_question():
    metrics = FakeMetrics({"up": UP})
    kept = RememberedMetrics(metrics)
    for minute in range(3):
        kept.query("up", at=NOON + timedelta(minutes=minute))
    assert len(metrics.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param("timed out", id="a query that failed"),
        pytest.param(QueryResult(UP.samples, ("store unavailable",)), id="a partial answer"),
    ],
)
def test_what_is_no_whole_answer_is_asked_again(answer):
    metrics = FakeMetrics({"up": answer})
    kept = RememberedMetrics(metrics)
    assert kept.query_many({"x": "up"}, at=NOON)["x"] == answer
    metrics.answers["up"] = UP
    assert kept.query_many({"x": "up"}, at=NOON)["x"] == UP
    assert len(metrics.asked) == 2


def test_one_query_that_failed_raises_and_is_asked_again():
    metrics = FakeMetrics({"up": "away"})
    kept = RememberedMetrics(metrics)
    with pytest.raises(MetricsError, match="away"):
        kept.query("up", at=NOON)
    metrics.answers["up"] = QueryResult(UP.samples, ("partial",))
    assert kept.query("up", at=NOON).warnings
    metrics.answers["up"] = UP
    assert kept.query("up", at=NOON) == UP


def test_sixteen_threads_that_ask_at_once_ask_prometheus_once():
    gate, all_asked = threading.Barrier(16, timeout=10), threading.Event()

    def slow(_promql):
        assert all_asked.wait(10)
        return UP

    metrics = FakeMetrics(default=slow)
    kept = RememberedMetrics(metrics)

    def ask(_):
        if gate.wait() == 0:
            all_asked.set()
        return kept.query("up", at=NOON)

    with ThreadPoolExecutor(16) as pool:
        assert all(answer == UP for answer in pool.map(ask, range(16)))
    assert metrics.asked == ["up"]
