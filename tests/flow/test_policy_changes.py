"""The policy changes while cases are open: the stricter of the two holds, and nobody restarts."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.flow.case import run_stage
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import sweep
from breakfix.model import CaseEnd, NodeState, Purpose
from tests.flow.world import FlowWorld, policy_with

AUTO = "classes: {gpu_off_bus: {mode: auto}}"
ASKS = "classes: {gpu_off_bus: {mode: approve}}"
STOPS = "classes: {gpu_off_bus: {mode: recommend}}"


class ChangingWorld(FlowWorld):
    """Its services follow `now_in_force` and `note`, as those of a long-lived process do."""

    def __post_init__(self):
        super().__post_init__()
        self.now_in_force, self.note = self.services.policy, ""
        self.services = replace(self.services, policies=lambda: (self.now_in_force, self.note))
        self.road.services = self.services

    def admitted(self):
        """A case of a1 whose run has not begun."""
        self.break_node("a1")
        (case,) = sweep(self.services).cases
        return case


def test_a_sweep_judges_by_the_policy_in_force_and_says_which():
    world = ChangingWorld()
    first = sweep(world.services).assessment.judgement.policy_hash
    world.now_in_force = policy_with(AUTO)
    second = sweep(world.services).assessment
    assert first == policy_with().hash
    assert second.judgement.policy_hash == second.plan.policy_hash == policy_with(AUTO).hash


def test_a_sweep_under_an_older_policy_says_so():
    world = ChangingWorld()
    world.note = "the policy overlay x is not used"
    assert sweep(world.services).assessment.observation.warnings[0] == world.note


def test_a_class_that_may_no_longer_act_is_not_repaired_though_somebody_said_yes():
    world = ChangingWorld()
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.now_in_force = policy_with(STOPS)
    world.silence.clear()
    world.drive(lambda: world.case().state is NodeState.ESCALATED)
    assert world.ran["reboot"] == 0
    assert not [w for w in world.cluster.writes() if w[0] == "evict"]


def test_a_case_that_needed_no_question_is_asked_about_when_policy_asks_again():
    world = ChangingWorld(overlay=AUTO)
    case = world.admitted()
    world.now_in_force = policy_with(ASKS)
    assert run_stage(world.services, Stage.BEGIN, case.id, case.fence).to is Stage.APPROVE_REPAIR


def test_a_drain_that_began_without_a_question_is_asked_about_when_policy_asks_again():
    world = ChangingWorld(overlay=AUTO)
    world.silence.add(Purpose.REPAIR)
    world.break_node("a1")
    world.drive(world.at_stage(Stage.DRAIN))
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.drive(lambda: any(s.startswith("drain") for s in world.steps()))
    world.now_in_force = policy_with(ASKS)
    world.cluster.allow("web", 9)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    assert ("work", "web-1") in world.cluster._pods
    world.silence.clear()
    world.drive(world.ended())
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.RETURNED, 1)


def test_a_case_that_needs_a_question_keeps_it_when_policy_would_not_ask_any_more():
    world = ChangingWorld()
    case = world.admitted()
    world.now_in_force = policy_with(AUTO)
    assert run_stage(world.services, Stage.BEGIN, case.id, case.fence).to is Stage.APPROVE_REPAIR


@pytest.mark.parametrize("overlay", ["", "timing: {watch: 6m}"], ids=["same", "another number"])
def test_a_yes_is_bound_to_the_plan_and_outlives_a_change_elsewhere_in_the_policy(overlay):
    world = ChangingWorld()
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    asked = world.ledger.approvals(world.case().id)[-1]
    world.now_in_force = policy_with(overlay)
    world.silence.clear()
    world.drive(lambda: world.ran["reboot"] == 1)
    assert asked.plan_hash == world.case().plan_hash
