"""Two cohorts side by side: what is seen of a canary and of what is stable, and the answer.

Nothing here reads a clock, a network or a file. Shares are 0..1, latencies and windows seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class Advice(StrEnum):
    """The answer of one comparison."""

    PROCEED = "proceed"
    ROLL_BACK = "roll_back"
    CONTINUE = "continue"  # go on looking: not enough was seen, or not surely enough


class CheckOutcome(StrEnum):
    """What became of one check. Unknown is no pass: nothing proceeds on it."""

    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Cohort:
    """What is compared: nodes, pods, or whatever series some PromQL label matchers select.

    Exactly one of `nodes`, `pods` and `matchers` is given; an empty set is a missing cohort.
    """

    name: str  # how a person would say it
    nodes: frozenset[str] | None = None
    pods: frozenset[tuple[str, str]] | None = None  # (namespace, name)
    matchers: str = ""  # e.g. app="chat",version="2"

    @property
    def size(self) -> int | None:
        """Nodes or pods; None where only the series themselves could say."""
        members = self.nodes if self.nodes is not None else self.pods
        return None if members is None else len(members)

    @property
    def is_missing(self) -> bool:
        return self.size == 0

    @property
    def units(self) -> frozenset[str] | None:
        """Its members as `Traffic.unit` names them; None where only the series could say."""
        if self.pods is not None:
            return frozenset("/".join(pod) for pod in self.pods)
        return self.nodes


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one node or pod served within the window. None: it could not be told."""

    unit: str
    requests: float
    errors: float | None = None
    successes: float | None = None
    buckets: tuple[tuple[float, float], ...] = ()  # (upper bound in s, requests up to it)
    unclear: frozenset[str] = frozenset()  # of "successes", "latency": some of it is no number


@dataclass(frozen=True, slots=True)
class Heard:
    """Of which nodes or pods there is any series, and of which what is asked is no number."""

    seen: frozenset[str] = frozenset()
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class SourceTraffic:
    """One source of requests (vllm, triton, ...) in both cohorts. `trouble`: it was not read."""

    source: str
    canary: tuple[Traffic, ...] = ()
    stable: tuple[Traffic, ...] = ()
    has_latency: bool = False
    trouble: str = ""
    canary_heard: Heard = Heard()
    stable_heard: Heard = Heard()

    @property
    def is_silent(self) -> bool:
        """It says nothing of either cohort, and was read: the fleet has no such source."""
        unknown = self.canary_heard.unknown or self.stable_heard.unknown
        return not (self.canary or self.stable or self.trouble or unknown)


@dataclass(frozen=True, slots=True)
class MetricValues:
    """A business metric: a value for each node or pod."""

    metric: str
    canary: Mapping[str, float] = field(default_factory=dict)
    stable: Mapping[str, float] = field(default_factory=dict)
    trouble: str = ""
    canary_heard: Heard = Heard()
    stable_heard: Heard = Heard()


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """Nodes of one cohort: how many could be judged, and which of those have findings."""

    nodes: int
    judged: int
    sick: frozenset[str]


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that one comparison rests on. `health`: (canary, stable), or not looked at."""

    at: datetime
    window_s: float
    canary: Cohort
    stable: Cohort
    sources: tuple[SourceTraffic, ...] = ()
    metrics: tuple[MetricValues, ...] = ()
    health: tuple[NodeHealth, NodeHealth] | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison with one limit. `limit` is in the unit of the values."""

    name: str
    outcome: CheckOutcome
    canary: float | None = None
    stable: float | None = None
    limit: float | None = None
    requests: float | None = None  # of the canary; nodes or pods where no requests are counted
    stable_requests: float | None = None
    p_value: float | None = None  # of the statistical test; absolute limits have none
    note: str = ""


@dataclass(frozen=True, slots=True)
class CanaryReport:
    """The answer, one sentence why, and the table of checks."""

    advice: Advice
    reason: str
    checks: tuple[Check, ...]
    canary: str
    stable: str
    canary_size: int | None
    stable_size: int | None
    at: datetime
    window_s: float
    alpha: float  # per test, after correction for all looks and tests
    is_overdue: bool = False  # the deadline passed without an answer: a person decides
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """Something that part of the fleet has and the rest not yet: a driver, a kernel, a deploy."""

    scope: str  # e.g. "driver_version=580.95.05 sku=H100 pool=train": its name in the ledger
    what: str  # the fact, or "deploy"
    value: str
    canary: Cohort
    stable: Cohort
    nodes: frozenset[str]  # those that the change touches: where repairs are held
    sku: str = ""
    pool: str = ""
    settling: frozenset[str] = frozenset()  # changed so recently that they are in neither cohort


@dataclass(frozen=True, slots=True)
class ChangeAdvice:
    """What the ledger remembers of one change; open while the change is there."""

    id: int
    scope: str
    advice: Advice
    reason: str
    nodes: frozenset[str]
    detail: Mapping[str, Any]
    first_seen: datetime
    last_seen: datetime
    closed_at: datetime | None = None
