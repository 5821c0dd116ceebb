"""What must not slip past the guards: races, crowds, hands of people, full nodes, ends of cases."""

from __future__ import annotations

import pytest

from breakfix.act.ownership import CONFIG_MAP, mark_head
from breakfix.errors import Refused
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.case import run_stage
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.model import CaseEnd, FailureClass, NodeState, Purpose
from tests.fakes_ledger import FakeLedger
from tests.flow.world import FlowWorld


def waiting_world(**changes):
    """A case of a1 that waits for a yes to its repair."""
    world = FlowWorld(**changes)
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    return world


def test_a_quarantine_during_the_reconciliation_is_not_taken_for_a_persons_hand(monkeypatch):
    world = FlowWorld()
    old = world.cluster.nodes()
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    monkeypatch.setattr(world.cluster, "nodes", lambda: old)
    reconcile(world.services, world.road)
    assert world.case().is_open
    assert world.is_held_out()


def test_a_run_that_a_sweep_starts_meanwhile_is_not_taken_over():
    world = waiting_world()
    seen = iter([frozenset()])  # what was live a moment ago
    live = world.road.live
    world.road.live = lambda: next(seen, None) or live()
    reconcile(world.services, world.road)
    assert world.case().fence == 1


def test_what_a_person_took_back_is_left_to_them_though_the_fault_is_still_seen():
    world = waiting_world()
    world.uncordon("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    world.run_for(4 * 3600)
    assert len(world.ledger.cases(node="a1")) == 1
    assert not world.node().is_unschedulable


def test_removing_our_taint_is_a_persons_hand_too():
    world = waiting_world()
    others = tuple(t for t in world.node().taints if not t.key.startswith("breakfix.dev/"))
    world.cluster.change_node("a1", taints=others)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert world.ran["reboot"] == 0


def test_a_crowd_that_forms_after_the_admission_holds_the_repair():
    world = waiting_world(nodes=("a1", "a2", "a3", "a4"))
    for name in ("a2", "a3", "a4"):
        world.break_node(name)
    world.silence.clear()
    world.run_for(600)
    assert world.ran["reboot"] == 0
    assert not [c for c in world.cluster.writes() if c[0] == "evict"]


def test_a_repair_that_somebody_starts_before_the_drain_does_nothing():
    world = waiting_world()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.silence.clear()
    world.drive(world.at_stage(Stage.DRAIN))
    case = world.case()
    result = run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence)
    assert result.to is Stage.SETTLE_RUN
    assert not world.ran["reboot"]
    assert world.case().state is NodeState.QUARANTINED


def test_pods_that_came_after_the_drain_are_not_rebooted_under():
    world = FlowWorld()
    world.break_node("a1")
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.cluster.add_pod("late-1", "a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.ran["reboot"] == 0


def test_a_machine_that_replaces_an_escalated_one_is_not_out_for_ever():
    world = FlowWorld()
    world.refused.add(Purpose.REPAIR)
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    world.metrics.xids.clear()
    world.cluster.add_node("a1", rack="a", uid="uid-of-the-new-machine")
    reconcile(world.services, world.road)
    assert world.case().end is CaseEnd.NODE_GONE
    assert world.ledger.node_records()["a1"].state is not NodeState.ESCALATED


def test_a_hold_that_outlasts_the_drains_deadline_does_not_make_it_overdue():
    world = waiting_world()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.silence.clear()
    world.drive(lambda: "drain-1" in world.steps())
    case_id = world.case().id
    world.ledger.hold(case_id, actor="cli:ann", reason="", now=world.clock.now())
    world.run_for(3600)
    world.ledger.unhold(case_id, actor="cli:ann", reason="", now=world.clock.now())
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_drain_by_hand_that_lost_its_run_goes_on():
    world = FlowWorld()
    world.cluster.add_pod("web-1", "a1")
    case = open_by_hand(
        world.services, "a1", FailureClass.MANUAL, requester="ann", reason="new cables"
    )
    reconcile(world.services, world.road)
    assert world.road.live() == {case.run_id}
    world.drive(lambda: str(world.steps().get("drain-1")) == "done")
    world.run_for(1800)
    assert world.case().fence == 1
    assert world.case().is_open


def test_an_older_ledger_never_lowers_the_mark_that_would_give_it_away():
    world = FlowWorld()
    world.break_node("a1")
    world.drive(world.ended())
    key = (world.services.settings.namespace, CONFIG_MAP)
    mark = dict(world.cluster.config_maps[key])
    restored = FakeLedger("test", ledger_id=world.ledger.id)
    for number in range(3):
        restored.audit("later", "x", actor="x", detail={"n": number}, now=world.clock.now())
    with pytest.raises(Refused, match="restored from an older backup"):
        mark_head(world.cluster, restored, key[0])
    assert world.cluster.config_maps[key] == mark


def test_a_boot_that_nobody_judged_is_not_quarantined(monkeypatch):
    """The node boots after its case was admitted and before it is cordoned: what was seen of it was
    of before.
    """
    world = FlowWorld()
    world.break_node("a1")
    world.cluster.add_pod("web-1", "a1")
    admit = world.ledger.admit

    def admit_and_boot(*args, **more):
        outcome = admit(*args, **more)
        world.cluster.reboot("a1")
        return outcome

    monkeypatch.setattr(world.ledger, "admit", admit_and_boot)
    world.road.sweep()
    assert not world.node().is_unschedulable
    assert not world.node().taints
    monkeypatch.undo()
    world.metrics.xids.clear()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ABORTED
    assert ("work", "web-1") in world.cluster._pods
