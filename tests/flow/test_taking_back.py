"""A person wants a node back, or everything that was taken out since then."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.errors import ClusterError, Refused
from breakfix.flow.by_hand import drain_by_hand
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.flow.taking_back import force_return, return_case, undo, undoable
from breakfix.model import CaseEnd, HaltLevel, NodeState, Purpose, RefusalReason, StepStatus
from tests.flow.test_drift import TABLE
from tests.flow.test_reconcile import mend, world_at
from tests.flow.world import START, FlowWorld

ALONE = "limits: {out: {fleet: {share: 0.9}}}\ncommon_cause: {min_nodes: 99}\n"
BY_ANN = {"actor": "cli:ann", "reason": "it is mended"}
BY_ONCALL = {"actor": "cli:oncall", "reason": "the queue is on fire"}


def wanted_back(world, **by):
    return return_case(world.services, world.case().id, **(by or BY_ANN))


def escalated():
    """A reboot never came to its end, and the node is held out for people."""
    world = FlowWorld(reboot_works=False)
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    return world


# --------------------------------------------------------------------------- one node


def test_an_escalated_node_goes_through_validation_and_gates_and_is_back():
    world = escalated()
    said = wanted_back(world)
    assert f"{world.case().id}.2 begins" in said
    assert world.case().state is NodeState.VALIDATING
    assert world.node().labels["breakfix.dev/state"] == "validating"
    assert world.is_held_out()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.is_in_service()
    assert world.ran["diag"] == 1
    assert world.ran["reboot"] == 0


def test_a_node_that_does_not_pass_its_validation_is_not_given_back_for_the_asking():
    world = escalated()
    world.diag = (1, "{}")
    wanted_back(world)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_a_no_to_its_return_holds_it_though_a_person_asked_for_it():
    world = escalated()
    wanted_back(world)
    world.refused.add(Purpose.RETURN)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_a_drained_node_that_nothing_repaired_is_validated():
    world = FlowWorld()
    drain_by_hand(
        world.services, "a1", requester="cli:ann", reason="swap a fan", tell=lambda _: None
    )
    assert "goes on with the validation" in wanted_back(world)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.case().repaired_at is None


def test_an_adopted_node_gets_our_quarantine_and_goes_back_by_the_same_road():
    world = TABLE["cordon and taint of a case nobody knows"].world()
    mend(world)
    wanted_back(world)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.is_in_service()


def still_running():
    return world_at(Stage.APPROVE_REPAIR), RefusalReason.POD_REFUSED


def rebooting():
    world = FlowWorld(reboot_works=False)
    world.break_node("a1")
    world.drive(lambda: bool(world.ledger.cases()) and "repair-reboot_node-1" in world.steps())
    return world


def under_repair():
    return rebooting(), RefusalReason.CASE_OPEN


def ended():
    world = world_at(Stage.APPROVE_REPAIR)
    case = world.case()
    world.ledger.end_case(case.id, 1, CaseEnd.ABORTED, actor="t", reason="t", now=world.clock.now())
    return world, RefusalReason.CASE_OPEN


def replaced():
    world = escalated()
    world.cluster.remove_node("a1")
    world.cluster.add_node("a1", uid="uid-new", rack="a")
    return world, RefusalReason.NODE_CHANGED


def uncordoned():
    world = escalated()
    world.uncordon("a1")
    return world, RefusalReason.OVERRIDDEN


def halted():
    world = escalated()
    world.ledger.set_halt(HaltLevel.ALL, actor="ann", reason="t", now=world.clock.now())
    return world, RefusalReason.HALTED


@pytest.mark.parametrize(
    "build", [still_running, under_repair, ended, replaced, uncordoned, halted]
)
def test_it_is_not_given_back_while(build):
    world, reason = build()
    case, writes = world.case(), len(world.cluster.writes())
    with pytest.raises(Refused) as caught:
        wanted_back(world)
    assert caught.value.reason is reason
    assert (world.case(), len(world.cluster.writes())) == (case, writes)


def test_a_held_case_goes_on_when_its_node_is_wanted_back():
    world = world_at(Stage.APPROVE_RETURN)
    world.ledger.hold(world.case().id, actor="cli:bob", reason="t", now=world.clock.now())
    world.silence.clear()
    wanted_back(world)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


# --------------------------------------------------------------------------- by force


def test_an_approver_may_take_a_node_back_unproven_and_it_is_watched_and_told():
    world = escalated()
    world.metrics.xids.clear()
    said = force_return(world.services, world.case().id, **BY_ONCALL)
    assert "without validation" in said
    assert world.case().state is NodeState.RETURNING
    assert not world.node().is_unschedulable
    (entry,) = [
        e for e in world.ledger.audit_entries(limit=9999) if e.event == "case.return_forced"
    ]
    assert entry.actor == "cli:oncall"
    assert entry.detail["reason"] == "the queue is on fire"
    assert any("unproven" in subject for subject, _ in world.notifier.told)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


@pytest.mark.parametrize(
    "by",
    [
        pytest.param({"actor": "cli:ann", "reason": "please"}, id="no approver"),
        pytest.param({"actor": "cli:oncall", "reason": " "}, id="no reason"),
    ],
)
def test_nobody_else_may_force_it(by):
    world = escalated()
    with pytest.raises(Refused) as caught:
        force_return(world.services, world.case().id, **by)
    assert caught.value.reason is RefusalReason.NOT_APPROVED
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_not_even_an_approver_forces_a_node_back_into_a_reboot_that_is_under_way():
    world = rebooting()
    with pytest.raises(Refused, match="may yet reach"):
        force_return(world.services, world.case().id, **BY_ONCALL)
    assert world.is_held_out()


def test_a_plugin_that_the_validation_restarted_does_not_keep_a_node_from_being_forced_back():
    """It is deleted by its uid, once: nothing of it may yet reach the node."""
    world = FlowWorld()
    world.add_plugin("a1")
    world.break_node("a1")
    world.silence.add(Purpose.RETURN)
    world.drive(world.at_stage(Stage.CHECK_GPUS))
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.drive(lambda: "repair-restart_device_plugin-1.2" in world.steps())
    assert world.steps()["repair-restart_device_plugin-1.2"] is StepStatus.DISPATCHED
    force_return(world.services, world.case().id, **BY_ONCALL)
    assert world.case().state is NodeState.RETURNING


def test_a_forced_return_lifts_no_cordon_of_somebody_else():
    world = escalated()
    annotations = {**world.node().annotations, "breakfix.dev/cordoned-by-us": "false"}
    world.cluster.change_node("a1", annotations=annotations)
    force_return(world.services, world.case().id, **BY_ONCALL)
    assert world.node().is_unschedulable
    assert not world.taints()


# --------------------------------------------------------------------------- all of it


def fleet_at_work():
    """a1 waits for a yes, b1 is being validated, c1 is escalated, d1 is back and watched."""
    nodes = ("a1", "a2", "b1", "b2", "c1", "c2", "d1", "d2")
    world = FlowWorld(nodes=nodes, overlay=ALONE)
    for node, until in (("d1", NodeState.RETURNING), ("c1", NodeState.ESCALATED)):
        world.break_node(node)
        if node == "c1":
            world.refused.add(Purpose.REPAIR)
        world.drive(
            lambda n=node, s=until: bool(world.ledger.cases(node=n)) and world.case(n).state is s
        )
    world.refused.clear()
    world.break_node("b1")
    world.drive(lambda: bool(world.ledger.cases(node="b1")))
    world.drive(lambda: world.case("b1").state is NodeState.VALIDATING)
    world.silence.add(Purpose.REPAIR)
    world.cluster.add_pod("web-1", "a1")
    world.break_node("a1")
    world.drive(world.at_stage(Stage.APPROVE_REPAIR, "a1"))
    return world


def test_a_preview_lists_what_would_be_lifted_and_what_not_and_why_and_changes_nothing():
    world = fleet_at_work()
    writes, head = len(world.cluster.writes()), world.ledger.head()
    found = {u.node: (u.is_undone, u.text) for u in undoable(world.services, START)}
    assert found == {
        "a1": (True, "our cordon and marks are lifted"),
        "b1": (False, "it is validating"),
        "c1": (False, "it is escalated"),
        "d1": (False, "it is in service again, and watched"),
    }
    assert (len(world.cluster.writes()), world.ledger.head()) == (writes, head)


def test_an_undo_gives_back_only_what_was_not_acted_upon_and_says_who_and_why():
    world = fleet_at_work()
    undo(world.services, START, actor="cli:ann", reason="the metric lied")
    assert world.is_in_service("a1")
    assert ("work", "web-1") in world.cluster._pods
    assert (world.case("a1").end, world.why("a1")) == (CaseEnd.ABORTED, "undone: the metric lied")
    assert {n: world.node(n).is_unschedulable for n in ("b1", "c1")} == {"b1": True, "c1": True}
    (entry,) = [e for e in world.ledger.audit_entries(limit=9999) if e.event == "undo.asked"]
    assert (entry.actor, entry.detail["nodes"]) == ("cli:ann", ["a1"])
    world.silence.clear()
    world.drive(world.ended("b1"))
    assert world.case("b1").end is CaseEnd.RETURNED
    assert len(world.ledger.cases(node="a1")) == 1  # what was seen until then opens no other
    assert world.is_audit_sound()


def test_what_was_taken_out_before_then_is_left_alone():
    world = fleet_at_work()
    assert undoable(world.services, world.clock.now() + timedelta(seconds=1)) == ()


def test_a_drain_that_has_begun_is_not_undone_though_nothing_is_evicted_yet():
    world = world_at(Stage.APPROVE_REPAIR)
    case = world.case()
    world.ledger.begin_step(case.id, 1, "drain-1", detail={}, now=world.clock.now())
    (found,) = undo(world.services, START, actor="cli:ann", reason="t")
    assert (found.is_undone, found.text) == (False, "its drain has begun")
    assert world.case().is_open


def test_a_drain_that_begins_between_the_preview_and_the_undo_is_left_to_its_next_run():
    world = world_at(Stage.APPROVE_REPAIR)
    case = world.case()
    take_over = world.ledger.take_over

    def drained_first(*args, **kwargs):
        world.ledger.begin_step(case.id, 1, "drain-1", detail={}, now=world.clock.now())
        return take_over(*args, **kwargs)

    world.ledger.take_over = drained_first
    (found,) = undo(world.services, START, actor="cli:ann", reason="t")
    assert not found.is_undone
    assert "just now; its next run goes on" in found.text
    world.silence.clear()
    assert mend(world).started == [f"{case.id}.2"]


def test_a_case_that_a_person_holds_is_left_to_them():
    world = world_at(Stage.APPROVE_REPAIR)
    world.ledger.hold(world.case().id, actor="cli:bob", reason="t", now=world.clock.now())
    (found,) = undo(world.services, START, actor="cli:ann", reason="t")
    assert "cli:bob holds it" in found.text
    assert world.is_held_out()


def test_trouble_with_one_node_does_not_keep_the_others_out():
    world = FlowWorld()
    world.silence.add(Purpose.REPAIR)
    for node in ("a1", "b1"):
        world.break_node(node)
    world.drive(
        lambda: (
            world.at_stage(Stage.APPROVE_REPAIR, "a1")()
            and world.at_stage(Stage.APPROVE_REPAIR, "b1")()
        )
    )
    world.cluster.fail("patch_node", ClusterError("the API server is tired"))
    found = undo(world.services, START, actor="cli:ann", reason="t")
    assert sorted(u.is_undone for u in found) == [False, True]
    for run in world.road.runs:
        world.road.kill(run)
    world.metrics.xids.clear()
    world.run_for(600)  # the end that was begun is completed
    assert {world.case(n).end for n in ("a1", "b1")} == {CaseEnd.ABORTED}
    assert world.is_in_service("a1")
    assert world.is_in_service("b1")


@pytest.mark.parametrize(
    ("reason", "level", "says"),
    [(" ", HaltLevel.NONE, "wants a reason"), ("r", HaltLevel.ALL, "at all")],
    ids=["no reason", "everything is halted"],
)
def test_an_undo_is_refused_as_a_whole(reason, level, says):
    world = world_at(Stage.APPROVE_REPAIR)
    world.ledger.set_halt(level, actor="ann", reason="t", now=world.clock.now())
    head = world.ledger.head()
    with pytest.raises(Refused, match=says):
        undo(world.services, START, actor="cli:ann", reason=reason)
    assert world.ledger.head() == head
    assert world.is_held_out()


def test_the_first_level_of_halt_does_not_hold_an_undo():
    world = world_at(Stage.APPROVE_REPAIR)
    world.ledger.set_halt(HaltLevel.DISRUPTION, actor="ann", reason="t", now=world.clock.now())
    assert undo(world.services, START, actor="cli:ann", reason="t")[0].is_undone
    assert world.is_in_service()


# --------------------------------------------------------------------------- others give way


def crowd(others, failures=2):
    """a1 and b1 could not be rebooted; c1 waits for a yes."""
    overlay = f"recovery: {{failures: {failures}, others: {others}}}\n"
    overlay += ALONE
    world = FlowWorld(nodes=("a1", "b1", "c1", "d1"), overlay=overlay, reboot_works=False)
    for node in ("a1", "b1"):
        world.break_node(node)
    world.drive(lambda: len(world.ledger.cases()) == 2)
    world.drive(lambda: all(world.case(n).state is NodeState.REPAIRING for n in ("a1", "b1")))
    world.silence.add(Purpose.REPAIR)
    world.break_node("c1")
    world.drive(world.at_stage(Stage.APPROVE_REPAIR, "c1"))
    world.drive(world.ended("a1", "b1"))
    return world


@pytest.mark.parametrize("through", ["reconciler", "own run"])
@pytest.mark.parametrize(
    ("others", "is_right"),
    [
        ("uncordon", lambda w: w.case("c1").end is CaseEnd.ABORTED and w.is_in_service("c1")),
        ("escalate", lambda w: w.case("c1").end is CaseEnd.ESCALATED and w.is_held_out("c1")),
        ("hold", lambda w: w.case("c1").held_by == "breakfix:repairs-fail" and w.is_held_out("c1")),
    ],
)
def test_when_repairs_of_a_class_fail_the_next_is_not_begun(others, is_right, through):
    world = crowd(others)
    if through == "reconciler":
        mend(world)
    else:
        world.silence.clear()
        world.road.runs[world.case("c1").run_id].wait = None
        world.run_for(60)
    assert is_right(world)
    assert "a1, b1" in world.why("c1")
    assert "drain-1" not in world.steps("c1")
    assert world.is_audit_sound()


def test_what_is_held_goes_on_when_a_person_says_so():
    world = crowd("hold")
    mend(world)
    case = world.case("c1")
    world.ledger.unhold(case.id, actor="cli:ann", reason="new image", now=world.clock.now())
    world.reboot_works = True
    world.silence.clear()
    world.metrics.xids = [x for x in world.metrics.xids if x[0] == "c1"]
    world.drive(world.ended("c1"))
    assert world.case("c1").end is CaseEnd.RETURNED


def test_what_is_held_and_nobody_comes_for_escalates():
    world = crowd("hold")
    mend(world)
    world.clock.sleep(world.services.policy.drain.hold_s + 60)
    mend(world)
    assert world.case("c1").end is CaseEnd.ESCALATED
    assert world.is_held_out("c1")


def test_fewer_failures_than_policy_names_hold_nobody():
    world = crowd("uncordon", failures=3)
    mend(world)
    assert world.case("c1").is_open
    assert not world.case("c1").held_by


def test_an_escalation_for_want_of_a_yes_is_no_failed_repair():
    world = FlowWorld(overlay="recovery: {failures: 1, others: uncordon}")
    world.refused.add(Purpose.REPAIR)
    world.break_node("a1")
    world.drive(world.ended())
    world.refused.clear()
    world.silence.add(Purpose.REPAIR)
    world.break_node("b1")
    world.drive(world.at_stage(Stage.APPROVE_REPAIR, "b1"))
    mend(world)
    assert world.case("b1").is_open


def test_a_dry_reconciliation_shows_who_gives_way_and_why():
    world = crowd("uncordon")
    shown = reconcile(world.services, world.road, is_dry_run=True)
    (found,) = [d for d in shown.drift if d.kind == "gives_way"]
    assert (found.node, found.remedy) == ("c1", "policy recovery.others: uncordon")
    assert "2 others of gpu_off_bus could not be repaired" in found.found
    assert world.case("c1").is_open
    failed = [s for s in world.ledger.steps(world.case("a1").id) if "reboot" in s.name]
    assert failed[0].status in {StepStatus.FAILED, StepStatus.UNKNOWN}
