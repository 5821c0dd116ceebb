"""A hold asked in one pass is the hold that its text says: against a real Prometheus, and the
evaluator of the direct replay.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from breakfix.adapters import prometheus as adapter
from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.observe.promql import signal_query
from breakfix.policy import SignalRule
from breakfix.ports import Held, QueryResult
from breakfix.replay.promql import Evaluator, parse
from breakfix.replay.promql.vectors import Store
from dev.stack.prometheus import PrivatePrometheus
from tests.contract.prometheus_history import History
from tests.observations import POLICY

HELD_FOR_S = 120.0
#: How long before the end a node's metric begins, and stops, being high.
LIVES = {
    "for long": (900, -math.inf),
    "just long enough": (HELD_FOR_S, -math.inf),
    "a scrape too short": (HELD_FOR_S - 15, -math.inf),
    "just begun": (0, -math.inf),
    "just over": (900, 0),
    "over for a minute": (900, 60),
}


def _rule() -> SignalRule:
    rule = next(s for s in POLICY.signals if s.hold_s == HELD_FOR_S)
    plain = {"expects": "", "also_window_s": 0.0, "clear_threshold": None, "peers": None}
    return rule.model_copy(
        update={"query": "max by ($node) (m)", "op": ">", "threshold": 5.0, **plain}
    )


@pytest.fixture(scope="module")
def history() -> History:
    made = History(end=float(int(time.time()) - 30))
    for node, (since, until) in LIVES.items():
        made.add(
            "m",
            lambda t, a=1800 - since, b=1800 - until: 9.0 + t / 1e4 if a <= t < b else 1.0,
            node=node,
        )
    made.add("m", lambda t: 9.0 if t % 60 == 0 else 1.0, node="high once a minute")
    made.add("m", lambda t: 1.0 if t == 1740 else 9.0, node="low for one scrape")
    made.add("m", lambda t: None if t == 1740 else 9.0, node="gone for one scrape")
    made.add("m", lambda t: float("nan") if t == 1740 else 9.0, node="no number for one scrape")
    return made


@pytest.fixture(scope="module")
def metrics(history: History, tmp_path_factory, private_processes) -> Iterator[PrometheusMetrics]:
    folder: Path = tmp_path_factory.mktemp("holds")
    with PrivatePrometheus(folder, private_processes, remote_write=True) as server:
        history.write(server.url)
        with PrometheusMetrics(server.url) as made:
            yield made


@pytest.mark.parametrize("before_s", [0.0, 0.3, 0.5, 1.0, 7.0, 14.999, 15.0, 31.4, 60.0, 75.0])
def test_in_one_pass_it_is_what_the_text_says(
    metrics: PrometheusMetrics, history: History, before_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranges: list[QueryResult | None] = []
    decode = adapter.decode_held

    def counted(body: bytearray, form: Mapping[str, str]) -> QueryResult | None:
        ranges.append(decode(body, form))
        return ranges[-1]

    monkeypatch.setattr(adapter, "decode_held", counted)
    at = datetime.fromtimestamp(history.end, UTC) - timedelta(seconds=before_s)
    query = signal_query(_rule(), POLICY.names, most_gpus=8)
    assert isinstance(query, Held)
    told = _by_node(metrics.query(query, at=at))
    assert len(ranges) == 1
    assert ranges[0] is not None  # so it was asked, and taken
    assert told == _by_node(metrics.query(str(query), at=at))
    assert told == pytest.approx(_directly(history, query, at))
    assert "for long" in told


def test_now_and_at_each_minute_of_it(metrics: PrometheusMetrics, history: History) -> None:
    at = datetime.fromtimestamp(history.end, UTC)
    told = _by_node(metrics.query(signal_query(_rule(), POLICY.names, most_gpus=8), at=at))
    assert told == pytest.approx(
        {"for long": 9.18, "just long enough": 9.18, "high once a minute": 9.0}
    )


def _by_node(result: QueryResult) -> dict[str, float]:
    return {s.labels["node"]: s.value for s in result.samples}


def _directly(history: History, query: str, at: datetime) -> dict[str, float]:
    store = Store()
    for labels, value in history.series:
        written = history.written(labels, value)
        store.add(labels, written.times, written.values)
    vector = Evaluator(store).vector(
        parse(query), np.array([round(at.timestamp() * 1000)], np.int64)
    )
    return {dict(e.labels)["node"]: float(e.values[0]) for e in vector if e.there[0]}
