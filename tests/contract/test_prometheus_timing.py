"""hold, also_window, clear_threshold and peers on a real Prometheus."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.model import Observation
from breakfix.observe import observe
from breakfix.policy import SignalRule
from dev.stack.processes import Processes
from dev.stack.prometheus import PrivatePrometheus
from tests.contract.prometheus_history import History, Value
from tests.fakes_cluster import FakeCluster
from tests.observations import POLICY

SELECTOR = "nvidia.com/gpu.present=true"
END = datetime.now(UTC).timestamp() // 60 * 60 - 60
LENGTH_S = 1800.0
_NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, private_processes: Processes) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("prometheus") / "data"
    with PrivatePrometheus(folder, private_processes, remote_write=True) as prometheus:
        yield prometheus.url


def rule(**changes: Any) -> SignalRule:
    return SignalRule.model_validate(
        {
            "name": "load",
            "query": "max by ($node, $gpu) (max_over_time(M[$window]))",
            "coverage": "$seen(M)",
            "window": "1m",
            "threshold": 10.0,
            "weight": 0.5,
            "group": "load",
            "mode": "corroborate",
            "kind": "state",
            "failure_class": "thermal",
            "text": "load {value}",
            "source": "ours",
            **changes,
        }
    )


def see(url: str, signal: SignalRule, *values: Value, every_s: float = 15.0) -> Observation:
    """What the rule says at the end of histories, one node for each."""
    history = History(end=END, length_s=LENGTH_S, every_s=every_s)
    cluster = FakeCluster()
    metric = f"M{next(_NUMBERS)}"
    for i, value in enumerate(values):
        cluster.add_node(f"n{i}", sku="H100", pool="train")
        history.add(metric, value, Hostname=f"n{i}", UUID=f"GPU-{i}")
    history.write(url)
    named = signal.model_copy(
        update={
            "query": signal.query.replace("M[", f"{metric}["),
            "coverage": f"$seen({metric})",
        }
    )
    policy = POLICY.model_copy(update={"signals": (named,), "facts": {}})
    with PrometheusMetrics(url) as metrics:
        at = datetime.fromtimestamp(END, UTC)
        seen = observe(metrics, cluster, policy, at=at, gpu_node_selector=SELECTOR)
    assert {n: c.error for n, c in seen.coverage.items() if c.error} == {}
    return seen


def last(seconds: float, then: float, before: float = 0.0) -> Value:
    """`before` until `seconds` before the end, then `then`."""
    return lambda t: then if t > LENGTH_S - seconds else before


def pulse(start_ago: float, length: float, high: float, low: float) -> Value:
    return lambda t: high if 0 <= t - (LENGTH_S - start_ago) < length else low


@pytest.mark.parametrize(
    ("hold", "high_for_s", "speaks"),
    [
        pytest.param("0s", 20.0, True, id="without a hold one sample is enough"),
        pytest.param("1m", 45.0, False, id="too short"),
        pytest.param("1m", 80.0, True, id="for longer than the hold"),
        pytest.param("4m", 200.0, False, id="for three minutes of four"),
        pytest.param("4m", 290.0, True, id="for more than four"),
    ],
)
def test_a_hold_wants_it_so_for_that_long(
    url: str, hold: str, high_for_s: float, speaks: bool
) -> None:
    query = "max by ($node, $gpu) (last_over_time(M[$window]))"
    seen = see(url, rule(hold=hold, query=query), last(high_for_s, 11.0))
    assert bool(seen.readings) is speaks


def test_a_hold_is_broken_by_a_healthy_minute_between(url: str) -> None:
    def dip(t: float) -> float:
        return 5.0 if 60 <= LENGTH_S - t <= 140 else 11.0

    query = "max by ($node, $gpu) (last_over_time(M[$window]))"
    assert not see(url, rule(hold="4m", query=query), dip).readings


@pytest.mark.parametrize("every_s", [15.0, 60.0])
def test_one_lying_scrape_never_holds(url: str, every_s: float) -> None:
    query = "max by ($node, $gpu) (last_over_time(M[$window]))"
    lie = last(every_s - 1, 99.0)
    assert see(url, rule(query=query), lie, every_s=every_s).readings
    assert not see(url, rule(query=query, hold="1m"), lie, every_s=every_s).readings


def test_both_windows_must_agree(url: str) -> None:
    average = "max by ($node, $gpu) (avg_over_time(M[$window]))"
    burst, steady = last(120, 20.0), last(900, 20.0)
    both = rule(query=average, also_window="10m")
    assert {r.node for r in see(url, rule(query=average), burst, steady).readings} == {"n0", "n1"}
    assert {r.node for r in see(url, both, burst, steady).readings} == {"n1"}


@pytest.mark.parametrize(
    ("history", "speaks"),
    [
        pytest.param(pulse(300, 120, 11.0, 9.0), True, id="spoke, and is not clear yet"),
        pytest.param(pulse(300, 120, 11.0, 7.0), False, id="spoke, and is clear"),
        pytest.param(pulse(1500, 120, 11.0, 9.0), False, id="spoke too long ago"),
        pytest.param(last(1800, 9.0), False, id="never spoke"),
        pytest.param(last(30, 11.0), True, id="speaks now"),
    ],
)
def test_what_spoke_speaks_until_it_is_clear(url: str, history: Value, speaks: bool) -> None:
    seen = see(url, rule(clear_threshold=8.0), history)
    assert bool(seen.readings) is speaks


def test_what_did_not_hold_does_not_linger(url: str) -> None:
    held = rule(
        query="max by ($node, $gpu) (last_over_time(M[$window]))", hold="2m", clear_threshold=8.0
    )
    assert not see(url, held, pulse(300, 30, 11.0, 9.0)).readings
    assert see(url, held, pulse(400, 250, 11.0, 9.0)).readings


def test_a_node_is_compared_with_its_peers(url: str) -> None:
    slow = rule(op="<", threshold=0.9, query="max by ($node, $gpu) (avg_over_time(M[$window]))",
                window="5m", peers={"floor": 1.0})  # fmt: skip
    seen = see(url, slow, *[lambda _t, v=v: v for v in (100.0, 101.0, 99.0, 100.0, 50.0)])
    assert [(r.node, r.value) for r in seen.readings] == [("n4", 0.5)]
    assert len(seen.coverage["load"].nodes_seen) == 5


def test_a_gpu_that_fell_silent_does_not_make_its_node_unseen(url: str) -> None:
    """Where no staleness marker is written, its last sample is served for five minutes more."""
    history = History(end=END, length_s=LENGTH_S)
    cluster = FakeCluster()
    for node in ("n0", "n1"):
        cluster.add_node(node)
        quiet = History(end=END - 250.0, length_s=LENGTH_S - 250.0)
        quiet.add("SILENT", 1.0, Hostname=node, UUID=f"GPU-{node}-0")
        quiet.write(url)
    history.add("SILENT", 1.0, Hostname="n0", UUID="GPU-n0-1")
    history.write(url)
    signal = rule(query="max by ($node, $gpu) (SILENT)", coverage="$seen(SILENT)")
    policy = POLICY.model_copy(update={"signals": (signal,), "facts": {}})
    with PrometheusMetrics(url) as metrics:
        at = datetime.fromtimestamp(END, UTC)
        seen = observe(metrics, cluster, policy, at=at, gpu_node_selector=SELECTOR)
    assert seen.coverage["load"].nodes_seen == {"n0"}
