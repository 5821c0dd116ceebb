"""From answers of Prometheus to readings and coverage: which series are believed, and where."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.model import Condition, Observation
from breakfix.observe import observe
from breakfix.observe.coverage import with_gpu_telemetry
from breakfix.observe.expected import expected_gpus
from breakfix.observe.floors import MOST_BOOTS
from breakfix.observe.promql import FEW, REST, fact_query, since_query
from breakfix.policy import parse_policy
from breakfix.ports import QueryResult
from breakfix.wiring import default_policy_text
from tests.fakes_cluster import FakeCluster, make_node
from tests.fakes_metrics import FakeMetrics, samples
from tests.observations import LONG_AGO, NOW, POLICY

UUID = "GPU-aaaa"
FIVE_MINUTES = timedelta(minutes=5)
DCGM = {"Hostname": "gpu-1", "instance": "10.0.0.7:9400", "UUID": UUID, "gpu": "0"}


def cluster(*names: str, **changes: object) -> FakeCluster:
    made = FakeCluster()
    for name in names or ("gpu-1", "gpu-2"):
        conditions = (Condition("Ready", "True", since=LONG_AGO),)
        made.add_node(name, **{"conditions": conditions, **changes})
    made.add_node("web-1", labels={})
    return made


def see(metrics: FakeMetrics, nodes: FakeCluster | None = None, **how: object) -> Observation:
    options = {"at": NOW, "gpu_node_selector": "nvidia.com/gpu.present=true", **how}
    return observe(metrics, nodes or cluster(), POLICY, **options)


def dbe(*pairs: tuple[Mapping[str, str], float]) -> FakeMetrics:
    metrics = FakeMetrics()
    metrics.say(POLICY, "ecc_dbe", samples(*pairs))
    return metrics


@pytest.mark.parametrize(
    ("labels", "node", "gpu"),
    [
        pytest.param({"Hostname": "gpu-1", "UUID": UUID}, "gpu-1", UUID, id="dcgm-exporter so far"),
        pytest.param({"hostname": "gpu-1", "UUID": UUID}, "gpu-1", UUID, id="after its renaming"),
        pytest.param(
            {"node": "gpu-1", "Hostname": "dcgm-x7k", "uuid": UUID}, "gpu-1", UUID, id="pod"
        ),
        pytest.param({"kubernetes_node": "gpu-1", "gpu": "3"}, "gpu-1", "3", id="an older label"),
        pytest.param({"instance": "gpu-1:9400", "gpu": "3"}, "gpu-1", "3", id="the target's host"),
        pytest.param({"instance": "gpu-1", "gpu": "3"}, "gpu-1", "3", id="a target without port"),
        pytest.param(
            {"Hostname": "gpu-1", "node": "gpu-1", "UUID": UUID}, "gpu-1", UUID, id="twice"
        ),
        pytest.param(
            {"Hostname": "gpu-1", "gpu_uuid": UUID, "gpu": "0"},
            "gpu-1",
            UUID,
            id="an NVLink series",
        ),
    ],
)
def test_labels_name_the_node_and_the_gpu(labels: dict[str, str], node: str, gpu: str) -> None:
    (found,) = see(dbe((labels, 2.0))).readings
    assert (found.node, found.gpu, found.value) == (node, gpu, 2.0)


@pytest.mark.parametrize(
    "labels",
    [
        pytest.param({"Hostname": "nowhere"}, id="an unknown name"),
        pytest.param({}, id="no label"),
        pytest.param({"Hostname": "web-1"}, id="a node without GPUs"),
        pytest.param({"instance": "gpu-1:9400:1"}, id="a name within another"),
        pytest.param({"Hostname": "gpu-1 "}, id="a name with a blank"),
    ],
)
def test_series_of_other_machines_are_not_used(labels: dict[str, str]) -> None:
    assert see(dbe((labels, 2.0))).readings == ()


def test_series_that_name_two_nodes_are_not_used_and_leave_both_unknown() -> None:
    metrics = dbe(({"Hostname": "gpu-1", "node": "gpu-2", "UUID": UUID}, 2.0))
    age = [({"Hostname": n}, 5.0) for n in ("gpu-1", "gpu-2")]
    metrics.cover(POLICY, "ecc_dbe", samples(*age))
    seen = see(metrics)
    assert seen.readings == ()
    assert seen.coverage["ecc_dbe"].nodes_seen == frozenset()
    assert any("ecc_dbe" in w and "gpu-1, gpu-2" in w for w in seen.warnings)


def test_a_gpu_that_two_nodes_claim_is_not_used() -> None:
    metrics = dbe(({**DCGM}, 2.0), ({**DCGM, "Hostname": "gpu-2"}, 2.0))
    assert see(metrics).readings == ()


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="not a number"),
        pytest.param(math.inf, id="infinite"),
        pytest.param(-math.inf, id="infinite, below zero"),
        pytest.param(2.0**62, id="near the largest 64-bit number"),
        pytest.param(9223372036854775794.0, id="the blank of a 64-bit field"),
        pytest.param(2147483632.0, id="the blank of a 32-bit field"),
        pytest.param(2147483635.0, id="not permitted, of a 32-bit field"),
        pytest.param(140737488355328.0, id="the blank of a floating-point field"),
        pytest.param(140737488355330.0, id="not supported, of a floating-point field"),
    ],
)
def test_what_is_no_measurement_is_not_reported(value: float) -> None:
    assert see(dbe((DCGM, value))).readings == ()


def test_a_blank_does_not_hide_what_a_twin_measured() -> None:
    metrics = dbe((DCGM, 3.0), ({**DCGM, "job": "twin"}, 2147483632.0))
    assert [r.value for r in see(metrics).readings] == [3.0]


@pytest.mark.parametrize("value", [2147483631.0, 2147483636.0, 140737488355332.0])
def test_a_large_number_beside_the_blanks_is_a_measurement(value: float) -> None:
    assert [r.value for r in see(dbe((DCGM, value))).readings] == [value]


def test_the_largest_of_duplicates_counts() -> None:
    metrics = dbe((DCGM, 2.0), ({**DCGM, "job": "twin"}, 3.0))
    assert [r.value for r in see(metrics).readings] == [3.0]


def test_values_within_the_threshold_do_not_speak_whatever_the_server_says() -> None:
    assert see(dbe((DCGM, 0.0))).readings == ()


def test_a_count_is_compared_with_what_the_node_should_have() -> None:
    metrics = FakeMetrics()
    counts = [({"Hostname": "gpu-1"}, 7.0), ({"Hostname": "gpu-2"}, 8.0)]
    metrics.say(POLICY, "gpu_count_short", samples(*counts))
    assert [(r.node, r.value) for r in see(metrics).readings] == [("gpu-1", 1.0)]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        pytest.param({"gpus_capacity": 8}, 1.0, id="its capacity"),
        pytest.param(
            {
                "gpus_capacity": 7,
                "labels": {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": "8"},
            },
            1.0,
            id="what was counted before the plugin restarted",
        ),
        pytest.param(
            {
                "gpus_capacity": 8,
                "labels": {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": "10^9"},
            },
            1.0,
            id="no label that is no number",
        ),
    ],
)
def test_what_a_node_should_have(changes: dict[str, object], expected: float) -> None:
    metrics = FakeMetrics()
    metrics.say(POLICY, "gpu_count_short", samples(({"Hostname": "gpu-1"}, 7.0)))
    found = see(metrics, cluster("gpu-1", **changes)).readings
    assert [r.value for r in found if r.signal == "gpu_count_short"] == [expected]


def test_the_policy_may_say_how_many_gpus_a_sku_has() -> None:
    policy = parse_policy(default_policy_text(), "expected_gpus: {H100: 4}")
    metrics = FakeMetrics()
    metrics.say(policy, "gpu_count_short", samples(({"Hostname": "gpu-1"}, 3.0)), most_gpus=4)
    seen = observe(metrics, cluster("gpu-1"), policy, at=NOW, gpu_node_selector="")
    assert [(r.signal, r.value) for r in seen.readings] == [("gpu_count_short", 1.0)]


def fleet_of(*gpus: int, **changes: object) -> FakeCluster:
    """Nodes gpu-1, gpu-2, ... that show so many GPUs, in capacity, label and allocatable."""
    made = FakeCluster()
    for nth, count in enumerate(gpus, 1):
        labels = {"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": str(count)}
        how = {"gpus_capacity": count, "gpus_allocatable": count, "labels": labels, **changes}
        made.add_node(f"gpu-{nth}", **how)
    return made


@pytest.mark.parametrize(
    ("nodes", "missing"),
    [
        pytest.param(fleet_of(7, 8, 8), {"gpu-1": 1.0}, id="it booted without one"),
        pytest.param(fleet_of(0, 8, 8), {"gpu-1": 8.0}, id="it booted without any"),
        pytest.param(fleet_of(7, 6, 8, 8), {"gpu-1": 1.0, "gpu-2": 2.0}, id="half have more"),
        pytest.param(fleet_of(7, 8), {}, id="one other is no custom"),
        pytest.param(fleet_of(4, 4, 4, 8, 8), {}, id="most are smaller"),
        pytest.param(fleet_of(1, 2, 4, 8, 8), {}, id="a SKU of many sizes"),
        pytest.param(fleet_of(7, 8, 8, sku=""), {}, id="nobody knows the SKU"),
    ],
)
def test_a_node_that_forgot_a_gpu_is_compared_with_its_like(
    nodes: FakeCluster, missing: dict[str, float]
) -> None:
    seen = see(FakeMetrics(), nodes)
    assert {r.node: r.value for r in seen.readings} == missing
    assert {r.signal for r in seen.readings} <= {"gpus_unlike_peers"}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"sku": "A100"}, id="another SKU"),
        pytest.param({"pool": "dev"}, id="another pool"),
        pytest.param(
            {
                "labels": {
                    "nvidia.com/gpu.present": "true",
                    "node.kubernetes.io/instance-type": "small",
                }
            },
            id="another instance type",
        ),
    ],
)
def test_nodes_that_are_not_alike_are_not_compared(changes: dict[str, object]) -> None:
    nodes = FakeCluster()
    nodes.add_node("gpu-1", gpus_capacity=1, gpus_allocatable=1, **changes)
    for name in ("gpu-2", "gpu-3"):
        nodes.add_node(name)
    assert see(FakeMetrics(), nodes).readings == ()


def test_gpus_split_by_mig_are_not_gone() -> None:
    nodes = fleet_of(8, 8, 8)
    nodes.add_node(
        "gpu-4",
        gpus_capacity=6,  # GPUs split under the mixed strategy are resources of another name
        gpus_allocatable=6,
        labels={"nvidia.com/gpu.present": "true", "nvidia.com/gpu.count": "8"},
    )
    assert {r.signal for r in see(FakeMetrics(), nodes).readings} == {"kube_gpus_short"}


def test_a_sku_that_the_policy_names_is_not_compared() -> None:
    policy = parse_policy(default_policy_text(), "expected_gpus: {H100: 7}")
    seen = observe(FakeMetrics(), fleet_of(7, 8, 8), policy, at=NOW, gpu_node_selector="")
    assert seen.readings == ()


@pytest.mark.parametrize(
    ("sku", "peers", "expected"),
    [
        pytest.param("H100", 2, 8, id="its like have more"),
        pytest.param("H100", 0, 7, id="nobody is like it"),
        pytest.param("B200", 2, 4, id="the policy has the last word"),
    ],
)
def test_expected_gpus_heeds_the_peers_it_is_given(sku: str, peers: int, expected: int) -> None:
    policy = parse_policy(default_policy_text(), "expected_gpus: {B200: 4}")
    short = make_node("gpu-1", sku=sku, gpus_capacity=7)
    others = [make_node(f"gpu-{2 + i}", sku=sku) for i in range(peers)]
    assert expected_gpus(short, policy, peers=[short, *others]) == expected


# ------------------------------------------------------------------ coverage


def test_coverage_is_who_reports_freshly() -> None:
    metrics = FakeMetrics()
    ages = [({"Hostname": "gpu-1"}, 12.0), ({"Hostname": "gpu-2"}, 200.0), ({"Hostname": "x"}, 1.0)]
    metrics.cover(POLICY, "ecc_dbe", samples(*ages))
    seen = see(metrics)
    cover = seen.coverage["ecc_dbe"]
    assert (cover.nodes_seen, cover.oldest_age_s, cover.share) == ({"gpu-1"}, 12.0, 0.5)
    assert any("1 series name no node" in w for w in seen.warnings)


def test_samples_of_the_future_are_not_fresh() -> None:
    metrics = FakeMetrics()
    metrics.cover(POLICY, "ecc_dbe", samples(({"Hostname": "gpu-1"}, -900.0)))
    assert see(metrics).coverage["ecc_dbe"].nodes_seen == frozenset()


def test_a_reading_carries_the_age_of_its_nodes_samples() -> None:
    metrics = dbe((DCGM, 2.0))
    metrics.cover(POLICY, "ecc_dbe", samples(({"Hostname": "gpu-1"}, 42.0)))
    assert see(metrics).readings[0].age_s == 42.0


@pytest.mark.parametrize("broken", ["say", "cover"])
def test_a_query_that_fails_leaves_its_signal_unseen(broken: str) -> None:
    metrics = FakeMetrics()
    metrics.cover(POLICY, "ecc_dbe", samples(({"Hostname": "gpu-1"}, 1.0)))
    getattr(metrics, broken)(POLICY, "ecc_dbe", "Prometheus is busy")
    cover = see(metrics).coverage["ecc_dbe"]
    assert (cover.error, cover.nodes_seen) == ("Prometheus is busy", frozenset())


def test_a_partial_answer_is_believed_for_what_it_says_and_not_for_what_it_lacks() -> None:
    metrics = FakeMetrics()
    found = samples((DCGM, 2.0)).samples
    metrics.say(POLICY, "ecc_dbe", QueryResult(found, ("store 10.0.0.9 unavailable",)))
    metrics.cover(POLICY, "ecc_dbe", samples(({"Hostname": "gpu-2"}, 1.0)))
    seen = see(metrics)
    assert [r.node for r in seen.readings] == ["gpu-1"]
    assert seen.coverage["ecc_dbe"].nodes_seen == frozenset()
    assert "store 10.0.0.9" in seen.coverage["ecc_dbe"].error


def test_an_annotation_is_no_partial_answer() -> None:
    metrics = FakeMetrics()
    note = ("PromQL info: metric might not be a counter",)
    metrics.cover(POLICY, "ecc_dbe", QueryResult(samples((DCGM, 1.0)).samples, note))
    assert see(metrics).coverage["ecc_dbe"].error == ""


def test_equal_queries_are_asked_once() -> None:
    metrics = FakeMetrics()
    see(metrics)
    assert len(metrics.asked) == len(set(metrics.asked))
    assert len(metrics.asked) < 2 * len(POLICY.signals)


# ------------------------------------------------------------------ after a repair


def repaired(minutes: float) -> dict[str, datetime]:
    return {"gpu-1": NOW - timedelta(minutes=minutes)}


def xids(*codes: str) -> QueryResult:
    return samples(*(({**DCGM, "err_code": c}, float(c)) for c in codes))


RULE = next(s for s in POLICY.signals if s.name == "xid_last")


def test_events_of_a_repaired_node_are_read_again_since_the_repair() -> None:
    metrics = FakeMetrics()
    metrics.say(POLICY, "xid_last", xids("79", "48"))
    metrics.answers[since_query(RULE, POLICY.names, 600)] = xids("48")
    seen = see(metrics, floors=repaired(10))
    assert [r.key for r in seen.readings] == ["48"]


def test_a_repair_outside_the_window_changes_nothing() -> None:
    metrics = FakeMetrics()
    metrics.say(POLICY, "xid_last", xids("79"))
    seen = see(metrics, floors=repaired(60 * 24))
    assert [r.key for r in seen.readings] == ["79"]


def test_other_nodes_keep_their_events() -> None:
    metrics = FakeMetrics()
    two = [({**DCGM, "err_code": "79"}, 79.0)]
    two.append(({"Hostname": "gpu-2", "UUID": "GPU-bbbb", "err_code": "79"}, 79.0))
    metrics.say(POLICY, "xid_last", samples(*two))
    assert [r.node for r in see(metrics, floors=repaired(10)).readings] == ["gpu-2"]


def test_states_are_not_read_again() -> None:
    seen = see(dbe((DCGM, 2.0)), floors=repaired(1))
    assert [r.signal for r in seen.readings] == ["ecc_dbe"]


def test_a_node_without_events_costs_no_second_query() -> None:
    metrics = FakeMetrics()
    see(metrics, floors=repaired(10))
    assert since_query(RULE, POLICY.names, 600) not in metrics.asked


def test_evidence_since_a_repair_that_cannot_be_read_neither_condemns_nor_clears() -> None:
    metrics = FakeMetrics()
    metrics.say(POLICY, "xid_last", xids("79"))
    ages = [({"Hostname": n}, 5.0) for n in ("gpu-1", "gpu-2")]
    metrics.cover(POLICY, "xid_last", samples(*ages))
    metrics.answers[since_query(RULE, POLICY.names, 600)] = "Prometheus is busy"
    seen = see(metrics, floors=repaired(10))
    assert seen.readings == ()
    assert seen.coverage["xid_last"].nodes_seen == {"gpu-2"}
    assert any("gpu-1" in w for w in seen.warnings)


# ------------------------------------------------------------------ after a boot


def booted(metrics: FakeMetrics, **minutes_ago: float) -> FakeMetrics:
    """The nodes (with _ for -) booted so many minutes ago."""
    boots = [
        ({"nodename": n.replace("_", "-")}, NOW.timestamp() - 60 * m)
        for n, m in minutes_ago.items()
    ]
    metrics.answers[fact_query(POLICY.facts["boot_time"], POLICY.names)] = samples(*boots)
    return metrics


@pytest.mark.parametrize(
    ("boot", "floors", "since"),
    [
        pytest.param(10, {}, 600, id="a boot within the window"),
        pytest.param(10, repaired(60), 600, id="a boot after the repair"),
        pytest.param(60, repaired(10), 600, id="a repair after the boot"),
        pytest.param(60 * 24, {}, None, id="a boot outside the window changes nothing"),
        pytest.param(-10, {}, None, id="a boot to come is a wrong clock"),
    ],
)
def test_events_are_read_again_since_the_newer_of_boot_and_floor(
    boot: float, floors: dict[str, datetime], since: int | None
) -> None:
    metrics = booted(FakeMetrics(), gpu_1=boot)
    metrics.say(POLICY, "xid_last", xids("79", "48"))
    metrics.answers[since_query(RULE, POLICY.names, since or 1)] = xids("48")
    seen = see(metrics, floors=floors)
    assert [r.key for r in seen.readings] == (["48"] if since else ["48", "79"])


def test_events_of_before_a_boot_go_and_leave_the_node_covered() -> None:
    metrics = booted(FakeMetrics(), gpu_1=10)
    metrics.say(POLICY, "xid_last", xids("79"))
    metrics.cover(POLICY, "xid_last", samples(({"Hostname": "gpu-1"}, 5.0)))
    seen = see(metrics)
    assert (seen.readings, seen.coverage["xid_last"].nodes_seen) == ((), {"gpu-1"})


def test_after_a_reboot_of_everything_only_the_newest_boots_are_read_again() -> None:
    names = [f"gpu-{i}" for i in range(MOST_BOOTS + 20)]  # gpu-0 booted last
    minutes = {n.replace("-", "_"): 1.0 + i for i, n in enumerate(names)}
    metrics = booted(FakeMetrics(), **minutes)
    found = [
        ({"Hostname": n, "UUID": f"GPU-{n}", "err_code": "79"}, 79.0) for n in [*names, "old-1"]
    ]
    metrics.say(POLICY, "xid_last", samples(*found))
    metrics.cover(POLICY, "xid_last", samples(*((labels, 5.0) for labels, _ in found)))
    for i in range(len(names)):
        metrics.answers[since_query(RULE, POLICY.names, 60.0 * (1 + i))] = samples(*found)
    seen = see(metrics, cluster(*names, "old-1"), floors={"old-1": NOW - FIVE_MINUTES})
    again = {*names[:MOST_BOOTS], "old-1"}
    assert {r.node for r in seen.readings} == again
    assert seen.coverage["xid_last"].nodes_seen == again
    asked = {since_query(RULE, POLICY.names, 60.0 * (1 + i)) for i in range(len(names))}
    assert len(asked & set(metrics.asked)) == MOST_BOOTS
    assert [w for w in seen.warnings if w.startswith("20 more nodes booted")]


# ------------------------------------------------------------------ Kubernetes, the past, hostility


def with_condition(kind: str, status: str, *, minutes: float) -> FakeCluster:
    condition = Condition(kind, status, since=NOW - timedelta(minutes=minutes))
    return cluster("gpu-1", conditions=(condition,))


@pytest.mark.parametrize(
    ("nodes", "speaks"),
    [
        pytest.param(with_condition("Ready", "False", minutes=6), {"not_ready"}, id="NotReady"),
        pytest.param(with_condition("Ready", "Unknown", minutes=6), {"not_ready"}, id="unknown"),
        pytest.param(
            with_condition("Ready", "False", minutes=4), set(), id="NotReady, not for long"
        ),
        pytest.param(with_condition("Ready", "True", minutes=6), set(), id="Ready"),
        pytest.param(
            with_condition("ReadonlyFilesystem", "True", minutes=0),
            {"npd_readonly_filesystem"},
            id="node-problem-detector, true is bad",
        ),
        pytest.param(
            with_condition("ReadonlyFilesystem", "False", minutes=60), set(), id="false is good"
        ),
        pytest.param(
            with_condition("AcceleratedHardwareReady", "False", minutes=11),
            {"eks_hardware"},
            id="EKS, false is bad",
        ),
        pytest.param(
            cluster("gpu-1", gpus_allocatable=7), {"kube_gpus_short"}, id="a GPU withheld"
        ),
    ],
)
def test_the_api_servers_objects_speak(nodes: FakeCluster, speaks: set[str]) -> None:
    assert {r.signal for r in see(FakeMetrics(), nodes).readings} == speaks


def test_a_condition_that_is_not_reported_is_not_covered() -> None:
    seen = see(FakeMetrics())
    assert seen.coverage["eks_hardware"].nodes_seen == frozenset()
    assert seen.coverage["not_ready"].nodes_seen == {"gpu-1", "gpu-2"}


def test_all_nodes_are_seen_and_gpu_nodes_are_judged() -> None:
    seen = see(FakeMetrics())
    assert [n.name for n in seen.nodes] == ["gpu-1", "gpu-2", "web-1"]
    assert [n.name for n in seen.judged] == ["gpu-1", "gpu-2"]


def test_the_past_says_so() -> None:
    assert any("of then" in w for w in see(FakeMetrics(), is_past=True).warnings)


def test_facts_come_from_labels_and_values() -> None:
    metrics = FakeMetrics()
    driver = fact_query(POLICY.facts["driver_version"], POLICY.names, gpus=FEW)
    boot = fact_query(POLICY.facts["boot_time"], POLICY.names)
    both = [({"Hostname": "gpu-1", "DCGM_FI_DRIVER_VERSION": v}, 50.0) for v in ("580", "595")]
    metrics.answers[driver] = samples(*both)
    metrics.answers[boot] = samples(({"nodename": "gpu-1"}, 1.7e9))
    assert see(metrics).facts == {
        "gpu-1": {"driver_version": "580,595", "boot_time": "1700000000.0"}
    }


def test_a_fact_that_two_gpus_do_not_tell_is_asked_of_the_others() -> None:
    """An exporter may name no GPU, or the first two may be gone; what is known stays as it was."""
    metrics = FakeMetrics()
    few, rest = (
        fact_query(POLICY.facts["driver_version"], POLICY.names, gpus=g) for g in (FEW, REST)
    )
    metrics.cover(POLICY, "xid_last", samples(*(({"node": n}, 5.0) for n in ("gpu-1", "gpu-2"))))
    of = [({"Hostname": n, "DCGM_FI_DRIVER_VERSION": v}, 50.0) for n, v in
          (("gpu-1", "580"), ("gpu-1", "595"), ("gpu-2", "595"))]  # fmt: skip
    metrics.answers |= {few: samples(of[0]), rest: samples(*of[1:])}
    told = {"gpu-1": {"driver_version": "580"}, "gpu-2": {"driver_version": "595"}}
    assert see(metrics).facts == told
    metrics.answers[rest] = "refused"
    assert see(metrics).facts == {"gpu-1": told["gpu-1"]}
    assert any("driver_version" in w for w in see(metrics).warnings)


def test_the_other_gpus_are_not_asked_for_a_fact_of_nodes_that_are_dark() -> None:
    metrics = FakeMetrics()
    few, rest = (
        fact_query(POLICY.facts["driver_version"], POLICY.names, gpus=g) for g in (FEW, REST)
    )
    metrics.cover(POLICY, "xid_last", samples(({"node": "gpu-1"}, 5.0)))
    metrics.answers[few] = samples(({"Hostname": "gpu-1", "DCGM_FI_DRIVER_VERSION": "580"}, 50.0))
    see(metrics)
    assert few in metrics.asked
    assert rest not in metrics.asked


def test_the_other_gpus_are_asked_for_a_fact_when_nobody_can_say_which_nodes_are_dark() -> None:
    """A store behind Prometheus is down: every answer is a partial one."""
    metrics = FakeMetrics(default=lambda _: QueryResult((), ("a store is down",)))
    rest = fact_query(POLICY.facts["driver_version"], POLICY.names, gpus=REST)
    told = samples(({"Hostname": "gpu-1", "DCGM_FI_DRIVER_VERSION": "595"}, 50.0)).samples
    metrics.answers[rest] = QueryResult(told, ("a store is down",))
    assert see(metrics).facts == {"gpu-1": {"driver_version": "595"}}


def test_a_policy_without_gpu_signals_does_not_call_every_node_dark() -> None:
    assert with_gpu_telemetry({}, POLICY.model_copy(update={"signals": ()})) is None


def test_a_fact_that_cannot_be_read_is_a_warning() -> None:
    metrics = FakeMetrics(default=lambda _: "refused")
    assert any("driver_version" in w for w in see(metrics).warnings)


LABELS = st.dictionaries(
    st.sampled_from([*POLICY.names.node, *POLICY.names.gpu, "err_code", "job"]),
    st.one_of(st.text(max_size=300), st.sampled_from(["gpu-1", "gpu-2", "web-1", "gpu-1:9400"])),
)


@given(st.lists(st.tuples(LABELS, st.floats()), max_size=6))
def test_hostile_series_stay_data(pairs: list[tuple[dict[str, str], float]]) -> None:
    metrics = FakeMetrics(default=lambda _: samples(*pairs))
    seen = see(metrics)
    for reading in seen.readings:
        assert reading.node in {"gpu-1", "gpu-2"}
        assert math.isfinite(reading.value)
        assert reading.key.isprintable()
        assert reading.gpu.isprintable()
        assert len(reading.key) <= 128


@given(st.permutations([(DCGM, 2.0), ({**DCGM, "job": "b"}, 3.0), ({"Hostname": "gpu-2"}, 1.0)]))
def test_the_order_of_series_does_not_matter(pairs: list[tuple[dict[str, str], float]]) -> None:
    assert [(r.node, r.value) for r in see(dbe(*pairs)).readings] == [
        ("gpu-1", 3.0),
        ("gpu-2", 1.0),
    ]


def test_the_age_of_a_gpu_signal_is_that_of_the_required_one_on_the_same_node() -> None:
    """One scrape brings both, so it is asked for once."""
    metrics = FakeMetrics()
    here, there = {"node": "gpu-1"}, {"node": "gpu-2"}
    metrics.cover(POLICY, "xid_last", samples((here, 7.0)))
    metrics.cover(POLICY, "ecc_dbe", samples((here, 0.0), (there, 0.0)))
    cover = see(metrics).coverage["ecc_dbe"]
    assert cover.oldest_age_s == 7.0
    assert cover.nodes_seen == {"gpu-1"}, "a node that the required signal does not see is silent"
    asked = [q for q in metrics.asked if "ECC_DBE" in q and "count by" in q]
    assert asked
    assert not [q for q in asked if "timestamp" in q]
