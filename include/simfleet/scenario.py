"""Scenario files: a fleet, and what happens to it when."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from simfleet.faults import FaultOptions, Scope, fault_named
from simfleet.fleet import BadFleet, BudgetConfig, FleetConfig
from simfleet.live import LiveFleet

_DURATION = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


def seconds(text: Any) -> Any:
    """`90`, `5s`, `1m30s`, `2h` as seconds; anything else is left for validation to refuse."""
    match = _DURATION.fullmatch(text) if isinstance(text, str) and text else None
    if match is None:
        return text
    hours, minutes, rest = (float(part or 0) for part in match.groups())
    return hours * 3600 + minutes * 60 + rest


Seconds = Annotated[float, BeforeValidator(seconds), Field(ge=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ScaleTo(_Part):
    """A workload's new number of replicas."""

    namespace: str = "default"
    name: str
    replicas: int = Field(ge=0)


class BudgetTo(BudgetConfig):
    """A workload's new budget."""

    namespace: str = "default"
    name: str


class Happening(_Part):
    """One line of the timeline: a fault with its options, or one other thing."""

    at: Seconds
    node: str | None = None
    rack: str | None = None
    fault: str | None = None
    options: FaultOptions = FaultOptions()
    heal: str | None = Field(default=None, description="node whose faults end")
    roll_back: str | None = Field(default=None, description="rack that gets the old driver back")
    power_cycle: str | None = None
    cordon: str | None = None
    uncordon: str | None = None
    scale: ScaleTo | None = None
    budget: BudgetTo | None = None
    api_fault: dict[str, Any] | None = None
    clear_api_faults: bool = False

    @model_validator(mode="before")
    @classmethod
    def _options_inline(cls, data: Any) -> Any:
        """Allow `{at: 5s, node: a, fault: xid79, gpu: 3}`: options beside the fault."""
        if not isinstance(data, Mapping):
            return data
        inline = {key: data[key] for key in data if key in FaultOptions.model_fields}
        rest = {key: value for key, value in data.items() if key not in inline}
        return rest | {"options": dict(rest.get("options", {})) | inline} if inline else rest

    @model_validator(mode="after")
    def _one_thing(self) -> Self:
        if self.fault is not None:
            fault_named(self.fault)
            if (self.node is None) == (self.rack is None):
                raise ValueError(f"fault {self.fault}: give either `node` or `rack`")
        things: list[object] = [self.fault, self.heal, self.roll_back, self.power_cycle]
        things += [self.cordon, self.uncordon, self.scale, self.budget, self.api_fault]
        if sum(thing is not None for thing in things) + self.clear_api_faults != 1:
            raise ValueError("a line of the timeline says exactly one thing")
        return self

    def nodes(self) -> list[str]:
        """The nodes it names."""
        named = (self.node, self.heal, self.power_cycle, self.cordon, self.uncordon)
        return [name for name in named if name is not None]


class Scenario(_Part):
    """A fleet and its timeline."""

    fleet: FleetConfig
    timeline: tuple[Happening, ...] = ()

    @model_validator(mode="after")
    def _names_exist(self) -> Self:
        nodes = {name for rack in self.fleet.racks for name in rack.node_names()}
        gpus = {name: rack.gpus for rack in self.fleet.racks for name in rack.node_names()}
        racks = {rack.name for rack in self.fleet.racks}
        works = {(work.namespace, work.name) for work in self.fleet.workloads}
        for line in self.timeline:
            if stray := set(line.nodes()) - nodes:
                raise ValueError(f"timeline at {line.at:g}s: no node {', '.join(sorted(stray))}")
            if stray := {r for r in (line.rack, line.roll_back) if r} - racks:
                raise ValueError(f"timeline at {line.at:g}s: no rack {', '.join(sorted(stray))}")
            for change in (line.scale, line.budget):
                if change is not None and (change.namespace, change.name) not in works:
                    raise ValueError(f"timeline at {line.at:g}s: no workload {change.name}")
            on_gpu = line.fault and fault_named(line.fault).scope is Scope.GPU
            if on_gpu and line.node and line.options.gpu >= gpus[line.node]:
                raise ValueError(f"{line.node} has no GPU {line.options.gpu}")
        return self


def load_scenario(path: Path) -> Scenario:
    """A scenario file, or a fleet file (a scenario in which nothing happens). Raises BadFleet."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadFleet(f"cannot read {path}: {error}") from error
    if isinstance(data, dict) and "racks" in data:
        data = {"fleet": data}
    try:
        return Scenario.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise BadFleet(f"{path}: " + "; ".join(lines)) from error


class Player:
    """Plays a timeline on a live fleet, once, from the moment it is started."""

    def __init__(
        self,
        scenario: Scenario,
        fleet: LiveFleet,
        add_api_fault: Callable[[dict[str, Any]], object],
        clear_api_faults: Callable[[], object],
    ) -> None:
        self.scenario = scenario
        self.fleet = fleet
        self.started_at: float | None = None
        self.played = 0
        self._add_api_fault = add_api_fault
        self._clear_api_faults = clear_api_faults

    def start(self) -> None:
        """Begin the timeline now; a second time does nothing."""
        if self.started_at is not None:
            return
        self.started_at = self.fleet.world.now()
        for line in self.scenario.timeline:
            self._later(line)

    def _later(self, line: Happening) -> None:
        self.fleet.world.agenda.after(line.at, lambda: self._play(line))

    def _play(self, line: Happening) -> None:
        self.played += 1
        fleet = self.fleet
        if line.fault and line.node:
            fleet.break_node(line.node, line.fault, line.options)
        elif line.fault and line.rack:
            fleet.break_rack(line.rack, line.fault, line.options)
        elif line.scale:
            fleet.scale(line.scale.namespace, line.scale.name, line.scale.replicas)
        elif line.budget:
            fleet.set_budget(line.budget.namespace, line.budget.name, line.budget)
        elif line.api_fault is not None:
            self._add_api_fault(line.api_fault)
        elif line.clear_api_faults:
            self._clear_api_faults()
        else:
            self._hands_on(line)

    def _hands_on(self, line: Happening) -> None:
        if line.heal:
            self.fleet.heal(line.heal)
        if line.roll_back:
            self.fleet.roll_back(line.roll_back)
        if line.power_cycle:
            self.fleet.power_cycle(line.power_cycle)
        if line.cordon:
            self.fleet.cordon(line.cordon)
        if line.uncordon:
            self.fleet.cordon(line.uncordon, cordoned=False)

    def progress(self) -> dict[str, Any]:
        """How far the timeline is."""
        return {
            "started_at": self.started_at,
            "played": self.played,
            "lines": len(self.scenario.timeline),
            "last_at_s": max((line.at for line in self.scenario.timeline), default=0.0),
        }
