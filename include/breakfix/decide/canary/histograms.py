"""Latency histograms of several nodes or pods as one, and quantiles of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from breakfix.cohorts import Traffic

Buckets = tuple[tuple[float, float], ...]  # (upper bound in s, requests up to it), +Inf the last


@dataclass(frozen=True, slots=True)
class Quantile:
    """`is_open`: it lies above the largest finite bound, which is then `seconds`."""

    seconds: float
    is_open: bool


def common_bounds(units: Iterable[Traffic]) -> tuple[float, ...]:
    """The bounds that every unit has: cumulative counts are exact there. Empty without +Inf."""
    sets = [{bound for bound, _ in u.buckets} for u in units if u.buckets]
    shared = sorted(set.intersection(*sets)) if sets else []
    return tuple(shared) if len(shared) > 1 and shared[-1] == math.inf else ()


def merge(units: Iterable[Traffic], bounds: Sequence[float]) -> Buckets:
    """One histogram at those bounds, made monotone: counts that are extrapolated may not be."""
    totals = [0.0] * len(bounds)
    for unit in units:
        known = dict(unit.buckets)
        for i, bound in enumerate(bounds):
            totals[i] += known.get(bound, 0.0)
    top = 0.0
    merged = []
    for bound, count in zip(bounds, totals, strict=True):
        top = max(top, count)
        merged.append((bound, top))
    return tuple(merged)


def total(buckets: Buckets) -> float:
    """How many requests the histogram counts."""
    return buckets[-1][1] if buckets else 0.0


def quantile(buckets: Buckets, share: float) -> Quantile | None:
    """By interpolation within the bucket, as Prometheus does; None without requests."""
    wanted = share * total(buckets)
    if wanted <= 0:
        return None
    below, before = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                return Quantile(below, is_open=True)
            part = (wanted - before) / (count - before) if count > before else 1.0
            return Quantile(below + (bound - below) * part, is_open=False)
        below, before = bound, count
    return Quantile(below, is_open=True)


def slower_than(buckets: Buckets, bound: float) -> float:
    """Requests above that bound, which is one of the histogram's."""
    return total(buckets) - dict(buckets)[bound]


def bound_from(buckets: Buckets, seconds: float) -> float | None:
    """The smallest finite bound that is not below; None when only +Inf is."""
    return next((b for b, _ in buckets if b >= seconds and math.isfinite(b)), None)
