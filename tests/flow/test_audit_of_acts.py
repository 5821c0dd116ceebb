"""From the audit alone: who, why, on what evidence, under which plan, and the node before and
after.
"""

from __future__ import annotations

import json

from breakfix.model import CaseEnd
from breakfix.record import audit_lines
from tests.flow.world import FlowWorld


def whole_road():
    world = FlowWorld()
    world.cluster.add_pod("web-1", "a1")
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    return world


def test_every_act_has_the_node_before_and_after_it():
    world = whole_road()
    steps = {s.name.partition("-")[0]: s.detail for s in world.ledger.steps(world.case().id)}
    out, drained = steps["quarantine"], steps["drain"]
    booted, back = steps["repair"], steps["release"]
    for act in (out, drained, booted, back):
        assert {"is_cordoned", "taints", "marks", "boot_id", "is_ready"} <= act[
            "node_before"
        ].keys()
        assert act["node_before"].keys() == act["node_after"].keys()
    assert [out["node_before"]["is_cordoned"], out["node_after"]["is_cordoned"]] == [False, True]
    assert out["node_before"]["taints"] == []
    assert any("breakfix.dev/quarantine=" in t for t in out["node_after"]["taints"])
    assert out["node_after"]["marks"]["breakfix.dev/state"] == "quarantined"
    assert booted["node_before"]["boot_id"] != booted["node_after"]["boot_id"]
    assert [back["node_before"]["is_cordoned"], back["node_after"]["is_cordoned"]] == [True, False]


def test_the_export_alone_tells_the_whole_story_of_a_case():
    world = whole_road()
    case = world.case()
    told = [json.loads(line) for line in audit_lines(world.ledger)]
    mine = [e for e in told if e["subject"] == case.id]
    events = [e["event"] for e in mine]
    assert events[0] == "case.admitted"
    assert events.index("approval.decided") < events.index("pod.evicted")
    assert all(e["actor"] and e["at"] and e["previous_hash"] for e in mine)
    assert [e["seq"] for e in told] == list(range(1, len(told) + 1))
