"""Conditions and events of nodes as signals: polarity, windows, repetition, floors."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.errors import ClusterError
from breakfix.model import Condition, Event, Observation
from breakfix.observe import observe
from breakfix.observe.conditions import read_conditions
from breakfix.observe.node_events import count_events
from tests.fakes_cluster import FakeCluster, make_node
from tests.fakes_metrics import FakeMetrics
from tests.observations import LONG_AGO, NOW, POLICY

HOUR_S = 3600.0


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def oops(minutes: float, **changes: Any) -> Event:
    when = ago(minutes)
    about = {"node": "gpu-1", "reason": "KernelOops", "first_at": when, "last_at": when, **changes}
    return Event(**about)


def counted(*events: Event, floors: dict[str, datetime] | None = None) -> dict[Any, float]:
    found = count_events(
        "KernelOops|TaskHung", events, at=NOW, window_s=HOUR_S, floors=floors or {}
    )
    return dict(found)


@pytest.mark.parametrize(
    ("what", "status", "value"),
    [
        pytest.param("KernelDeadlock=True", "True", 300.0, id="true is the fault, and it is so"),
        pytest.param("KernelDeadlock=True", "False", None, id="true is the fault, and it is not"),
        pytest.param("KernelDeadlock=False", "False", 300.0, id="false is the fault"),
        pytest.param("KernelDeadlock!=True", "Unknown", 300.0, id="anything but true is"),
    ],
)
def test_each_condition_has_its_polarity(what: str, status: str, value: float | None) -> None:
    node = make_node("gpu-1", conditions=(Condition("KernelDeadlock", status, since=ago(5)),))
    values, seen = read_conditions(what, [node, make_node("gpu-2")], NOW)
    assert values == ({} if value is None else {("gpu-1", ""): value})
    assert seen == {"gpu-1"}


def test_of_several_conditions_each_is_a_key() -> None:
    conditions = (Condition("A", "True", since=ago(5)), Condition("B", "True"))
    values, _ = read_conditions("A|B=True", [make_node("gpu-1", conditions=conditions)], NOW)
    assert values == {("gpu-1", "A"): 300.0, ("gpu-1", "B"): 0.0}


@pytest.mark.parametrize(
    ("events", "count"),
    [
        pytest.param([oops(59)], 1, id="just inside the window"),
        pytest.param([oops(61)], None, id="just outside"),
        pytest.param([oops(-1)], None, id="to come"),
        pytest.param([oops(1, last_at=None)], None, id="without a time"),
        pytest.param([oops(1, reason="Rebooted")], None, id="of another reason"),
        pytest.param([oops(1, count=4)], 4, id="said four times"),
        pytest.param([oops(1), oops(1)], 1, id="the same twice is said once"),
        pytest.param([oops(1), oops(1, message="other")], 2, id="two things are two"),
        pytest.param(
            [oops(30, first_at=ago(90), count=60)], 30, id="said evenly, half of it in the window"
        ),
        pytest.param([oops(0, first_at=ago(600), count=2)], 1, id="at least the last one"),
    ],
)
def test_how_often_a_node_was_said_to_have_it(events: list[Event], count: int | None) -> None:
    assert counted(*events) == ({} if count is None else {("gpu-1", "KernelOops"): count})


def test_what_was_said_before_a_repair_is_settled() -> None:
    assert counted(oops(30), floors={"gpu-1": ago(20)}) == {}
    assert counted(oops(30), floors={"gpu-1": ago(40), "gpu-2": ago(1)}) != {}


@given(st.permutations([oops(1), oops(2, message="b"), oops(3, message="b", count=5), oops(4)]))
def test_the_order_of_events_does_not_matter(events: list[Event]) -> None:
    assert counted(*events) == {("gpu-1", "KernelOops"): 6}


def see(cluster: FakeCluster) -> Observation:
    return observe(FakeMetrics(), cluster, POLICY, at=NOW, gpu_node_selector="")


def fleet() -> FakeCluster:
    cluster = FakeCluster()
    cluster.add_node(conditions=(Condition("Ready", "True", since=LONG_AGO),))
    return cluster


def test_an_event_becomes_a_reading_and_everybody_is_covered() -> None:
    cluster = fleet()
    cluster.said = [oops(5), oops(5, node="nowhere")]
    seen = see(cluster)
    assert [(r.signal, r.node, r.key, r.value) for r in seen.readings] == [
        ("event_kernel", "gpu-1", "KernelOops", 1.0)
    ]
    assert seen.coverage["event_kernel"].nodes_seen == {"gpu-1"}


def test_events_that_cannot_be_listed_are_unknown_and_spoil_nothing_else() -> None:
    cluster = fleet()
    cluster.fail("node_events", ClusterError("forbidden"))
    seen = see(cluster)
    assert "forbidden" in seen.coverage["event_kernel"].error
    assert seen.coverage["event_kernel"].nodes_seen == frozenset()
    assert seen.coverage["not_ready"].error == ""


def test_why_gpu_pods_wait_is_in_the_observation() -> None:
    cluster = fleet()
    cluster.add_pod("w", node="", phase="Pending", gpus=8, unschedulable="0/1 nodes: no GPU")
    assert see(cluster).waiting == {"0/1 nodes: no GPU": 1}
