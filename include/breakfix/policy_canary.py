"""The `canary` section of the policy: limits, tests and queries of canary comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from breakfix.durations import Seconds
from breakfix.policy_rule import Rule, check_words

#: A label as PromQL takes it.
Label = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")]

_WORDS = frozenset({"$window", "$by", "$match", "$increase"})


def _check_words(value: str) -> str:
    return check_words(value, _WORDS, or_else="could not be narrowed to a cohort")


class RequestSource(Rule):
    """Where requests are counted. Each query is PromQL, a value for each node or pod.

    In it `$by` becomes the labels that name pod and instance, `$match` the matchers of a cohort
    (to be put first in every selector: `{$match code="500"}`), `$window` the window, and
    `$increase(M)` by how much a counter M grew in the window, series born in it included and
    copies of one series (`replicas`) counted once.
    """

    requests: str = Field(min_length=1)
    errors: str = Field(min_length=1)
    successes: str = Field("", description="Empty: what is no error is a success")
    latency: str = Field("", description="Cumulative buckets, by $by and le; empty: it has none")
    latency_unit_s: float = Field(1.0, gt=0, description="Seconds in a unit of `le`")
    source: str = Field(min_length=1)

    _words = field_validator("requests", "errors", "successes", "latency")(_check_words)


class BusinessMetric(Rule):
    """A number of one's own for each node or pod; the cohorts' medians are compared."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    query: str = Field(min_length=1)
    worse: Literal["higher", "lower"] = "higher"
    limit: float | None = Field(None, description="Absolute: the canary beyond it is rolled back")
    ratio: float | None = Field(None, gt=1, description="Relative to stable, with significance")
    floor: float = Field(0.0, ge=0, description="Stable values below it count as this much")
    source: str = ""

    _words = field_validator("query")(_check_words)

    @model_validator(mode="after")
    def _has_a_limit(self) -> BusinessMetric:
        if self.limit is None and self.ratio is None:
            msg = f"business metric {self.name} needs limit, ratio or both"
            raise ValueError(msg)
        return self


class AbsoluteLimits(Rule):
    """Act by themselves once the canary has enough requests."""

    error_rate: float = Field(0.05, ge=0, le=1)
    success_rate: float = Field(0.95, ge=0, le=1)
    p99_s: Seconds = Field(1.0, alias="p99")
    sick_nodes: float = Field(
        0.5, gt=0, le=1, description="Share with findings, of at least min_nodes, unlike stable"
    )


class RelativeLimits(Rule):
    """Against stable; they act only when the difference is significant, too."""

    error_rate: float = Field(2.0, gt=1)
    error_rate_floor: float = Field(0.005, gt=0, lt=1)
    p99: float = Field(1.5, gt=1)
    p99_floor_s: Seconds = Field(0.05, alias="p99_floor", gt=0)
    sick_nodes: float = Field(2.0, gt=1)
    sick_nodes_floor: float = Field(0.02, gt=0, lt=1)


class CanaryRules(Rule):
    """When a canary may proceed and when it is to be rolled back."""

    window_s: Seconds = Field(600.0, alias="window", ge=60)
    deadline_s: Seconds = Field(21600.0, alias="deadline")
    looks: int = Field(24, ge=1, description="Looks planned at one change: alpha is shared by them")
    alpha: float = Field(0.05, gt=0, lt=0.5)
    min_requests: int = Field(100, ge=1)
    min_nodes: int = Field(3, ge=1, description="Fewer judged nodes without findings prove nothing")
    min_seen: float = Field(
        0.8,
        gt=0,
        le=1,
        description="Share of the canary's pods there are series of; of nodes, of stable's share",
    )
    absolute: AbsoluteLimits = AbsoluteLimits()
    relative: RelativeLimits = RelativeLimits()
    facts: tuple[str, ...] = ("driver_version", "kernel_version")
    lookback_s: Seconds = Field(86400.0, alias="lookback")
    deploy_lookback_s: Seconds = Field(3600.0, alias="deploy_lookback")
    max_changes: int = Field(
        20, ge=1, description="Changes looked at in one run; facts come before deploys"
    )
    watch_returned: bool = Field(default=True, description="Compare a returned node to its peers")
    watch_every_s: Seconds = Field(3600.0, alias="watch_every", ge=60)
    pods: str = Field("", description="Series that name a pod's node: labels namespace, pod, node")
    by: tuple[str, ...] = Field(("namespace", "pod", "instance"), min_length=1)
    replicas: tuple[Label, ...] = Field(
        ("prometheus_replica", "replica", "thanos_replica", "receive_replica"),
        description="Labels in which copies of one series differ: they count once",
    )
    sources: Mapping[str, RequestSource] = Field(default_factory=dict)
    metrics: tuple[BusinessMetric, ...] = ()
