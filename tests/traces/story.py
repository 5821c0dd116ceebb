"""What happens in a trace, and what a fleet engineer would say of it with hindsight.

Scenarios write into a `Story`; `document` makes the trace of it. Times are seconds since the first
sweep. Which fields a site exports is drawn with the fleet: signs that nobody exports are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.traces.fields import group_of, healthy
from tests.traces.fleet import (
    DIALECTS,
    PROFILES,
    Gpu,
    Machine,
    Shape,
    draw_dialect,
    draw_fleet,
)

Target = Gpu | Machine | Sequence[Machine]
Sign = tuple[str, str, int]  # health watch, error code, 10 warn or 20 fail


@dataclass
class Story:
    """A fleet, what happens to it, and the truth."""

    scenario: str
    seed: int
    kind: str
    about: str
    rng: np.random.Generator
    onset: float  # when the thing happens
    length: float
    every: int
    shape: Shape
    dialect: str
    nodes: list[Machine]
    warmup: float = 1200.0
    sweep: float = 120.0
    telemetry: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    expect: dict[str, Any] = field(default_factory=dict)

    # ------------------------------------------------------------------ drawing
    def pick(self, count: int = 1) -> list[Machine]:
        """So many different nodes, in their order."""
        chosen = self.rng.choice(len(self.nodes), size=count, replace=False)
        return [self.nodes[i] for i in sorted(int(c) for c in chosen)]

    def victim(self) -> tuple[Machine, Gpu]:
        """One node and one of its GPUs."""
        node = self.pick()[0]
        return node, node.gpus[self.whole(0, node.gpu_count - 1)]

    def of_rack(self, node: Machine) -> list[Machine]:
        return [n for n in self.nodes if n.rack == node.rack]

    def chance(self, p: float) -> bool:
        return bool(self.rng.random() < p)

    def some(self, low: float, high: float) -> float:
        """A number of three digits or so: traces are read by people."""
        return float(f"{self.rng.uniform(low, high):.3g}")

    def whole(self, low: int, high: int) -> int:
        """A whole number, both ends included."""
        return int(self.rng.integers(low, high + 1))

    def one_of(self, *choices: Any, p: Sequence[float] | None = None) -> Any:
        return choices[int(self.rng.choice(len(choices), p=p))]

    # ------------------------------------------------------------------ GPU and node series
    def set(
        self,
        target: Target,
        metric: str,
        value: float,
        since: float,
        until: float | None = None,
        **labels: str,
    ) -> None:
        """It is `value`, and after `until` what a healthy one shows."""
        steps: list[dict[str, float]] = [{"at": since, "value": value}]
        if until is not None:
            steps.append({"at": until, "value": healthy(metric)})
        self._series(target, metric, steps, "set", labels)

    def gain(
        self, target: Target, metric: str, amount: float, since: float, until: float | None = None
    ) -> None:
        """It is higher by `amount`."""
        steps: list[dict[str, float]] = [{"at": since, "value": amount}]
        if until is not None:
            steps.append({"at": until, "value": 0.0})
        self._series(target, metric, steps, "plus", {})

    def grow(
        self,
        target: Target,
        metric: str,
        per_s: float,
        since: float,
        until: float | None = None,
        **labels: str,
    ) -> None:
        """A counter gains so much more each second; what it gained stays."""
        steps: list[dict[str, float]] = [{"at": since, "value": 0.0, "rate": per_s}]
        if until is not None:
            steps.append({"at": until, "value": float(round(per_s * (until - since)))})
        self._series(target, metric, steps, "plus", labels)

    def scale(
        self, target: Target, metric: str, factor: float, since: float, until: float | None = None
    ) -> None:
        """It is so many times what it would be."""
        steps: list[dict[str, float]] = [{"at": since, "value": factor}]
        if until is not None:
            steps.append({"at": until, "value": 1.0})
        self._series(target, metric, steps, "times", {})

    def _series(
        self,
        target: Target,
        metric: str,
        steps: list[dict[str, float]],
        how: str,
        labels: dict[str, str],
    ) -> None:
        if not self.exports(metric):
            return
        entry: dict[str, Any] = {"metric": metric, **_where(target), "steps": steps}
        if how != "set":
            entry["how"] = how
        if labels:
            entry["labels"] = labels
        self.add("series", **entry)

    def exports(self, metric: str) -> bool:
        """Whether the site exports it. What is no GPU field is always exported."""
        group = group_of(metric)
        return group is None or group in self.telemetry["metrics"]

    def series(self, metric: str, values: str = "", **more: Any) -> None:
        """A series that the baseline has not, in any form."""
        self.add("series", metric=metric, **({"values": values} if values else {}), **more)

    # ------------------------------------------------------------------ what drivers and DCGM say
    def xid(
        self, target: Target, at: float, code: int, *, count: int = 1, every: float = 60.0
    ) -> None:
        """The driver reports an XID, `count` times."""
        more = {"count": count, "every": every} if count > 1 else {}
        self.add("xids", **_where(target), code=code, at=at, **more)

    def health(self, target: Target, sign: Sign, since: float, until: float | None = None) -> None:
        """DCGM's health watch does not pass; it looks every 30 seconds."""
        if "health" in self.telemetry["metrics"]:
            watch, code, value = sign
            entry = {"watch": watch, "code": code, "value": value, "from": since + 30.0}
            self.add("health", **_where(target), **entry, **_until(until))

    def gap(
        self,
        target: Target | None,
        since: float,
        until: float | None = None,
        *,
        effect: str = "gone",
        exporters: Sequence[str] = (),
        metrics: Sequence[str] = (),
    ) -> None:
        """Telemetry that is missing or wrong. Without exporters: the GPUs'."""
        entry: dict[str, Any] = {"from": since, **_until(until)}
        if effect != "gone":
            entry["effect"] = effect
        if exporters:
            entry["exporters"] = list(exporters)
        if metrics:
            entry["metrics"] = list(metrics)
        self.add("gaps", **(_where(target) if target is not None else {}), **entry)

    def restart(self, target: Target, at: float) -> None:
        """The exporter restarts: it forgets the last XID and its counts."""
        self.add("restarts", **_where(target), at=at)

    # ------------------------------------------------------------------ Kubernetes
    def change(self, target: Target, at: float, **changes: Any) -> None:
        """What changes on nodes."""
        self.add("nodes", **_where(target), at=at, **changes)

    def condition(
        self, target: Target, at: float, kind: str, status: str, reason: str = ""
    ) -> None:
        """A condition of the node turns."""
        said: Any = {"status": status, "reason": reason} if reason else status
        self.change(target, at, conditions={kind: said})

    def reboot(self, target: Target, at: float, takes: float = 720.0) -> float:
        """Down and up again: everything silent meanwhile. When its exporters are back."""
        back = at + takes
        self.gap(target, at, back, exporters=["node"])
        self.gap(target, at, back + 60.0)
        self.condition(target, at + 40.0, "Ready", "Unknown", "NodeStatusUnknown")
        self.change(target, back, booted=True)
        self.condition(target, back + 20.0, "Ready", "True", "KubeletReady")
        self.restart(target, back + 60.0)
        return back + 60.0

    def pod(self, name: str, node: str = "", **more: Any) -> None:
        """A pod of a workload."""
        self.add("pods", namespace=more.pop("namespace", "team-a"), name=name, node=node, **more)

    def event(self, at: float, reason: str, message: str, **more: Any) -> None:
        self.add("events", at=at, reason=reason, message=message, **more)

    # ------------------------------------------------------------------ the truth
    def fault(
        self,
        node: Machine,
        failure_class: str,
        gpu: Gpu | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        also: Iterable[str] = (),
        optional: bool = False,
        detectable_at: float | None = None,
    ) -> None:
        """The node really had that. `also`: classes that are as right. `optional`: waiting, or
        asking a person, is as right as taking it out.
        """
        self._truth(node, failure_class, gpu, since, until)
        said = self.parts["truth"][-1]
        if also:
            said["also"] = list(also)
        if optional:
            said["is_optional"] = True
        if detectable_at is not None:
            said["detectable_at"] = detectable_at

    def looks(
        self,
        node: Machine,
        failure_class: str,
        gpu: Gpu | None = None,
        *,
        since: float | None = None,
        until: float | None = None,
        also: Iterable[str] = (),
    ) -> None:
        """What is true of a node that should stay in service: its job fails, a change ails it, its
        rack is hot. A sign that means nothing has no truth at all.
        """
        self._truth(node, failure_class, gpu, since, until)
        self.parts["truth"][-1]["is_hardware"] = False
        if also:
            self.parts["truth"][-1]["also"] = list(also)

    def _truth(
        self,
        node: Machine,
        failure_class: str,
        gpu: Gpu | None,
        since: float | None,
        until: float | None,
    ) -> None:
        entry: dict[str, Any] = {"node": node.name}
        if gpu is not None:
            entry["gpu"] = gpu.index
        start = self.onset if since is None else since
        self.add("truth", **entry, failure_class=failure_class, **{"from": start}, **_until(until))

    def never(self) -> None:
        """Taking any node out is wrong."""
        self.expect["disruptive"] = "never"

    def only(self, *nodes: Machine) -> None:
        """Taking any other node out is wrong."""
        self.expect["disruptive"] = [n.name for n in nodes]

    def add(self, part: str, **entry: Any) -> None:
        """An entry of the trace, its numbers short."""
        self.parts.setdefault(part, []).append({k: _short(v) for k, v in entry.items()})

    # ------------------------------------------------------------------ the trace
    def document(self) -> dict[str, Any]:
        """The trace as plain data, as docs/traces.md describes it."""
        made: dict[str, Any] = {
            "name": f"{self.scenario.replace('_', '-')}-{self.seed}",
            "about": self.about,
            "kind": self.kind,
            "seed": self.seed,
            "every": self.every,
            "sweep": _short(self.sweep),
            "warmup": _short(self.warmup),
            "length": _short(self.length),
            "fleet": _groups(self.nodes),
            "telemetry": self.telemetry,
        }
        made |= {part: entries for part, entries in self.parts.items() if entries}
        if self.expect:
            made["expect"] = self.expect
        return made


def begin(
    scenario: str,
    seed: int,
    kind: str,
    about: str,
    shape: Shape | None = None,
    *,
    onset: tuple[float, float] = (240.0, 720.0),
    watch: float = 960.0,
    warmup: float = 1200.0,
) -> Story:
    """An uneventful fleet, the same for the same scenario and seed. It is watched until `watch`
    seconds after the onset.
    """
    shape = shape or Shape()
    rng = np.random.default_rng([seed, *scenario.encode()])
    every = shape.interval_s or int(rng.choice([15, 30, 30, 60]))
    dialect = shape.dialect or draw_dialect(rng)
    at = float(round(rng.uniform(*onset)))
    story = Story(
        scenario=scenario, seed=seed, kind=kind, about=about, rng=rng, onset=at,
        length=120.0 * round((at + watch) / 120.0), every=every, shape=shape, dialect=dialect,
        nodes=draw_fleet(rng, shape), warmup=warmup,
    )  # fmt: skip
    story.telemetry = {"metrics": list(PROFILES[shape.profile]), **DIALECTS[dialect][1]}
    if shape.ports:
        story.telemetry["infiniband"] = shape.ports
    return story


def _where(target: Target) -> dict[str, Any]:
    if isinstance(target, Gpu):
        return {"nodes": [target.node], "gpus": [target.index]}
    if isinstance(target, Machine):
        return {"nodes": [target.name]}
    return {"nodes": [n.name for n in target]}


def _until(until: float | None) -> dict[str, float]:
    return {} if until is None else {"to": until}


def _short(value: Any) -> Any:
    """Whole numbers without a point, others with three decimals; through lists and maps."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < 1e15 else round(value, 6)
    if isinstance(value, dict):
        return {k: _short(v) for k, v in value.items()}
    return [_short(v) for v in value] if isinstance(value, list) else value


def _groups(nodes: Sequence[Machine]) -> list[dict[str, Any]]:
    """Runs of nodes that are alike, as groups of the fleet."""
    made: list[dict[str, Any]] = []
    for node in nodes:
        group = node.group()
        if made and {k: v for k, v in made[-1].items() if k != "names"} == group:
            made[-1]["names"].append(node.name)
        else:
            made.append({"names": [node.name], **group})
    return made
