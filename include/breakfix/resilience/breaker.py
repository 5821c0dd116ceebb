"""A circuit breaker: what is down is not asked for a while, then by one caller first.

The states are data (`Circuit`), the rules pure functions; where the data lives is the store's
business (`circuits.py`). Task processes share theirs through the ledger.

What gives a node back must not wait for a breaker: within `urgent()` an open one lets calls
through, and an answer to one of them closes it. Everything else it refuses at once, with an error
that says until when, so that what would have been done on the answer is held.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol, TypeVar

from breakfix.errors import CircuitOpen

T = TypeVar("T")


class CircuitState(StrEnum):
    """`half_open`: one trial is under way, everybody else waits for what it finds."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(frozen=True, slots=True)
class Circuit:
    """One dependency's breaker. `until`: when an open one lets a trial through, or a trial ends."""

    state: CircuitState = CircuitState.CLOSED
    failures: int = 0  # in a row
    until: datetime | None = None
    failed_at: datetime | None = None  # the last failure that was counted
    error: str = ""  # of that failure
    version: int = 0  # grows with each change: a change on top of an older one is refused


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """When a breaker opens, and for how long. A trial that is not back by then has failed.

    `window_s`: failures that lie further apart are not in a row. Processes tell one another only
    of failures, so that the successes between them are not seen by all.
    """

    failures: int = 5
    open_s: float = 30.0
    trial_s: float = 60.0
    window_s: float = 60.0


class CircuitStore(Protocol):
    """Where circuits live. Thread-safe."""

    def load(self, name: str) -> Circuit: ...

    def save(self, name: str, circuit: Circuit, *, over: int) -> bool:
        """Store it when the stored version is still `over`; False when somebody was first."""
        ...


def admit(circuit: Circuit, rule: BreakerRule, now: datetime) -> Circuit | None:
    """The circuit with this call under way; None when it must not be made."""
    if circuit.state is CircuitState.CLOSED:
        return circuit
    if circuit.until is not None and now < circuit.until:
        return None
    return replace(
        circuit, state=CircuitState.HALF_OPEN, until=now + timedelta(seconds=rule.trial_s)
    )


def succeeded(circuit: Circuit, *, is_proof: bool = False) -> Circuit:
    """After an answer. One that was asked for before it opened does not close it: a trial does, or
    an urgent call that was made while it was open (`is_proof`).
    """
    if circuit.state is CircuitState.OPEN and not is_proof:
        return circuit
    return replace(circuit, state=CircuitState.CLOSED, failures=0, until=None)


def failed(circuit: Circuit, rule: BreakerRule, now: datetime, error: str = "") -> Circuit:
    """After a failure: a trial opens it again, the last of `failures` in a row opens it.

    One that was asked before it opened does not keep it open for longer.
    """
    if circuit.state is CircuitState.OPEN:
        return circuit
    is_in_row = circuit.failed_at is None or now - circuit.failed_at <= timedelta(
        seconds=rule.window_s
    )
    is_trial = circuit.state is CircuitState.HALF_OPEN
    failures = circuit.failures + 1 if is_in_row or is_trial else 1
    after = replace(circuit, failures=failures, failed_at=now, error=error)
    if not is_trial and failures < rule.failures:
        return after
    return replace(after, state=CircuitState.OPEN, until=now + timedelta(seconds=rule.open_s))


#: To write a result down while others write theirs: of those who collide one gets through, and
#: after `failures` of them the circuit is open and there is nothing more to write.
_TRIES = 20
_ERROR_LIMIT = 200  # characters of an error that are kept

_is_urgent: ContextVar[bool] = ContextVar("is_urgent", default=False)


@contextmanager
def urgent() -> Iterator[None]:
    """Calls within are made whatever the breakers say: they give back, or end, what is under way.

    Of this thread and task only.
    """
    token = _is_urgent.set(True)
    try:
        yield
    finally:
        _is_urgent.reset(token)


class Breaker:
    """The breaker of one dependency; `on` are the errors that count as its failure.

    `opens_as` is the error of a call that is not made; ports raise one that is their own, too.
    """

    def __init__(
        self,
        name: str,
        *,
        on: tuple[type[Exception], ...],
        store: CircuitStore,
        now: Callable[[], datetime],
        rule: BreakerRule | None = None,
        opens_as: type[CircuitOpen] = CircuitOpen,
    ) -> None:
        self._name = name
        self._on = on
        self._store = store
        self._now = now
        self._rule = rule or BreakerRule()
        self._opens_as = opens_as

    @property
    def is_closed(self) -> bool:
        """Whether calls go through as ever; else a caller with many had better send one first."""
        return self._store.load(self._name).state is CircuitState.CLOSED

    def call(self, function: Callable[[], T]) -> T:
        """What the function returns. Raises CircuitOpen without calling it, or its error."""
        is_proof = self._enter()
        try:
            result = function()
        except self._on as e:
            self._failed(e)
            raise
        except Exception:  # an answer, if no welcome one: the dependency is there
            self._succeeded(is_proof=is_proof)
            raise
        self._succeeded(is_proof=is_proof)
        return result

    async def acall(self, function: Callable[[], Awaitable[T]]) -> T:
        """The same for a coroutine function."""
        is_proof = self._enter()
        try:
            result = await function()
        except self._on as e:
            self._failed(e)
            raise
        except Exception:  # an answer, if no welcome one: the dependency is there
            self._succeeded(is_proof=is_proof)
            raise
        self._succeeded(is_proof=is_proof)
        return result

    def _enter(self) -> bool:
        """Whether an answer to this call would prove that the dependency is back.

        Raises CircuitOpen.
        """
        circuit = self._store.load(self._name)
        admitted = admit(circuit, self._rule, self._now())
        if admitted == circuit:
            return False
        if admitted is not None and self._write(admitted, over=circuit.version):
            return True
        if _is_urgent.get():
            return True
        raise self._opens_as(
            f"{self._name} failed {circuit.failures} times in a row and is left alone"
            + (f" until {circuit.until:%H:%M:%S} UTC" if circuit.until else "")
            + (f"; the last time: {circuit.error}" if circuit.error else ""),
            until=circuit.until,
        )

    def _failed(self, error: Exception) -> None:
        text = " ".join(str(error).split())[:_ERROR_LIMIT]
        self._leave(lambda circuit: failed(circuit, self._rule, self._now(), text))

    def _succeeded(self, *, is_proof: bool) -> None:
        self._leave(lambda circuit: succeeded(circuit, is_proof=is_proof))

    def _leave(self, change: Callable[[Circuit], Circuit]) -> None:
        for _ in range(_TRIES):
            circuit = self._store.load(self._name)
            after = change(circuit)
            if after == circuit or self._write(after, over=circuit.version):
                return

    def _write(self, circuit: Circuit, *, over: int) -> bool:
        return self._store.save(self._name, replace(circuit, version=over + 1), over=over)
