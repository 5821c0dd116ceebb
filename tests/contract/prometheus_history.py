"""Histories of scrapes, written into a real Prometheus at once: an hour without the waiting."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from breakfix.replay.remote_write import WrittenSeries, write

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[
    0
]  # Prometheus' staleness marker

Value = Callable[
    [float], float | None
]  # seconds since the history's start -> value; None: no series


@dataclass
class History:
    """What a Prometheus that scrapes every `every_s` seconds until `end` (Unix time) has seen.

    A series whose value becomes None is marked stale, as when a scrape no longer has it, or fails;
    without `marks_gone` it only ends, as when whoever writes it does not know these marks.
    """

    end: float
    length_s: float = 1800.0
    every_s: float = 15.0
    marks_gone: bool = True
    series: list[tuple[dict[str, str], Value]] = field(default_factory=list)

    def add(self, name: str, value: Value | float, **labels: str) -> None:
        made = value if callable(value) else lambda _t, v=value: v
        self.series.append(({"__name__": name, **labels}, made))

    def write(self, url: str) -> None:
        """Send everything; raises when Prometheus does not take it."""
        write(url, (self.written(labels, value) for labels, value in self.series))

    def written(self, labels: dict[str, str], value: Value) -> WrittenSeries:
        samples = list(self._samples(value))
        times = np.array([when for _, when in samples], np.int64)
        return WrittenSeries(labels, times, np.array([v for v, _ in samples], np.float64))

    def _samples(self, value: Value) -> Iterator[tuple[float, int]]:
        was_there = False
        for tick in range(int(self.length_s / self.every_s) + 1):
            since = tick * self.every_s
            now = value(since)
            when = int((self.end - self.length_s + since) * 1000)
            if now is not None or (was_there and self.marks_gone):
                yield (STALE if now is None else now), when
            was_there = now is not None
