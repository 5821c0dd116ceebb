"""Where circuits live: in this process, or beyond it with this process's memory in front."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from breakfix.errors import SourceError
from breakfix.resilience.breaker import Circuit, CircuitStore

log = logging.getLogger(__name__)

#: How old a circuit may be that a process goes by: it is read that often while nothing fails.
FRESH_S = 5.0
#: How long a store that could not be asked is left alone.
AWAY_S = 30.0


class CircuitsInMemory:
    """For one process. Thread-safe."""

    def __init__(self, circuits: Mapping[str, Circuit] | None = None) -> None:
        self._circuits = dict(circuits or {})
        self._lock = threading.Lock()

    def load(self, name: str) -> Circuit:
        with self._lock:
            return self._circuits.get(name, Circuit())

    def save(self, name: str, circuit: Circuit, *, over: int) -> bool:
        with self._lock:
            if self._circuits.get(name, Circuit()).version != over:
                return False
            self._circuits[name] = circuit
            return True

    def all(self) -> Mapping[str, Circuit]:
        """Those that ever changed, by name."""
        with self._lock:
            return dict(self._circuits)


@dataclass(frozen=True, slots=True)
class _Seen:
    circuit: Circuit
    at: float


class SharedCircuits:
    """A store that all processes share, asked seldom, and done without while it cannot be asked.

    A healthy process reads each circuit once in `fresh_s` seconds and writes nothing. A store that
    fails (the ledger is down) costs one failing call in `away_s` seconds; meanwhile this process
    goes by what it saw last and by its own failures. A breaker must not make that outage worse.
    """

    def __init__(
        self,
        shared: CircuitStore,
        *,
        fresh_s: float = FRESH_S,
        away_s: float = AWAY_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shared = shared
        self._fresh_s = fresh_s
        self._away_s = away_s
        self._clock = clock
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}
        self._own = CircuitsInMemory()
        self._away_until = 0.0

    def load(self, name: str) -> Circuit:
        with self._lock:
            now, seen = self._clock(), self._seen.get(name)
            if now < self._away_until:
                return self._own.load(name)
            if seen is not None and now - seen.at < self._fresh_s:
                return seen.circuit
        try:
            circuit = self._shared.load(name)
        except SourceError as e:
            self._leave_alone(e)
            return self._own.load(name)
        self._remember(name, circuit)
        return circuit

    def save(self, name: str, circuit: Circuit, *, over: int) -> bool:
        with self._lock:
            is_away = self._clock() < self._away_until
        if is_away:
            return self._own.save(name, circuit, over=over)
        try:
            is_saved = self._shared.save(name, circuit, over=over)
        except SourceError as e:
            self._leave_alone(e)
            return self._own.save(name, circuit, over=over)
        if is_saved:
            self._remember(name, circuit)
        else:
            with self._lock:
                self._seen.pop(name, None)
        return is_saved

    def _remember(self, name: str, circuit: Circuit) -> None:
        with self._lock:
            self._seen[name] = _Seen(circuit, self._clock())

    def _leave_alone(self, error: SourceError) -> None:
        """Go on with what was seen last; once the store is back, what it says counts again."""
        with self._lock:
            if self._clock() < self._away_until:
                return
            self._away_until = self._clock() + self._away_s
            self._own = CircuitsInMemory({name: seen.circuit for name, seen in self._seen.items()})
            self._seen.clear()
        log.warning("circuits are this process's own for %g s: %s", self._away_s, error)
