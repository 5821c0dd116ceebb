"""The `limits` section of the policy: what holds under all circumstances."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from datetime import date
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import (
    AwareDatetime,
    BeforeValidator,
    Field,
    field_serializer,
    field_validator,
    model_validator,
)

from breakfix.brakes import Lift
from breakfix.durations import Seconds
from breakfix.model import ScopeKind
from breakfix.policy_rule import Rule

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60


class Share(Rule):
    """At most so many nodes out: the smallest of what its parts allow; 0 is none.

    `share` of the scope's nodes, rounded DOWN, but a share above 0 allows one of two or more;
    `nodes`; and as many as leave `in_service` nodes and `in_service_share` of them (rounded UP) in
    service, whatever the share.
    """

    share: float = Field(1.0, ge=0.0, le=1.0)
    nodes: int = Field(1_000_000, ge=0)
    in_service: int = Field(0, ge=0, description="Nodes of the scope that stay in service")
    in_service_share: float = Field(0.0, ge=0.0, le=1.0, description="The same as a share, up")

    def of(self, size: int) -> int:
        """Nodes allowed out of `size`."""
        by_share = math.floor(size * self.share + 1e-9)
        if by_share == 0 and self.share > 0 and size > 1:
            by_share = 1
        kept = max(self.in_service, math.ceil(size * self.in_service_share - 1e-9))
        return max(0, min(by_share, self.nodes, size - kept))


class PodMatch(Rule):
    """Pods by namespace and labels; an empty field matches everything."""

    namespace: str = ""
    labels: Mapping[str, str] = Field(default_factory=dict)


class Maintenance(Rule):
    """A window in which people work on nodes: automation leaves those nodes alone.

    `nodes`, `scope` (e.g. rack: r7) and `labels` must all match; none of them given: all nodes.
    """

    start: AwareDatetime = Field(alias="from")
    end: AwareDatetime = Field(alias="to")
    reason: str = Field(min_length=1)
    nodes: tuple[str, ...] = ()
    scope: Mapping[ScopeKind, str] = Field(default_factory=dict)
    labels: Mapping[str, str] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _ends_after_it_began(self) -> Maintenance:
        if self.end <= self.start:
            msg = f"maintenance {self.reason!r} ends before it begins"
            raise ValueError(msg)
        return self


def _time_of_day(value: object) -> str:
    """`22:30`, quoted or not: YAML reads an unquoted one as a number of minutes."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = f"{value // 60:02}:{value % 60:02}"
    match = re.fullmatch(r"(\d{1,2}):([0-5]\d)", str(value))
    if match is None or int(match[1]) * 60 + int(match[2]) > _DAY_MINUTES:
        msg = f"{value!r} is no time of day; write e.g. 08:00, or 24:00 for the day's end"
        raise ValueError(msg)
    return f"{int(match[1]):02}:{match[2]}"


TimeOfDay = Annotated[str, BeforeValidator(_time_of_day)]


def minutes_of(time: str) -> int:
    """`08:30` -> 510."""
    hours, _, minutes = time.partition(":")
    return int(hours) * 60 + int(minutes)


class Window(Rule):
    """Hours of the week in which nodes may (`allowed`) or may not (`blocked`) be taken out.

    They are of the clock on the wall in `time_zone`. `to` at or before `from` is of the next day,
    and `days` are those on which a window begins. `scope` and `labels` must all match a node; none
    given: every node. A node for which there are allowed windows is taken out in these only; a
    blocked one wins.
    """

    kind: Literal["allowed", "blocked"]
    days: tuple[Day, ...] = Field(DAYS, min_length=1)
    start: TimeOfDay = Field("00:00", alias="from")
    end: TimeOfDay = Field("24:00", alias="to")
    time_zone: str = Field("UTC", description="Of the IANA database, e.g. Europe/Berlin")
    first_day: date | None = Field(None, description="It begins on no day before this one")
    last_day: date | None = Field(None, description="nor after this one")
    reason: str = ""
    scope: Mapping[ScopeKind, str] = Field(default_factory=dict)
    labels: Mapping[str, str] = Field(default_factory=dict)

    @field_validator("time_zone")
    @classmethod
    def _zone_is_known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            msg = f"{value!r} is no time zone; write e.g. Europe/Berlin, America/New_York or UTC"
            raise ValueError(msg) from None
        return value

    @model_validator(mode="after")
    def _days_in_order(self) -> Window:
        if self.first_day and self.last_day and self.last_day < self.first_day:
            msg = f"last_day {self.last_day} is before first_day {self.first_day}"
            raise ValueError(msg)
        return self


class AlertRule(Rule):
    """Firing alerts that hold disruption: everywhere, or on the nodes that an alert names.

    `match`: label -> anchored regular expression, all must match. With `by: rack` (or node, pool,
    sku, fabric) only nodes of the rack are held that the alert's label names: `label`, or else the
    label called like it (for nodes those of `names.node`). An alert without that label holds all.
    """

    match: Mapping[str, str] = Field(min_length=1)
    by: Literal["fleet", "node", "pool", "rack", "sku", "fabric"] = "fleet"
    label: str = ""
    reason: str = ""

    @field_validator("match")
    @classmethod
    def _patterns_compile(cls, value: Mapping[str, str]) -> Mapping[str, str]:
        return _compiled(value)


def _compiled(value: Mapping[str, str]) -> Mapping[str, str]:
    for label, pattern in value.items():
        try:
            re.compile(pattern)
        except re.error as e:
            msg = f"{label}: {pattern!r} is no regular expression: {e}"
            raise ValueError(msg) from None
    return value


class Alerts(Rule):
    """Which alerts of Prometheus hold disruption. None named: none is asked for."""

    block: tuple[AlertRule, ...] = ()
    ignore: tuple[Mapping[str, str], ...] = Field(
        (), description="Alerts that never hold, e.g. our own; written as `match`"
    )
    watchdog: str = Field(
        "", description="An alert that always fires: without it nobody can tell what else would"
    )

    @field_validator("ignore")
    @classmethod
    def _patterns_compile(cls, value: tuple[Mapping[str, str], ...]) -> tuple[object, ...]:
        return tuple(_compiled(one) for one in value)


class Trip(Rule):
    """How many distinct nodes of a scope may be struck within the window of the breaker.

    `share` of the scope's nodes, rounded down, and never above `nodes`; but `at_least` so many.
    """

    share: float = Field(1.0, ge=0.0, le=1.0)
    nodes: int = Field(1_000_000, ge=0)
    at_least: int = Field(0, ge=0)

    def of(self, size: int) -> int:
        """Nodes of `size` that do not open it."""
        return max(self.at_least, min(self.nodes, math.floor(size * self.share + 1e-9)))


class StormBreaker(Rule):
    """Opens when many nodes fall ill or are taken out in a short time, and holds new disruption."""

    window_s: Seconds = Field(3600.0, alias="window", gt=0)
    cool_down_s: Seconds = Field(1800.0, alias="cool_down")
    most: Mapping[ScopeKind, Trip] = Field(default_factory=dict)


class EmergencyRules(Rule):
    """What an emergency may lift, and for how long."""

    may_lift: frozenset[Lift] = frozenset(Lift)
    longest_s: Seconds = Field(14400.0, alias="longest")
    answer_within_s: Seconds = Field(1800.0, alias="answer_within")
    fleet: Share = Field(Share(), description="What holds for the fleet while its limit is lifted")

    @field_serializer("may_lift")
    def _in_order(self, value: frozenset[Lift]) -> list[str]:
        """A set has another order in every process; the policy's hash must not."""
        return sorted(value)


class Limits(Rule):
    """What holds under all circumstances. Every number counts the worse of ledger and cluster."""

    out: Mapping[ScopeKind, Share]
    headroom_gpus: int = Field(0, ge=0, description="GPUs per SKU and pool that must stay free")
    headroom_pending: bool = Field(True, description="Whether pods that wait for GPUs are counted")
    headroom_claims: Literal["hold", "ignore"] = Field(
        "hold", description="A node with pods that hold device claims, which cannot be counted"
    )
    max_attempts: int = Field(2, ge=1, description="Repairs of a node within `attempts_window`")
    max_attempts_of_class: int = Field(
        2, ge=1, description="The same for one failure class of a node"
    )
    attempts_window_s: Seconds = Field(604800.0, alias="attempts_window")
    cooldown_s: Seconds = Field(600.0, alias="cooldown")
    cooldown_factor: float = Field(
        2.0, ge=1.0, description="The cooldown grows by it with each repair after the first"
    )
    cooldown_longest_s: Seconds = Field(86400.0, alias="cooldown_longest")
    override_hold_s: Seconds = Field(86400.0, alias="override_hold")
    hold_longest_s: Seconds = Field(
        43200.0,
        alias="hold_longest",
        description="How long a case waits for a window, an alert or the breaker before it"
        " escalates",
    )
    max_runs: int = Field(12, ge=1, description="Runs of one case before it escalates")
    windows: tuple[Window, ...] = Field((), description="When nodes may be taken out; none: always")
    alerts: Alerts = Alerts()
    breaker: StormBreaker = StormBreaker()
    emergency: EmergencyRules = EmergencyRules()
    exclusion_labels: Mapping[str, str] = Field(default_factory=dict)
    hands_off_labels: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict, description="Label -> values with which another owner has the node"
    )
    hands_off_unless: Mapping[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Label -> values with which, or without the label, nobody else has the node",
    )
    hands_off_annotations: tuple[str, ...] = ()
    hands_off_taints: tuple[str, ...] = Field(
        (), description="Keys of taints with which another owner has the node"
    )
    hands_off_conditions: Mapping[str, str] = Field(
        default_factory=dict, description="Condition -> status that announces maintenance"
    )
    hands_off_times: tuple[str, ...] = Field(
        (), description="Labels or annotations that tell when maintenance begins"
    )
    maintenance_before_s: Seconds = Field(1800.0, alias="maintenance_before")
    maintenance_after_s: Seconds = Field(14400.0, alias="maintenance_after")
    maintenance: tuple[Maintenance, ...] = Field((), description="Windows that people announce")
    protected_node_labels: tuple[str, ...] = ()
    protected_pools: tuple[str, ...] = Field((), description="Pools of which no node is a target")
    protected_pods: tuple[PodMatch, ...] = ()
