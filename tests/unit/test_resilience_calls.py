"""Retry, rate limit and batching: what is asked again, how fast, and together with what."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.resilience.batching import Batch, BatchError
from breakfix.resilience.rate import RateLimit
from breakfix.resilience.retry import LONGEST_RETRY_AFTER_S, retried, retry_after_s
from tests.virtual_time import VirtualLoop
from tests.virtual_time import run as run_virtually


class Busy(Exception):
    def __init__(self, retry_after_s: float | None = None) -> None:
        super().__init__("busy")
        self.retry_after_s = retry_after_s


class Time:
    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Server:
    """Fails so many times, taking a while each time."""

    def __init__(self, time: Time, *errors: Exception, takes_s: float = 0.0) -> None:
        self.time, self.errors, self.takes_s, self.calls = time, list(errors), takes_s, 0

    def __call__(self) -> str:
        self.calls += 1
        self.time.now += self.takes_s
        if self.errors:
            raise self.errors.pop(0)
        return "ok"


def ask(server: Server, **options: object) -> str:
    time = server.time
    how = {"on": (Busy,), "is_idempotent": True, "deadline_s": 60.0, **options}
    return retried(server, sleep=time.sleep, clock=time.clock, **how)  # type: ignore[arg-type]


def test_it_asks_again_and_waits_longer_each_time_but_by_chance() -> None:
    time = Time()
    server = Server(time, Busy(), Busy(), Busy())
    assert ask(server) == "ok"
    assert server.calls == 4
    assert all(0 <= s <= w for s, w in zip(time.slept, (0.2, 0.4, 0.8), strict=True))


@pytest.mark.parametrize(
    ("options", "error", "calls"),
    [
        pytest.param({"is_idempotent": False}, Busy(), 1, id="a call that may have been done"),
        pytest.param({}, ValueError("wrong"), 1, id="an error that is not named"),
        pytest.param({"attempts": 2}, Busy(), 2, id="no more than its attempts"),
    ],
)
def test_it_does_not_ask_again(options: dict[str, object], error: Exception, calls: int) -> None:
    server = Server(Time(), *[error] * 9)
    with pytest.raises(type(error)):
        ask(server, **options)
    assert server.calls == calls


def test_no_try_begins_after_the_deadline() -> None:
    server = Server(Time(), *[Busy()] * 99, takes_s=3.0)
    with pytest.raises(Busy):
        ask(server, deadline_s=10.0, attempts=99)
    assert server.time.now <= 10.0 + 3.0


@pytest.mark.parametrize("asked", [0.0, 7.0, LONGEST_RETRY_AFTER_S])
def test_a_server_that_names_a_wait_gets_it(asked: float) -> None:
    time = Time()
    assert ask(Server(time, Busy(asked))) == "ok"
    assert asked <= time.slept[0] <= asked + 0.5


@pytest.mark.parametrize(
    ("asked", "deadline_s"),
    [
        pytest.param(LONGEST_RETRY_AFTER_S + 1, 999.0, id="longer than anybody stays"),
        pytest.param(20.0, 10.0, id="longer than the deadline leaves"),
    ],
)
def test_nobody_comes_back_before_a_wait_that_is_too_long(asked: float, deadline_s: float) -> None:
    time = Time()
    server = Server(time, Busy(asked))
    with pytest.raises(Busy):
        ask(server, deadline_s=deadline_s)
    assert (server.calls, time.slept) == (1, [])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        pytest.param("", None, id="no header"),
        pytest.param(" 12 ", 12.0, id="seconds"),
        pytest.param("Thu, 01 Jan 2026 00:00:30 GMT", 30.0, id="a date to come"),
        pytest.param("Wed, 31 Dec 2025 00:00:00 GMT", 0.0, id="a date that has passed"),
        pytest.param("soon", None, id="a word"),
        pytest.param("-3", None, id="a negative number"),
        pytest.param("1e99", None, id="a number in another form"),
        pytest.param("\u0665", None, id="a digit of another script"),
    ],
)
def test_a_retry_after_header_is_seconds_or_a_date(header: str, seconds: float | None) -> None:
    assert retry_after_s(header, now=datetime(2026, 1, 1, tzinfo=UTC)) == seconds


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.integers(1, 5))
def test_no_second_has_more_than_its_rate_and_the_burst(gaps: list[float], burst: int) -> None:
    time = Time()
    limit = RateLimit(2.0, burst=burst, clock=time.clock, sleep=time.sleep)
    done = []
    for gap in gaps:
        time.now += gap
        limit.wait("api")
        done.append(time.now)
    for start in done:
        assert sum(start <= t < start + 1.0 - 1e-6 for t in done) <= 2 + burst


def test_targets_do_not_share_a_bucket() -> None:
    time = Time()
    limit = RateLimit(1.0, clock=time.clock, sleep=time.sleep)
    assert [limit.reserve("a"), limit.reserve("b"), limit.reserve("a")] == [0.0, 0.0, 1.0]


@pytest.mark.parametrize(("rate", "burst"), [(0.0, 1), (-1.0, 1), (1.0, 0)])
def test_a_limit_that_lets_nothing_through_is_refused(rate: float, burst: int) -> None:
    with pytest.raises(ValueError, match="rate above zero"):
        RateLimit(rate, burst=burst)


class Doubler:
    """Answers twice the number; 13 is refused, a negative number breaks the whole call."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.short_by = 0
        self.hangs = False
        self.is_called = asyncio.Event()

    async def __call__(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(numbers))
        self.is_called.set()
        if self.hangs:
            await asyncio.Event().wait()
        if any(n < 0 for n in numbers):
            raise Busy
        answers: list[int | Exception] = [ValueError("13") if n == 13 else 2 * n for n in numbers]
        return answers[: len(answers) - self.short_by]


def batch(doubler: Doubler, **options: float) -> Batch[int, int]:
    how = {"wait_s": 0.01, "timeout_s": 5.0, **options}
    return Batch(doubler, size=3, **how)


async def gathered(asked: Batch[int, int], *numbers: int) -> list[int | BaseException]:
    return await asyncio.gather(*(asked.ask(n) for n in numbers), return_exceptions=True)


def test_requests_go_together_up_to_the_size_and_the_rest_after_the_wait() -> None:
    doubler = Doubler()
    assert asyncio.run(gathered(batch(doubler), 1, 2, 3, 4)) == [2, 4, 6, 8]
    assert doubler.batches == [[1, 2, 3], [4]]


def test_an_error_of_one_request_is_its_caller_s_alone() -> None:
    got = asyncio.run(gathered(batch(Doubler()), 1, 13, 2))
    assert [got[0], str(got[1]), got[2]] == [2, "13", 4]


def test_a_batch_that_fails_fails_for_all_in_it_and_the_next_one_works() -> None:
    async def run() -> tuple[list[int | BaseException], list[int | BaseException]]:
        asked = batch(Doubler())
        return await gathered(asked, 1, -1, 2), await gathered(asked, 5)

    failed, after = asyncio.run(run())
    assert [type(e) for e in failed] == [Busy] * 3
    assert after == [10]


def test_a_short_answer_fails_those_it_left_out() -> None:
    doubler = Doubler()
    doubler.short_by = 1
    got = asyncio.run(gathered(batch(doubler), 1, 2, 3))
    assert got[:2] == [2, 4]
    assert isinstance(got[2], BatchError)


def test_a_call_that_hangs_ends_at_its_timeout() -> None:
    doubler = Doubler()
    doubler.hangs = True
    (error,) = asyncio.run(gathered(batch(doubler, timeout_s=0.05), 1))
    assert isinstance(error, BatchError)
    assert error.is_transient


def test_a_caller_that_leaves_is_not_asked_for_and_disturbs_nobody() -> None:
    async def run() -> tuple[int, list[list[int]]]:
        doubler = Doubler()
        asked = batch(doubler)
        leaves = asyncio.create_task(asked.ask(1))
        stays = asyncio.create_task(asked.ask(2))
        await asyncio.sleep(0)
        leaves.cancel()
        return await stays, doubler.batches

    assert asyncio.run(run()) == (4, [[2]])


def test_what_is_queued_at_the_end_is_still_asked_and_nothing_after() -> None:
    async def run() -> tuple[int, BaseException]:
        asked = batch(Doubler(), wait_s=60.0)
        queued = asyncio.create_task(asked.ask(4))
        await asyncio.sleep(0)
        await asked.close()
        (late,) = await gathered(asked, 5)
        assert isinstance(late, BaseException)
        return await queued, late

    answer, late = asyncio.run(run())
    assert answer == 8
    assert isinstance(late, BatchError)


def test_callers_of_a_call_that_is_cancelled_are_told() -> None:
    async def run() -> BaseException:
        doubler = Doubler()
        doubler.hangs = True
        asked = batch(doubler)
        caller = asyncio.create_task(asked.ask(1))
        await doubler.is_called.wait()
        for task in asked._running:
            task.cancel()
        (error,) = await asyncio.gather(caller, return_exceptions=True)
        assert isinstance(error, BaseException)
        return error

    error = asyncio.run(run())
    assert isinstance(error, BatchError)
    assert "cancelled" in str(error)


def test_an_answer_that_is_no_list_fails_all_and_hangs_nobody() -> None:
    async def nothing(_: Sequence[int]) -> None: ...

    async def run() -> list[int | BaseException]:
        broken: Batch[int, int] = Batch(nothing, wait_s=0.0, timeout_s=5.0)  # type: ignore[arg-type]
        return await gathered(broken, 1, 2)

    assert [type(e) for e in asyncio.run(run())] == [TypeError, TypeError]


def test_without_a_size_only_time_makes_a_batch_and_each_may_have_another() -> None:
    async def main(loop: VirtualLoop) -> tuple[list[list[int]], list[float]]:
        doubler, waits, at = Doubler(), iter([5.0, 30.0]), []
        asked: Batch[int, int] = Batch(doubler, wait_s=lambda: next(waits), timeout_s=5.0)

        async def ask(number: int, after_s: float) -> None:
            await asyncio.sleep(after_s)
            await asked.ask(number)
            at.append(loop.time())

        await asyncio.gather(ask(1, 0.0), ask(2, 4.0), ask(3, 6.0), ask(4, 35.0))
        return doubler.batches, at

    assert run_virtually(main) == ([[1, 2], [3, 4]], [5.0, 5.0, 36.0, 36.0])
