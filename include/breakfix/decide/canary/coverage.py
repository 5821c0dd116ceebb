"""How much of a cohort an answer rests on: what is not told of is no pass. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace

from breakfix.cohorts import Check, CheckOutcome, Cohort, Evidence, Heard, MetricValues, Traffic
from breakfix.policy_canary import CanaryRules

#: Of its members or its requests; as much as the limit of errors lets pass, so no more can hide
#: among them (ours).
UNTOLD_UP_TO = 0.05


def passed_on(check: Check, *untold: str) -> Check:
    """The check, unknown where it passed on too little. What has failed has failed."""
    why = next((u for u in untold if u), "")
    if not why or check.outcome is not CheckOutcome.PASSED:
        return check
    return replace(check, outcome=CheckOutcome.UNKNOWN, note=why)


def untold_of(
    units: Collection[Traffic], heard: Heard, is_told: Callable[[Traffic], bool], whose: str
) -> str:
    """Why what is told of a cohort's requests is too little; "" when it is enough."""
    untold = [u for u in units if not is_told(u)]
    unknown, members = len(untold) + len(heard.unknown), len(units) + len(heard.unknown)
    requests = sum(u.requests for u in units)
    missed = sum(u.requests for u in untold)
    if unknown <= UNTOLD_UP_TO * members and missed <= UNTOLD_UP_TO * requests:
        return ""
    return f"{whose}: of {unknown} of {members} nodes or pods it could not be told"


def untold_values(values: MetricValues) -> tuple[str, str]:
    """The same of a business metric: (of the canary, of the stable cohort)."""
    return (
        _untold_values(values.canary, values.canary_heard, "the canary"),
        _untold_values(values.stable, values.stable_heard, "the stable cohort"),
    )


def _untold_values(told: Iterable[str], heard: Heard, whose: str) -> str:
    unknown, members = len(heard.unknown), len(heard.unknown.union(told))
    if unknown <= UNTOLD_UP_TO * members:
        return ""
    return f"{whose}: the value of {unknown} of {members} nodes or pods is no number"


def seen_check(evidence: Evidence, rules: CanaryRules) -> Check | None:
    """Whether enough of the canary is seen at all: what has crashed fails no request.

    Seen is a member with any series of the requests, be it idle. Pods of one selection are alike,
    so nearly all of them must be; of nodes, which need not serve, as many as of stable's. None
    where the members are not known, or nothing is seen of anybody.
    """
    seen, others = _seen(evidence)
    here = _share(evidence.canary, seen)
    there = _share(evidence.stable, others)
    if here is None or not (here or there):
        return None
    is_by_nodes = evidence.canary.nodes is not None and evidence.stable.nodes is not None
    limit = rules.min_seen * ((there or 1.0) if is_by_nodes else 1.0)
    size = evidence.canary.size or 0
    note = "" if here >= limit else f"{here * size:.0f} of {size} nodes or pods were seen"
    return Check(
        "canary seen",
        CheckOutcome.UNKNOWN if note else CheckOutcome.PASSED,
        here,
        there,
        limit,
        float(size),
        None if evidence.stable.size is None else float(evidence.stable.size),
        note=note,
    )


def _seen(evidence: Evidence) -> tuple[set[str], set[str]]:
    """(of the canary, of stable); by business metrics where no source has requests."""
    canary: set[str] = set()
    stable: set[str] = set()
    for source in evidence.sources:
        canary |= source.canary_heard.seen | {u.unit for u in source.canary}
        stable |= source.stable_heard.seen | {u.unit for u in source.stable}
    if canary or stable:
        return canary, stable
    for values in evidence.metrics:
        canary |= values.canary_heard.seen.union(values.canary)
        stable |= values.stable_heard.seen.union(values.stable)
    return canary, stable


def _share(cohort: Cohort, seen: set[str]) -> float | None:
    members = cohort.units
    return len(members & seen) / len(members) if members else None
