"""A plausible fleet drawn from a seed: names, models, racks, label spellings, scrape intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Model:
    """A GPU model: the label nvidia.com/gpu.product, GPUs a node, NVLinks, PCIe generation."""

    product: str
    gpus: int = 8
    nvlinks: int = 18
    pcie_gen: int = 5


MODELS = (
    Model("NVIDIA-H100-80GB-HBM3"),
    Model("NVIDIA-H200"),
    Model("NVIDIA-A100-SXM4-80GB", nvlinks=12, pcie_gen=4),
    Model("NVIDIA-B200"),
    Model("NVIDIA-GB200", gpus=4),
)
#: Retires pages, as models before Ampere do; only where a story asks for it.
V100 = Model("Tesla-V100-SXM2-32GB", nvlinks=6, pcie_gen=3)

DRIVERS = ("570.195.03", "580.95.05", "580.105.08", "590.44.01")
KERNELS = ("5.15.0-1086-aws", "6.8.0-87-generic", "6.8.0-1041-azure", "6.12.55-gke")
PREFIXES = ("gpu-", "ip-10-4-7-", "gke-a3-mega-", "aks-nd96-", "dgx", "worker-")

#: How the series of a site's exporters name node, GPU and pod, and how often a site has it (ours).
DIALECTS: dict[str, tuple[float, dict[str, Any]]] = {
    "Hostname": (0.4, {}),  # dcgm-exporter up to 4.8.2, one label for the exporter's pod
    "hostname": (0.2, {"host_label": "hostname"}),  # its main branch since May 2026
    "exported": (0.15, {"workload": "exported"}),  # the scrape's own labels come first
    "target": (0.15, {"target_label": "node", "workload": "exported"}),
    "pair": (0.05, {"replicas": 2}),  # two Prometheus servers behind one query
    "old": (0.05, {"gpu_label": "uuid", "workload": "plain"}),  # old-namespace mode
}

_EVERYWHERE = ("basic", "xid", "remap", "pcie")
#: What is exported: dcgm-exporter's default file, or with the fields that it has commented out.
PROFILES: dict[str, tuple[str, ...]] = {
    "default": _EVERYWHERE,
    "full": (
        *_EVERYWHERE,
        "more", "xid_count", "xid_total", "remap_pending", "ecc", "pcie_link", "nvlink", "health",
        "clock_events", "violations", "recovery", "sram", "fabric", "limits",
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """One GPU of a node."""

    node: str
    index: int


@dataclass
class Machine:
    """One node as it is at the beginning."""

    name: str
    model: Model
    gpu_count: int
    pool: str
    rack: str
    fabric: str
    driver: str
    kernel: str
    boot_age: int
    created_age: int
    labels: dict[str, str] = field(default_factory=dict)
    conditions: dict[str, str] = field(default_factory=dict)

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        return tuple(Gpu(self.name, i) for i in range(self.gpu_count))

    def group(self) -> dict[str, Any]:
        """What it shares with others, as a group of the trace's fleet without names."""
        made: dict[str, Any] = {
            "pool": self.pool,
            "rack": self.rack,
            "sku": self.model.product,
            "fabric": self.fabric,
            "gpus": self.gpu_count,
            "driver": self.driver,
            "kernel": self.kernel,
            "boot_age": self.boot_age,
            "created_age": self.created_age,
        }
        if self.labels:
            made["labels"] = self.labels
        if self.conditions:
            made["conditions"] = self.conditions
        return made


@dataclass(frozen=True)
class Shape:
    """How big a fleet is, and what must be so for the story; None leaves it to the seed."""

    nodes: int = 6
    gpus: int | None = 2
    racks: int | None = None
    pools: int = 1
    interval_s: int | None = None
    profile: str = "full"
    dialect: str | None = None
    model: str | None = None
    ports: int = 0  # InfiniBand


def draw_fleet(rng: np.random.Generator, shape: Shape) -> list[Machine]:
    """The nodes of a fleet, all of one model."""
    drawn = MODELS[int(rng.integers(len(MODELS)))]
    model = next((m for m in (*MODELS, V100) if m.product == shape.model), drawn)
    prefix = str(rng.choice(PREFIXES))
    driver, kernel = str(rng.choice(DRIVERS)), str(rng.choice(KERNELS))
    pools = [str(p) for p in rng.permutation(["train", "infer", "batch", "dev"])[: shape.pools]]
    first = int(rng.integers(1, 400))
    racks = shape.racks or max(1, shape.nodes // 3)
    boot_age, created_age = (int(rng.integers(4, 1440)) * 3600, int(rng.integers(60, 400)) * 86400)
    return [
        Machine(
            name=f"{prefix}{first + i:03d}",
            model=model,
            gpu_count=shape.gpus or model.gpus,
            pool=pools[i * shape.pools // shape.nodes],
            rack=f"r{i * racks // shape.nodes + 1:02d}",
            fabric=f"clique-{i * racks // shape.nodes + 1}" if "GB200" in model.product else "",
            driver=driver,
            kernel=kernel,
            boot_age=boot_age,
            created_age=created_age,
        )
        for i in range(shape.nodes)
    ]


def draw_dialect(rng: np.random.Generator) -> str:
    """How this site's exporters spell their labels."""
    shares = [share for share, _ in DIALECTS.values()]
    return str(rng.choice(list(DIALECTS), p=shares))
