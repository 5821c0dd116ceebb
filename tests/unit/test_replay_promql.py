"""The small PromQL: its text, its vectors and windows, worked out by hand. (That it agrees with a
real Prometheus on every query of the policy is a contract test.)
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from breakfix.replay.promql import Evaluator, metrics_of, parse, reach_s
from breakfix.replay.promql.syntax import Binary, NotPromql
from breakfix.replay.promql.vectors import Store
from breakfix.replay.values import STALE_BITS

NOW = 1_700_000_000_000  # ms, a whole number of minutes and 20 s


def store(**series: list[float | None]) -> Store:
    """Metric{i="0"}: one sample each 15 s, the last of them now; None: a staleness marker."""
    made = Store()
    for metric, values in series.items():
        times = NOW - 15_000 * np.arange(len(values) - 1, -1, -1, dtype=np.int64)
        numbers = np.array([0.0 if v is None else v for v in values])
        numbers.view(np.uint64)[[v is None for v in values]] = STALE_BITS
        made.add({"__name__": metric, "i": "0", "node": "n"}, times, numbers)
    return made


def ask(of: Store, query: str, at: int = NOW) -> dict[tuple[tuple[str, str], ...], float]:
    vector = Evaluator(of).vector(parse(query), np.array([at], np.int64))
    return {tuple(sorted(e.labels.items())): float(e.values[0]) for e in vector}


def value(of: Store, query: str, at: int = NOW) -> float | None:
    found = list(ask(of, query, at).values())
    assert len(found) <= 1
    return found[0] if found else None


@pytest.mark.parametrize(
    ("query", "result"),
    [
        pytest.param("x", 6, id="the newest sample"),
        pytest.param("x offset 30s", 4, id="an older one"),
        pytest.param("x > 5", 6, id="a comparison keeps the value"),
        pytest.param("x > 6", None, id="or nothing"),
        pytest.param("x > bool 6", 0, id="bool says yes or no"),
        pytest.param("2 ^ 3 ^ 0 * x - 1", 11, id="precedence"),
        pytest.param("-x + 10", 4, id="a sign"),
        pytest.param("count_over_time(x[30s])", 3, id="a window holds both its ends"),
        pytest.param("max_over_time(x[1m])", 6, id="the largest"),
        pytest.param("min_over_time(x[1m])", 2, id="the smallest"),
        pytest.param("avg_over_time(x[1m])", 4, id="the mean"),
        pytest.param("sum_over_time(x[15s])", 11, id="the sum"),
        pytest.param("last_over_time(x[15s] offset 1m)", 2, id="the last of an older window"),
        pytest.param("changes(x[1m])", 4, id="how often it changed"),
        pytest.param("resets(x[1m])", 0, id="how often it fell"),
        pytest.param("increase(x[1m])", 4, id="growth over a full window"),
        pytest.param("rate(x[1m]) * 60", 4, id="a rate"),
        pytest.param("max_over_time((x > 3)[1m:15s])", 5, id="a subquery at whole steps"),
        pytest.param("time() - timestamp(x)", 0, id="the age of a sample"),
        pytest.param("absent_metric or x", 6, id="or takes what is there"),
        pytest.param("x unless on (node) y", None, id="unless takes it away"),
        pytest.param("x and on (node) y", 6, id="and keeps it"),
        pytest.param("x * on (node) group_left () y", 6, id="many to one"),
        pytest.param("floor(x / 4)", 1, id="rounded down"),
    ],
)
def test_a_query_means_what_it_means(query, result):
    assert value(store(x=[1, 2, 3, 4, 5, 6], y=[1.0] * 6), query) == pytest.approx(result)


def test_counters_that_restart_have_grown_by_what_they_show_since():
    assert value(store(x=[4, 8, 2, 6, 10]), "increase(x[1m])") == pytest.approx(4 + 2 + 4 + 4)


def test_growth_is_not_extrapolated_below_zero_nor_far_beyond_the_samples():
    # Three samples within 5 minutes: half a gap (7.5 s) before them, and nothing after.
    assert value(store(x=[10, 12, 14]), "increase(x[5m])") == pytest.approx(4 * 37.5 / 30)
    assert value(store(x=[1, 3, 5]), "increase(x[5m])") == pytest.approx(4 * 37.5 / 30)
    assert value(store(x=[0, 2, 4]), "increase(x[5m])") == pytest.approx(4)


@pytest.mark.parametrize(
    ("at", "result"),
    [
        pytest.param(NOW + 300_000, 2, id="five minutes later it still stands"),
        pytest.param(NOW + 300_001, None, id="and then no longer"),
        pytest.param(NOW - 15_000, 1, id="what came later is not known before"),
        pytest.param(NOW - 15_001, None, id="nor anything before the first"),
    ],
)
def test_the_newest_sample_stands_for_five_minutes(at, result):
    assert value(store(x=[1, 2]), "x", at) == result


def test_a_marker_ends_a_series_and_is_no_sample_of_a_window():
    gone = store(x=[1, 2, None])
    assert value(gone, "x") is None
    assert value(gone, "count_over_time(x[1m])") == 2
    assert value(gone, "last_over_time(x[1m])") == 2


def test_labels_are_matched_grouped_and_rewritten():
    made = Store()
    for i, v in enumerate((3.0, 5.0, math.nan)):
        labels = {"__name__": "x", "node": f"n{i % 2}", "gpu": str(i), "empty": ""}
        made.add(labels, np.array([NOW], np.int64), np.array([v]))
    assert ask(made, 'x{gpu=~"0|1",node!="n1"}') == {
        (("__name__", "x"), ("gpu", "0"), ("node", "n0")): 3
    }
    assert ask(made, "max by (node, rack) (x)") == {(("node", "n0"),): 3, (("node", "n1"),): 5}
    assert ask(made, 'count by (node) (x{empty=""})') == {
        (("node", "n0"),): 2,
        (("node", "n1"),): 1,
    }
    assert ask(made, 'label_replace(x{gpu="1"}, "host", "$1-a", "node", "(n.)")') == {
        (("__name__", "x"), ("gpu", "1"), ("host", "n1-a"), ("node", "n1")): 5
    }
    assert ask(made, 'count_values by (node) ("v", x < 10)') == {
        (("node", "n0"), ("v", "3")): 1, (("node", "n1"), ("v", "5")): 1,
    }  # fmt: skip


def test_the_largest_are_found_anew_at_each_instant():
    made = Store()
    times = NOW + np.array([0, 60_000], np.int64)
    for gpu, values in (("0", [3.0, 1.0]), ("1", [2.0, 2.0]), ("2", [2.0, 0.0])):
        made.add({"__name__": "x", "node": "n", "gpu": gpu}, times, np.array(values))
    made.add({"__name__": "x", "node": "m", "gpu": "0"}, times[1:], np.array([1.0]))

    def largest(query: str) -> list[set[tuple[str, str]]]:
        vector = Evaluator(made).vector(parse(query), times)
        return [{(e.labels["node"], e.labels["gpu"]) for e in vector if e.there[i]} for i in (0, 1)]

    assert largest("topk by (node) (1, x)") == [{("n", "0")}, {("n", "1"), ("m", "0")}]
    assert largest("topk(2, x > 1)") == [{("n", "0"), ("n", "1")}, {("n", "1")}]


def test_two_where_one_is_wanted_is_an_error_as_it_is_there():
    made = Store()
    for gpu in "01":
        labels = {"__name__": "x", "node": "n", "gpu": gpu}
        made.add(labels, np.array([NOW], np.int64), np.array([1.0]))
    with pytest.raises(NotPromql, match="several series"):
        ask(made, "x * on (node) x")


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("x[5m", id="an open bracket"),
        pytest.param("x y", id="two things beside one another"),
        pytest.param("(x + y)[5m]", id="a range of an expression"),
        pytest.param("(x + y) offset 5m", id="an offset of an expression"),
        pytest.param("x ? y", id="an unknown sign"),
        pytest.param("max by (node (", id="labels without an end"),
        pytest.param("x{a=", id="a matcher without an end"),
        pytest.param("f(x,", id="arguments without an end"),
    ],
)
def test_what_is_no_promql_is_refused(text):
    with pytest.raises(NotPromql):
        parse(text)


@pytest.mark.parametrize("query", ["histogram_quantile(0.9, x)", "x[5m]", "max(1)"])
def test_what_is_not_understood_is_refused_rather_than_left_out(query):
    with pytest.raises(NotPromql):
        ask(store(x=[1]), query)


def test_what_a_query_reads_and_how_far_back():
    node = parse('max_over_time((rate(a[10m]) > 0 and b offset 1h)[30m:1m]) or {__name__="c"}')
    assert isinstance(node, Binary)
    assert metrics_of(node) == {"a", "b", "c"}
    assert reach_s(node) == 1800 + 3600 + 300
