"""Functions over ranges: what Prometheus makes of the samples within a window, at many instants.

Windows hold both their ends, as in Prometheus 2.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from breakfix.replay.promql.vectors import Bools, Millis
from breakfix.replay.values import Floats


class Window:
    """The samples of one series (no markers among them) within a range before each instant."""

    def __init__(self, times: Millis, values: Floats, ends: Millis, range_ms: int) -> None:
        self.times, self.values, self.ends, self.range_ms = times, values, ends, range_ms
        self.low = np.searchsorted(times, ends - range_ms, side="left")
        self.high = np.searchsorted(times, ends, side="right")
        self.count = self.high - self.low

    def reduced(self, ufunc: np.ufunc, padding: float) -> Floats:
        """The ufunc over each window's samples."""
        padded = np.append(self.values, padding)
        pairs = np.empty(2 * len(self.ends), np.int64)
        pairs[0::2], pairs[1::2] = self.low, self.high
        return np.asarray(ufunc.reduceat(padded, pairs)[::2], np.float64)

    def first(self) -> Floats:
        return self._at(self.low)

    def last(self) -> Floats:
        return self._at(self.high - 1)

    def _at(self, places: np.ndarray) -> Floats:
        if len(self.values) == 0:
            return np.zeros(len(self.ends))
        return np.asarray(self.values[np.clip(places, 0, len(self.values) - 1)], np.float64)

    def when(self, places: np.ndarray) -> Millis:
        return np.asarray(self.times[np.clip(places, 0, max(len(self.times) - 1, 0))], np.int64)

    def between(self, marks: Floats) -> Floats:
        """The sum of what lies between neighbours within each window; marks[i]: from i-1 to i."""
        total = np.concatenate([[0.0], np.cumsum(marks)])
        high = np.maximum(self.high, self.low + 1)
        first = np.clip(self.low + 1, 0, len(total) - 1)
        return np.asarray(total[np.clip(high, 0, len(total) - 1)] - total[first], np.float64)


Answer = tuple[Floats, Bools]


def _increase(w: Window) -> Answer:
    """Prometheus' extrapolation: towards the window's ends, not below zero, half a gap at most."""
    enough = w.count >= 2  # noqa: PLR2004 - a growth needs two samples
    if not enough.any():
        return np.zeros(len(w.ends)), enough
    before = np.concatenate([[0.0], w.values[:-1]])
    drops = np.where(w.values < before, before, 0.0)
    drops[:1] = 0.0
    first, last = w.first(), w.last()
    growth = last - first + w.between(drops)
    start, end = w.when(w.low), w.when(w.high - 1)
    sampled = np.where(enough, (end - start) / 1000, 1.0)
    average = sampled / np.maximum(w.count - 1, 1)
    to_start = (start - (w.ends - w.range_ms)) / 1000
    to_end = (w.ends - end) / 1000
    with np.errstate(divide="ignore", invalid="ignore"):
        to_zero = sampled * (first / growth)
    to_start = np.where((growth > 0) & (first >= 0) & (to_zero < to_start), to_zero, to_start)
    limit = average * 1.1
    whole = sampled + np.where(to_start < limit, to_start, average / 2)
    whole += np.where(to_end < limit, to_end, average / 2)
    return growth * whole / sampled, enough


def _rate(w: Window) -> Answer:
    values, there = _increase(w)
    return values / (w.range_ms / 1000), there


def _avg(w: Window) -> Answer:
    return w.reduced(np.add, 0.0) / np.maximum(w.count, 1), w.count > 0


def _marked(w: Window, is_marked: Callable[[Floats, Floats], Bools]) -> Answer:
    marks = np.zeros(len(w.values))
    marks[1:] = is_marked(w.values[:-1], w.values[1:])
    return np.where(w.count > 0, w.between(marks), 0.0), w.count > 0


def _differs(a: Floats, b: Floats) -> Bools:
    return np.asarray((a != b) & ~(np.isnan(a) & np.isnan(b)), np.bool_)


FUNCTIONS: Mapping[str, Callable[[Window], Answer]] = {
    "increase": _increase,
    "rate": _rate,
    "avg_over_time": _avg,
    "sum_over_time": lambda w: (w.reduced(np.add, 0.0), w.count > 0),
    "max_over_time": lambda w: (w.reduced(np.fmax, -np.inf), w.count > 0),
    "min_over_time": lambda w: (w.reduced(np.fmin, np.inf), w.count > 0),
    "count_over_time": lambda w: (w.count.astype(np.float64), w.count > 0),
    "last_over_time": lambda w: (w.last(), w.count > 0),
    "present_over_time": lambda w: (np.ones(len(w.ends)), w.count > 0),
    "changes": lambda w: _marked(w, _differs),
    "resets": lambda w: _marked(w, lambda a, b: np.asarray(b < a, np.bool_)),
}
