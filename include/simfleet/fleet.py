"""A fleet as people write it down: racks of nodes, and what runs on them.

`FleetConfig` is the YAML; `node_specs` is the hardware it stands for. What the Kubernetes API
shows of it is made in `simfleet.objects`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from simfleet.hardware import NodeSpec
from simfleet.skus import sku_named

MAX_NODES = 1000
T = TypeVar("T", bound=BaseModel)
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"


class BadFleet(ValueError):
    """A fleet or scenario file that cannot be used; the message says where and why."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RackConfig(_Config):
    """Nodes of one rack: one pool, one SKU."""

    name: str = Field(pattern=NAME)
    pool: str = Field(pattern=NAME)
    sku: str = "h100"  # "" for machines without GPUs
    zone: str = "zone-a"
    nodes: int = Field(default=0, ge=0, le=MAX_NODES, description="how many; names are made up")
    names: tuple[str, ...] = Field(default=(), description="or their names")
    gpus: int = Field(default=8, ge=0, le=16)
    clique: str = Field(default="", description="nvidia.com/gpu.clique: the NVLink domain")
    cordoned: tuple[str, ...] = Field(default=(), description="cordoned by somebody from start")
    labels: dict[str, str] = Field(default_factory=dict)
    driver: str = "580.95.05"

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if bool(self.nodes) == bool(self.names):
            raise ValueError(f"rack {self.name}: give either `nodes` or `names`")
        if stray := set(self.cordoned) - set(self.node_names()):
            raise ValueError(f"rack {self.name}: cordoned {sorted(stray)} are not its nodes")
        if self.sku:
            sku_named(self.sku)
        return self

    def node_names(self) -> tuple[str, ...]:
        """Names of its nodes in slot order."""
        return self.names or tuple(f"{self.name}-n{i:02d}" for i in range(1, self.nodes + 1))


class BudgetConfig(_Config):
    """A PodDisruptionBudget over one workload."""

    min_available: int | str | None = None
    max_unavailable: int | str | None = None

    @model_validator(mode="after")
    def _one_of(self) -> Self:
        if (self.min_available is None) == (self.max_unavailable is None):
            raise ValueError("a budget has either min_available or max_unavailable")
        return self


class WorkloadConfig(_Config):
    """Pods that run in the fleet from the start."""

    name: str = Field(pattern=NAME)
    namespace: str = Field(default="default", pattern=NAME)
    kind: Literal["ReplicaSet", "Pod"] = "ReplicaSet"
    pool: str | None = None
    node: str | None = Field(default=None, description="pin to one node (hostname selector)")
    replicas: int = Field(default=1, ge=0)
    gpus: int = Field(default=8, ge=0)
    budget: BudgetConfig | None = None
    empty_dir: Literal["", "disk", "memory"] = ""


class FleetConfig(_Config):
    """The whole fleet."""

    name: str = Field(default="simfleet", pattern=NAME)
    seed: int = 0
    speed: float = Field(default=1.0, gt=0, description="divides durations of repairs and checks")
    dcgm_fields: Literal["default", "full"] = "full"
    operator_validator: bool = Field(
        default=False, description="the GPU operator's validator runs on every GPU node"
    )
    racks: tuple[RackConfig, ...] = Field(min_length=1)
    workloads: tuple[WorkloadConfig, ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        names = [name for rack in self.racks for name in rack.node_names()]
        if twice := sorted(name for name, count in Counter(names).items() if count > 1):
            raise ValueError(f"nodes named twice: {', '.join(twice)}")
        if len(names) > MAX_NODES:
            raise ValueError(f"{len(names)} nodes; at most {MAX_NODES}")
        pools = {rack.pool for rack in self.racks}
        for work in self.workloads:
            if work.pool is not None and work.pool not in pools:
                raise ValueError(f"workload {work.name}: no pool {work.pool!r}")
            if work.node is not None and work.node not in names:
                raise ValueError(f"workload {work.name}: no node {work.node!r}")
        return self


def node_specs(config: FleetConfig) -> list[NodeSpec]:
    """The hardware of every node, rack by rack."""
    return [
        NodeSpec(
            name=name,
            rack=rack.name,
            pool=rack.pool,
            zone=rack.zone,
            sku=sku_named(rack.sku) if rack.sku else None,
            gpus=rack.gpus if rack.sku else 0,
            clique=rack.clique,
            labels=rack.labels,
            cordoned=name in rack.cordoned,
            driver_version=rack.driver,
        )
        for rack in config.racks
        for name in rack.node_names()
    ]


def uniform_fleet(
    nodes: int,
    *,
    per_rack: int = 8,
    racks_per_pool: int = 4,
    skus: Iterable[str] = ("h100", "a100", "h200"),
    busy: float = 0.75,
    seed: int = 0,
    speed: float = 60.0,
) -> FleetConfig:
    """A regular fleet of the given size; `busy` is the share of each pool's nodes in use."""
    kinds = tuple(skus)
    racks: list[RackConfig] = []
    per_pool: dict[str, int] = {}
    for start in range(0, nodes, per_rack):
        number = start // per_rack
        group = number // racks_per_pool
        size = min(per_rack, nodes - start)
        pool = f"pool-{group + 1:02d}"
        per_pool[pool] = per_pool.get(pool, 0) + size
        rack = f"rack-{number + 1:03d}"
        racks.append(RackConfig(name=rack, pool=pool, sku=kinds[group % len(kinds)], nodes=size))
    workloads = tuple(
        WorkloadConfig(
            name=f"train-{pool}", namespace="team-a", pool=pool, replicas=int(size * busy)
        )
        for pool, size in per_pool.items()
    )
    return FleetConfig(seed=seed, speed=speed, racks=tuple(racks), workloads=workloads)


def read_yaml(path: Path, model: type[T]) -> T:
    """A YAML file as the given model; BadFleet with one line per mistake."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise BadFleet(f"cannot read {path}: {error}") from error
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        raise BadFleet(f"{path}: " + "; ".join(lines)) from error
