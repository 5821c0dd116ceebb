"""What a trace is: a fleet, what its exporters say over time, and what is true of it.

A trace is one YAML document; docs/traces.md explains every key. Times are seconds since the first
sweep (negative: in the warm-up before it).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from breakfix.model import FailureClass
from breakfix.policy import Seconds, parse_duration
from breakfix.replay.values import parse_notation


def parse_time(value: object) -> float:
    """Seconds since the first sweep from `90`, `"15m"`, `"-5m"`, `"1h30m"`; ValueError else."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    text = str(value).strip()
    sign, rest = (-1.0, text[1:]) if text.startswith("-") else (1.0, text)
    if re.fullmatch(r"\d+(?:\.\d+)?", rest):
        return sign * float(rest)
    parts = re.findall(r"\d+(?:\.\d+)?(?:ms|s|m|h|d)", rest)
    if not parts or "".join(parts) != rest:
        msg = f"{value!r} is no time; write e.g. 10m, 1h30m or -5m"
        raise ValueError(msg)
    return sign * sum(parse_duration(p) for p in parts)


Time = Annotated[float, BeforeValidator(parse_time)]
Length = Annotated[float, BeforeValidator(parse_time), Field(ge=0)]
Names = tuple[str, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Group(_Part):
    """Nodes that are alike: PREFIX001, PREFIX002, ... or those that `names` lists."""

    count: int = Field(1, ge=1, le=100_000)
    prefix: str = "gpu-"
    names: Names = ()
    pool: str = "train"
    racks: int = Field(1, ge=1, description="Racks the group is spread over, in runs of neighbours")
    rack: str = Field("", description="Name of the rack; with several, of their beginning")
    sku: str = "NVIDIA-H100-80GB-HBM3"
    fabric: str = ""
    gpus: int = Field(8, ge=0, le=64)
    driver: str = "580.95.05"
    kernel: str = "6.8.0-71-generic"
    kubelet: str = "v1.34.2"
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    conditions: Mapping[str, str] = Field(
        default_factory=dict, description="Conditions beside Ready, with their status"
    )
    boot_age: Seconds = 777_600.0
    ready_age: Seconds = 777_600.0
    created_age: Seconds = 7_776_000.0
    is_gpu: bool = Field(default=True, description="false: a node without GPUs, never judged")


MetricGroup = Literal[
    "basic", "more", "xid", "xid_count", "xid_total", "remap", "remap_pending", "ecc", "pages",
    "pcie", "pcie_link", "nvlink", "health", "clock_events", "violations", "recovery", "sram",
    "fabric", "limits",
]  # fmt: skip


class Telemetry(_Part):
    """Which exporters there are, what they export and how they spell it."""

    exporters: tuple[Literal["dcgm", "node", "ksm"], ...] = ("dcgm", "node", "ksm")
    metrics: tuple[MetricGroup, ...] = ("basic", "xid", "remap", "pcie")
    also: Mapping[str, float] = Field(
        default_factory=dict, description="More metrics of every GPU (or node: node_*), constant"
    )
    host_label: Literal["Hostname", "hostname", "none"] = "Hostname"
    gpu_label: Literal["UUID", "uuid"] = "UUID"
    target_label: Literal["none", "node", "kubernetes_node", "nodename"] = "none"
    instance: Literal["host", "ip", "none"] = "ip"
    exporter_pod: bool = Field(
        default=True, description="The exporter's own pod is in the labels, and in the cluster"
    )
    workload: Literal["none", "plain", "exported"] = "none"
    err_code: bool = Field(default=True, description="XID_ERRORS carries err_code and err_msg")
    infiniband: int = Field(0, ge=0, le=16, description="Ports that the node exporter shows")
    replicas: int = Field(1, ge=1, le=3, description="Prometheus servers that scrape the same")
    replica_label: str = "prometheus_replica"
    mig: int = Field(0, ge=0, le=7, description="MIG instances of each GPU")
    only: Names = Field((), description="Groups' nodes (names, patterns) that export; all")

    @field_validator("also")
    @classmethod
    def _are_metrics(cls, value: Mapping[str, float]) -> Mapping[str, float]:
        for name in value:
            _metric_name(name)
        return value


class _Selecting(_Part):
    nodes: Names = Field((), description="Names, patterns (gpu-*), rack=r1, pool=..; none: all")
    gpus: tuple[int, ...] = Field((), description="Indices; none: all")

    @field_validator("nodes", mode="before")
    @classmethod
    def _one_is_a_list(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value

    @field_validator("gpus", mode="before")
    @classmethod
    def _one_is_a_list_too(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value


class Step(_Part):
    """From `at` on the value is `value` + `rate` a second; None: the series is gone."""

    at: Time
    value: float | None = None
    rate: float = 0.0
    noise: float = Field(0.0, ge=0.0, description="Uniform, plus or minus so much")


class Series(_Selecting):
    """What differs from the baseline, or is beside it.

    Where the baseline has the metric with these labels it is changed, from the first step on; else
    it is a new series, which begins with the first step.
    """

    metric: str
    labels: Mapping[str, str] = Field(
        default_factory=dict, description="{node}, {gpu} and {uuid} are filled in"
    )
    without: Names = Field((), description="Labels that these series lack")
    relabel: Mapping[str, str] = Field(
        default_factory=dict, description="Labels that these series get instead of their own"
    )
    values: str = Field("", description="Prometheus' test notation, a sample a scrape")
    steps: tuple[Step, ...] = ()
    start: Time | None = Field(None, description="Where `values` begin; none: with the warm-up")
    how: Literal["set", "plus", "times"] = "set"
    per: Literal["", "gpu", "node", "once"] = Field(
        "", description="gpu for DCGM_*, node for node_* and where nodes are named, else once"
    )
    value_label: str = Field(
        "", description="This label shows the value, as err_code does: a series for each value"
    )

    @field_validator("metric")
    @classmethod
    def _is_metric(cls, value: str) -> str:
        return _metric_name(value)

    @field_validator("values")
    @classmethod
    def _is_notation(cls, value: str) -> str:
        parse_notation(value)
        return value

    @model_validator(mode="after")
    def _has_one_way(self) -> Series:
        is_renamed = bool(self.without or self.relabel)
        if (self.values and self.steps) or not (self.values or self.steps or is_renamed):
            raise ValueError(f"series {self.metric}: give either `values` or `steps`")
        times = [s.at for s in self.steps]
        if times != sorted(times):
            raise ValueError(f"series {self.metric}: steps must be in order of time")
        return self

    @property
    def spread(self) -> str:
        """gpu, node or once."""
        if self.per:
            return self.per
        if self.metric.startswith("DCGM_"):
            return "gpu"
        return "node" if self.metric.startswith("node_") or self.nodes else "once"


class Xid(_Selecting):
    """An XID as the driver reports it, shown by every XID metric that the exporters have."""

    code: int = Field(ge=1, le=9999)
    at: Time
    count: int = Field(1, ge=1)
    every: Seconds = Field(60.0, description="Time between repeats")


class Health(_Selecting):
    """A DCGM health watch that does not pass."""

    watch: str
    code: str
    value: Literal[10, 20] = 20
    start: Time = Field(alias="from")
    end: Time | None = Field(None, alias="to")


class Restart(_Selecting):
    """The exporter restarts: the last XID and its counts are forgotten."""

    at: Time


class Gap(_Selecting):
    """Telemetry that is missing or wrong for a while.

    gone: scrapes fail or lack it, so Prometheus writes staleness markers. silent: no samples and no
    markers. frozen: the last values again and again. nan, sentinel: no numbers.
    """

    exporters: tuple[Literal["dcgm", "node", "ksm"], ...] = ("dcgm",)
    metrics: Names = Field((), description="Names or patterns; none: all of the exporters")
    replica: int | None = None
    start: Time = Field(alias="from")
    end: Time | None = Field(None, alias="to")
    effect: Literal["gone", "silent", "frozen", "nan", "sentinel"] = "gone"


class TaintChange(_Part):
    """One taint."""

    key: str
    effect: str = "NoSchedule"
    value: str = ""


class ConditionChange(_Part):
    """One condition of a node; `since` is its transition, else the change's own time."""

    status: Literal["True", "False", "Unknown"]
    reason: str = ""
    message: str = ""
    since: Time | None = None


class NodeChange(_Selecting):
    """What changes on nodes at one time. A None in a map removes the key."""

    at: Time
    conditions: Mapping[str, ConditionChange] = Field(default_factory=dict)
    is_unschedulable: bool | None = Field(None, alias="unschedulable")
    labels: Mapping[str, str | None] = Field(default_factory=dict)
    annotations: Mapping[str, str | None] = Field(default_factory=dict)
    taints: tuple[TaintChange, ...] | None = None
    allocatable: int | None = None
    capacity: int | None = None
    driver: str = ""
    kernel: str = ""
    kubelet: str = ""
    host_label: Literal["", "Hostname", "hostname", "none"] = Field(
        "", description="Another exporter, which spells its node so"
    )
    booted: bool = False
    created: bool = Field(default=False, description="Before this the node does not exist")
    deleted: bool = False

    @field_validator("conditions", mode="before")
    @classmethod
    def _status_alone_will_do(cls, value: object) -> object:
        if not isinstance(value, Mapping):
            return value
        return {
            k: v if isinstance(v, Mapping) else {"status": _status(v)} for k, v in value.items()
        }


class PodChange(_Part):
    """What changes on a pod at one time."""

    at: Time
    phase: str = ""
    ready: bool | None = None
    node: str | None = None
    reason: str | None = Field(None, description="Of its end, e.g. Evicted")
    waiting: str | None = Field(None, description="Why a container waits, e.g. CrashLoopBackOff")
    unschedulable: str | None = Field(None, description="The scheduler's words")
    exit_code: int | None = None
    deleted: bool = False


class PodSpec(_Part):
    """A pod of the cluster."""

    namespace: str = "default"
    name: str
    node: str = ""
    phase: str = "Running"
    ready: bool = True
    reason: str = ""
    waiting: str = ""
    unschedulable: str = ""
    gpus: int = Field(0, ge=0)
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    owner: str = Field("ReplicaSet/app", description="KIND/NAME; empty: nobody's")
    image: str = ""
    container: str = Field("main", description="Name of its container, where it has an image")
    start: Time | None = Field(None, alias="from")
    changes: tuple[PodChange, ...] = ()


class Event(_Part):
    """A Kubernetes event about a node, or about a pod on it."""

    at: Time
    node: str = ""
    pod: str = Field("", description="NAMESPACE/NAME")
    reason: str
    message: str = ""
    type: Literal["Normal", "Warning"] = "Warning"
    count: int = Field(1, ge=1)
    source: str = "kubelet"


class Truth(_Part):
    """What is really wrong, and from when to when."""

    node: str
    gpu: int | None = None
    failure_class: FailureClass
    start: Time = Field(alias="from")
    end: Time | None = Field(None, alias="to")
    also: tuple[FailureClass, ...] = Field((), description="Classes that are as right")
    is_hardware: bool = Field(default=True, description="Taking the node out is right")
    is_optional: bool = Field(
        default=False, description="Waiting, or asking a person, is as right as taking it out"
    )
    detectable_at: Time | None = Field(
        None, description="When the telemetry first says enough to act upon; none: from its start"
    )

    @property
    def classes(self) -> frozenset[FailureClass]:
        """Every class that names it rightly."""
        return frozenset({self.failure_class, *self.also})


class Expect(_Part):
    """What must come out, beside what `truth` says."""

    disruptive: Literal["never"] | Names | None = Field(
        None, description="never, or the only nodes that may be taken out"
    )
    incidents: tuple[str, ...] | None = Field(None, description="Scopes, e.g. rack=r1")
    telemetry_lost: Names = ()
    speak: Names = Field((), description="Signals that must speak in some sweep")
    silent: Names = Field((), description="Signals that may speak in none")


class Trace(_Part):
    """One labelled story of a fleet. See docs/traces.md."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")
    about: str = Field(min_length=1)
    kind: str = Field(pattern=r"^[a-z][a-z0-9_]*$")
    seed: int = Field(0, ge=0)
    every: Seconds = Field(30.0, gt=0)
    sweep: Seconds = Field(120.0, gt=0)
    warmup: Length = 1200.0
    length: Length = 3600.0
    spread_scrapes: bool = Field(
        default=True, description="Each target is scraped at a moment of its own in the interval"
    )
    fleet: tuple[Group, ...] = Field(min_length=1)
    telemetry: Telemetry = Telemetry()
    series: tuple[Series, ...] = ()
    xids: tuple[Xid, ...] = ()
    health: tuple[Health, ...] = ()
    restarts: tuple[Restart, ...] = ()
    gaps: tuple[Gap, ...] = ()
    nodes: tuple[NodeChange, ...] = ()
    pods: tuple[PodSpec, ...] = ()
    events: tuple[Event, ...] = ()
    truth: tuple[Truth, ...] = ()
    expect: Expect = Expect()
    series_file: str = Field("", description="OpenMetrics text with timestamps, or that gzipped")
    recorded_start: datetime | None = Field(
        None, description="The instant of the first sweep in a recorded trace"
    )

    @model_validator(mode="after")
    def _names_exist(self) -> Trace:
        known = set(self.node_names)
        if len(known) < len(self.node_names):
            raise ValueError("two nodes of the fleet have one name")
        for what, name in self._named():
            if name not in known:
                raise ValueError(f"{what}: no node {name!r} in the fleet")
        return self

    @model_validator(mode="after")
    def _is_in_its_time(self) -> Trace:
        if bool(self.series_file) != (self.recorded_start is not None):
            raise ValueError("series_file and recorded_start go together")
        if self.recorded_start is not None and self.recorded_start.tzinfo is None:
            raise ValueError("recorded_start needs a time zone: add Z for UTC")
        if self.sweep < self.every:
            raise ValueError("sweep is shorter than every: sweeps would see nothing new")
        for truth in self.truth:
            if not -self.warmup <= truth.start <= self.length:
                raise ValueError(f"truth of {truth.node}: `from` lies outside the trace")
        return self

    def _named(self) -> list[tuple[str, str]]:
        named = [("truth", t.node) for t in self.truth]
        named += [("expect.telemetry_lost", n) for n in self.expect.telemetry_lost]
        if isinstance(self.expect.disruptive, tuple):
            named += [("expect.disruptive", n) for n in self.expect.disruptive]
        named += [(f"pod {p.name}", p.node) for p in self.pods if p.node]
        return named + [(f"event {e.reason}", e.node) for e in self.events if e.node]

    @property
    def node_names(self) -> tuple[str, ...]:
        """All nodes, GPU nodes or not."""
        return tuple(n for g in self.fleet for n in group_names(g))

    @property
    def sweeps(self) -> tuple[float, ...]:
        """The sweeps' times: 0, `sweep`, 2 x `sweep`, ... up to `length`."""
        return tuple(i * self.sweep for i in range(int(self.length / self.sweep + 1e-9) + 1))

    @property
    def node_days(self) -> float:
        """GPU nodes times the time from the first sweep on, in days."""
        gpu_nodes = sum(len(group_names(g)) for g in self.fleet if g.is_gpu)
        return gpu_nodes * max(self.length, self.sweep) / 86_400


def group_names(group: Group) -> tuple[str, ...]:
    """The names of a group's nodes."""
    if group.names:
        return group.names
    width = max(3, len(str(group.count)))
    return tuple(f"{group.prefix}{i:0{width}d}" for i in range(1, group.count + 1))


def _metric_name(value: str) -> str:
    if not re.fullmatch(r"[a-zA-Z_:][a-zA-Z0-9_:]*", value):
        raise ValueError(f"{value!r} is no metric name")
    return value


def _status(value: Any) -> Any:
    return str(value) if isinstance(value, bool) else value  # YAML reads True as a truth value
