"""The circuit breaker: its rules as a table, its sharing, and what it never does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.resilience.breaker import (
    Breaker,
    BreakerRule,
    Circuit,
    CircuitOpen,
    CircuitsInMemory,
    CircuitState,
    admit,
    failed,
    succeeded,
)

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
    assert store.save("prometheus", Circuit(HALF_OPEN, 3, first.until, 4), over=seen.version)
    assert not store.save("prometheus", Circuit(HALF_OPEN, 3, first.until, 4), over=seen.version)


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
