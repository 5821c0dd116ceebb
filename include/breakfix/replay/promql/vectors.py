"""Series and vectors as arrays over instants."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from breakfix.replay.values import STALE_BITS, Floats

Millis = NDArray[np.int64]
Bools = NDArray[np.bool_]
Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Stored:
    """A series: labels without its name, times in ms, values; `stale` where they are markers."""

    labels: Labels
    times: Millis
    values: Floats
    stale: Bools


@dataclass(slots=True)
class Element:
    """One element of an instant vector at many instants: values where it is there."""

    labels: Labels
    values: Floats
    there: Bools


class Store:
    """Series by metric."""

    def __init__(self) -> None:
        self._series: dict[str, list[Stored]] = {}

    def add(self, labels: Labels, times: Millis, values: Floats) -> None:
        """One series, `__name__` among its labels; empty labels are none."""
        own = {k: v for k, v in labels.items() if k != "__name__" and v}
        stale = values.view(np.uint64) == STALE_BITS
        self._series.setdefault(labels["__name__"], []).append(Stored(own, times, values, stale))

    def select(self, metric: str, matchers: Iterable[tuple[str, str, str]]) -> list[Stored]:
        """The series that match."""
        wanted = [m for m in matchers if m[0] != "__name__"]
        return [s for s in self._series.get(metric, ()) if _matches(s.labels, wanted)]


def _matches(labels: Labels, wanted: Sequence[tuple[str, str, str]]) -> bool:
    return all(_holds(labels.get(label, ""), op, value) for label, op, value in wanted)


def _holds(found: str, op: str, value: str) -> bool:
    if op == "=":
        return found == value
    if op == "!=":
        return found != value
    is_match = pattern(value).fullmatch(found) is not None
    return is_match == (op == "=~")


@lru_cache(maxsize=1024)
def pattern(text: str) -> re.Pattern[str]:
    """A regular expression, anchored by fullmatch as Prometheus anchors it."""
    return re.compile(text, re.DOTALL)
