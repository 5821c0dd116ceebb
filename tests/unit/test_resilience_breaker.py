"""The circuit breaker: its rules as a table, its sharing, and what it never does."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.errors import CircuitOpen, LedgerError
from breakfix.resilience.breaker import (
    Breaker,
    BreakerRule,
    Circuit,
    CircuitState,
    admit,
    failed,
    succeeded,
    urgent,
)
from breakfix.resilience.circuits import CircuitsInMemory, SharedCircuits

START = datetime(2026, 1, 1, tzinfo=UTC)
RULE = BreakerRule(failures=3, open_s=30.0, trial_s=60.0)
CLOSED, OPEN, HALF_OPEN = CircuitState.CLOSED, CircuitState.OPEN, CircuitState.HALF_OPEN


class Down(Exception):
    """The dependency is not there."""


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def fail() -> None:
    raise Down


def make(clock: Clock, store: CircuitsInMemory) -> Breaker:
    return Breaker("prometheus", on=(Down,), store=store, now=clock, rule=RULE)


def opened() -> tuple[Breaker, Clock, CircuitsInMemory]:
    clock, store = Clock(), CircuitsInMemory()
    breaker = make(clock, store)
    for _ in range(RULE.failures):
        with pytest.raises(Down):
            breaker.call(fail)
    return breaker, clock, store


def state(store: CircuitsInMemory) -> CircuitState:
    return store.load("prometheus").state


def test_it_opens_after_so_many_failures_in_a_row_and_then_asks_nobody() -> None:
    breaker, _, _ = opened()
    with pytest.raises(CircuitOpen, match=r"prometheus failed 3 times in a row.*00:00:30 UTC"):
        breaker.call(lambda: pytest.fail("was asked"))


def test_a_success_between_starts_the_count_again() -> None:
    clock, store = Clock(), CircuitsInMemory()
    breaker = make(clock, store)
    for call in (fail, fail, lambda: None, fail, fail):
        try:
            breaker.call(call)
        except Down:
            continue
    assert state(store) is CLOSED


@pytest.mark.parametrize("fails", [False, True])
def test_one_trial_decides_when_its_time_is_over(fails: bool) -> None:
    breaker, clock, store = opened()
    clock.tick(30)
    if fails:
        with pytest.raises(Down):
            breaker.call(fail)
        assert store.load("prometheus").until == clock.now + timedelta(seconds=30)
    else:
        breaker.call(lambda: None)
    assert state(store) is (OPEN if fails else CLOSED)


def test_while_a_trial_is_under_way_nobody_else_asks() -> None:
    breaker, clock, store = opened()
    clock.tick(30)
    other = make(clock, store)

    def trial() -> None:
        with pytest.raises(CircuitOpen):
            other.call(lambda: pytest.fail("a second trial"))

    breaker.call(trial)
    other.call(lambda: None)


def test_of_two_that_would_try_at_once_one_may() -> None:
    _, clock, store = opened()
    clock.tick(30)
    seen = store.load("prometheus")
    first = admit(seen, RULE, clock())
    assert first is not None
    trial = Circuit(HALF_OPEN, 3, first.until, version=seen.version + 1)
    assert store.save("prometheus", trial, over=seen.version)
    assert not store.save("prometheus", trial, over=seen.version)


def test_a_trial_whose_process_died_does_not_block_for_ever() -> None:
    breaker, clock, store = opened()
    clock.tick(30)
    with pytest.raises(KeyboardInterrupt):
        breaker.call(lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert state(store) is HALF_OPEN
    clock.tick(59)
    with pytest.raises(CircuitOpen):
        breaker.call(lambda: None)
    clock.tick(1)
    breaker.call(lambda: None)
    assert state(store) is CLOSED


def test_an_error_of_another_class_is_an_answer() -> None:
    breaker, clock, store = opened()
    clock.tick(30)
    with pytest.raises(ValueError, match="no such query"):
        breaker.call(lambda: (_ for _ in ()).throw(ValueError("no such query")))
    assert state(store) is CLOSED


def test_coroutines_are_broken_off_by_the_same_circuit() -> None:
    breaker, clock, store = opened()

    async def answer() -> int:
        return 7

    async def ask() -> int:
        with pytest.raises(CircuitOpen):
            await breaker.acall(answer)
        clock.tick(30)
        return await breaker.acall(answer)

    assert asyncio.run(ask()) == 7
    assert state(store) is CLOSED


circuits = st.builds(
    Circuit,
    st.sampled_from(CircuitState),
    st.integers(0, 10),
    st.one_of(st.none(), st.integers(0, 100).map(lambda s: START + timedelta(seconds=s))),
)


@given(circuits, st.integers(0, 200))
def test_an_open_circuit_is_neither_closed_nor_prolonged_by_old_calls(
    circuit: Circuit, seconds: int
) -> None:
    now = START + timedelta(seconds=seconds)
    if circuit.state is OPEN:
        assert succeeded(circuit) == circuit == failed(circuit, RULE, now)
    else:
        assert succeeded(circuit).state is CLOSED


@given(circuits, st.integers(0, 200))
def test_every_circuit_lets_somebody_ask_in_the_end(circuit: Circuit, seconds: int) -> None:
    now = START + timedelta(seconds=seconds)
    assert admit(circuit, RULE, now + timedelta(seconds=RULE.trial_s + 200)) is not None


# ------------------------------------------------------------------ what must not wait


def test_what_is_urgent_goes_through_an_open_circuit_and_an_answer_closes_it() -> None:
    breaker, _, store = opened()
    with urgent():
        assert breaker.call(lambda: 7) == 7
    assert state(store) is CLOSED


def test_an_urgent_call_that_fails_keeps_it_open_for_no_longer() -> None:
    breaker, clock, store = opened()
    until = store.load("prometheus").until
    clock.tick(10)
    with urgent(), pytest.raises(Down):
        breaker.call(fail)
    assert (state(store), store.load("prometheus").until) == (OPEN, until)


def test_only_what_is_within_is_urgent() -> None:
    breaker, _, _ = opened()
    with urgent():
        pass
    with pytest.raises(CircuitOpen):
        breaker.call(lambda: None)


def test_failures_that_lie_far_apart_are_not_in_a_row() -> None:
    clock, store = Clock(), CircuitsInMemory()
    breaker = make(clock, store)
    for _ in range(10):
        with pytest.raises(Down):
            breaker.call(fail)
        clock.tick(RULE.window_s + 1)
    assert state(store) is CLOSED


def test_an_open_circuit_says_until_when_and_why() -> None:
    clock, store = Clock(), CircuitsInMemory()
    breaker = make(clock, store)
    for _ in range(RULE.failures):
        with pytest.raises(Down):
            breaker.call(lambda: (_ for _ in ()).throw(Down("connection\nrefused")))
    with pytest.raises(CircuitOpen, match="the last time: connection refused") as e:
        breaker.call(lambda: None)
    assert e.value.is_transient
    assert e.value.until == START + timedelta(seconds=RULE.open_s)


# ------------------------------------------------------------------ many threads, many processes

THREADS = 16


def all_at_once(work, threads=THREADS):
    """What each thread's `work(i)` returned; all begin at the same moment."""
    gate = threading.Barrier(threads, timeout=10)

    def one(i):
        gate.wait()
        return work(i)

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(one, range(threads)))


class Process:
    """A process with its own memory in front of the store that all share."""

    def __init__(self, shared, clock, **options):
        self.time = 0.0
        self.circuits = SharedCircuits(shared, clock=lambda: self.time, **options)
        self.breaker = make(clock, self.circuits)

    def ask(self, function):
        try:
            return self.breaker.call(function)
        except (Down, CircuitOpen) as e:
            return type(e)


def test_of_sixteen_threads_one_makes_the_trial() -> None:
    breaker, clock, store = opened()
    clock.tick(30)
    tried = threading.Semaphore(0)
    refused = threading.Semaphore(0)

    def ask(_: int) -> str:
        def trial() -> None:
            tried.release()
            for _ in range(THREADS - 1):  # all others have been told no by then
                assert refused.acquire(timeout=10)

        try:
            breaker.call(trial)
        except CircuitOpen:
            refused.release()
            return "refused"
        return "tried"

    assert sorted(all_at_once(ask)) == ["refused"] * (THREADS - 1) + ["tried"]
    assert state(store) is CLOSED


def test_failures_of_sixteen_threads_at_once_are_all_counted() -> None:
    clock, store = Clock(), CircuitsInMemory()
    rule = BreakerRule(failures=THREADS)
    breaker = Breaker("x", on=(Down,), store=store, now=clock, rule=rule)
    gate = threading.Barrier(THREADS, timeout=10)

    def ask(_: int) -> None:
        def together() -> None:
            gate.wait()
            raise Down

        with pytest.raises(Down):
            breaker.call(together)

    all_at_once(ask)
    assert (store.load("x").failures, store.load("x").state) == (THREADS, OPEN)


def test_failures_of_several_processes_open_it_for_all() -> None:
    clock, shared = Clock(), CircuitsInMemory()
    processes = [Process(shared, clock) for _ in range(RULE.failures + 1)]
    for p in processes[: RULE.failures]:
        assert p.ask(fail) is Down
    assert processes[-1].ask(lambda: pytest.fail("was asked")) is CircuitOpen


def test_of_two_processes_one_makes_the_trial() -> None:
    clock, shared = Clock(), CircuitsInMemory()
    one, two = Process(shared, clock), Process(shared, clock)
    for _ in range(RULE.failures):
        one.ask(fail)
    assert two.ask(fail) is CircuitOpen
    clock.tick(RULE.open_s)
    assert one.ask(lambda: two.ask(lambda: pytest.fail("a second trial"))) is CircuitOpen
    two.time += 5.0
    assert two.ask(lambda: 7) == 7


class Ledger(CircuitsInMemory):
    """A shared store that may be down; counts who comes."""

    def __init__(self):
        super().__init__()
        self.is_down, self.loads, self.saves = False, 0, 0

    def load(self, name):
        self.loads += 1
        self._check()
        return super().load(name)

    def save(self, name, circuit, *, over):
        self.saves += 1
        self._check()
        return super().save(name, circuit, over=over)

    def _check(self):
        if self.is_down:
            raise LedgerError("connection refused", is_transient=True)


def test_while_all_is_well_a_process_reads_seldom_and_writes_nothing() -> None:
    ledger = Ledger()
    process = Process(ledger, Clock(), fresh_s=5.0)
    for _ in range(100):
        process.ask(lambda: None)
        process.time += 0.1
    assert (ledger.loads, ledger.saves) == (2, 0)


def test_without_the_ledger_a_process_goes_by_its_own_failures() -> None:
    ledger, clock = Ledger(), Clock()
    process = Process(ledger, clock)
    ledger.is_down = True
    for _ in range(RULE.failures):
        assert process.ask(fail) is Down
    assert process.ask(lambda: pytest.fail("was asked")) is CircuitOpen
    assert ledger.loads + ledger.saves == 1  # and it does not come back to a ledger that is down


def test_a_circuit_that_was_seen_open_stays_so_when_the_ledger_goes() -> None:
    ledger, clock = Ledger(), Clock()
    process = Process(ledger, clock)
    for _ in range(RULE.failures):
        process.ask(fail)
    ledger.is_down = True
    process.time += 6.0
    assert process.ask(lambda: pytest.fail("was asked")) is CircuitOpen


def test_when_the_ledger_is_back_its_word_counts_again() -> None:
    ledger, clock = Ledger(), Clock()
    process, other = Process(ledger, clock), Process(ledger, clock)
    ledger.is_down = True
    for _ in range(RULE.failures):
        process.ask(fail)
    ledger.is_down = False
    process.time += 31.0
    assert process.ask(lambda: 7) == 7
    assert other.ask(lambda: 7) == 7
