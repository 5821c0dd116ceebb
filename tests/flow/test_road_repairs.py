"""The road as operators know it: what is repaired, waits, escalates, or stays untouched."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.errors import ClusterError, Refused
from breakfix.flow.answers import refused_return
from breakfix.flow.case import abort_case, run_stage
from breakfix.flow.endings import give_up, node_gone, refused
from breakfix.flow.stages import Go, Stage
from breakfix.model import (
    Action,
    CaseEnd,
    FailureClass,
    HaltLevel,
    NodeState,
    Purpose,
    RefusalReason,
    StepStatus,
)
from tests.flow.world import FlowWorld


def broken_world(xid=79, **changes):
    world = FlowWorld(**changes)
    world.break_node("a1", xid)
    return world


def is_watched_at(world, fence):
    def holds():
        cases = world.ledger.cases()
        return cases and cases[-1].fence == fence and cases[-1].state is NodeState.RETURNING

    return holds


def halt(world, level):
    world.ledger.set_halt(level, actor="ann", reason="test", now=world.clock.now())


# --------------------------------------------------------------------------- what is repaired


def test_an_xid_79_is_drained_rebooted_validated_and_returned_for_good():
    world = broken_world()
    world.cluster.add_pod("web-1", "a1", gpus=4)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert (world.ran["reboot"], world.ran["diag"]) == (1, 1)
    assert ("work", "web-1") not in world.cluster._pods
    assert world.is_in_service()
    assert world.is_audit_sound()


def test_an_uncontained_memory_error_is_reset_and_not_rebooted():
    world = broken_world(95)
    world.drive(world.ended())
    assert (world.case().end, world.case().action) == (CaseEnd.RETURNED, Action.RESET_GPU)
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 0)


def test_a_device_that_the_plugin_withholds_comes_back_with_the_plugin():
    world = FlowWorld()
    world.add_plugin("a1")
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.drive(world.ended())
    assert world.case().action is Action.RESTART_DEVICE_PLUGIN
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["plugin"] == 1
    assert world.is_in_service()


def test_a_plugin_that_the_validation_restarts_is_on_record_to_its_end():
    world = broken_world()
    world.add_plugin("a1")
    world.drive(world.at_stage(Stage.CHECK_GPUS))
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.steps()["repair-restart_device_plugin-1.2"] is StepStatus.DONE
    assert StepStatus.DISPATCHED not in world.steps().values()


def test_the_nodes_that_nothing_is_wrong_with_are_never_written():
    world = broken_world()
    world.drive(world.ended())
    assert {args[0] for what, args in world.cluster.writes() if what == "patch_node"} == {"a1"}


def test_a_second_fault_of_the_rack_waits_until_the_first_is_in_service():
    world = broken_world()
    world.break_node("a2")
    world.drive(lambda: bool(world.ledger.cases(node="a2")))
    assert world.case("a1").state in {NodeState.RETURNING, NodeState.HEALTHY}
    world.drive(world.ended("a1", "a2"))
    assert [world.case(n).end for n in ("a1", "a2")] == [CaseEnd.RETURNED] * 2


# --------------------------------------------------------------------------- what waits


def test_a_budget_that_allows_nothing_holds_the_node_back_until_it_allows_some():
    world = broken_world()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.run_for(300)
    assert not world.ledger.cases()
    assert world.is_in_service()
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_budget_that_closes_after_the_quarantine_is_waited_for():
    world = broken_world()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=1)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.cluster.allow("web", 0)
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.at_stage(Stage.DRAIN))
    world.run_for(60)
    assert ("work", "web-1") in world.cluster._pods
    assert world.ran["reboot"] == 0
    assert any(reason == "DrainBlocked" for _, reason, _, _ in world.cluster.events)
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_drain_that_never_ends_escalates_at_its_deadline_without_a_repair():
    world = broken_world()
    world.cluster.pods_go_at_once = False
    world.cluster.settle = lambda: None  # the pod never goes
    world.cluster.add_pod("web-1", "a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "overdue" in world.why()
    assert world.ran["reboot"] == 0
    assert world.is_held_out()


@pytest.mark.parametrize(
    ("level", "until"),
    [
        pytest.param(HaltLevel.DISRUPTION, Stage.APPROVE_REPAIR, id="a disruption is held by both"),
        pytest.param(HaltLevel.ALL, Stage.APPROVE_REPAIR, id="the second level holds it too"),
        pytest.param(HaltLevel.ALL, Stage.CHECK_SIGNALS, id="a recovery only by the second"),
    ],
)
def test_a_halt_holds_the_case_where_it_is_and_it_goes_on_when_lifted(level, until):
    world = broken_world()
    if until is Stage.APPROVE_REPAIR:
        world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(until))
    halt(world, level)
    world.silence.clear()
    state, writes = world.case().state, len(world.cluster.writes())
    world.run_for(900)
    assert world.case().state is state
    assert len(world.cluster.writes()) == writes
    halt(world, HaltLevel.NONE)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_halt_of_disruption_lets_a_repaired_node_return():
    world = broken_world()
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    halt(world, HaltLevel.DISRUPTION)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_the_clusters_own_halt_counts_as_much_as_the_ledgers():
    world = broken_world()
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "disruption"}
    world.run_for(300)
    assert not world.ledger.cases()


def test_a_halt_of_all_does_not_end_a_watch_nor_take_a_mark_off():
    world = broken_world()
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    halt(world, HaltLevel.ALL)
    world.run_for(900)
    assert world.case().is_open
    assert "breakfix.dev/case" in world.node().annotations


def test_a_held_case_is_left_alone_until_unhold():
    world = broken_world()
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    world.ledger.hold(world.case().id, actor="ann", reason="look", now=world.clock.now())
    writes = len(world.cluster.writes())
    world.run_for(900)
    assert world.case().state is NodeState.VALIDATING
    assert len(world.cluster.writes()) == writes
    world.ledger.unhold(world.case().id, actor="ann", reason="seen", now=world.clock.now())
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


# --------------------------------------------------------------------------- people


def test_a_rejected_repair_escalates_and_the_node_stays_cordoned_and_unrepaired():
    world = broken_world()
    world.cluster.add_pod("web-1", "a1")
    world.refused.add(Purpose.REPAIR)
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "repair refused by oncall")
    assert world.is_held_out()
    assert world.node().labels["breakfix.dev/state"] == "escalated"
    assert ("work", "web-1") in world.cluster._pods
    assert not world.ran


def test_silence_about_a_repair_is_no():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "repair expired by nobody")
    assert not world.ran


def test_an_answer_of_somebody_who_is_no_approver_is_silence():
    world = broken_world()
    world.approver = "mallory"
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "not an approver" in world.ledger.approvals(world.case().id)[-1].note
    assert not world.ran


def test_a_refused_return_escalates_with_the_node_still_out():
    world = broken_world()
    world.refused.add(Purpose.RETURN)
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "return refused by oncall")
    assert world.is_held_out()


def test_silence_about_a_return_keeps_it_out_and_asks_again_after_a_fresh_validation():
    world = broken_world()
    world.silence.add(Purpose.RETURN)
    world.drive(lambda: world.ledger.cases() and world.case().fence == 2)
    assert world.is_held_out()
    world.silence.clear()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert (world.ran["reboot"], world.ran["diag"]) == (1, 2)
    asked = [a for a in world.ledger.approvals(world.case().id) if a.purpose is Purpose.RETURN]
    assert [a.decision for a in asked] == ["expired", "allowed"]
    assert any(subject == "return unanswered" for subject, _ in world.notifier.told)


def test_a_yes_does_not_outlive_its_time():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.silence.clear()
    run = world.road.runs[world.case().run_id]
    world.road._step(run)
    assert run.stage is Stage.DRAIN
    world.clock.sleep(3600)
    result = run_stage(world.services, Stage.DRAIN, world.case().id, 1)
    assert isinstance(result, Go)
    assert (result.to, "not approved" in result.note) == (Stage.SETTLE_RUN, True)


@pytest.mark.parametrize("stage", [Stage.DRAIN, Stage.REBOOT_NODE, Stage.RETURN_NODE])
def test_a_stage_that_somebody_starts_past_the_question_does_nothing(stage):
    world = broken_world()
    world.cluster.add_pod("web-1", "a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    writes = len(world.cluster.writes())
    result = run_stage(world.services, stage, world.case().id, world.case().fence)
    assert isinstance(result, Go)
    assert result.to is Stage.SETTLE_RUN
    assert "not approved" in result.note or "is not for a case" in result.note
    assert len(world.cluster.writes()) == writes
    assert world.case().state is NodeState.QUARANTINED


def test_an_abort_before_the_repair_gives_the_node_back():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.ledger.hold(world.case().id, actor="ann", reason="hm", now=world.clock.now())
    said = abort_case(world.services, world.case().id, actor="ann", reason="spare it")
    assert "aborted" in said
    assert world.case().end is CaseEnd.ABORTED
    assert world.is_in_service()


def test_an_abort_under_repair_leaves_the_node_out_for_a_person():
    world = broken_world()
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    abort_case(world.services, world.case().id, actor="ann", reason="enough")
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "enough")
    assert world.is_held_out()


# --------------------------------------------------------------------------- what is not fixed


def test_a_node_that_breaks_again_climbs_the_ladder_and_escalates_for_hardware():
    world = broken_world()
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    world.clock.sleep(5)
    world.break_node("a1")
    world.drive(lambda: world.case().fence == 2)
    assert world.case().action is Action.HOLD_FOR_HARDWARE
    assert world.case().attempt == 2
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "held for hardware" in world.why()
    assert len(world.ledger.cases()) == 1
    assert world.ran["reboot"] == 1
    assert world.is_held_out()


def test_a_memory_error_that_comes_back_is_rebooted_and_then_held():
    world = broken_world(95)
    for fence, action in enumerate((Action.RESET_GPU, Action.REBOOT_NODE), 1):
        world.drive(is_watched_at(world, fence))
        assert world.case().action is action
        world.clock.sleep(5)
        world.break_node("a1", 95)
    world.drive(world.ended())
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 1)
    assert (world.case().action, world.case().end) == (
        Action.HOLD_FOR_HARDWARE,
        CaseEnd.ESCALATED,
    )


def test_a_reboot_that_changes_no_boot_id_is_unknown_and_never_called_done():
    world = broken_world(reboot_works=False)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.steps()["repair-reboot_node-1"] is StepStatus.UNKNOWN
    assert "a person must look" in world.why()
    assert world.case().repaired_at is None


@pytest.mark.parametrize(
    "diag",
    [
        pytest.param((226, '{"DCGM Diagnostic": {}}'), id="the diagnostic failed"),
        pytest.param((0, "no json at all"), id="its output cannot be read"),
        pytest.param((0, ""), id="its log is empty"),
    ],
)
def test_a_node_is_not_returned_when(diag):
    world = broken_world(diag=diag)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()
    assert world.steps()["diag_r2-1"] in {StepStatus.FAILED, StepStatus.UNKNOWN}


def test_a_reset_that_fails_is_followed_by_the_next_rung_with_a_yes_of_its_own():
    world = broken_world(95, reset_exit=19)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert (world.ran["reset"], world.ran["reboot"]) == (1, 1)
    asked = [a for a in world.ledger.approvals(world.case().id) if a.purpose is Purpose.REPAIR]
    assert len({a.plan_hash for a in asked}) == len(asked) == 2
    assert "exit code 19" in world.case().detail["climbed_because"]


def test_a_reset_pod_that_vanished_is_not_started_again():
    world = broken_world(95)
    world.drive(world.at_stage(Stage.RESET_GPU))
    world.road.tick()
    (key,) = [k for k in world.cluster._pods if "reset" in k[1]]
    world.cluster.remove_pod(*key)
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.steps()["repair-reset_gpu-1"] is StepStatus.UNKNOWN
    assert (world.ran["reset"], world.ran["reboot"]) == (0, 1)  # the next rung boots the node
    assert len([k for k in world.cluster.manifests if "reset" in k[1]]) == 1


def test_a_reboot_pod_that_vanished_is_not_started_again():
    world = broken_world(reboot_works=False)
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.road.tick()
    (key,) = [k for k in world.cluster._pods if "reboot" in k[1]]
    world.cluster.remove_pod(*key)
    run = world.road.runs[world.case().run_id]
    for _ in range(3):
        run.wait = None
        world.road._step(run)
    made = [args for what, args in world.cluster.calls if what == "create_pod"]
    assert len(made) == 1
    world.drive(world.ended())
    assert world.steps()["repair-reboot_node-1"] is StepStatus.UNKNOWN


def test_a_repair_that_clears_nothing_is_seen_by_the_validation():
    world = broken_world(repair_clears=False)
    world.drive(world.at_stage(Stage.CHECK_GPUS))
    world.clock.sleep(5)
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.steps()["check_signals-1"] is StepStatus.FAILED


def test_a_capacity_that_shrank_with_the_lost_gpu_does_not_pass_for_whole():
    world = FlowWorld()
    world.cluster.change_node("a1", labels={**world.node().labels, "nvidia.com/gpu.count": "8"})
    world.break_node("a1")
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.cluster.change_node("a1", gpus_capacity=7, gpus_allocatable=7)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "7 of 8 GPUs" in world.why()


def test_a_validation_without_a_device_plugin_pod_waits_and_never_lets_the_node_go():
    world = broken_world()
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.cluster.change_node("a1", gpus_allocatable=0)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_a_missing_pod_is_not_a_missing_node():
    world = broken_world()
    world.drive(world.at_stage(Stage.RUN_DIAG))
    from breakfix.errors import NotFound

    world.kubelet()
    world.cluster.fail("pod_log", NotFound('pods "diag" not found'))
    run = world.road.runs[world.case().run_id]
    run.wait = None
    world.road._step(run)
    world.kubelet()
    run.wait = None
    with pytest.raises(NotFound):
        world.road._step(run)
    assert world.case().is_open
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


# --------------------------------------------------------------------------- doubt


def test_lost_telemetry_holds_a_new_disruption():
    world = broken_world()
    world.metrics.is_down = True
    world.run_for(600)
    assert not world.ledger.cases()


def test_metrics_that_only_one_label_ties_to_a_node_condemn_nobody():
    world = broken_world()
    world.metrics.untied.add("a1")
    world.run_for(600)
    assert not world.ledger.cases()
    assert not world.node().is_unschedulable


def test_lost_telemetry_holds_the_return_until_its_deadline_and_then_escalates():
    world = broken_world()
    world.drive(world.at_stage(Stage.CHECK_GPUS))
    world.metrics.silent.add("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_a_node_that_breaks_while_its_return_is_asked_about_is_not_returned():
    world = broken_world()
    world.silence.add(Purpose.RETURN)
    world.drive(world.at_stage(Stage.APPROVE_RETURN))
    world.break_node("a1")
    world.silence.clear()
    run = world.road.runs[world.case().run_id]
    run.wait = None
    world.road._step(run)
    assert run.stage is Stage.RETURN_NODE
    world.road._step(run)
    assert "stays out" in run.trail[-1]
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.is_held_out()


def test_an_old_validation_is_repeated_before_the_return():
    world = broken_world(overlay="timing: {evidence_max_age: 60s}")
    world.silence.add(Purpose.RETURN)
    world.drive(world.at_stage(Stage.APPROVE_RETURN))
    world.clock.sleep(120)
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["diag"] == 2


def test_a_watch_goes_on_while_nobody_can_see_the_node():
    world = broken_world()
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    world.metrics.silent.add("a1")
    world.run_for(1200)
    assert world.case().is_open
    world.metrics.silent.clear()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_a_repaired_gpu_that_no_longer_tells_is_not_returned():
    world = broken_world()
    world.drive(lambda: world.ran["reboot"])
    world.metrics.mute.add("a1")
    world.run_for(3600)
    assert world.is_held_out()
    assert "xid_last of GPU GPU-a1, which spoke before" in world.verdict().reason
    world.metrics.mute.clear()
    assert world.verdict().failure_class is None


def test_a_suspect_whose_gpu_loses_the_field_stays_so_until_it_tells_again():
    world = broken_world(63)  # remapped rows: a hint that wants a second source
    world.road.sweep()
    assert world.verdict().state is NodeState.SUSPECT
    world.metrics.xids.clear()
    world.metrics.mute.add("a1")
    for _ in range(3):
        world.clock.sleep(60)
        world.road.sweep()
        seen = world.verdict()
        assert (seen.state, seen.failure_class) == (NodeState.SUSPECT, FailureClass.TELEMETRY_LOST)
        assert not world.ledger.cases()
    world.metrics.mute.clear()
    world.road.sweep()
    assert world.verdict().state is NodeState.HEALTHY


def test_a_spontaneous_reboot_before_the_drain_aborts_and_releases():
    world = broken_world()
    world.cluster.add_pod("web-1", "a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.cluster.reboot("a1")
    world.metrics.xids.clear()
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ABORTED
    assert world.is_in_service()
    assert ("work", "web-1") in world.cluster._pods
    assert not world.ran


def test_a_state_that_is_gone_by_the_time_of_the_drain_aborts_and_releases():
    world = FlowWorld()
    world.add_plugin("a1")
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.road.sweep()
    world.cluster.change_node("a1", gpus_allocatable=8)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ABORTED
    assert world.is_in_service()


# --------------------------------------------------------------------------- other hands


def test_a_cordon_of_somebody_else_stays_after_all():
    world = broken_world()
    world.cluster.change_node("a1", is_unschedulable=True)
    world.run_for(600)
    assert not world.ledger.cases()
    assert world.node().is_unschedulable
    assert not world.taints()


def test_a_cordon_that_came_first_by_a_hair_is_left_to_its_owner():
    world = broken_world()
    world.cluster.before["patch_node"] = lambda: world.cluster.change_node(
        "a1", is_unschedulable=True
    )
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert world.node().is_unschedulable
    assert not world.taints()
    assert {name for name, _ in world.cluster.writes()} <= {"patch_node"}


def test_a_pod_that_may_not_be_drained_holds_the_node_back():
    world = broken_world()
    world.cluster.add_pod("notebook", "a1", owners=())
    world.run_for(300)
    assert not world.ledger.cases()
    (_, plan) = world.ledger._sweeps[-1]
    assert [r.reason for r in plan.refusals] == [RefusalReason.POD_REFUSED]


def test_a_pod_that_came_after_the_quarantine_and_may_not_go_escalates_with_its_name():
    world = broken_world()
    world.cluster.add_pod("web-1", "a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.cluster.add_pod("notebook", "a1", owners=())
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "work/notebook" in world.why()
    assert {"web-1", "notebook"} <= {name for _, name in world.cluster._pods}


def test_an_exclusion_label_takes_the_node_out_of_our_hands():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.cluster.change_node("a1", labels={**world.node().labels, "breakfix.dev/exclude": "true"})
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert not world.taints()
    assert not world.node().is_unschedulable  # the cordon was ours
    assert world.node().labels["breakfix.dev/exclude"] == "true"


def exclude(world, node="a1"):
    labels = {**world.node(node).labels, "breakfix.dev/exclude": "true"}
    world.cluster.change_node(node, labels=labels)


def test_an_exclusion_that_is_killed_half_way_still_takes_our_cordon_off():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    exclude(world)
    halt(world, HaltLevel.ALL)
    refusal = Refused(RefusalReason.EXCLUDED, "excluded")
    with pytest.raises(Refused):
        refused(world.services, world.case(), Stage.DRAIN, refusal)
    assert world.case().is_open
    halt(world, HaltLevel.NONE)
    world.road.kill(world.case().run_id)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert not world.node().is_unschedulable
    assert not world.taints()


def test_a_cordon_by_a_person_survives_an_exclusion_label():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    annotations = {**world.node().annotations, "breakfix.dev/cordoned-by-us": "false"}
    world.cluster.change_node("a1", annotations=annotations)
    exclude(world)
    refusal = Refused(RefusalReason.EXCLUDED, "excluded")
    refused(world.services, world.case(), Stage.DRAIN, refusal)
    assert world.node().is_unschedulable
    assert not world.taints()


def test_an_abort_of_an_excluded_node_takes_our_cordon_off():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    exclude(world)
    abort_case(world.services, world.case().id, actor="ann", reason="spare it")
    assert world.case().end is CaseEnd.ABORTED
    assert not world.node().is_unschedulable


def test_an_exclusion_label_under_repair_leaves_the_node_out_and_tells_people():
    world = broken_world()
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    exclude(world)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "excluded" in world.why()
    assert world.is_held_out()
    assert world.node().labels["breakfix.dev/state"] == "escalated"
    assert any("escalated" in subject for subject, _ in world.notifier.told)


def test_a_cordon_that_came_between_admission_and_quarantine_ends_the_case():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.cluster.change_node("a1", labels={}, annotations={}, taints=())
    refusal = Refused(RefusalReason.FOREIGN_CORDON, "cordoned by somebody else")
    refused(world.services, world.case(), Stage.BEGIN, refusal)
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert world.node().is_unschedulable


# --------------------------------------------------------------------------- pods that come late


def with_stuck_pod(xid=79):
    """At its repair, with the repair's pod dispatched and its image never pulled."""
    world = broken_world(xid)
    world._run = lambda *_: None
    repairs = (Stage.REBOOT_NODE, Stage.RESET_GPU)
    world.drive(lambda: any(world.at_stage(s)() for s in repairs))
    world.road.tick()
    assert our_pods(world)
    return world


def our_pods(world):
    return [p for p in world.cluster._pods.values() if "breakfix.dev/case" in p.labels]


@pytest.mark.parametrize("xid", [79, 95], ids=["reboot", "reset"])
def test_no_repair_pod_outlives_its_aborted_case(xid):
    world = with_stuck_pod(xid)
    abort_case(world.services, world.case().id, actor="ann", reason="enough")
    assert world.case().end is CaseEnd.ESCALATED
    assert not our_pods(world)


@pytest.mark.parametrize("xid", [79, 95], ids=["reboot", "reset"])
def test_no_repair_pod_outlives_its_deadline(xid):
    world = with_stuck_pod(xid)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert not our_pods(world)


def test_no_repair_pod_outlives_a_node_that_a_person_took_back():
    world = with_stuck_pod()
    world.uncordon("a1")
    give_up(world.services, world.case(), CaseEnd.OVERRIDDEN, "taken back")
    assert not our_pods(world)


def test_no_diagnostic_outlives_its_deadline():
    world = broken_world()
    world.drive(world.at_stage(Stage.RUN_DIAG))
    world._run = lambda *_: None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert not [p for p in our_pods(world) if not p.is_finished]


def test_no_repair_pod_waits_for_another_machine_of_that_name():
    world = with_stuck_pod()
    world.cluster.change_node("a1", uid="another-machine")
    node_gone(world.services, world.case(), "another machine has the name")
    assert world.case().end is CaseEnd.NODE_GONE
    assert not our_pods(world)


def test_an_ending_whose_pod_cannot_be_deleted_now_is_tried_again():
    world = with_stuck_pod()
    world.cluster.fail("delete_pod")
    with pytest.raises(ClusterError):
        abort_case(world.services, world.case().id, actor="ann", reason="enough")
    assert world.case().is_open
    world.drive(world.ended())
    assert not our_pods(world)


# --------------------------------------------------------------------------- the return's proof


def waiting_for_return(**changes):
    world = broken_world(**changes)
    world.silence.add(Purpose.RETURN)
    world.drive(world.at_stage(Stage.APPROVE_RETURN))
    return world


def answer_return(world):
    """Somebody answers now; the run goes one stage further."""
    world.silence.clear()
    run = world.road.runs[world.case().run_id]
    run.wait = None
    world.road._step(run)
    return run


def test_a_node_that_rebooted_since_its_validation_is_validated_again():
    world = waiting_for_return()
    world.cluster.reboot("a1")
    run = answer_return(world)
    world.road._step(run)
    assert "rebooted since its validation" in run.trail[-1]
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert world.ran["diag"] == 2


def test_a_node_that_rebooted_during_its_diagnostic_did_not_pass():
    world = broken_world()
    world.drive(world.at_stage(Stage.RUN_DIAG))
    world.road.tick()
    world.kubelet()
    world.cluster.reboot("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "the node rebooted during diag_r1" in world.why()


def test_a_node_needs_the_gpus_it_had_when_its_case_was_opened():
    world = broken_world()
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    case = world.case()
    world.ledger.move(
        case.id,
        case.fence,
        case.state,
        actor="t",
        reason="t",
        now=world.clock.now(),
        detail={"gpus_expected": 9},
    )
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert "8 of 9 GPUs" in world.why()


def test_a_question_about_a_return_expires_no_later_than_its_evidence():
    world = waiting_for_return(overlay="timing: {evidence_max_age: 300s}")
    asked = world.ledger.approvals(world.case().id)[-1]
    (diag,) = [s for s in world.ledger.steps(world.case().id) if s.name == "diag_r2-1"]
    assert asked.expires_at == diag.ended_at + timedelta(seconds=300)


def test_a_refused_return_is_not_forgotten_by_a_crash():
    world = waiting_for_return()
    world.refused.add(Purpose.RETURN)
    run = answer_return(world)
    assert run.stage is Stage.ESCALATE
    world.road.kill(world.case().run_id)
    world.refused.clear()
    assert refused_return(world.services, world.case())
    world.drive(world.ended())
    assert (world.case().end, world.why()) == (CaseEnd.ESCALATED, "return refused by oncall")
    assert world.case().fence == 2
    assert world.is_held_out()


def test_the_questions_deadline_is_the_policys():
    world = broken_world()
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    (asked,) = world.ledger.approvals(world.case().id)
    assert asked.expires_at - asked.asked_at == timedelta(minutes=30)
