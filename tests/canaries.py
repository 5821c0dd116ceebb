"""Evidence of two cohorts by hand, for tests of what is made of it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from breakfix.cohorts import Cohort, Evidence, NodeHealth, SourceTraffic, Traffic
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from tests.observations import NOW

RULES = parse_policy(default_policy_text()).canary
BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, math.inf)


def served(requests: float, errors: float | None = 0.0, unit: str = "n1", **more: Any) -> Traffic:
    return Traffic(unit, requests, errors, **more)


def spread(requests: float, errors: float, units: int) -> tuple[Traffic, ...]:
    """The same from each of so many units."""
    return tuple(served(requests / units, errors / units, f"n{i}") for i in range(units))


def latencies(*parts: tuple[float, float]) -> tuple[tuple[float, float], ...]:
    """Buckets of (seconds, how many requests took so long)."""
    return tuple((b, sum(n for s, n in parts if s <= b)) for b in BOUNDS)


def timed(*parts: tuple[float, float], unit: str = "n1") -> Traffic:
    return served(sum(n for _, n in parts), unit=unit, buckets=latencies(*parts))


def source(
    canary: Iterable[Traffic], stable: Iterable[Traffic], *, trouble: str = ""
) -> SourceTraffic:
    pair = tuple(canary), tuple(stable)
    has_latency = any(u.buckets for units in pair for u in units)
    return SourceTraffic("web", *pair, has_latency=has_latency, trouble=trouble)


def evidence(
    *sources: SourceTraffic,
    canary: Iterable[str] | None = None,
    stable: Iterable[str] | None = None,
    **more: Any,
) -> Evidence:
    """Of cohorts of just the nodes that serve, unless others are given."""
    if canary is None:
        canary = {u.unit for s in sources for u in s.canary} or ("c1", "c2", "c3")
    if stable is None:
        stable = {u.unit for s in sources for u in s.stable} or ("s1", "s2", "s3")
    return Evidence(
        at=NOW,
        window_s=600.0,
        canary=Cohort("the new", nodes=frozenset(canary)),
        stable=Cohort("the old", nodes=frozenset(stable)),
        sources=sources,
        **more,
    )


def health(judged: int, sick: int, nodes: int | None = None) -> NodeHealth:
    return NodeHealth(
        judged if nodes is None else nodes, judged, frozenset(f"x{i}" for i in range(sick))
    )
