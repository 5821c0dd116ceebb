"""Many nodes in trouble together are one incident; few are single faults."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.model import (
    DISRUPTIVE,
    Action,
    FailureClass,
    Judgement,
    Node,
    NodeState,
    Reading,
    RefusalReason,
)
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from tests.observations import NOW, judged, reading, ready_node, record, xid

C = FailureClass


def fleet(racks: int = 4, per_rack: int = 8, **changes: object) -> list[Node]:
    """Racks r0, r1, ... of nodes r0n0, ...; one pool and SKU."""
    return [
        ready_node(f"r{r}n{n}", rack=f"r{r}", **changes)
        for r in range(racks)
        for n in range(per_rack)
    ]


def acted_on(made) -> set[str]:
    return {v.node for v in made.verdicts if v.recommended_action in DISRUPTIVE}


def test_a_rack_that_fails_together_is_one_incident_and_nothing_is_touched() -> None:
    broken = [f"r1n{n}" for n in range(4)]
    made = judged(*(xid(79, node=n) for n in broken), nodes=fleet())
    assert acted_on(made) == set()
    (incident,) = made.incidents
    assert (incident.scope, incident.nodes) == ("rack=r1", tuple(broken))
    for node in broken:
        verdict = made.verdict(node)
        assert verdict.recommended_action is Action.REVIEW
        assert verdict.refusal is RefusalReason.COMMON_CAUSE
        assert verdict.confidence > 0.9


def test_unlike_faults_in_one_rack_count_together() -> None:
    codes = {"r1n0": 79, "r1n1": 48, "r1n2": 95}
    made = judged(*(xid(c, node=n) for n, c in codes.items()), nodes=fleet())
    assert acted_on(made) == set()


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(["r0n0"], id="one node"),
        pytest.param(["r0n0", "r0n1"], id="two nodes of a rack"),
        pytest.param(["r0n0", "r1n0", "r2n0"], id="three nodes of three racks"),
    ],
)
def test_single_faults_are_not_swallowed(broken: list[str]) -> None:
    made = judged(*(xid(79, node=n) for n in broken), nodes=fleet())
    assert acted_on(made) == set(broken)
    assert made.incidents == ()


def test_a_tiny_rack_does_not_swallow_its_faults() -> None:
    made = judged(xid(79, node="r0n0"), xid(79, node="r0n1"), nodes=fleet(racks=1, per_rack=2))
    assert len(acted_on(made)) == 2


def test_unlike_faults_over_the_fleet_are_single_faults() -> None:
    nodes = [ready_node(f"n{i}", rack=f"r{i}", pool=f"p{i}", sku=f"s{i}") for i in range(6)]
    codes = {"n0": 79, "n1": 48, "n2": 64, "n3": 79}
    made = judged(*(xid(c, node=n) for n, c in codes.items()), nodes=nodes)
    assert acted_on(made) == set(codes)


def test_the_same_fault_over_the_fleet_is_an_incident() -> None:
    nodes = [ready_node(f"n{i}", rack=f"r{i}", pool=f"p{i}", sku=f"s{i}") for i in range(6)]
    made = judged(*(xid(79, node=f"n{i}") for i in range(4)), nodes=nodes)
    assert acted_on(made) == set()
    assert [i.scope for i in made.incidents] == ["fleet"]


def test_nodes_without_a_label_share_no_scope() -> None:
    nodes = [ready_node(f"n{i}", rack="", pool="", sku="") for i in range(40)]
    made = judged(*(xid(79, node=f"n{i}") for i in range(4)), nodes=nodes)
    assert len(acted_on(made)) == 4


def test_suspects_of_one_class_are_an_incident_before_any_of_them_may_act() -> None:
    made = judged(*(xid(119, node=f"r2n{n}") for n in range(3)), nodes=fleet())
    assert [i.scope for i in made.incidents] == ["rack=r2"]


def test_what_a_crowd_shows_is_surer_than_what_one_node_shows() -> None:
    made = judged(*(xid(119, node=f"r2n{n}") for n in range(3)), nodes=fleet())
    assert made.verdict("r2n0").confidence == 0.995
    one = judged(xid(119, node="r2n0"), nodes=fleet())
    assert one.verdict("r2n0").confidence == pytest.approx(0.7)


def test_a_bad_driver_explains_its_rack() -> None:
    new = {f"r3n{n}": {"driver_version": "595.91"} for n in range(8)}
    facts = {n.name: {"driver_version": "580.95"} for n in fleet()} | new
    made = judged(*(xid(119, node=n) for n in new), nodes=fleet(), facts=facts)
    assert {made.verdict(n).failure_class for n in new} == {C.CHANGE_INDUCED}
    (incident,) = made.incidents
    assert incident.failure_classes == (C.GSP,)
    assert "driver_version 595.91" in incident.reason
    assert "580.95" in incident.reason


def test_a_bad_driver_is_found_across_racks() -> None:
    new = {f"r{r}n0": {"driver_version": "595.91"} for r in range(4)}
    facts = {n.name: {"driver_version": "580.95"} for n in fleet()} | new
    made = judged(*(xid(79, node=n) for n in new), nodes=fleet(), facts=facts)
    assert acted_on(made) == set()
    assert [i.scope for i in made.incidents] == ["driver_version=595.91"]


def test_a_driver_that_all_nodes_have_explains_nothing() -> None:
    facts = {n.name: {"driver_version": "580.95"} for n in fleet()}
    broken = ["r0n0", "r1n0", "r2n0"]
    made = judged(*(xid(79, node=n) for n in broken), nodes=fleet(), facts=facts)
    assert acted_on(made) == set(broken)


def test_nodes_taken_out_within_the_window_count() -> None:
    records = {n: record(NodeState.REPAIRING, n) for n in ("r0n0", "r0n1")}
    made = judged(xid(79, node="r0n2"), nodes=fleet(racks=2, per_rack=6), records=records)
    assert acted_on(made) == set()
    assert made.incidents[0].nodes == ("r0n0", "r0n1", "r0n2")


@pytest.mark.parametrize(
    ("minutes", "is_incident"),
    [
        pytest.param(20, True, id="20 minutes ago"),
        pytest.param(45, False, id="45 minutes ago"),
        pytest.param(180, False, id="3 hours ago"),
    ],
)
def test_nodes_taken_out_count_for_half_an_hour(minutes: int, is_incident: bool) -> None:
    since = NOW - timedelta(minutes=minutes)
    records = {n: replace(record(NodeState.REPAIRING, n), since=since) for n in ("r0n0", "r0n1")}
    made = judged(xid(79, node="r0n2"), nodes=fleet(racks=2, per_rack=6), records=records)
    assert bool(made.incidents) is is_incident
    assert acted_on(made) == (set() if is_incident else {"r0n2"})


def test_three_of_a_rack_of_sixteen_are_single_faults() -> None:
    made = judged(*(xid(79, node=f"r0n{n}") for n in range(3)), nodes=fleet(per_rack=16))
    assert made.incidents == ()


def test_a_rack_whose_telemetry_is_lost_is_an_incident() -> None:
    silent = [f"r2n{n}" for n in range(8)]
    made = judged(nodes=fleet(), unseen={"gpu_count_short": silent, "xid_last": silent})
    assert [i.scope for i in made.incidents] == ["rack=r2"]
    assert {made.verdict(n).recommended_action for n in silent} == {Action.NONE}


def test_a_rack_of_application_errors_is_no_incident() -> None:
    made = judged(*(xid(13, node=f"r0n{n}") for n in range(8)), nodes=fleet())
    assert made.incidents == ()


def test_a_node_is_in_one_incident_only() -> None:
    made = judged(*(xid(79, node=f"r0n{n}") for n in range(8)), nodes=fleet(racks=2))
    seen = [n for i in made.incidents for n in i.nodes]
    assert sorted(seen) == sorted(set(seen))


def test_the_thresholds_are_the_policys() -> None:
    strict = parse_policy(default_policy_text(), "common_cause: {min_nodes: 5}")
    made = judged(*(xid(79, node=f"r1n{n}") for n in range(4)), nodes=fleet(), policy=strict)
    assert len(acted_on(made)) == 4


# ------------------------------------------------------------------ which scope names it


def whole(count: int, **changes: object) -> list[Node]:
    return [ready_node(f"n{i:02}", **{"rack": f"r{i}", **changes}) for i in range(count)]


@pytest.mark.parametrize(
    ("broken", "scope"),
    [
        pytest.param(range(8), "rack=r0", id="one whole rack, in a pool of four"),
        pytest.param([i for i in range(32) if i % 8 < 3], "pool=h100", id="a few of each rack"),
        pytest.param(range(32), "pool=h100", id="all of them"),
        pytest.param(range(40), "fleet", id="both pools"),
    ],
)
def test_the_scope_that_tells_most_names_the_incident(broken: Iterable[int], scope: str) -> None:
    nodes = [ready_node(f"n{i:02}", rack=f"r{i // 8}", pool="h100", sku="H") for i in range(32)]
    nodes += [ready_node(f"n{i:02}", rack="r9", pool="a100", sku="A") for i in range(32, 40)]
    made = judged(*(xid(79, node=f"n{i:02}") for i in broken), nodes=nodes)
    assert [i.scope for i in made.incidents] == [scope]
    assert acted_on(made) == set()


@pytest.mark.parametrize(
    ("signal", "value", "scope"),
    [
        pytest.param("hw_slowdown", 9.0, "rack=r0", id="heat is the rack's"),
        pytest.param("nvlink_down", 20.0, "fabric=f0", id="links are the fabric's"),
    ],
)
def test_where_rack_and_fabric_are_the_same_nodes_the_trouble_tells_which(
    signal: str, value: float, scope: str
) -> None:
    nodes = [
        ready_node(f"n{i:02}", rack=f"r{i // 8}", fabric=f"f{i // 8}", pool="p") for i in range(32)
    ]
    made = judged(*(reading(signal, value, node=f"n{i:02}") for i in range(8)), nodes=nodes)
    assert [i.scope for i in made.incidents] == [scope]


def test_an_incident_keeps_its_name_as_nodes_join() -> None:
    names = set()
    for count in range(3, 9):
        made = judged(*(xid(79, node=f"r1n{n}") for n in range(count)), nodes=fleet())
        names |= {i.scope for i in made.incidents}
        assert len(made.incidents) == 1
    assert names == {"rack=r1"}


def test_mixed_faults_of_one_rack_are_one_incident_by_its_name() -> None:
    found = [xid(79, node=f"r1n{n}") for n in range(3)]
    found += [xid(48, node="r1n3"), reading("gpu_count_short", node="r1n4")]
    made = judged(*found, nodes=fleet())
    assert acted_on(made) == set()
    (incident,) = made.incidents
    assert incident.scope == "rack=r1"
    assert set(incident.failure_classes) == {C.GPU_OFF_BUS, C.ECC_UNCORRECTABLE, C.GPU_MISSING}
    assert "power" in incident.cause


def test_three_unlike_faults_in_three_racks_of_a_small_pool_are_single_faults() -> None:
    codes = {"n00": 79, "n01": 48, "n02": 119}
    found = [xid(c, node=n) for n, c in codes.items()]
    made = judged(*found, reading("recovery_reset", node="n02"), nodes=whole(10))
    assert made.incidents == ()
    assert acted_on(made) == set(codes)


def test_three_faults_of_one_kind_in_ten_thousand_nodes_are_single_faults() -> None:
    nodes = [ready_node(f"n{i}", rack=f"r{i // 8}", pool="p") for i in range(2000)]
    broken = {"n0", "n900", "n1700"}
    made = judged(*(xid(79, node=n) for n in broken), nodes=nodes)
    assert made.incidents == ()
    assert acted_on(made) == broken


@pytest.mark.parametrize(
    ("count", "size", "is_incident"),
    [
        pytest.param(10, 200, True, id="ten, a twentieth"),
        pytest.param(9, 100, False, id="nine"),
        pytest.param(10, 201, False, id="ten, less than a twentieth"),
    ],
)
def test_a_surge_of_one_kind_over_a_large_pool_is_an_incident(
    count: int, size: int, is_incident: bool
) -> None:
    nodes = [ready_node(f"n{i}", rack=f"r{i}", pool="p", sku=f"s{i}") for i in range(size)]
    made = judged(*(xid(79, node=f"n{i}") for i in range(count)), nodes=nodes)
    assert bool(made.incidents) is is_incident
    assert len(acted_on(made)) == (0 if is_incident else count)


# ------------------------------------------------------------------ changes


def changed(nodes: list[str], fact: str = "changed_driver_version") -> dict[str, dict[str, str]]:
    return {n: {fact: "595.91"} for n in nodes}


@pytest.mark.parametrize(
    ("count", "size", "is_incident"),
    [
        pytest.param(4, 40, True, id="a tenth of them"),
        pytest.param(3, 31, False, id="less than a tenth"),
        pytest.param(2, 4, False, id="two nodes"),
    ],
)
def test_nodes_of_a_fresh_change_are_watched_more_closely(
    count: int, size: int, is_incident: bool
) -> None:
    nodes = whole(100, pool="p", sku="s")
    facts = changed([n.name for n in nodes[:size]])
    found = [reading("ecc_dbe", node=nodes[i].name) for i in range(count)]
    made = judged(*found, nodes=nodes, facts=facts)
    assert bool(made.incidents) is is_incident
    if is_incident:
        (incident,) = made.incidents
        assert incident.scope == "changed_driver_version=595.91"
        assert "driver_version was changed just now" in incident.cause
        assert {made.verdict(n).failure_class for n in incident.nodes} == {C.CHANGE_INDUCED}


def test_unlike_symptoms_of_one_change_are_one_incident() -> None:
    nodes = whole(60)
    facts = changed([n.name for n in nodes[:6]], "changed_gpu_stack")
    found = [xid(119, node="n00"), reading("kube_gpus_short", node="n01"), xid(143, node="n02")]
    made = judged(*found, nodes=nodes, facts=facts)
    assert [i.scope for i in made.incidents] == ["changed_gpu_stack=595.91"]


def test_a_change_of_the_whole_fleet_is_its_suspect() -> None:
    nodes = whole(12, pool="p")
    facts = changed([n.name for n in nodes])
    made = judged(*(xid(119, node=f"n{i:02}") for i in range(6)), nodes=nodes, facts=facts)
    assert [i.scope for i in made.incidents] == ["changed_driver_version=595.91"]


def test_a_kernel_that_many_healthy_nodes_have_explains_no_rack() -> None:
    facts = {n.name: {"kernel_version": f"6.{n.rack[-1]}"} for n in fleet(racks=8)}
    facts |= {f"r{r}n{n}": {"kernel_version": "6.1"} for r in (1, 2) for n in range(8)}
    broken = [f"r1n{n}" for n in range(4)]
    made = judged(*(xid(79, node=n) for n in broken), nodes=fleet(racks=8), facts=facts)
    assert {made.verdict(n).failure_class for n in broken} == {C.GPU_OFF_BUS}


@pytest.mark.parametrize(
    ("with_it", "is_incident"),
    [
        pytest.param(15, False, id="most of the fleet has it"),
        pytest.param(9, True, id="half of the fleet has it"),
    ],
)
def test_a_version_that_most_have_is_no_suspect(with_it: int, is_incident: bool) -> None:
    nodes = whole(19)
    facts = {n.name: {"driver_version": "580"} for n in nodes[:with_it]}
    facts |= {n.name: {"driver_version": "595"} for n in nodes[with_it:]}
    made = judged(*(xid(48, node=f"n{i:02}") for i in range(5)), nodes=nodes, facts=facts)
    assert bool(made.incidents) is is_incident


# ------------------------------------------------------------------ a fault of its own


def by_new_exporter(extra: list[Reading], count: int = 6) -> Judgement:
    """NVLink failures wherever the new exporter runs, in as many racks."""
    nodes = whole(40, pool="p")
    new = [n.name for n in nodes[:count]]
    facts = {n.name: {"exporter_version": "4.7"} for n in nodes}
    facts |= {n: {"exporter_version": "4.8"} for n in new}
    crowd = [reading("nvlink_down", 20, node=n) for n in new]
    return judged(*crowd, *extra, nodes=nodes, facts=facts)


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        pytest.param(
            [xid(48, node="n00"), reading("ecc_dbe", node="n00")],
            C.ECC_UNCORRECTABLE,
            id="XID 48 and a DBE",
        ),
        pytest.param([reading("ecc_dbe", node="n00")], C.ECC_UNCORRECTABLE, id="a DBE"),
        pytest.param([reading("row_remap_failed", node="n00")], C.ROW_REMAP_FAILED, id="an RMA"),
        pytest.param(
            [xid(79, node="n00"), reading("gpu_count_short", node="n00")],
            C.GPU_OFF_BUS,
            id="XID 79 and a GPU that is gone",
        ),
        pytest.param([xid(48, node="n00")], None, id="XID 48 alone"),
        pytest.param([reading("gpu_count_short", node="n00")], None, id="a GPU that is gone"),
        pytest.param([reading("fabric_manager", 4, node="n00")], None, id="its fabric manager"),
    ],
)
def test_a_fault_of_its_own_stands_apart_from_the_crowd(
    own: list[Reading], expected: C | None
) -> None:
    made = by_new_exporter(own)
    (incident,) = made.incidents
    assert incident.scope == "exporter_version=4.8"
    assert acted_on(made) == ({"n00"} if expected else set())
    if expected:
        assert made.verdict("n00").failure_class is expected
        assert "n00" not in incident.nodes
        assert "n00" in incident.reason
        assert "apart from the incident" in made.verdict("n00").reason


def test_three_with_such_faults_are_a_crowd_again() -> None:
    own = [reading("ecc_dbe", node=f"n0{i}") for i in range(3)]
    assert acted_on(by_new_exporter(own)) == set()


def test_in_a_rack_of_mixed_faults_only_a_part_with_two_witnesses_stands_apart() -> None:
    lost = [xid(79, node=f"r1n{n}") for n in range(4)]
    one = judged(*lost, xid(48, node="r1n4"), nodes=fleet())
    assert acted_on(one) == set()
    two = judged(*lost, xid(48, node="r1n4"), reading("ecc_dbe", node="r1n4"), nodes=fleet())
    assert acted_on(two) == {"r1n4"}


def test_a_fault_beside_a_crowd_of_suspects_in_its_rack_stands() -> None:
    suspects = [xid(119, node=f"r1n{n}") for n in range(4)]
    made = judged(*suspects, xid(79, node="r1n7"), nodes=fleet())
    assert acted_on(made) == {"r1n7"}


# ------------------------------------------------------------------ telling people once


def test_what_is_left_of_an_overlapping_crowd_is_no_second_incident() -> None:
    nodes = fleet(racks=4)
    facts = {n.name: {"driver_version": "580"} for n in nodes}
    new = [f"r{r}n{n}" for r in (0, 1) for n in range(7)]
    facts |= {n: {"driver_version": "595"} for n in new}
    made = judged(*(xid(119, node=n) for n in [*new, "r0n7"]), nodes=nodes, facts=facts)
    (incident,) = made.incidents
    assert set(incident.nodes) == {*new, "r0n7"}


def test_two_racks_in_trouble_are_two_incidents() -> None:
    found = [xid(79, node=f"r{r}n{n}") for r in (0, 1) for n in range(8)]
    made = judged(*found, nodes=fleet(racks=10))
    assert [i.scope for i in made.incidents] == ["rack=r0", "rack=r1"]


def test_nodes_in_other_hands_are_no_part_of_a_crowd() -> None:
    state = {"nvidia.com/gpu-driver-upgrade-state": "pod-restart-required"}
    nodes = [ready_node(f"r1n{n}", rack="r1", labels=state if n < 3 else {}) for n in range(8)]
    made = judged(*(xid(79, node=f"r1n{n}") for n in range(5)), nodes=nodes)
    assert acted_on(made) == {"r1n3", "r1n4"}
    assert made.incidents == ()
