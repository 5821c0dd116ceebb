"""What holds or frees the whole fleet at once: the breaker of a storm, and a person's emergency.

The words and the arithmetic, pure. The ledger keeps both and asks here while it holds its locks;
plans ask the same functions, so that what is shown is what would be decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from breakfix.model import Scope, ScopeKind


class Lift(StrEnum):
    """Limits that an emergency may lift. What is not named here stands under all circumstances."""

    WINDOWS = "windows"
    ALERTS = "alerts"
    FLEET = "fleet"
    POOL = "pool"
    RACK = "rack"
    SKU = "sku"
    FABRIC = "fabric"
    HEADROOM = "headroom"
    COOLDOWN = "cooldown"
    BREAKER = "breaker"


#: The lift that frees a scope's maximum.
LIFT_OF = {kind: Lift(kind.value) for kind in ScopeKind}


@dataclass(frozen=True, slots=True)
class Emergency:
    """Named limits, lifted for a named time by a requester and an approver who is another person.

    It is asked for first and in force from the approval on; `until` ends it without anybody's
    doing. A question that nobody answered by `answer_by` is void.
    """

    id: int
    lifts: frozenset[Lift]
    lasts_s: float
    requester: str
    approver: str  # who is named to answer; the only one who may
    reason: str
    asked_at: datetime
    answer_by: datetime
    approved_at: datetime | None = None
    until: datetime | None = None
    ended_at: datetime | None = None
    ended_by: str = ""

    def is_in_force(self, now: datetime) -> bool:
        """Approved, not ended by anybody, and its time is not over."""
        return self.ended_at is None and self.until is not None and now < self.until

    def is_asked(self, now: datetime) -> bool:
        """It waits for its approver."""
        return self.ended_at is None and self.until is None and now < self.answer_by

    def __str__(self) -> str:
        what = ", ".join(sorted(self.lifts))
        until = f"{self.until:%Y-%m-%d %H:%M} UTC" if self.until else "nobody has approved it"
        return f"{what} lifted until {until} by {self.requester} and {self.approver}: {self.reason}"


@dataclass(frozen=True, slots=True)
class BreakerRule:
    """So many distinct nodes of a scope may be taken out or fall ill within `window_s`; one more
    opens the breaker, until `cool_down_s` have passed without another.
    """

    scope: Scope
    most: int
    window_s: float
    cool_down_s: float


@dataclass(frozen=True, slots=True)
class Strike:
    """A node of a scope was taken out by automation, or fell ill; the last time it did."""

    scope: Scope
    node: str
    at: datetime


@dataclass(frozen=True, slots=True)
class Breaker:
    """What is kept of one scope's breaker. Strikes up to `counts_from` do not count any more."""

    scope: Scope
    opened_at: datetime | None = None
    reason: str = ""
    counts_from: datetime | None = None
    reset_by: str = ""

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None


@dataclass(frozen=True, slots=True)
class Storms:
    """All that the ledger knows of storms: open and closed breakers, and the strikes of late."""

    breakers: Mapping[Scope, Breaker] = field(default_factory=dict)
    strikes: Mapping[Scope, tuple[Strike, ...]] = field(default_factory=dict)
    sick: frozenset[str] = frozenset()  # nodes whose illness has been counted, and goes on

    def breaker(self, scope: Scope) -> Breaker:
        """The scope's breaker; one that never opened is closed."""
        return self.breakers.get(scope) or Breaker(scope)

    def nodes(self, rule: BreakerRule, now: datetime) -> frozenset[str]:
        """The distinct nodes that count now."""
        since = counted_since(rule, self.breaker(rule.scope), now)
        return frozenset(s.node for s in self.strikes.get(rule.scope, ()) if s.at > since)

    def last_strike(self, scope: Scope) -> datetime | None:
        """When the scope was last struck."""
        return max((s.at for s in self.strikes.get(scope, ())), default=None)


@dataclass(frozen=True, slots=True)
class Brakes:
    """What plans heed of it: nothing, where there is no ledger."""

    storms: Storms = field(default_factory=Storms)
    emergency: Emergency | None = None


NO_BRAKES = Brakes()


def storms_of(
    breakers: Iterable[Breaker], strikes: Iterable[Strike], sick: Iterable[str] = ()
) -> Storms:
    """By scope."""
    by_scope: dict[Scope, list[Strike]] = {}
    for strike in strikes:
        by_scope.setdefault(strike.scope, []).append(strike)
    found = {s: tuple(x) for s, x in by_scope.items()}
    return Storms({b.scope: b for b in breakers}, found, frozenset(sick))


def counted_since(rule: BreakerRule, breaker: Breaker, now: datetime) -> datetime:
    """Strikes after this instant count: those of the window, none from before the last reset."""
    start = now - timedelta(seconds=rule.window_s)
    return max(start, breaker.counts_from) if breaker.counts_from else start


def stable_from(rule: BreakerRule, opened_at: datetime, last: datetime | None) -> datetime:
    """When an open breaker may close, if no other node is struck until then."""
    return max(opened_at, last or opened_at) + timedelta(seconds=rule.cool_down_s)


def over_most(rule: BreakerRule, struck: int) -> str:
    """Why so many struck nodes open the breaker; an empty string while they do not."""
    if struck <= rule.most:
        return ""
    minutes = rule.window_s / 60
    return f"{struck} distinct nodes of {rule.scope} in {minutes:g} min; {rule.most} are the most"


def open_text(rule: BreakerRule, breaker: Breaker, last: datetime | None) -> str:
    """An open breaker, as a refusal says it."""
    opened = breaker.opened_at
    if opened is None:
        return ""
    until = stable_from(rule, opened, last)
    return (
        f"the breaker of {rule.scope} is open since {opened:%H:%M} UTC ({breaker.reason});"
        f" it closes when no other node is struck until {until:%H:%M} UTC, or by"
        " `breakfix breaker reset`"
    )
