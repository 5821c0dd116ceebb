"""The checks of one comparison, each a row of the answer's table. Pure.

An absolute limit acts by itself once the canary has enough requests. A relative one acts when the
ratio is exceeded, the difference is significant, and it is no single node's doing: where the canary
has three or more, the ratio must hold without any one of them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from breakfix.cohorts import (
    Check,
    CheckOutcome,
    MetricValues,
    NodeHealth,
    SourceTraffic,
    Traffic,
)
from breakfix.decide.canary.coverage import passed_on, untold_of, untold_values
from breakfix.decide.canary.statistics import rate_p_value, shift_p_value
from breakfix.policy_canary import BusinessMetric, CanaryRules

PASSED, FAILED, UNKNOWN = CheckOutcome.PASSED, CheckOutcome.FAILED, CheckOutcome.UNKNOWN
MANY = 3  # from so many nodes or pods on, one of them is not the cohort


@dataclass(frozen=True, slots=True)
class Count:
    """Bad ones of all, summed over a cohort."""

    bad: float
    all: float

    @property
    def share(self) -> float:
        return min(1.0, self.bad / self.all) if self.all > 0 else math.nan


def errors_of(unit: Traffic) -> Count | None:
    """A unit whose errors could not be told is left out with its requests."""
    return None if unit.errors is None else Count(unit.errors, unit.requests)


def failures_of(unit: Traffic) -> Count | None:
    """What was no success: without a series of successes, the errors."""
    if "successes" in unit.unclear:
        return None
    if unit.successes is None:
        return errors_of(unit)
    return Count(max(0.0, unit.requests - unit.successes), unit.requests)


def counts(units: Sequence[Traffic], of: Callable[[Traffic], Count | None]) -> list[Count]:
    """Those of the units that could be told."""
    return [c for u in units if (c := of(u)) is not None]


def summed(parts: Sequence[Count]) -> Count:
    """The cohort's count."""
    return Count(sum(c.bad for c in parts), sum(c.all for c in parts))


def rate_checks(source: SourceTraffic, rules: CanaryRules, alpha: float) -> Iterator[Check]:
    """Error rate against the limit and against stable, and the success rate."""
    canary, stable = counts(source.canary, errors_of), counts(source.stable, errors_of)
    untold, others_untold = _untold(source, errors_of)
    yield passed_on(_error_limit(source, summed(canary), summed(stable), rules), untold)
    ratio = _error_ratio(source, canary, summed(stable), rules, alpha)
    yield passed_on(ratio, untold, others_untold)
    failed = summed(counts(source.canary, failures_of))
    others = summed(counts(source.stable, failures_of))
    untold, _ = _untold(source, failures_of)
    yield passed_on(_success_limit(source, failed, others, rules), untold)


def _untold(source: SourceTraffic, of: Callable[[Traffic], Count | None]) -> tuple[str, str]:
    def is_told(unit: Traffic) -> bool:
        return of(unit) is not None

    return (
        untold_of(source.canary, source.canary_heard, is_told, "the canary"),
        untold_of(source.stable, source.stable_heard, is_told, "the stable cohort"),
    )


def _row(source: SourceTraffic, what: str, canary: Count, stable: Count, limit: float) -> Check:
    """A row without an outcome yet."""
    return Check(
        f"{source.source} {what}",
        UNKNOWN,
        _number(canary.share),
        _number(stable.share),
        limit,
        canary.all,
        stable.all,
    )


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def settled(check: Check, outcome: CheckOutcome, note: str = "", p: float | None = None) -> Check:
    """The row with its outcome."""
    return Check(
        check.name,
        outcome,
        check.canary,
        check.stable,
        check.limit,
        check.requests,
        check.stable_requests,
        p,
        note,
    )


def few(requests: float, rules: CanaryRules, whose: str) -> str:
    """Why there are too few requests; "" when there are enough."""
    if requests >= rules.min_requests:
        return ""
    return f"{whose} has {requests:.0f} requests of the {rules.min_requests} wanted"


def _error_limit(source: SourceTraffic, canary: Count, stable: Count, rules: CanaryRules) -> Check:
    limit = rules.absolute.error_rate
    row = _row(source, "error rate", canary, stable, limit)
    if why := source.trouble or few(canary.all, rules, "the canary"):
        return settled(row, UNKNOWN, why)
    return settled(row, FAILED if canary.share > limit else PASSED)


def _success_limit(
    source: SourceTraffic, canary: Count, stable: Count, rules: CanaryRules
) -> Check:
    limit = rules.absolute.success_rate
    row = Check(
        f"{source.source} success rate",
        UNKNOWN,
        _number(1 - canary.share),
        _number(1 - stable.share),
        limit,
        canary.all,
        stable.all,
    )
    if why := source.trouble or few(canary.all, rules, "the canary"):
        return settled(row, UNKNOWN, why)
    return settled(row, FAILED if 1 - canary.share < limit - 1e-12 else PASSED)


def _error_ratio(
    source: SourceTraffic, parts: Sequence[Count], stable: Count, rules: CanaryRules, alpha: float
) -> Check:
    canary, relative = summed(parts), rules.relative
    share = 0.0 if math.isnan(stable.share) else stable.share
    limit = relative.error_rate * max(share, relative.error_rate_floor)
    row = _row(source, "error rate against stable", canary, stable, limit)
    if why := (
        source.trouble
        or few(canary.all, rules, "the canary")
        or few(stable.all, rules, "the stable cohort")
    ):
        return settled(row, UNKNOWN, why)
    p = rate_p_value(canary.bad, canary.all, stable.bad, stable.all)
    is_beyond = canary.share > limit
    is_of_many = all(_without(canary, c).share > limit for c in parts) or len(parts) < MANY
    return settled(row, *relative_outcome(is_beyond, is_of_many, p, alpha), p)


def _without(whole: Count, part: Count) -> Count:
    return Count(max(0.0, whole.bad - part.bad), max(0.0, whole.all - part.all))


def relative_outcome(
    is_beyond: bool,  # noqa: FBT001 - all three are the outcome's own words
    is_of_many: bool,  # noqa: FBT001
    p: float,
    alpha: float,
) -> tuple[CheckOutcome, str]:
    """(outcome, note). Beyond the ratio and not sure of it is neither passed nor failed."""
    if not is_beyond:
        return PASSED, ""
    if p >= alpha:
        return UNKNOWN, f"worse, but it may be chance (p {p:.2g}, wanted below {alpha:.2g})"
    if not is_of_many:
        return UNKNOWN, "worse, but one node or pod alone makes it so"
    return FAILED, ""


def metric_checks(values: MetricValues, rule: BusinessMetric, alpha: float) -> Iterator[Check]:
    """The median of the nodes or pods against the limit, and against stable's."""
    canary, stable = list(values.canary.values()), list(values.stable.values())
    here, there = (median(canary) if canary else None), (median(stable) if stable else None)
    sizes = (float(len(canary)), float(len(stable)))
    missing = values.trouble or ("" if canary else "the canary does not report it")
    untold = untold_values(values)
    if rule.limit is not None:
        row = Check(values.metric, UNKNOWN, here, there, rule.limit, *sizes)
        is_bad = here is not None and _is_worse(here, rule.limit, rule)
        outcome = UNKNOWN if missing else FAILED if is_bad else PASSED
        yield passed_on(settled(row, outcome, missing), untold[0])
    if rule.ratio is not None:
        missing = missing or ("" if stable else "the stable cohort does not report it")
        limit = None if there is None else _metric_limit(there, rule)
        row = Check(f"{values.metric} against stable", UNKNOWN, here, there, limit, *sizes)
        if missing:
            yield settled(row, UNKNOWN, missing)
        else:
            yield passed_on(_metric_ratio(row, canary, stable, rule, alpha), *untold)


def _is_worse(value: float, limit: float, rule: BusinessMetric) -> bool:
    return value > limit if rule.worse == "higher" else value < limit


def _metric_limit(stable: float, rule: BusinessMetric) -> float:
    """Of a baseline below the floor: the floor's multiple when higher is worse, else nothing."""
    ratio = rule.ratio or 1.0
    if rule.worse == "higher":
        return ratio * max(stable, rule.floor)
    return stable / ratio if stable > rule.floor else -math.inf


def _metric_ratio(
    row: Check,
    canary: Sequence[float],
    stable: Sequence[float],
    rule: BusinessMetric,
    alpha: float,
) -> Check:
    limit, here = row.limit, row.canary
    if limit is None or here is None:
        return row
    p = shift_p_value(canary, stable, is_higher_worse=rule.worse == "higher")
    return settled(row, *relative_outcome(_is_worse(here, limit, rule), True, p, alpha), p)


def health_check(health: tuple[NodeHealth, NodeHealth], rules: CanaryRules, alpha: float) -> Check:
    """Nodes with findings of their own, in the cohort against the rest: needs no request at all.

    Where most of a small cohort is sick and stable is not, that speaks without a test: four of four
    nodes would never be enough for the test's share of alpha.
    """
    canary, stable = health
    here = Count(float(len(canary.sick)), float(canary.judged))
    there = Count(float(len(stable.sick)), float(stable.judged))
    share = 0.0 if math.isnan(there.share) else there.share
    limit = rules.relative.sick_nodes * max(share, rules.relative.sick_nodes_floor)
    row = Check(
        "nodes with findings",
        UNKNOWN,
        _number(here.share),
        _number(there.share),
        limit,
        here.all,
        there.all,
    )
    if why := _unjudged(canary, "the canary") or _unjudged(stable, "the stable cohort"):
        return settled(row, UNKNOWN, why)
    p = rate_p_value(here.bad, here.all, there.bad, there.all)
    is_of_many = here.bad > 1
    most = here.bad >= rules.min_nodes and here.share > rules.absolute.sick_nodes
    if most and here.share > limit:
        return settled(row, FAILED, "most of the canary", p)
    return settled(row, *relative_outcome(here.share > limit, is_of_many, p, alpha), p)


def _unjudged(health: NodeHealth, whose: str) -> str:
    if health.nodes and health.judged * 2 > health.nodes:
        return ""
    return f"{whose}: {health.judged} of {health.nodes} nodes could be judged"
