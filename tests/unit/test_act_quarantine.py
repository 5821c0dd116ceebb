from __future__ import annotations

import pytest

from breakfix.act.guard import Expected
from breakfix.act.quarantine import clear_marks, quarantine, release, set_state_label
from breakfix.errors import ClusterError, IllegalTransition, Refused
from breakfix.model import Case, Condition, NodeState, RefusalReason, StepStatus, Taint
from breakfix.ports import Limit
from tests.fakes_cluster import CORDON_TAINT
from tests.unit.act_world import FLEET, NOW, World, intent, make_world

OTHERS = Taint("example.com/upgrade", "NoExecute", "v2")
OURS = Taint("breakfix.dev/quarantine", "NoSchedule", "gpu_off_bus")


def patches(world: World) -> int:
    return sum(method == "patch_node" for method, _ in world.cluster.calls)


def test_one_patch_cordons_taints_labels_and_says_whose_it_is():
    world = make_world(taints=(OTHERS,), labels={"a": "b"}, annotations={"c": "d"})
    node = quarantine(world.acting, world.case, Expected())
    assert patches(world) == 1
    assert node.is_unschedulable
    assert set(node.taints) == {OTHERS, OURS}
    assert node.labels == {"a": "b", "breakfix.dev/state": "quarantined"}
    assert node.annotations == {
        "c": "d",
        "breakfix.dev/case": world.case.id,
        "breakfix.dev/fence": "1",
        "breakfix.dev/cordoned-by-us": "true",
    }
    assert world.step("quarantine-1").status is StepStatus.DONE
    assert world.cluster.events[0][:2] == ("gpu-1", "Quarantined")


def test_the_step_is_begun_before_the_effect():
    world = make_world()
    world.cluster.fail("patch_node")
    with pytest.raises(ClusterError):
        quarantine(world.acting, world.case, Expected())
    assert world.step("quarantine-1").status is StepStatus.DISPATCHED


def test_nothing_is_begun_when_it_is_refused():
    world = make_world()
    with pytest.raises(Refused):
        quarantine(world.acting, world.case, Expected(reason_gone=lambda _: "healthy again"))
    assert world.step("quarantine-1") is None
    assert not world.cluster.writes()


def test_a_node_that_is_quarantined_already_is_not_written():
    world = make_world()
    quarantine(world.acting, world.case, Expected())
    world.ledger._steps.clear()  # as if the record of it had been lost with its task
    quarantine(world.acting, world.case, Expected())
    assert patches(world) == 1


def test_a_lost_answer_is_found_out_by_looking():
    world = make_world()
    real = world.cluster.patch_node

    def patch_and_lose_the_answer(*args):
        real(*args)
        world.cluster.patch_node = real
        raise ClusterError("connection reset", is_transient=True)

    world.cluster.patch_node = patch_and_lose_the_answer
    with pytest.raises(ClusterError):
        quarantine(world.acting, world.case, Expected())
    node = quarantine(world.acting, world.case, Expected())
    assert patches(world) == 1
    assert node.annotations["breakfix.dev/cordoned-by-us"] == "true"
    assert world.step("quarantine-1").status is StepStatus.DONE


def test_a_conflict_is_followed_by_every_check_again():
    world = make_world()
    world.cluster.before["patch_node"] = lambda: world.cluster.change_node("gpu-1")
    quarantine(world.acting, world.case, Expected())
    assert patches(world) == 2
    assert sum(method == "node" for method, _ in world.cluster.calls) == 2


def test_a_kill_switch_between_two_tries_is_heeded():
    world = make_world()

    def meanwhile():
        world.cluster.change_node("gpu-1")
        world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "all"}

    world.cluster.before["patch_node"] = meanwhile
    with pytest.raises(Refused):
        quarantine(world.acting, world.case, Expected())
    assert not world.cluster.node("gpu-1").is_unschedulable


def test_a_node_that_never_stands_still_is_given_up():
    world = make_world()
    real = world.cluster.patch_node

    def contended(*args):
        world.cluster.change_node("gpu-1")
        return real(*args)

    world.cluster.patch_node = contended
    with pytest.raises(ClusterError, match="changed 6 times"):
        quarantine(world.acting, world.case, Expected())


def test_a_persons_uncordon_is_not_fought():
    world = make_world(is_quarantined=True)
    world.cluster.change_node("gpu-1", is_unschedulable=False)
    with pytest.raises(Refused) as caught:
        quarantine(world.acting, world.case, Expected())
    assert caught.value.reason is RefusalReason.OVERRIDDEN
    assert not world.cluster.node("gpu-1").is_unschedulable


def test_a_stale_task_does_not_take_a_returned_node_out_again():
    world = make_world(is_quarantined=True)
    world.move(NodeState.VALIDATING)
    release(world.acting, world.case, Expected())
    world.move(NodeState.RETURNING)
    with pytest.raises(Refused) as caught:
        quarantine(world.acting, world.case, Expected())
    assert caught.value.reason is RefusalReason.REASON_GONE
    assert not world.cluster.node("gpu-1").is_unschedulable


def test_a_case_that_breaks_again_under_watch_takes_its_node_out_again():
    world = make_world(is_quarantined=True)
    world.move(NodeState.VALIDATING)
    release(world.acting, world.case, Expected())
    world.move(NodeState.RETURNING)
    again = world.ledger.admit(
        intent(), [Limit(FLEET, 100, frozenset())], requester="sweep", now=NOW
    )
    assert isinstance(again, Case)
    node = quarantine(world.acting, again, Expected())
    assert node.is_unschedulable
    assert node.annotations["breakfix.dev/fence"] == str(again.fence)
    assert world.step("quarantine-2").status is StepStatus.DONE


def test_a_new_fence_finds_the_step_of_the_old_one():
    world = make_world(is_quarantined=True)
    world.take_over()
    now = world.ledger.case(world.case.id)
    quarantine(world.acting, now, Expected())
    assert not world.cluster.writes()


def test_release_takes_only_what_is_ours():
    world = make_world(is_quarantined=True, taints=(OTHERS,), labels={"a": "b"})
    node = release(world.acting, world.case, Expected())
    world.cluster.settle()
    assert not node.is_unschedulable
    assert world.cluster.node("gpu-1").taints == (OTHERS,)
    assert node.labels == {"a": "b", "breakfix.dev/state": "returning"}
    assert node.annotations["breakfix.dev/case"] == world.case.id
    assert clear_marks(world.cluster, world.case)
    assert world.cluster.node("gpu-1").labels == {"a": "b"}
    assert world.cluster.node("gpu-1").annotations == {}


def test_a_cordon_that_was_there_before_us_stays():
    world = make_world(is_quarantined=True, is_unschedulable=True)
    assert world.cluster.node("gpu-1").annotations["breakfix.dev/cordoned-by-us"] == "false"
    node = release(world.acting, world.case, Expected())
    world.cluster.settle()
    assert node.is_unschedulable
    assert OURS not in node.taints
    assert CORDON_TAINT in world.cluster.node("gpu-1").taints


def test_release_is_recorded_once_however_often_it_is_run():
    world = make_world(is_quarantined=True)
    for _ in range(3):
        release(world.acting, world.case, Expected())
    assert patches(world) == 1
    assert [s.name for s in world.ledger.steps(world.case.id)] == ["quarantine-1", "release-1"]


def test_release_whose_answer_was_lost_is_not_taken_for_a_persons_uncordon():
    world = make_world(is_quarantined=True)
    real = world.cluster.patch_node

    def patch_and_lose_the_answer(*args):
        real(*args)
        world.cluster.patch_node = real
        raise ClusterError("connection reset", is_transient=True)

    world.cluster.patch_node = patch_and_lose_the_answer
    with pytest.raises(ClusterError):
        release(world.acting, world.case, Expected())
    assert not release(world.acting, world.case, Expected()).is_unschedulable
    assert world.step("release-1").status is StepStatus.DONE


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"is_unschedulable": False}, id="uncordoned by a person"),
        pytest.param({"annotations": {"breakfix.dev/case": "other"}}, id="taken over"),
        pytest.param({"annotations": {}}, id="our annotations removed"),
    ],
)
def test_release_of_a_node_that_is_no_longer_ours_is_refused(changes):
    world = make_world(is_quarantined=True)
    world.cluster.change_node("gpu-1", **changes)
    with pytest.raises(Refused) as caught:
        release(world.acting, world.case, Expected())
    assert caught.value.reason is RefusalReason.OVERRIDDEN
    assert not world.cluster.writes()


def test_release_is_not_held_by_limits_or_the_first_level_of_halt():
    world = make_world(is_quarantined=True)
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "disruption"}
    assert not release(world.acting, world.case, Expected()).is_unschedulable


def test_an_event_that_cannot_be_posted_fails_nothing():
    world = make_world()
    world.cluster.fail("post_event")
    assert quarantine(world.acting, world.case, Expected()).is_unschedulable


def test_the_label_follows_the_ledger():
    world = make_world(is_quarantined=True)
    set_state_label(world.acting, world.case, NodeState.VALIDATING)
    node = set_state_label(world.acting, world.case, NodeState.VALIDATING)
    assert node.labels["breakfix.dev/state"] == "validating"
    assert patches(world) == 1


def test_marks_of_another_case_are_not_cleared():
    world = make_world(is_quarantined=True)
    world.cluster.change_node("gpu-1", annotations={"breakfix.dev/case": "other"})
    assert not clear_marks(world.cluster, world.case)
    world.cluster.remove_node("gpu-1")
    assert not clear_marks(world.cluster, world.case)


def test_not_ready_is_no_hindrance():
    world = make_world(conditions=(Condition("Ready", "Unknown"),))
    assert quarantine(world.acting, world.case, Expected()).is_unschedulable


def test_the_fake_ledger_keeps_the_table_of_transitions():
    with pytest.raises(IllegalTransition):
        make_world().move(NodeState.RETURNING)
