"""What every simulated machine shares: time, things due later, durations, and the truth.

Time is real (Prometheus scrapes in real time); only *durations* of repairs and checks are
divided by the speed factor. Tests give a clock that they move by hand.
"""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

# Simulated seconds. GPU reset 10 s - 3 min and node reboot 10 - 20 min are field estimates;
# the diag levels are NVIDIA's typical times for eight GPUs (dcgmi diag: seconds, 2 min,
# 10 - 15 min, 1 - 2 h).
NOMINAL_S = MappingProxyType(
    {
        "gpu_reset": 60.0,
        "reboot": 900.0,
        "diag_1": 30.0,
        "diag_2": 120.0,
        "diag_3": 750.0,
        "diag_4": 5400.0,
        "all_reduce": 30.0,
        "nvbandwidth": 60.0,
        "command": 1.0,
    }
)
EVENTS_KEPT = 20_000


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that really happened in the fleet, whatever the telemetry says."""

    seq: int
    at: float
    node: str
    what: str
    detail: dict[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON-ready data, `at` in unix seconds."""
        return {
            "seq": self.seq,
            "at": self.at,
            "node": self.node,
            "what": self.what,
            **self.detail,
        }


class Truth:
    """The fleet's own diary, bounded; readers page through it by sequence number."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque(maxlen=EVENTS_KEPT)
        self._seq = itertools.count(1)

    def add(self, at: float, node: str, what: str, **detail: Any) -> None:
        """Write down one event."""
        self._events.append(Event(next(self._seq), at, node, what, detail))

    def since(
        self, seq: int = 0, *, node: str | None = None, what: str | None = None
    ) -> list[Event]:
        """Events after `seq`, oldest first, of one node or kind when asked."""
        return [
            event
            for event in self._events
            if event.seq > seq
            and (node is None or event.node == node)
            and (what is None or event.what == what)
        ]

    def __iter__(self) -> Iterator[Event]:
        return iter(tuple(self._events))


@dataclass(order=True, slots=True)
class _Due:
    at: float
    seq: int
    act: Callable[[], None] = field(compare=False)


class Agenda:
    """Things that happen later, run by whoever owns the loop (or a test) with `run_due`."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._due: list[_Due] = []
        self._seq = itertools.count()

    def after(self, delay_s: float, act: Callable[[], None]) -> None:
        """Run `act` once, `delay_s` real seconds from now."""
        heapq.heappush(self._due, _Due(self._now() + delay_s, next(self._seq), act))

    def run_due(self) -> int:
        """Run everything due by now, in order; returns how many ran."""
        ran = 0
        while self._due and self._due[0].at <= self._now():
            heapq.heappop(self._due).act()
            ran += 1
        return ran

    def __len__(self) -> int:
        return len(self._due)


class World:
    """Shared surroundings of all machines of one fleet."""

    def __init__(
        self, *, now: Callable[[], float] = time.time, speed: float = 1.0, seed: int = 0
    ) -> None:
        self.now = now
        self.agenda = Agenda(now)
        self.truth = Truth()
        self.seed = seed
        self.speed = speed

    @property
    def speed(self) -> float:
        """How many simulated seconds of repair pass in one real second."""
        return self._speed

    @speed.setter
    def speed(self, factor: float) -> None:
        if not factor > 0:
            raise ValueError(f"speed must be above 0, not {factor}")
        self._speed = factor

    def takes(self, what: str) -> float:
        """Real seconds that the named piece of work takes at the present speed."""
        return NOMINAL_S[what] / self._speed

    def note(self, node: str, what: str, **detail: Any) -> None:
        """Write down what really happened, now."""
        self.truth.add(self.now(), node, what, **detail)
