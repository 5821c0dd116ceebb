"""What a node is by purchase, and the pods that hold its GPUs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from simfleet.skus import Sku


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """What a node is by purchase: never changes while the fleet runs."""

    name: str
    rack: str
    pool: str
    zone: str
    sku: Sku | None
    gpus: int
    clique: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    cordoned: bool = False
    driver_version: str = "580.95.05"
    kernel_version: str = "6.8.0-85-generic"


@dataclass(frozen=True, slots=True)
class GpuPod:
    """A running pod that holds GPUs here."""

    uid: str
    namespace: str
    name: str
    container: str
    gpus: int
