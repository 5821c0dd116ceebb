"""What the simulated cluster and the simulated hardware say to each other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from simfleet.skus import Sku


@dataclass(frozen=True, slots=True)
class Execution:
    """What a pod's command will do: real seconds until it ends, exit code, log, last effect."""

    duration_s: float
    exit_code: int
    log: str
    on_finish: Callable[[], None] | None = None


class Machine(Protocol):
    """What the kubelet needs of the hardware under it."""

    boot_id: str

    def is_up(self) -> bool:
        """Whether the kubelet on this machine runs."""

    def allocatable_gpus(self) -> int:
        """How many GPUs the device plugin offers."""

    def plugin_restarted(self) -> None:
        """The device plugin's pod was started anew."""

    def run(self, pod: dict[str, Any]) -> Execution | None:
        """What the pod's command does; None for a service that runs until it is stopped."""


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
