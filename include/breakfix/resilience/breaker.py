"""A circuit breaker: what is down is not asked for a while, then by one caller first.

The states are data (`Circuit`), the rules pure functions; where the data lives is the store's
business. Task processes share theirs through the ledger.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from breakfix.errors import SourceError

T = TypeVar("T")


class CircuitState(StrEnum):
    """`half_open`: one trial is under way, everybody else waits for what it finds."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitOpen(SourceError):
    """The dependency is not asked: it failed too often just now."""


@dataclass(frozen=True, slots=True)
class Circuit:
    """One dependency's breaker. `until`: when an open one lets a trial through, or a trial ends."""

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0  # in a row
    until: datetime | None = None
    version: int = 0  # grows with each change: a change on top of an older one is refused


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens, and for how long. A trial that is not back by then has failed."""

    failures: int = 5
    open_s: float = 30.0
    trial_s: float = 60.0


class CircuitStore(Protocol):
    """Where circuits live."""

    def load(self, name: str) -> Circuit: ...

    def save(self, name: str, circuit: Circuit, *, over: int) -> bool:
        """Store it when the stored version is still `over`; False when somebody was first."""
        ...


class CircuitsInMemory:
    """For one process."""

    def __init__(self, circuits: Mapping[str, Circuit] | None = None) -> None:
        self._circuits = dict(circuits or {})

    def load(self, name: str) -> Circuit:
        return self._circuits.get(name, Circuit())

    def save(self, name: str, circuit: Circuit, *, over: int) -> bool:
        if self.load(name).version != over:
            return False
        self._circuits[name] = circuit
        return True


def admit(circuit: Circuit, rule: BreakerRule, now: datetime) -> Circuit | None:
    """The circuit with this call under way; None when it must not be made."""
    if circuit.state is CircuitState.CLOSED:
        return circuit
    if circuit.until is not None and now < circuit.until:
        return None
    return replace(
        circuit, state=CircuitState.HALF_OPEN, until=now + timedelta(seconds=rule.trial_s)
    )


def succeeded(circuit: Circuit) -> Circuit:
    """After an answer. One that was asked for before it opened does not close it: a trial does."""
    if circuit.state is CircuitState.OPEN:
        return circuit
    return replace(circuit, state=CircuitState.CLOSED, failures=0, until=None)


def failed(circuit: Circuit, rule: BreakerRule, now: datetime) -> Circuit:
    """After a failure: a trial opens it again, the last of `failures` in a row opens it.

    One that was asked before it opened does not keep it open for longer.
    """
    if circuit.state is CircuitState.OPEN:
        return circuit
    failures = circuit.failures + 1
    if circuit.state is CircuitState.CLOSED and failures < rule.failures:
        return replace(circuit, failures=failures)
    until = now + timedelta(seconds=rule.open_s)
    return replace(circuit, state=CircuitState.OPEN, failures=failures, until=until)


_TRIES = 5  # to write a result down while others write theirs


class Breaker:
    """The breaker of one dependency; `on` are the errors that count as its failure."""

    def __init__(
        self,
        name: str,
        *,
        on: tuple[type[Exception], ...],
        store: CircuitStore,
        now: Callable[[], datetime],
        rule: BreakerRule | None = None,
    ) -> None:
        self._name = name
        self._on = on
        self._store = store
        self._now = now
        self._rule = rule or BreakerRule()

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns. Raises CircuitOpen without calling it, or its error."""
        self._enter()
        try:
            result = function()
        except self._on:
            self._leave(is_failure=True)
            raise
        except Exception:  # an answer, if no welcome one: the dependency is there
            self._leave(is_failure=False)
            raise
        self._leave(is_failure=False)
        return result

    async def acall(self, function: Callable[[], Awaitable[T]]) -> T:
        """The same for a coroutine function."""
        self._enter()
        try:
            result = await function()
        except self._on:
            self._leave(is_failure=True)
            raise
        except Exception:  # an answer, if no welcome one: the dependency is there
            self._leave(is_failure=False)
            raise
        self._leave(is_failure=False)
        return result

    def _enter(self) -> None:
        circuit = self._store.load(self._name)
        admitted = admit(circuit, self._rule, self._now())
        is_ours = admitted is not None and (
            admitted == circuit or self._write(admitted, over=circuit.version)
        )
        if not is_ours:
            raise CircuitOpen(
                f"{self._name} failed {circuit.failures} times in a row and is left alone"
                + (f" until {circuit.until:%H:%M:%S} UTC" if circuit.until else ""),
                is_transient=True,
            )

    def _leave(self, *, is_failure: bool) -> None:
        for _ in range(_TRIES):
            circuit = self._store.load(self._name)
            after = failed(circuit, self._rule, self._now()) if is_failure else succeeded(circuit)
            if after == circuit or self._write(after, over=circuit.version):
                return

    def _write(self, circuit: Circuit, *, over: int) -> bool:
        return self._store.save(self._name, replace(circuit, version=over + 1), over=over)
