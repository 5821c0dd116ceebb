"""Evictions in parallel: bounded, at the rate, and stopped by whatever forbids the next one."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.act.drain import drain_once
from breakfix.act.guard import Expected
from breakfix.errors import ClusterError, Refused
from breakfix.model import RefusalReason, StepStatus
from breakfix.policy_drain import Drain
from breakfix.ports import Eviction
from breakfix.resilience.rate import reserved
from tests.unit.act_world import NOW, World, emptying, make_world


class RealClock:
    """For what threads do: it moves by itself."""

    def now(self):
        return NOW

    def monotonic(self):
        return time.monotonic()

    def sleep(self, seconds):
        time.sleep(seconds)


def parallel_world(pods: int) -> World:
    world = make_world(is_quarantined=True)
    world.ledger.clock = None  # the wall's, as the evictions'
    world.acting = replace(world.acting, clock=RealClock())
    for i in range(pods):
        world.cluster.add_pod(f"p{i}")
    return world


def drained(world, **changes):
    policy = Drain.model_validate({"evictions_per_s": 500.0, **changes})
    return drain_once(world.acting, world.case, Expected(), emptying(policy, NOW))


class Slow:
    """An API server that takes its time, and counts who waits for it."""

    def __init__(self, world, *, takes_s=0.02, after=None):
        self.real, self.takes_s, self.after = world.cluster.evict, takes_s, after
        self.now = self.most = self.sent = 0
        self.lock = threading.Lock()
        world.cluster.evict = self

    def __call__(self, *args, **options):
        with self.lock:
            self.sent += 1
            self.now += 1
            self.most = max(self.most, self.now)
            nth = self.sent
        time.sleep(self.takes_s)
        if self.after is not None:
            self.after(nth)
        with self.lock:
            self.now -= 1
        return self.real(*args, **options)


def test_several_are_in_flight_and_never_more_than_policy_says():
    world = parallel_world(24)
    slow = Slow(world)
    assert drained(world, evictions_in_flight=4).is_done
    assert slow.most == 4


def test_a_slow_server_does_not_slow_the_rate():
    """Each answer takes as long as twelve evictions of the rate."""
    world = parallel_world(40)
    Slow(world, takes_s=0.12)
    began = time.monotonic()
    assert drained(world, evictions_per_s=100.0, evictions_in_flight=16).is_done
    assert 0.35 < time.monotonic() - began < 3.0  # one by one it would be five seconds


def test_the_rate_is_one_for_all_drains_of_the_cluster():
    world = parallel_world(1)
    for _ in range(10):
        world.ledger.reserve("evictions", count=1, per_s=20.0)
    began = time.monotonic()
    drained(world, evictions_per_s=20.0)
    assert time.monotonic() - began > 0.3  # ten places of somebody else come first


@pytest.mark.parametrize(
    ("hand", "reason"),
    [
        pytest.param(
            lambda w: w.cluster.change_node("gpu-1", is_unschedulable=False),
            RefusalReason.OVERRIDDEN,
            id="a person uncordons",
        ),
        pytest.param(
            lambda w: w.cluster.change_node("gpu-1", taints=()),
            RefusalReason.OVERRIDDEN,
            id="a person takes our taint off",
        ),
        pytest.param(lambda w: w.take_over(), RefusalReason.STALE_FENCE, id="the case is aborted"),
        pytest.param(
            lambda w: w.cluster.config_maps.update(
                {("breakfix", "breakfix-halt"): {"level": "all"}}
            ),
            RefusalReason.HALTED,
            id="the kill switch",
        ),
    ],
)
def test_a_hand_in_the_middle_stops_all_that_was_not_sent(hand, reason):
    world = parallel_world(60)
    slow = Slow(world, after=lambda nth: hand(world) if nth == 8 else None)
    with pytest.raises(Refused) as caught:
        drained(world, evictions_per_s=100.0, evictions_in_flight=4)
    assert caught.value.reason is reason
    # what a check of 0.1 s ago still allowed, four in flight at 20 ms each, and those four
    assert slow.sent <= 8 + 20 + 4 + 8
    assert slow.now == 0, "the pass ended with a request under way"
    assert world.events().count("pod.evicting") == slow.sent


@pytest.mark.parametrize("slow_call", ["pods", "mark_pod"])
def test_a_hand_between_the_passes_check_and_its_first_eviction_stops_it(slow_call):
    """Listing pods, and asking them to save their work, takes as long as the API server wants."""
    world = make_world(is_quarantined=True)
    world.cluster.add_pod("a")
    world.cluster.add_pod("b", namespace="train")
    real = getattr(world.cluster, slow_call)

    def slow(*args, **options):
        world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "all"}
        return real(*args, **options)

    setattr(world.cluster, slow_call, slow)
    saving = [{"name": "train", "namespaces": ["train"], "rungs": [{"do": "checkpoint"}]}]
    with pytest.raises(Refused) as caught:
        drained(world, ladders=saving)
    assert caught.value.reason is RefusalReason.HALTED
    assert "evict" not in {method for method, _ in world.cluster.calls}


def test_an_error_in_one_ends_the_pass_after_the_others_have_come_back():
    world = parallel_world(30)
    slow = Slow(world)
    world.cluster.fail("evict")
    with pytest.raises(ClusterError):
        drained(world, evictions_in_flight=8)
    assert slow.now == 0
    assert slow.sent < 30
    assert drained(world).is_done


def test_some_go_some_are_blocked_and_both_are_told_truthfully():
    world = parallel_world(6)
    world.cluster.add_budget("web", {"app": "web"}, allowed=2)
    progress = drained(world, evictions_in_flight=6)
    assert len(progress.evicted) == 2
    assert len(progress.blocked) == len(progress.left) == 4
    assert {(b.kind, b.name) for b in progress.blocked} == {("budget", "web")}
    assert world.step("drain-1").status is StepStatus.DISPATCHED


def test_a_delete_passes_the_budget_and_is_on_record_as_one():
    world = parallel_world(1)
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    assert drained(world, may_delete=True, rungs=[{"do": "delete"}]).is_done
    assert [e for e in world.events() if e.startswith("pod.")] == ["pod.deleting", "pod.deleted"]


def test_a_pod_is_asked_once_to_save_its_work_and_taken_when_it_has():
    world = parallel_world(1)
    ladder = {"rungs": [{"do": "checkpoint", "for": "10m"}, {"do": "evict"}]}
    for _ in range(2):
        (pod,) = drained(world, **ladder).left
        assert (pod.do, pod.says()) == ("checkpoint", "asked to save its work until 03:14:05")
    asked = world.cluster.pod("work", "p0").annotations
    assert asked["breakfix.dev/checkpoint"] == world.case.id
    assert world.events().count("pod.checkpoint_asked") == 1
    saved = {**asked, "breakfix.dev/checkpointed": world.case.id}
    world.cluster.change_pod("work", "p0", annotations=saved)
    assert drained(world, **ladder).is_done


def test_an_answer_that_was_lost_is_asked_for_again():
    """The second request meets a pod that is gone: no harm, and no pod evicted twice."""
    world = parallel_world(1)
    world.acting = make_acting_with_fake_clock(world)
    real, calls = world.cluster.evict, []

    def lossy(*args, **options):
        calls.append(args)
        answer = real(*args, **options)
        return Eviction("busy", "POST: no answer: read timed out") if len(calls) == 1 else answer

    world.cluster.evict = lossy
    assert drained(world).is_done
    assert len(calls) == 2
    assert world.events().count("pod.evicting") == 2


def make_acting_with_fake_clock(world):
    world.ledger.clock = world.clock
    return replace(world.acting, clock=world.clock)


@pytest.mark.parametrize(
    ("free_in_s", "wait_s"),
    [(None, 0.0), (-5.0, 0.0), (0.0, 0.0), (2.0, 2.0)],
    ids=["never used", "free for long", "free now", "taken by others"],
)
def test_places_of_a_shared_rate_follow_one_another(free_in_s, wait_s):
    free_at = None if free_in_s is None else NOW + timedelta(seconds=free_in_s)
    wait, then = reserved(free_at, NOW, count=4, per_s=2.0)
    assert wait == wait_s
    assert then == NOW + timedelta(seconds=wait_s + 2.0)
