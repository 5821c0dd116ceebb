"""Tests of rules as data: a little telemetry, and what must be made of it. docs/policy.md has the
format.

A case is a small trace (see `breakfix.replay.trace`) with one look at its end; what it does not say
is that of a healthy node.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from breakfix.errors import SettingsError
from breakfix.model import Action, FailureClass, NodeState, RefusalReason
from breakfix.policy import Seconds
from breakfix.policy_text import SAFE_LOADER, WrongText, load_yaml, signal_faults
from breakfix.replay.trace import Length
from breakfix.replay.values import parse_notation
from breakfix.rulebook.places import Document

NONE = "none"
_VALUE = r"-?\d+(?:\.\d+)?(?:e[+-]?\d+)?"
_RANGE = re.compile(rf"(?P<low>{_VALUE})?\s*\.\.\s*(?P<high>{_VALUE})?")
_COMPARED = re.compile(rf"(?P<op>>=|<=)\s*(?P<value>{_VALUE})")
_NEAR = 0.005  # a plain number means it, give or take half of its second decimal, or half a percent


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers that will do, both ends included."""

    low: float
    high: float

    def __contains__(self, value: object) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f">= {self.low:g}"
        if math.isinf(self.low):
            return f"<= {self.high:g}"
        middle = (self.low + self.high) / 2
        if self.high - self.low <= 2.1 * max(_NEAR, _NEAR * abs(middle)):
            return f"{middle:g}"
        return f"{self.low:g}..{self.high:g}"


def parse_range(value: object) -> Range:
    """A Range from `0.95`, `">= 0.9"`, `"<= 0.5"` or `"0.9..0.95"`; ValueError else."""
    if isinstance(value, Range):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        near = max(_NEAR, _NEAR * abs(value))
        return Range(value - near, value + near)
    text = str(value).strip()
    if match := _COMPARED.fullmatch(text):
        limit = float(match["value"])
        return Range(limit, math.inf) if match["op"] == ">=" else Range(-math.inf, limit)
    if (match := _RANGE.fullmatch(text)) and (match["low"] or match["high"]):
        return Range(float(match["low"] or "-inf"), float(match["high"] or "inf"))
    msg = f"{value!r} is no number to expect; write 0.95, '>= 0.9', '<= 0.5' or '0.9..0.95'"
    raise ValueError(msg)


def _findings(value: object) -> object:
    """`[ecc_dbe]` is `{ecc_dbe: }`: it speaks, of whatever value."""
    if isinstance(value, list):
        return dict.fromkeys(map(str, value))
    return value


def _maybe_range(value: object) -> Range | None:
    return None if value is None else parse_range(value)


Number = Annotated[Any, BeforeValidator(_maybe_range)]
Names = tuple[str, ...]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class Expected(_Part):
    """What must be made of one node. What is not named may be anything."""

    failure_class: FailureClass | Literal["none"] | None = Field(None, alias="class")
    action: Action | None = None
    is_proven: bool | None = Field(
        None, alias="proven", description="Sure enough to act, whatever the class then allows"
    )
    refusal: RefusalReason | Literal["none"] | None = None
    state: NodeState | None = None
    confidence: Number = None
    findings: Annotated[Mapping[str, Number] | None, BeforeValidator(_findings)] = Field(
        None, description="All that speaks, no more: SIGNAL or SIGNAL:KEY, with its value or none"
    )
    speak: Names = Field((), description="These do, whatever else does")
    silent: Names = Field((), description="None of these does")
    unknown: Names = Field((), description="Signals that cannot be judged here")
    known: Names = Field((), description="Signals that can")
    reason: str = Field("", description="A part of the verdict's sentence")


class Expect(Expected):
    """What must be made of the case: of its first node, of others by name, and of all together."""

    nodes: Mapping[str, Expected] = Field(default_factory=dict)
    incidents: Names | None = Field(None, description="Their scopes, e.g. rack=r1; [] for none")


class Remembered(_Part):
    """What the ledger knows of a node."""

    state: NodeState = NodeState.HEALTHY
    since: Seconds = Field(0.0, description="How long ago it came into this state")
    attempts: int = Field(0, ge=0)
    repaired: Seconds | None = Field(None, description="How long ago its last repair ended")


class RuleCase(_Part):
    """One test. The keys from `telemetry` to `events` are those of a trace (docs/traces.md)."""

    name: str = Field(min_length=1, description="A sentence that says what is true")
    like: str = Field("default", description="The background: default, plain, silent, or a file's")
    fleet: int | tuple[Mapping[str, Any], ...] = 1
    gpus: int = Field(2, ge=0, le=16, description="Of each node, where fleet is a number")
    every: Seconds = Field(30.0, gt=0, description="Time between samples")
    history: Length = Field(1200.0, description="How long the node has been healthy before")
    telemetry: Mapping[str, Any] = Field(default_factory=dict)
    series: Mapping[str, str] | tuple[Mapping[str, Any], ...] = Field(
        default_factory=dict,
        description='`METRIC{gpu="0"}: 0x40 79x5`, the last sample being of the moment of the look'
        "; or a list as in traces",
    )
    xids: tuple[Mapping[str, Any], ...] = ()
    health: tuple[Mapping[str, Any], ...] = ()
    restarts: tuple[Mapping[str, Any], ...] = ()
    gaps: tuple[Mapping[str, Any], ...] = ()
    nodes: tuple[Mapping[str, Any], ...] = ()
    pods: tuple[Mapping[str, Any], ...] = ()
    events: tuple[Mapping[str, Any], ...] = ()
    records: Mapping[str, Remembered] = Field(default_factory=dict)
    policy: Mapping[str, Any] = Field(
        default_factory=dict, description="An overlay for this case alone"
    )
    is_apart: bool = Field(
        default=False,
        alias="apart",
        description="At an instant of its own: no query sees other cases",
    )
    expect: Expect

    @field_validator("series", mode="before")
    @classmethod
    def _are_named(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        for selector, values in value.items():
            parse_selector(str(selector))
            parse_notation(str(values))
        return {str(k): str(v) for k, v in value.items()}


_SELECTOR = re.compile(r"(?P<metric>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?", re.DOTALL)
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')


def parse_selector(text: str) -> tuple[str, dict[str, str]]:
    """`METRIC{a="b"}` -> (METRIC, {a: b}); ValueError else."""
    match = _SELECTOR.fullmatch(text.strip())
    labels = (match["labels"] or "") if match else ""
    if match is None or _LABEL.sub("", labels).strip():
        msg = f'{text!r} is no series; write METRIC or METRIC{{gpu="0", port="1"}}'
        raise ValueError(msg)
    return match["metric"], dict(_LABEL.findall(labels))


_INT = "tag:yaml.org,2002:int"


class _Loader(SAFE_LOADER):  # type: ignore[misc, valid-type]
    """YAML in which `0x40` is 41 samples, not the number 64."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in known if tag != _INT]
    for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT, re.compile(r"[-+]?\d+$"), list("-+0123456789"))


@dataclass(frozen=True, slots=True)
class Source:
    """A case and where it stands."""

    case: RuleCase
    file: str
    line: int


def load_cases(paths: Iterable[Path]) -> tuple[Source, ...]:
    """All cases of files, and of the *.yaml of folders. Raises SettingsError, naming each wrong
    value with its place.
    """
    files = [f for p in paths for f in (sorted(p.rglob("*.yaml")) if p.is_dir() else [p])]
    found = tuple(source for file in files for source in parse_cases(_read(file), str(file)))
    if not found:
        raise SettingsError("no case found: give files, or folders with *.yaml")
    return found


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as e:
        raise SettingsError(f"cannot read {path}: {e.strerror}") from e


def parse_cases(text: str, name: str) -> tuple[Source, ...]:
    """The cases of one file's text. Raises SettingsError."""
    document = Document(name, text)
    try:
        data = load_yaml(text, _Loader)
    except WrongText as e:
        raise e.about(name) from None
    if not isinstance(data, dict) or not isinstance(data.get("cases"), list):
        raise SettingsError(f"{name}: needs a list `cases`; docs/policy.md has the format")
    if unknown := sorted(data.keys() - {"cases", "backgrounds"}):
        raise SettingsError(f"{name}: no such key: {', '.join(map(str, unknown))}")
    grounds = {**BACKGROUNDS, **(data.get("backgrounds") or {})}
    return tuple(_case(raw, i, grounds, document) for i, raw in enumerate(data["cases"]))


def _case(raw: Any, number: int, grounds: Mapping[str, Any], document: Document) -> Source:
    place = document.place(["cases", number])
    where = str(place or document.name)
    if not isinstance(raw, dict):
        raise SettingsError(f"{where}: a case must be a map")
    like = raw.get("like", "default")
    if like not in grounds:
        raise SettingsError(f"{where}: no background {like!r}; there are {', '.join(grounds)}")
    try:
        case = RuleCase.model_validate(_over(_ground(like, grounds), raw))
    except ValidationError as e:
        raise SettingsError("; ".join(_wrong(e, number, document))) from None
    for path, text in signal_faults(case.policy):
        at = document.place(["cases", number, "policy", *path]) or where
        raise SettingsError(f"{at}: policy.{'.'.join(map(str, path))}: {text}")
    return Source(case, document.name, place.line if place else 1)


def _wrong(error: ValidationError, number: int, document: Document) -> Sequence[str]:
    lines = []
    for err in error.errors(include_url=False):
        path = ("cases", number, *err["loc"])
        place = document.place(path) or document.name
        what = ".".join(map(str, err["loc"]))
        lines.append(f"{place}: {what}: {err['msg'].removeprefix('Value error, ')}")
    return lines


def _ground(like: str, grounds: Mapping[str, Any]) -> Mapping[str, Any]:
    """A background with the one that it is like beneath it."""
    own = grounds[like] or {}
    if "like" in own and own["like"] != like and own["like"] in grounds:
        return _over(_ground(own["like"], grounds), own)
    return own


def _over(ground: Mapping[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """The case over its background: maps key by key, lists one after the other."""
    merged = dict(ground)
    for key, value in raw.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _over(old, value) if key != "expect" else value
        elif key in _LISTS and isinstance(old, list) and isinstance(value, list):
            merged[key] = [*old, *value]
        else:
            merged[key] = value
    return merged


_LISTS = frozenset({"series", "xids", "health", "restarts", "gaps", "nodes", "pods", "events"})

#: What a node exports before a case says anything.
_ALL = (
    "basic",
    "xid",
    "xid_count",
    "xid_total",
    "remap",
    "remap_pending",
    "ecc",
    "pages",
    "pcie",
    "nvlink",
    "health",
    "clock_events",
    "violations",
    "recovery",
    "sram",
    "fabric",
)
BACKGROUNDS: Mapping[str, Mapping[str, Any]] = {
    # every family of metrics that the exporters know
    "default": {"telemetry": {"metrics": list(_ALL), "infiniband": 1}},
    # what dcgm-exporter exports unless it is told otherwise
    "plain": {"telemetry": {"metrics": ["basic", "xid", "remap", "pcie"]}},
    # no exporter at all: Kubernetes' word only
    "silent": {"telemetry": {"exporters": [], "metrics": []}},
}
