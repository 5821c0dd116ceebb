"""Many nodes in trouble together are one incident; few are single faults."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.model import DISRUPTIVE, Action, FailureClass, Node, NodeState, RefusalReason
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from tests.observations import NOW, judged, ready_node, record, xid

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


def test_nodes_taken_out_long_ago_do_not_count() -> None:
    from dataclasses import replace

    old = replace(record(NodeState.REPAIRING), since=NOW - timedelta(hours=3))
    records = {n: replace(old, node=n) for n in ("r0n0", "r0n1")}
    made = judged(xid(79, node="r0n2"), nodes=fleet(racks=2, per_rack=6), records=records)
    assert acted_on(made) == {"r0n2"}


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
