"""The `validation` section of the policy: what a repaired node must show before it may return."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from breakfix.durations import Seconds
from breakfix.policy_rule import Rule, check_words

_WORDS = frozenset({"$window", "$node", "$gpu", "$match"})


def _check_words(value: str) -> str:
    return check_words(value, _WORDS, or_else="would read the whole fleet for one node")


class CounterRule(Rule):
    """A counter that no repair clears: compared with its value before the repair, not with 0.

    `query` is PromQL, a value for each GPU. In it `$match` becomes the matcher of the node (once in
    every selector), `$window` the time looked back over, `$node` and `$gpu` the labels of `names`.
    """

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    query: str = Field(min_length=1)
    text: str = Field(min_length=1, description="What it counts, in the plural")
    may_grow: float = Field(0.0, ge=0, description="By so much it may grow without a new fault")
    is_required: bool = Field(
        default=False, description="A node that does not report it is not proven"
    )
    source: str = Field(min_length=1)

    _words = field_validator("query")(_check_words)


class OperatorRule(Rule):
    """The GPU operator's own validation of a node, as its pod there tells it."""

    mode: Literal["auto", "required", "off"] = Field(
        "auto", description="auto: required where the cluster has the DaemonSet, else not run"
    )
    app: str = Field(
        "nvidia-operator-validator",
        min_length=1,
        description="Name of the DaemonSet, and label `app` of its pods",
    )
    deploy_label: str = Field(
        "nvidia.com/gpu.deploy.operator-validator",
        description="A node that has it as `false` gets no such pod",
    )
    query: str = Field(
        "",
        description="PromQL with $match and $node: below 1 is not ready; where nothing is reported"
        " it says nothing; empty: not asked",
    )
    deadline_s: Seconds = Field(900.0, alias="deadline")

    _words = field_validator("query")(_check_words)


class Floors(Rule):
    """The least bandwidth of a healthy node, in GB/s (1e9 bytes); 0: not compared."""

    gpus: int = Field(8, ge=1, description="The floors are those of a node with so many GPUs")
    all_reduce: float = Field(0.0, ge=0, description="Bus bandwidth of an all-reduce over all GPUs")
    h2d: float = Field(0.0, ge=0, description="Host to device, the slowest GPU")
    d2h: float = Field(0.0, ge=0, description="Device to host, the slowest GPU")
    p2p: float = Field(0.0, ge=0, description="Device to device, the slowest pair")
    source: str = Field(min_length=1)


class BandwidthRule(Rule):
    """Load over the links of a node: run where an image is configured and the SKU has floors."""

    is_required: bool = Field(
        default=False, description="A node on which it could not be run is not proven"
    )
    deadline_s: Seconds = Field(900.0, alias="deadline")
    floors: Mapping[str, Floors] = Field(default_factory=dict, description="By SKU label value")


class ValidationRules(Rule):
    """What a repaired node must show, in the order of the checks."""

    operator: OperatorRule = OperatorRule()
    diag_tests: Mapping[int, tuple[str, ...]] = Field(
        default_factory=dict,
        description="Level of the diagnostic -> tests that each GPU must have passed, not skipped",
    )
    tries: int = Field(
        3, ge=1, description="Of a check that could not run; one that failed is not tried again"
    )
    retry_after_s: Seconds = Field(60.0, alias="retry_after")
    bandwidth: BandwidthRule = BandwidthRule()
    look_back_s: Seconds = Field(
        86400.0,
        alias="look_back",
        gt=0,
        description="How far before the repair a counter's last value is looked for",
    )
    counters: tuple[CounterRule, ...] = ()

    @field_validator("diag_tests")
    @classmethod
    def _levels_exist(cls, value: Mapping[int, tuple[str, ...]]) -> Mapping[int, tuple[str, ...]]:
        if odd := sorted(set(value) - {1, 2, 3, 4}):
            msg = f"{odd[0]} is no level of the diagnostic: they are 1 to 4"
            raise ValueError(msg)
        return value
