"""One poll answers all that wait; failures, cancellations and deadlines harm nobody else."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from breakfix.errors import ClusterError
from breakfix.flow.stages import Wait, WaitKind
from breakfix_airflow.batching import DEADLINE, OVER, Batcher, Look

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class FakeTime:
    """Sleeping moves the time on at once, and lets others run."""

    def __init__(self):
        self.at = START
        self.slept = []
        self.has_slept = asyncio.Event()

    def now(self):
        return self.at

    async def sleep(self, seconds):
        self.slept.append(seconds)
        self.has_slept.set()
        self.at += timedelta(seconds=seconds)
        await asyncio.sleep(0)


class FakeCluster:
    """Says over for the cases in `ready`; fails as often as told; counts the looks."""

    def __init__(self, ready=(), failures=0):
        self.ready = set(ready)
        self.failures = failures
        self.looks = []
        self.looked = asyncio.Event()

    async def __call__(self, waits):
        self.looks.append([w.case_id for w in waits])
        self.looked.set()
        await asyncio.sleep(0)
        if self.failures:
            self.failures -= 1
            raise ClusterError("away", is_transient=True)
        return Look([w.case_id in self.ready for w in waits], 5.0)


def a_wait(case_id, *, in_s=3600.0):
    return Wait(WaitKind.BOOTED, case_id, f"node-{case_id}", START + timedelta(seconds=in_s))


async def test_a_thousand_waits_cost_one_look():
    cluster = FakeCluster(ready={str(n) for n in range(1000)})
    batcher = Batcher(cluster, time=FakeTime())
    said = await asyncio.gather(*(batcher.until_over(a_wait(str(n))) for n in range(1000)))
    assert set(said) == {OVER}
    assert len(cluster.looks) == 1


async def test_a_poll_that_fails_is_repeated_at_the_next_interval():
    cluster, time = FakeCluster(ready={"a"}, failures=3), FakeTime()
    batcher = Batcher(cluster, time=time, retry_in_s=10.0)
    assert await batcher.until_over(a_wait("a")) == OVER
    assert time.slept == [10.0, 10.0, 10.0]


async def test_a_deadline_is_kept_though_no_poll_succeeds():
    cluster, time = FakeCluster(failures=10**6), FakeTime()
    batcher = Batcher(cluster, time=time)
    assert await batcher.until_over(a_wait("a", in_s=60)) == DEADLINE
    assert time.at - START == timedelta(seconds=60)


async def test_each_wait_has_its_own_deadline():
    cluster, time = FakeCluster(), FakeTime()
    batcher = Batcher(cluster, time=time)
    first = asyncio.create_task(batcher.until_over(a_wait("a", in_s=10)))
    second = asyncio.create_task(batcher.until_over(a_wait("b", in_s=20)))
    assert await first == DEADLINE
    assert await second == DEADLINE
    assert cluster.looks == [["a", "b"]] * 3 + [["b"]] * 2


async def test_a_cancelled_waiter_leaves_and_the_others_go_on():
    cluster = FakeCluster(failures=2)
    batcher = Batcher(cluster, time=FakeTime())
    gone = asyncio.create_task(batcher.until_over(a_wait("gone")))
    stays = asyncio.create_task(batcher.until_over(a_wait("stays")))
    await cluster.looked.wait()
    gone.cancel()
    cluster.ready = {"stays"}
    assert await stays == OVER
    assert cluster.looks[-1] == ["stays"]
    with pytest.raises(asyncio.CancelledError):
        await gone


async def test_polling_stops_when_nobody_waits_and_starts_again():
    cluster, time = FakeCluster(ready={"a", "b"}), FakeTime()
    batcher = Batcher(cluster, time=time)
    assert await batcher.until_over(a_wait("a")) == OVER
    await asyncio.sleep(0)
    assert time.slept == []
    assert await batcher.until_over(a_wait("b")) == OVER
    assert cluster.looks == [["a"], ["b"]]


async def test_a_poll_that_hangs_keeps_no_deadline_from_being_told():
    time, never = FakeTime(), asyncio.Event()

    async def hang(waits):
        await never.wait()
        return Look([True] * len(waits), 5.0)

    batcher = Batcher(hang, time=time, poll_timeout_s=0.01)
    assert await batcher.until_over(a_wait("a", in_s=30)) == DEADLINE
    never.set()
    await asyncio.sleep(0)


async def test_the_answer_of_a_poll_that_came_late_is_used_for_nobody():
    time, first = FakeTime(), asyncio.Event()
    asked = []

    async def slow_first(waits):
        asked.append([w.case_id for w in waits])
        if len(asked) == 1:
            await first.wait()
            return Look([True] * len(waits), 5.0)
        return Look([w.case_id == "b" for w in waits], 5.0)

    batcher = Batcher(slow_first, time=time, poll_timeout_s=0.01)
    one = asyncio.create_task(batcher.until_over(a_wait("a", in_s=60)))
    await time.has_slept.wait()
    two = asyncio.create_task(batcher.until_over(a_wait("b", in_s=60)))
    first.set()
    assert await two == OVER
    assert await one == DEADLINE
    assert asked[0] == ["a"]
