"""Values of a series over the scrapes of its target: numbers, and where there are none."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
States = NDArray[np.uint8]

HELD, MISSING, GONE = 0, 1, 2  # a sample; none; none, and the scrape says so (staleness marker)
SENTINEL = 9223372036854775794.0  # DCGM's blank value for 64-bit fields
STALE_BITS = np.uint64(0x7FF0000000000002)  # Prometheus' staleness marker

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:Inf|inf)|NaN|nan"
_TOKEN = re.compile(
    rf"(?:_(?:x(?P<gap>\d+))?|(?P<stale>stale)"
    rf"|(?P<start>{_NUMBER})(?:(?P<step>[+-](?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?))?"
    rf"(?:x(?P<times>\d+))?)"
)


@dataclass(slots=True)
class Track:
    """One series on the scrapes of its target: `values` where `states` is HELD."""

    values: Floats
    states: States

    def copy(self) -> Track:
        return Track(self.values.copy(), self.states.copy())


def constant(value: float, size: int) -> Track:
    """The same value at each scrape."""
    return Track(np.full(size, float(value)), np.zeros(size, np.uint8))


def nothing(size: int) -> Track:
    """No sample at all."""
    return Track(np.zeros(size), np.full(size, MISSING, np.uint8))


def parse_notation(text: str) -> Track:
    """Prometheus' notation of its rule tests: `0x40 79x40`, `1+2x10`, `_`, `_x10`, `stale`.

    `AxN` is A and N more of it, `A+BxN` grows by B, as there. Raises ValueError.
    """
    values: list[Floats] = []
    states: list[States] = []
    for word in text.split():
        match = _TOKEN.fullmatch(word)
        if match is None:
            raise ValueError(f"{word!r} is no value; write e.g. 0x40, 1+2x10, _, _x5 or stale")
        part = _part(match)
        values.append(part.values)
        states.append(part.states)
    if not values:
        return Track(np.zeros(0), np.zeros(0, np.uint8))
    return Track(np.concatenate(values), np.concatenate(states))


def _part(match: re.Match[str]) -> Track:
    if match["stale"]:
        return Track(np.zeros(1), np.full(1, GONE, np.uint8))
    if match["start"] is None:
        return nothing(int(match["gap"] or 1))
    size = int(match["times"] or 0) + 1
    step = float(match["step"] or 0.0)
    return Track(
        np.asarray(float(match["start"]) + step * np.arange(size), np.float64),
        np.zeros(size, np.uint8),
    )
