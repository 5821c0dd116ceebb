"""Every kind of drift: found by a dry run that changes nothing, mended by a real one, then gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta

import pytest

from breakfix.errors import ClusterError
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.drift import ADOPTER, DriftKind
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import sweep
from breakfix.model import CaseEnd, FailureClass, HaltLevel, NodeState, Purpose, Taint
from tests.flow.test_reconcile import mend, world_at
from tests.flow.world import FlowWorld

OURS = Taint("breakfix.dev/quarantine", "NoSchedule", "gpu_off_bus")
CASE, BY_US = "breakfix.dev/case", "breakfix.dev/cordoned-by-us"


def waiting():
    return world_at(Stage.APPROVE_REPAIR)


def end(world, how, node="a1"):
    case = world.case(node)
    return world.ledger.end_case(
        case.id, case.fence, how, actor="t", reason="t", now=world.clock.now()
    )


def ended(how):
    """The case has ended in the ledger, and whoever did it died before the node."""
    world = waiting()
    end(world, how)
    for run in world.road.runs:
        world.road.kill(run)
    world.metrics.xids.clear()
    return world


def marked(**changes):
    """Marks of ours that no case of this ledger put there."""
    world = FlowWorld()
    world.cluster.change_node("a1", **changes)
    return world


def gone():
    world = waiting()
    world.cluster.remove_node("a1")
    return world


def replaced():
    world = gone()
    world.cluster.add_node("a1", uid="uid-new", rack="a")
    return world


def taken_back():
    world = waiting()
    world.uncordon("a1")
    return world


def without_run():
    world = waiting()
    world.road.kill(world.case().run_id)
    return world


def never_started():
    world = FlowWorld()
    world.break_node("a1")
    sweep(world.services)
    return world


def stale_run():
    world = waiting()
    case = world.case()
    now = world.clock.now()
    world.ledger.take_over(case.id, case.fence, actor="ann", reason="t", now=now)
    world.road.start(world.case())
    return world


def drain_by_hand():
    """The command line began to drain, and its terminal was closed."""
    world = FlowWorld()
    case = open_by_hand(
        world.services, "a1", FailureClass.MANUAL, requester="cli:ann", reason="swap"
    )
    world.ledger.begin_step(case.id, 1, "drain-1", detail={"text": "t"}, now=world.clock.now())
    world.clock.sleep(world.services.policy.drain.timeout_s + 60)
    return world


def adoption_cut():
    world = marked(is_unschedulable=True, taints=(OURS,))
    world.cluster.fail("patch_node")
    mend(world)
    assert world.case().is_open
    return world


def escalated():
    world = waiting()
    world.silence.clear()
    world.refused.add(Purpose.REPAIR)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    return world


def escalation_over():
    world = escalated()
    world.uncordon("a1")
    return world


def label_lost():
    world = waiting()
    labels = {k: v for k, v in world.node().labels.items() if not k.startswith("breakfix.dev/")}
    world.cluster.change_node("a1", labels=labels)
    return world


def label_of_escalated_wrong():
    world = escalated()
    world.cluster.change_node("a1", labels={**world.node().labels, "breakfix.dev/state": "healthy"})
    return world


def slot_lost():
    world = waiting()
    for held in world.ledger._leases.values():
        held.clear()
    return world


def slot_kept():
    world = waiting()
    scope = world.case().scopes[0]
    world.cluster.add_node("b9", rack="b")
    world.ledger._leases[scope]["b9"] = world.case().id
    return world


def pod_of(case_id):
    def build():
        world = waiting()
        name = case_id or end(world, CaseEnd.ABORTED).id
        for run in world.road.runs:
            world.road.kill(run)
        world.metrics.xids.clear()
        labels = {"breakfix.dev/case": name, "breakfix.dev/step": "x"}
        world.cluster.add_pod("late", "b1", namespace="breakfix", labels=labels, phase="Pending")
        return world

    return build


def in_service(world):
    return world.is_in_service()


def held_out(world):
    return world.is_held_out() and world.case().end is CaseEnd.ESCALATED


def ended_as(how):
    return lambda world: world.case().end is how


def next_run(world):
    return world.case().run_id in world.road.live()


@dataclass(frozen=True)
class Given:
    kind: DriftKind
    world: object
    mended: object
    says: str = ""


NOBODY, LEFT = DriftKind.MARKS_OF_NOBODY, DriftKind.MARKS_LEFT
TABLE = {
    "the node is gone": Given(DriftKind.NODE_GONE, gone, ended_as(CaseEnd.NODE_GONE)),
    "another machine has its name": Given(
        DriftKind.NODE_REPLACED, replaced, ended_as(CaseEnd.NODE_GONE)
    ),
    "a person uncordoned it": Given(DriftKind.TAKEN_BACK, taken_back, ended_as(CaseEnd.OVERRIDDEN)),
    "its run died": Given(DriftKind.NO_RUN, without_run, next_run, "no run has the case"),
    "its run was never started": Given(DriftKind.NO_RUN, never_started, next_run),
    "an adoption was cut short": Given(DriftKind.ADOPTION_CUT, adoption_cut, held_out),
    "an escalated node was put to work": Given(
        DriftKind.ESCALATION_OVER, escalation_over, in_service
    ),
    "marks of an aborted case, cordon and all": Given(
        LEFT, lambda: ended(CaseEnd.ABORTED), in_service, "and the cordon, which is ours"
    ),
    "marks of a case that a person ended": Given(
        LEFT,
        lambda: ended(CaseEnd.OVERRIDDEN),
        lambda w: w.node().is_unschedulable and not w.taints(),
        "any cordon stays",
    ),
    "a node that was gone for a moment is back, and out": Given(
        NOBODY, lambda: ended(CaseEnd.NODE_GONE), held_out, "as an escalated case"
    ),
    "cordon and taint of a case nobody knows": Given(
        NOBODY,
        lambda: marked(
            is_unschedulable=True, taints=(OURS,), annotations={CASE: "old-1", BY_US: "true"}
        ),
        held_out,
        "old-1, which this ledger does not know",
    ),
    "a taint alone": Given(NOBODY, lambda: marked(taints=(OURS,)), in_service),
    "a taint of another effect": Given(
        NOBODY, lambda: marked(taints=(replace(OURS, effect="NoExecute"),)), in_service
    ),
    "an annotation alone": Given(
        NOBODY, lambda: marked(annotations={CASE: "other-1"}), in_service, "other-1"
    ),
    "an annotation that says whose cordon it is, and no case": Given(
        NOBODY,
        lambda: marked(is_unschedulable=True, annotations={BY_US: "true"}),
        lambda w: w.node().is_unschedulable and w.case().end is CaseEnd.ESCALATED,
    ),
    "a state label alone": Given(
        NOBODY, lambda: marked(labels={"breakfix.dev/state": "quarantined"}), in_service
    ),
    "the label was lost": Given(
        DriftKind.LABEL_DIFFERS,
        label_lost,
        lambda w: w.node().labels["breakfix.dev/state"] == "quarantined",
        "says nothing, the ledger quarantined",
    ),
    "the label of an escalated node is another": Given(
        DriftKind.LABEL_DIFFERS,
        label_of_escalated_wrong,
        lambda w: w.node().labels["breakfix.dev/state"] == "escalated",
    ),
    "a case lost its slots": Given(
        DriftKind.SLOTS_DIFFER, slot_lost, lambda w: len(w.ledger.leases()) == 4
    ),
    "a slot has no case": Given(
        DriftKind.SLOTS_DIFFER, slot_kept, lambda w: "b9" not in {x.node for x in w.ledger.leases()}
    ),
    "a pod outlived its case": Given(
        DriftKind.POD_LEFT, pod_of(""), lambda w: ("breakfix", "late") not in w.cluster._pods
    ),
    "a pod of a case nobody knows": Given(
        DriftKind.POD_LEFT, pod_of("old-7"), lambda w: ("breakfix", "late") not in w.cluster._pods
    ),
}
TOLD_ONLY = {
    "a run is live at an old fence": (DriftKind.STALE_RUN, stale_run),
    "a drain at the command line was left": (DriftKind.DRAIN_LEFT, drain_by_hand),
}


def changes(world):
    return len(world.cluster.writes()), world.ledger.head(), set(world.road.runs)


@pytest.mark.parametrize("given", TABLE.values(), ids=TABLE)
def test_it_is_found_without_a_change_then_mended_and_then_gone(given):
    world = given.world()
    before = changes(world)
    shown = reconcile(world.services, world.road, is_dry_run=True)
    assert changes(world) == before
    assert given.kind in {d.kind for d in shown.drift}, shown
    said = [f"{d.found} {d.remedy}" for d in shown.drift if d.kind is given.kind]
    assert given.says in said[0]
    mend(world)
    assert given.mended(world)
    again = reconcile(world.services, world.road, is_dry_run=True)
    assert given.kind not in {d.kind for d in again.drift}, again
    assert world.is_audit_sound()


@pytest.mark.parametrize(("kind", "build"), TOLD_ONLY.values(), ids=TOLD_ONLY)
def test_what_ends_by_itself_or_is_a_persons_is_told(kind, build):
    world = build()
    (found,) = [d for d in mend(world).drift if d.kind is kind]
    assert any(found.remedy in note for note in mend(world).notes)


def test_a_quiet_fleet_has_no_drift():
    world = FlowWorld()
    world.run_for(120)
    assert reconcile(world.services, world.road, is_dry_run=True).drift == []


def test_no_kind_of_drift_is_without_a_test():
    shown = {g.kind for g in TABLE.values()} | {kind for kind, _ in TOLD_ONLY.values()}
    elsewhere = {DriftKind.GIVES_WAY}  # test_taking_back.py
    elsewhere |= {DriftKind.HOLD_OVER, DriftKind.HOLD_OLD}  # tests/faults/test_drains.py
    assert shown | elsewhere == set(DriftKind)


def test_an_api_server_that_lists_no_node_is_not_believed():
    world = waiting()
    world.cluster.nodes = lambda: ()
    with pytest.raises(ClusterError, match="not believed"):
        mend(world)
    assert world.case().is_open


def test_a_node_that_only_the_list_lacks_keeps_its_case():
    world = waiting()
    others = tuple(n for n in world.cluster.nodes() if n.name != "a1")
    world.cluster.nodes = lambda: others
    assert mend(world).ended == []
    assert world.case().is_open
    assert world.is_held_out()


def test_an_adopted_node_counts_against_its_scopes_and_is_a_persons_to_give_back():
    world = TABLE["cordon and taint of a case nobody knows"].world()
    mend(world)
    assert world.case().requester == ADOPTER
    assert world.node().annotations[CASE] == world.case().id
    assert any("a1 escalated" in subject for subject, _ in world.notifier.told)
    world.break_node("a2")  # same rack
    world.run_for(120)
    assert not world.ledger.cases(node="a2")
    world.uncordon("a1")
    mend(world)
    assert world.is_in_service()
    world.drive(lambda: bool(world.ledger.cases(node="a2")))


def test_nothing_is_adopted_under_a_halt():
    world = marked(is_unschedulable=True, taints=(OURS,))
    world.ledger.set_halt(HaltLevel.DISRUPTION, actor="ann", reason="t", now=world.clock.now())
    report = mend(world)
    assert not world.ledger.cases()
    assert any("not adopted: halted" in note for note in report.notes)


@pytest.mark.parametrize("name", list(TABLE))
def test_a_halt_of_everything_leaves_every_node_and_run_as_it_is(name):
    world = TABLE[name].world()
    world.ledger.set_halt(HaltLevel.ALL, actor="ann", reason="t", now=world.clock.now())
    writes, runs = len(world.cluster.writes()), set(world.road.runs)
    report = mend(world)
    assert (len(world.cluster.writes()), set(world.road.runs)) == (writes, runs)
    assert any("halted (level all)" in note for note in report.notes)


def test_without_a_way_to_ask_for_runs_everything_else_is_mended():
    world = without_run()
    world.cluster.change_node("b1", taints=(OURS,))
    report = reconcile(world.services, None)
    assert world.is_in_service("b1")
    assert report.started == []
    assert any("runs are not looked at" in note for note in report.notes)
    assert mend(world).started


def test_what_another_hand_changes_between_the_finding_and_the_mending_is_left_alone():
    world = ended(CaseEnd.ABORTED)
    patch = world.cluster.patch_node

    def adopted_by_another(*args):
        world.cluster.patch_node = patch
        node = world.node()
        world.cluster.change_node("a1", annotations={**node.annotations, CASE: "newer"})
        return patch(*args)

    world.cluster.patch_node = adopted_by_another
    report = mend(world)
    assert any("in other hands" in note for note in report.notes)
    assert world.is_held_out()


def test_the_audit_has_the_node_as_it_was_before_its_marks_went():
    world = ended(CaseEnd.ABORTED)
    mend(world)
    (entry,) = [e for e in world.ledger.audit_entries(limit=9999) if e.event == "marks.cleared"]
    assert entry.detail["before"]["is_cordoned"] is True
    assert any("breakfix.dev/quarantine" in t for t in entry.detail["before"]["taints"])
    assert entry.subject == world.case().id


def test_a_watch_goes_on_under_the_label_that_says_so():
    world = waiting()
    world.silence.clear()
    world.drive(lambda: world.case().state is NodeState.RETURNING)
    labels = {k: v for k, v in world.node().labels.items() if k != "breakfix.dev/state"}
    world.cluster.change_node("a1", labels=labels)
    mend(world)
    assert world.node().labels["breakfix.dev/state"] == "returning"
    world.clock.sleep(timedelta(minutes=6).total_seconds())
    world.drive(world.ended())
    assert world.is_in_service()
