"""The p99 of two cohorts: against the limit, and against each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from breakfix.cohorts import Check, CheckOutcome, SourceTraffic, Traffic
from breakfix.decide.canary.checks import MANY, few, relative_outcome, settled
from breakfix.decide.canary.coverage import passed_on, untold_of
from breakfix.decide.canary.histograms import (
    Buckets,
    Quantile,
    bound_from,
    common_bounds,
    merge,
    quantile,
    slower_than,
    total,
)
from breakfix.decide.canary.statistics import rate_p_value
from breakfix.policy_canary import CanaryRules

P99 = 0.99
PASSED, FAILED, UNKNOWN = CheckOutcome.PASSED, CheckOutcome.FAILED, CheckOutcome.UNKNOWN


def latency_checks(source: SourceTraffic, rules: CanaryRules, alpha: float) -> Iterator[Check]:
    """Both checks; where the buckets cannot tell, unknown."""
    canary = [u for u in source.canary if u.buckets]
    stable = [u for u in source.stable if u.buckets]
    untold = untold_of(source.canary, source.canary_heard, _is_told, "the canary")
    others = untold_of(source.stable, source.stable_heard, _is_told, "the stable cohort")
    yield passed_on(_limit(source, canary, stable, rules), untold)
    yield passed_on(_ratio(source, canary, stable, rules, alpha), untold, others)


def _is_told(unit: Traffic) -> bool:
    return "latency" not in unit.unclear


def _row(name: str, canary: Buckets, stable: Buckets, limit: float) -> Check:
    here, there = quantile(canary, P99), quantile(stable, P99)
    return Check(
        name,
        UNKNOWN,
        here.seconds if here else None,
        there.seconds if there else None,
        limit,
        total(canary),
        total(stable),
    )


def _limit(
    source: SourceTraffic, canary: Sequence[Traffic], stable: Sequence[Traffic], rules: CanaryRules
) -> Check:
    limit = rules.absolute.p99_s
    buckets = merge(canary, common_bounds(canary))
    row = _row(f"{source.source} p99", buckets, merge(stable, common_bounds(stable)), limit)
    here = quantile(buckets, P99)
    if why := source.trouble or few(total(buckets), rules, "the canary"):
        return settled(row, UNKNOWN, why)
    if here is None:
        return settled(row, UNKNOWN, "no latency was measured")
    if here.seconds > limit or (here.is_open and here.seconds >= limit):
        return settled(row, FAILED, _open(here))
    return settled(row, UNKNOWN if here.is_open else PASSED, _open(here))


def _open(found: Quantile) -> str:
    if not found.is_open:
        return ""
    return f"above {found.seconds:g} s, the largest bucket"


def _ratio(
    source: SourceTraffic,
    canary: Sequence[Traffic],
    stable: Sequence[Traffic],
    rules: CanaryRules,
    alpha: float,
) -> Check:
    bounds = common_bounds([*canary, *stable])
    here, there = merge(canary, bounds), merge(stable, bounds)
    base = quantile(there, P99)
    relative = rules.relative
    limit = relative.p99 * max(base.seconds if base else 0.0, relative.p99_floor_s)
    row = _row(f"{source.source} p99 against stable", here, there, limit)
    if why := (
        source.trouble
        or few(total(here), rules, "the canary")
        or few(total(there), rules, "the stable cohort")
    ):
        return settled(row, UNKNOWN, why)
    if base is None or base.is_open:
        return settled(row, UNKNOWN, "stable is above its largest bucket")
    p = _tail_p_value(here, there, base.seconds)
    is_of_many = len(canary) < MANY or _holds_without_any(canary, bounds, limit)
    outcome, note = _outcome(here, limit, is_of_many, p, alpha)
    if outcome is UNKNOWN and p >= alpha:
        note = _too_coarse(here, there, base.seconds, alpha) or note
    return settled(row, outcome, note, p)


def _too_coarse(canary: Buckets, stable: Buckets, base_s: float, alpha: float) -> str:
    """Why it is no chance though no more requests are slower than the bucket of stable's p99.

    More of them are in it or above, surely. How much slower they are is not told: both p99 are
    interpolated between the same bounds, and may be next to each other. So nothing fails on it.
    """
    bound = bound_from(stable, base_s)
    below = max((b for b, _ in stable if bound is not None and b < bound), default=None)
    if bound is None or below is None:
        return ""
    slow, others = slower_than(canary, below), slower_than(stable, below)
    if rate_p_value(slow, total(canary), others, total(stable)) >= alpha:
        return ""
    return (
        f"more requests are slower than {below:g} s ({slow / total(canary):.1%} against"
        f" {others / total(stable):.1%}), but the next bucket ends at {bound:g} s:"
        " too coarse to tell how much"
    )


def _outcome(
    here: Buckets,
    limit: float,
    is_of_many: bool,  # noqa: FBT001 - as in relative_outcome
    p: float,
    alpha: float,
) -> tuple[CheckOutcome, str]:
    found = quantile(here, P99)
    if found is not None and found.is_open and found.seconds <= limit:
        return UNKNOWN, _open(found)
    return relative_outcome(_is_beyond(here, limit), is_of_many, p, alpha)


def _is_beyond(buckets: Buckets, limit: float) -> bool:
    found = quantile(buckets, P99)
    return found is not None and found.seconds > limit


def _tail_p_value(canary: Buckets, stable: Buckets, base_s: float) -> float:
    """Fisher's test on the requests slower than the bucket of stable's p99.

    Counting requests above a bound of both histograms needs no interpolation: what is tested was
    counted.
    """
    bound = bound_from(stable, base_s)
    if bound is None:
        return 1.0
    return rate_p_value(
        slower_than(canary, bound), total(canary), slower_than(stable, bound), total(stable)
    )


def _holds_without_any(units: Sequence[Traffic], bounds: Sequence[float], limit: float) -> bool:
    whole = merge(units, bounds)
    for unit in units:
        part = dict(unit.buckets)
        rest = tuple((b, max(0.0, n - part.get(b, 0.0))) for b, n in whole)
        if not _is_beyond(rest, limit):
            return False
    return True
