"""What was asked beforehand is not asked again, be the answer an error; all else is passed on."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.errors import MetricsError
from breakfix.observe.asked import Asked
from breakfix.ports import QueryResult
from tests.fakes_metrics import FakeMetrics, samples
from tests.observations import NOW

ONE, TWO = samples(({"node": "a"}, 1.0)), samples(({"node": "b"}, 2.0))


def server() -> FakeMetrics:
    return FakeMetrics({"x": ONE, "y": "timed out", "z": TWO})


def test_known_answers_cost_nothing_and_the_rest_is_asked_in_one_go() -> None:
    metrics = server()
    asked = Asked.of(metrics, ["x", "y", "x"], at=NOW)
    assert asked.query_many({"1": "x", "2": "y", "3": "z"}, at=NOW) == {
        "1": ONE,
        "2": "timed out",
        "3": TWO,
    }
    assert metrics.asked == ["x", "y", "z"]


def test_an_error_is_an_answer_too() -> None:
    metrics = server()
    asked = Asked.of(metrics, ["y"], at=NOW)
    with pytest.raises(MetricsError, match="timed out"):
        asked.query("y", at=NOW)
    assert metrics.asked == ["y"]


def test_one_query_that_is_not_known_is_asked_as_such() -> None:
    asked = Asked.of(server(), ["x"], at=NOW)
    assert asked.query("x", at=NOW) == ONE
    assert asked.query("z", at=NOW) == TWO


def test_answers_are_of_their_instant_alone() -> None:
    metrics = server()
    asked = Asked.of(metrics, ["x"], at=NOW)
    later = NOW + timedelta(seconds=1)
    metrics.answers["x"] = QueryResult(())
    assert asked.query("x", at=later) == QueryResult(())
    assert asked.query_many({"1": "x"}, at=later) == {"1": QueryResult(())}
