"""One look answers all that wait; failures, cancellations and deadlines harm nobody else."""

from __future__ import annotations

import asyncio
import itertools
import random
from datetime import timedelta

import pytest

from breakfix.errors import ClusterError
from breakfix.flow.stages import Wait, WaitKind
from breakfix_airflow.batching import DEADLINE, OVER, Batcher, Look
from tests.virtual_time import START, run

POLL_S = 5.0
MISSED_S = 60.0  # a wait that ends so long after its deadline has missed it


class Watched:
    """Says over for the cases in `ready`; is away between those seconds; notes when it is asked."""

    def __init__(self, loop, ready=(), *, away=(), takes_s=0.0):
        self.loop, self.ready, self.away, self.takes_s = loop, set(ready), away, takes_s
        self.looks, self.at = [], []

    async def __call__(self, waits):
        self.looks.append([w.case_id for w in waits])
        self.at.append(self.loop.time())
        await asyncio.sleep(self.takes_s)
        if any(start <= self.loop.time() < end for start, end in self.away):
            raise ClusterError("away", is_transient=True)
        return Look([w.case_id in self.ready for w in waits], POLL_S)


def batcher_of(loop, watched, **options):
    return Batcher(watched, now=loop.now, **options)


def a_wait(case_id, *, in_s=3600.0):
    return Wait(WaitKind.BOOTED, case_id, f"node-{case_id}", START + timedelta(seconds=in_s))


def test_a_thousand_waits_cost_one_look():
    async def main(loop):
        watched = Watched(loop, ready={str(n) for n in range(1000)})
        batcher = batcher_of(loop, watched)
        said = await asyncio.gather(*(batcher.until_over(a_wait(str(n))) for n in range(1000)))
        return set(said), len(watched.looks)

    assert run(main) == ({OVER}, 1)


def test_a_look_that_fails_is_repeated_and_told_once(caplog):
    async def main(loop):
        watched = Watched(loop, ready={"a", "b"}, away=[(0, 25)])
        batcher = batcher_of(loop, watched, retry_in_s=10.0)
        said = await asyncio.gather(*(batcher.until_over(a_wait(c)) for c in "ab"))
        return said, watched.at

    assert run(main) == ([OVER, OVER], [1.0, 11.0, 21.0, 31.0])
    assert len([r for r in caplog.records if r.levelname == "WARNING"]) == 3


def test_a_deadline_is_kept_though_no_look_succeeds():
    async def main(loop):
        batcher = batcher_of(loop, Watched(loop, away=[(0, 1e9)]))
        return await batcher.until_over(a_wait("a", in_s=60)), loop.time()

    assert run(main) == (DEADLINE, 60.0)


def test_a_deadline_is_kept_though_a_look_hangs():
    async def main(loop):
        batcher = batcher_of(loop, Watched(loop, takes_s=1e9))
        return await batcher.until_over(a_wait("a", in_s=300)), loop.time()

    assert run(main) == (DEADLINE, 300.0)


def test_a_deadline_that_has_passed_is_told_without_a_look():
    async def main(loop):
        watched = Watched(loop)
        return await batcher_of(loop, watched).until_over(a_wait("a", in_s=-1)), watched.looks

    assert run(main) == (DEADLINE, [])


def test_each_wait_has_its_own_deadline():
    async def main(loop):
        watched = Watched(loop)
        batcher = batcher_of(loop, watched)

        async def ends(case_id, in_s):
            return await batcher.until_over(a_wait(case_id, in_s=in_s)), loop.time()

        return await asyncio.gather(ends("a", 8), ends("b", 18)), watched.looks

    assert run(main) == (
        [(DEADLINE, 8.0), (DEADLINE, 18.0)],
        [["a", "b"], ["a", "b"], ["b"], ["b"]],
    )


def test_a_cancelled_waiter_leaves_and_the_others_go_on():
    async def main(loop):
        watched = Watched(loop)
        batcher = batcher_of(loop, watched)
        gone = asyncio.create_task(batcher.until_over(a_wait("gone")))
        stays = asyncio.create_task(batcher.until_over(a_wait("stays")))
        await asyncio.sleep(2)
        gone.cancel()
        watched.ready = {"stays"}
        assert await stays == OVER
        with pytest.raises(asyncio.CancelledError):
            await gone
        return watched.looks

    assert run(main) == [["gone", "stays"], ["stays"]]


def test_looking_stops_when_nobody_waits_and_starts_again():
    async def main(loop):
        watched = Watched(loop, ready={"a", "b"})
        batcher = batcher_of(loop, watched)
        await batcher.until_over(a_wait("a"))
        await asyncio.sleep(3600)
        await batcher.until_over(a_wait("b", in_s=7200))
        return watched.looks

    assert run(main) == [["a"], ["b"]]


def test_an_answer_that_is_too_short_ends_nobody_s_wait():
    async def main(loop):
        answers = [[], [True, True]]

        async def look(waits):
            return Look(answers.pop(0), POLL_S)

        batcher = batcher_of(loop, look)
        return await asyncio.gather(*(batcher.until_over(a_wait(c)) for c in "ab")), len(answers)

    assert run(main) == ([OVER, OVER], 0)


@pytest.mark.parametrize("arrive", ["at once", "one after the other"])
def test_the_looks_of_ten_minutes_do_not_grow_with_the_cases(arrive):
    def looks(cases):
        async def main(loop):
            watched = Watched(loop, takes_s=1.0)
            batcher = batcher_of(loop, watched)

            async def waits(n):
                if arrive == "one after the other":
                    await asyncio.sleep(60 * n / cases)
                return await batcher.until_over(a_wait(str(n), in_s=600))

            said = await asyncio.gather(*(waits(n) for n in range(cases)))
            assert set(said) == {DEADLINE}
            return len(watched.looks)

        return run(main)

    alone = looks(1)
    assert alone <= 600 / POLL_S
    assert looks(50) <= 600 / POLL_S + 1
    assert looks(200) <= 600 / POLL_S + 1


@pytest.mark.parametrize("seed", range(5))
def test_two_hundred_cases_at_once_miss_no_deadline(seed):
    """Slow looks, an API server that is away twice, waiters that come and go: ends of all waits."""
    rng = random.Random(seed)

    async def main(loop):
        watched = Watched(loop, away=[(200, 500), (900, 1300)], takes_s=8.0)
        batcher = batcher_of(loop, watched)
        late, said = [], []

        async def case(n):
            for round_ in range(5):  # as a case does: one wait after the other
                await asyncio.sleep(rng.uniform(0, 30))
                deadline = loop.time() + rng.choice([30, 90, 300, 900])
                ready_at = loop.time() + rng.uniform(0, 600)
                name = f"{n}.{round_}"
                loop.call_at(ready_at, watched.ready.add, name)
                said.append(await batcher.until_over(a_wait(name, in_s=deadline)))
                late.append(loop.time() - deadline)

        await asyncio.gather(*(case(n) for n in range(200)))
        return late, said, watched.at

    late, said, at = run(main)
    assert len(said) == 1000
    assert {OVER, DEADLINE} == set(said)
    assert max(late) < MISSED_S / 60  # to the second, let alone the minute
    assert all(after - before >= POLL_S for before, after in itertools.pairwise(at[1:]))
