"""GPU models: what the labels, the exporter and the diagnostics call them, and their limits."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True)
class Sku:
    """One GPU model. Temperatures in C, power in W, clocks in MHz, memory in MiB."""

    key: str
    product: str  # value of the node label nvidia.com/gpu.product
    model_name: str  # label modelName of dcgm-exporter
    device_id: str  # PCI device id that dcgmi diag reports
    fb_mib: int
    nvlinks: int
    pcie_gen: int
    idle_w: int
    busy_w: int
    sm_clock: int
    mem_clock: int
    idle_temp: int = 31
    busy_temp: int = 62
    slowdown_temp: int = 87
    shutdown_temp: int = 92


# fmt: off
_ALL = (
    Sku("h100", "NVIDIA-H100-80GB-HBM3", "NVIDIA H100 80GB HBM3", "2330",
        81559, 18, 5, 72, 680, 1755, 2619),
    Sku("h200", "NVIDIA-H200", "NVIDIA H200", "2335", 143771, 18, 5, 76, 690, 1755, 3201),
    Sku("a100", "NVIDIA-A100-SXM4-80GB", "NVIDIA A100-SXM4-80GB", "20b2",
        81920, 12, 4, 58, 390, 1410, 1593),
    Sku("b200", "NVIDIA-B200", "NVIDIA B200", "2901", 183359, 18, 5, 140, 980, 1965, 3996),
    Sku("gb200", "NVIDIA-GB200", "NVIDIA GB200", "2941", 189471, 18, 5, 150, 1150, 1965, 3996),
    Sku("l40s", "NVIDIA-L40S", "NVIDIA L40S", "26b9", 46068, 0, 4, 35, 330, 2520, 9001),
    Sku("l4", "NVIDIA-L4", "NVIDIA L4", "27b8", 23034, 0, 4, 16, 68, 2040, 6251),
)
# fmt: on
SKUS: MappingProxyType[str, Sku] = MappingProxyType({sku.key: sku for sku in _ALL})


def sku_named(key: str) -> Sku:
    """The model called `key` in fleet files; ValueError names the known ones."""
    try:
        return SKUS[key]
    except KeyError:
        raise ValueError(f"unknown SKU {key!r}; known: {', '.join(sorted(SKUS))}") from None
