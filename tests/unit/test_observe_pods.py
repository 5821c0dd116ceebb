"""What pods tell of their node: only beside what the same workloads do elsewhere."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.model import Owner, Pod
from breakfix.observe.pods import (
    PodsOf,
    crash_looping,
    daemon_pods_down,
    evicted,
    failing_fast,
    stuck,
    waiting_reasons,
)
from tests.fakes_cluster import make_pod
from tests.observations import NOW

WINDOW_S = 900.0


def ago(seconds: float) -> datetime:
    return NOW - timedelta(seconds=seconds)


def pod(name: str, node: str, workload: str = "web", **changes: Any) -> Pod:
    owner = Owner("ReplicaSet", workload, f"uid-{workload}")
    return make_pod(name, node, **{"owners": (owner,), "gpus": 1, **changes})


def ended(seconds_ago: float, *, ran_s: float = 5.0, exit_code: int = 1) -> dict[str, Any]:
    return {
        "phase": "Failed",
        "is_ready": False,
        "run_s": ran_s,
        "ended_at": ago(seconds_ago),
        "exit_code": exit_code,
    }


def of(*pods: Pod, floors: dict[str, datetime] | None = None) -> PodsOf:
    return PodsOf(pods, NOW, WINDOW_S, floors or {})


def hole(**changes: Any) -> PodsOf:
    """One workload whose pod on gpu-1 has just died, while another lives on gpu-2."""
    return of(pod("a", "gpu-1", **{**ended(60), **changes}), pod("b", "gpu-2"))


def test_a_pod_that_dies_at_once_and_lives_elsewhere_counts() -> None:
    assert failing_fast(hole()) == {("gpu-1", ""): 1.0}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param(ended(60, ran_s=61.0), id="it ran for more than a minute"),
        pytest.param(ended(60, exit_code=0), id="it ended well"),
        pytest.param(ended(901), id="that was before the window"),
        pytest.param(ended(-60), id="that is to come"),
        pytest.param({"gpus": 0}, id="it has no GPU"),
        pytest.param({"owners": ()}, id="nobody owns it, so it lives nowhere else"),
        pytest.param({"run_s": None, "ended_at": None}, id="nobody knows how long it ran"),
    ],
)
def test_what_is_no_fast_failure(changes: dict[str, Any]) -> None:
    assert failing_fast(hole(**changes)) == {}


def test_a_pod_that_the_kubelet_refuses_its_devices_counts() -> None:
    refused = {"reason": "UnexpectedAdmissionError", "run_s": None, "changed_at": ago(60)}
    assert failing_fast(hole(ended_at=None, **refused)) == {("gpu-1", ""): 1.0}


def test_a_failure_of_before_the_nodes_floor_is_settled() -> None:
    seen = hole()
    assert failing_fast(of(*seen.pods, floors={"gpu-1": ago(30)})) == {}
    assert failing_fast(of(*seen.pods, floors={"gpu-1": ago(90)})) == {("gpu-1", ""): 1.0}


def test_a_workload_that_fails_on_more_nodes_than_it_lives_on_says_nothing() -> None:
    bad = [pod(f"bad-{n}", n, **ended(60)) for n in ("gpu-1", "gpu-2")]
    assert failing_fast(of(*bad, pod("good", "gpu-3"))) == {}
    assert failing_fast(of(*bad, pod("good", "gpu-3"), pod("well", "gpu-4"))) == {
        ("gpu-1", ""): 1.0,
        ("gpu-2", ""): 1.0,
    }


def test_ten_pods_of_one_workload_are_one_witness() -> None:
    bad = [pod(f"bad-{i}", "gpu-1", **ended(60)) for i in range(10)]
    assert failing_fast(of(*bad, pod("good", "gpu-2"))) == {("gpu-1", ""): 1.0}


def test_a_crash_loop_counts_where_the_workload_lives_elsewhere() -> None:
    looping = pod("a", "gpu-1", is_ready=False, waiting="CrashLoopBackOff")
    assert crash_looping(of(looping, pod("b", "gpu-2"))) == {("gpu-1", ""): 1.0}
    assert crash_looping(of(looping)) == {}


@pytest.mark.parametrize(
    ("changes", "counts"),
    [
        pytest.param({}, True, id="for longer than the window"),
        pytest.param({"changed_at": ago(600)}, False, id="for less"),
        pytest.param({"phase": "Running"}, False, id="it runs"),
        pytest.param({"is_terminating": True}, False, id="it is on its way out"),
        pytest.param({"node": ""}, False, id="it has no node yet"),
    ],
)
def test_a_pod_that_does_not_start(changes: dict[str, Any], counts: bool) -> None:
    waiting = {"phase": "Pending", "is_ready": False, "changed_at": ago(1000)}
    found = stuck(of(pod("a", **{"node": "gpu-1", **waiting, **changes}), pod("b", "gpu-2")))
    assert found == ({("gpu-1", ""): 1.0} if counts else {})


def test_evicted_pods_are_counted_by_node() -> None:
    gone = [pod(f"e{i}", "gpu-1", reason="Evicted", changed_at=ago(60)) for i in range(2)]
    old = pod("old", "gpu-1", reason="Evicted", changed_at=ago(1000))
    other = pod("other", "gpu-1", reason="NodeLost", changed_at=ago(60))
    assert evicted(of(*gone, old, other)) == {("gpu-1", ""): 2.0}


def daemon(node: str, *, is_ready: bool = True, since_s: float = 5000.0) -> Pod:
    owner = Owner("DaemonSet", "nvidia-device-plugin", "uid-ds")
    return make_pod(f"p-{node}", node, owners=(owner,), is_ready=is_ready, changed_at=ago(since_s))


def test_a_daemon_pod_that_is_down_here_alone_is_told_with_its_time() -> None:
    here = daemon("gpu-1", is_ready=False, since_s=1000)
    seen = of(here, daemon("gpu-2"), daemon("gpu-3"))
    assert daemon_pods_down(seen, "device-plugin") == {("gpu-1", "nvidia-device-plugin"): 1000.0}
    assert daemon_pods_down(seen, "dcgm") == {}


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([daemon("gpu-2")], id="too few others to tell"),
        pytest.param(
            [daemon(f"gpu-{i}", is_ready=False) for i in (2, 3, 4)]
            + [daemon("gpu-5"), daemon("gpu-6")],
            id="most are down, too",
        ),
    ],
)
def test_a_daemon_set_that_is_down_elsewhere_is_not_the_nodes_trouble(others: list[Pod]) -> None:
    here = daemon("gpu-1", is_ready=False, since_s=1000)
    assert daemon_pods_down(of(here, *others), "device-plugin") == {}


def test_a_new_daemon_pod_beside_the_old_one_is_well() -> None:
    old = daemon("gpu-1", is_ready=False, since_s=1000)
    pods = [old, daemon("gpu-1"), daemon("gpu-2"), daemon("gpu-3")]
    assert daemon_pods_down(of(*pods), "device-plugin") == {}


def test_why_gpu_pods_wait_is_counted_by_reason() -> None:
    message = (
        "0/12 nodes are available: 3 Insufficient nvidia.com/gpu, 9 node(s) had untolerated taint"
        " {nvidia.com/gpu: }. preemption: 0/12 nodes are available: 3 No preemption victims found."
    )
    pods = [pod(f"w{i}", "", phase="Pending", unschedulable=message) for i in range(2)]
    pods += [pod("cpu", "", phase="Pending", unschedulable=message, gpus=0)]
    pods += [pod("bound", "gpu-1", unschedulable=message)]
    assert waiting_reasons(pods) == {
        "Insufficient nvidia.com/gpu": 2,
        "node(s) had untolerated taint {nvidia.com/gpu: }": 2,
    }


def test_a_hostile_reason_stays_short_and_printable() -> None:
    (reason,) = waiting_reasons([pod("w", "", unschedulable="\x1b[31m" + "x" * 999)])
    assert reason.isprintable()
    assert len(reason) <= 120


@given(st.permutations([*hole().pods, pod("c", "gpu-3", "other", **ended(30)), pod("d", "gpu-1")]))
def test_the_order_of_pods_does_not_matter(pods: list[Pod]) -> None:
    assert failing_fast(of(*pods)) == {("gpu-1", ""): 1.0}
