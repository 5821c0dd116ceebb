from __future__ import annotations

import pytest

from breakfix.act.drain import DrainProgress, drain_once
from breakfix.act.guard import Expected
from breakfix.errors import ClusterError, Refused
from breakfix.model import Owner, RefusalReason, StepStatus
from breakfix.policy import Drain
from breakfix.ports import Eviction
from tests.unit.act_world import NOW, World, emptying, make_world


def drained(world: World, **changes) -> DrainProgress:
    """One pass, one eviction at a time unless asked otherwise: in the order of the pods."""
    since = changes.pop("since", NOW)
    policy = Drain(**{"evictions_per_s": 5.0, "evictions_in_flight": 1, **changes})
    return drain_once(world.acting, world.case, Expected(), emptying(policy, since))


def left(progress: DrainProgress) -> tuple[str, ...]:
    return tuple(s.id for s in progress.left)


def quarantined(*pods: str) -> World:
    world = make_world(is_quarantined=True)
    for name in pods:
        world.cluster.add_pod(name)
    return world


def evictions(world: World) -> list[str]:
    return [args[1] for method, args in world.cluster.calls if method == "evict"]


def test_evicts_all_and_is_done():
    world = quarantined("a", "b")
    progress = drained(world)
    assert progress.is_done
    assert progress.evicted == ("work/a", "work/b")
    assert world.step("drain-1").status is StepStatus.DONE


def test_an_empty_node_is_done_at_once():
    world = quarantined()
    assert drained(world).is_done
    assert world.step("drain-1").status is StepStatus.DONE


def test_skips_what_kubectl_skips():
    world = quarantined("a")
    world.cluster.sets.add(("work", "agent"))
    world.cluster.add_pod("agent-x", owners=(Owner("DaemonSet", "agent", "u"),))
    assert drained(world).is_done
    assert evictions(world) == ["a"]


def test_our_own_pods_are_left_alone():
    world = quarantined()
    world.cluster.add_pod("breakfix-x", owners=(), labels={"breakfix.dev/case": "x"})
    assert drained(world).is_done


def test_a_pod_that_may_not_be_taken_refuses_the_drain_before_the_first_eviction():
    world = quarantined("a")
    world.cluster.add_pod("bare", owners=())
    progress = drained(world)
    assert not progress.is_done
    assert [d.name for d in progress.refused] == ["bare"]
    assert left(progress) == ("work/a",)
    assert evictions(world) == []
    assert world.step("drain-1") is None


def test_terminating_pods_are_waited_for_and_not_evicted_again():
    world = quarantined("a")
    world.cluster.pods_go_at_once = False
    first, second = drained(world), drained(world)
    assert left(first) == left(second) == ("work/a",)
    assert evictions(world) == ["a"]
    world.cluster.settle()
    assert drained(world).is_done


def test_a_budget_blocks_and_later_lets_go():
    world = quarantined("a", "b")
    world.cluster.add_budget("web", {"app": "web"}, allowed=1)
    progress = drained(world)
    assert progress.evicted == ("work/a",)
    (blocked,) = progress.blocked
    assert (blocked.pod, blocked.needs_person) == ("work/b", False)
    assert "web" in blocked.message
    world.cluster.allow("web", 1)
    assert drained(world).is_done


def test_two_budgets_need_a_person():
    world = quarantined("a")
    world.cluster.add_budget("x", {"app": "web"}, allowed=1)
    world.cluster.add_budget("y", {"app": "web"}, allowed=1)
    (blocked,) = drained(world).blocked
    assert blocked.needs_person
    assert "needs a person" in blocked.message
    assert "pod.error" in world.events()


@pytest.mark.parametrize("status", ["gone", "conflict"])
def test_a_pod_whose_name_belongs_to_another_is_gone(status):
    world = quarantined("a")
    world.cluster.answer_evictions(Eviction(status))
    progress = drained(world)
    assert progress.blocked == ()
    assert left(progress) == ("work/a",)  # the new one is decided in the next pass


def test_a_server_that_asks_for_time_gets_it_before_any_other_pod_is_tried():
    world = quarantined("a", "b")
    world.cluster.answer_evictions(Eviction("busy", "later", 7.0))
    assert drained(world).is_done
    assert evictions(world) == ["a", "b", "a"]
    assert 7.0 <= max(world.clock.slept) <= 7.5


def test_a_server_that_stays_busy_ends_the_pass():
    world = quarantined("a")
    world.cluster.answer_evictions(*[Eviction("busy", "later", 1.0)] * 3)
    (blocked,) = drained(world).blocked
    assert (blocked.pod, blocked.kind, blocked.retry_after_s) == ("work/a", "api", 1.0)
    assert evictions(world) == ["a"] * 3


@pytest.mark.parametrize("status", ["evicted", "conflict", "gone", "blocked"])
def test_an_eviction_is_in_the_log_before_its_answer_is_known(status):
    world = quarantined("a")
    world.cluster.answer_evictions(Eviction(status))
    drained(world)
    assert world.events().count("pod.evicting") == 1


def test_an_eviction_whose_answer_was_lost_is_in_the_log():
    world = quarantined("a")
    world.cluster.fail("evict")
    with pytest.raises(ClusterError):
        drained(world)
    (entry,) = [e for e in world.ledger.audit_entries() if e.event == "pod.evicting"]
    assert (entry.detail["pod"], entry.detail["uid"]) == ("work/a", "uid-a")


def test_evictions_keep_their_rate():
    world = quarantined("a", "b", "c")
    drained(world, evictions_per_s=2.0)
    assert [s for s in world.clock.slept if s] == [0.5, 0.5]


def test_a_pass_ends_in_time():
    world = quarantined(*(f"p{i}" for i in range(10)))
    progress = drained(world, evictions_per_s=0.05)
    assert len(progress.evicted) == 4  # 20 s each, a pass has 60 s
    assert not progress.is_done


def test_an_uncordon_in_mid_drain_stops_it():
    world = quarantined("a", "b", "c")
    world.cluster.before["evict"] = lambda: world.cluster.change_node(
        "gpu-1", is_unschedulable=False
    )
    with pytest.raises(Refused) as caught:
        drained(world)
    assert caught.value.reason is RefusalReason.OVERRIDDEN
    assert evictions(world) == ["a"]
    assert "pod.evicted" in world.events()


def test_a_kill_switch_in_mid_drain_stops_it():
    world = quarantined("a", "b")
    switch = {"level": "disruption"}
    world.cluster.before["evict"] = lambda: world.cluster.config_maps.update(
        {("breakfix", "breakfix-halt"): switch}
    )
    with pytest.raises(Refused) as caught:
        drained(world)
    assert caught.value.reason is RefusalReason.HALTED
    assert evictions(world) == ["a"]


@pytest.mark.parametrize(("grace_s", "sent"), [(-1, None), (0, 0), (30, 30)])
def test_the_grace_is_the_pods_own_unless_policy_says_so(grace_s, sent):
    world = quarantined("a")
    seen: list[int | None] = []
    real = world.cluster.evict

    def evict(*args, grace_s, dry_run=False):
        seen.append(grace_s)
        return real(*args, grace_s=grace_s, dry_run=dry_run)

    world.cluster.evict = evict
    drained(world, grace_s=grace_s)
    assert seen == [sent]


def test_a_pass_that_failed_is_taken_up_again():
    world = quarantined("a", "b")
    world.cluster.fail("evict")
    with pytest.raises(ClusterError):
        drained(world)
    assert drained(world).is_done


def test_a_second_owner_of_the_case_cannot_be_disturbed_by_the_first():
    world = quarantined("a")
    world.take_over()
    with pytest.raises(Refused):
        drained(world)
    assert evictions(world) == []
