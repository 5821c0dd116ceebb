"""Shares with their exact intervals, and how well stated confidence fits what came true. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Share:
    """`right` of `total`, with the exact two-sided (Clopper-Pearson) interval at some level.

    Nothing counted: no share, and the interval is all of 0..1.
    """

    right: int
    total: int
    share: float | None
    low: float
    high: float

    @property
    def wrong(self) -> int:
        return self.total - self.right


def share_of(right: int, total: int, level: float) -> Share:
    """The share with the interval that holds the true one with probability `level` or more."""
    if not 0 <= right <= total:
        raise ValueError(f"{right} of {total} is no share")
    if total == 0:
        return Share(0, 0, None, 0.0, 1.0)
    from scipy.stats import beta  # half a second: only a report needs it

    tail = (1.0 - level) / 2.0
    low = float(beta.ppf(tail, right, total - right + 1)) if right else 0.0
    high = float(beta.ppf(1.0 - tail, right + 1, total - right)) if right < total else 1.0
    return Share(right, total, right / total, low, high)


@dataclass(frozen=True, slots=True)
class Bin:
    """Verdicts whose stated confidence lies in [low, high): the mean of it, and what came true."""

    low: float
    high: float
    count: int
    stated: float
    right: float


@dataclass(frozen=True, slots=True)
class Calibration:
    """The reliability table; `ece`: the mean distance of stated from true, None without labels."""

    labelled: int
    ece: float | None
    bins: tuple[Bin, ...]


def calibration_of(pairs: Sequence[tuple[float, bool]], bins: int) -> Calibration:
    """Of (stated confidence, was right); empty bins are left out. 1.0 is in the last bin."""
    filled: dict[int, list[tuple[float, bool]]] = {}
    for stated, was_right in pairs:
        index = min(int(max(stated, 0.0) * bins), bins - 1)
        filled.setdefault(index, []).append((stated, was_right))
    table = tuple(
        Bin(
            low=index / bins,
            high=(index + 1) / bins,
            count=len(members),
            stated=sum(stated for stated, _ in members) / len(members),
            right=sum(was_right for _, was_right in members) / len(members),
        )
        for index, members in sorted(filled.items())
    )
    if not pairs:
        return Calibration(0, None, ())
    ece = sum(b.count * abs(b.stated - b.right) for b in table) / len(pairs)
    return Calibration(len(pairs), ece, table)
