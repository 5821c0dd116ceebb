"""A fleet by the numbers: nodes, GPUs, and a few of them sick. The same in every process.

Labels are those of dcgm-exporter 4 behind a scrape that adds `node`, `instance` and `job`. Sick
GPUs are spread over the fleet, far enough apart that no common cause explains them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property

import numpy as np
import numpy.typing as npt

from breakfix.model import Condition, Node

Values = npt.NDArray[np.float64]  # (series, samples)

GPUS_PER_NODE = 8
NODES_PER_RACK = 16
SKUS = (
    "NVIDIA-H100-80GB-HBM3",
    "NVIDIA-A100-SXM4-80GB",
    "NVIDIA-H200",
    "NVIDIA-B200",
)
STEP_S = 60  # between two samples
SAMPLES = 11  # ten minutes: the longest window of the measured signals but the XIDs' own


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of every GPU: around `level`, give or take `noise`; every sick one goes to `sick`.

    `slope` and `sick_slope` are what a counter grows by from sample to sample. Some GPUs
    (`blip_every`) are as the sick ones in the last sample only: a rule with a hold must not believe
    them yet.
    """

    name: str
    level: float = 0.0
    noise: float = 0.0
    sick: float | None = None
    slope: float = 0.0
    sick_slope: float = 0.0
    sick_every: int = 0  # one GPU of so many; 0: none
    phase: int = 0  # which one
    blip_every: int = 0


METRICS = (
    Metric("DCGM_FI_DEV_GPU_TEMP", 52.0, 6.0, sick=93.0, sick_every=1009, phase=530),
    Metric("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", 4.0e9, 1.0e9, slope=3.0e7),
    Metric("DCGM_FI_DEV_POWER_USAGE", 480.0, 25.0, sick=120.0, sick_every=4001, phase=2011),
    Metric("DCGM_FI_DEV_GPU_UTIL", 92.0, 4.0),
    Metric("DCGM_FI_DEV_SM_CLOCK", 1755.0, 30.0, sick=600.0, sick_every=4001, phase=2011),
    Metric("DCGM_FI_DEV_MEMORY_TEMP", 66.0, 5.0, sick=101.0, sick_every=2003, phase=1217),
    Metric("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", sick=2.0, sick_every=3001, phase=1543, blip_every=811),
    Metric("DCGM_FI_DEV_ROW_REMAP_FAILURE", sick=1.0, sick_every=9001, phase=4441, blip_every=907),
    Metric("DCGM_FI_DEV_ROW_REMAP_PENDING", sick=1.0, sick_every=2503, phase=811),
    Metric("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", sick=600.0, sick_every=9007, phase=6067),
    Metric(
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL",
        sick_slope=9000.0,
        sick_every=5003,
        phase=2707,
        blip_every=1103,
    ),
    Metric(
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", sick_slope=6.0, sick_every=5003, phase=2707
    ),
    Metric("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", sick_slope=70.0, sick_every=3511, phase=1801),
    Metric("DCGM_FI_DEV_THERMAL_VIOLATION", sick_slope=2.0e10, sick_every=1009, phase=530),
    Metric("DCGM_FI_DEV_GPU_RECOVERY_ACTION", sick=1.0, sick_every=6007, phase=3089),
)
XID = "DCGM_FI_DEV_XID_ERRORS"
_XID_EVERY, _XID_PHASE = 1709, 997
_XIDS = (79, 31, 74, 94, 13)


@dataclass(frozen=True, slots=True)
class Series:
    """All series of one name: the label sets, and a row of values for each; NaN: no sample."""

    labels: Sequence[tuple[tuple[str, str], ...]]
    values: Values


@dataclass(frozen=True)
class Fleet:
    """`size` nodes of eight GPUs, seen at `at`."""

    size: int
    at: datetime

    @cached_property
    def names(self) -> tuple[str, ...]:
        return tuple(f"gpu-{i // 1000:03d}-{i % 1000:03d}" for i in range(self.size))

    @property
    def gpus(self) -> int:
        return self.size * GPUS_PER_NODE

    @property
    def times_ms(self) -> npt.NDArray[np.int64]:
        """When the samples were taken; the last one five seconds before `at`."""
        last = int(self.at.timestamp() * 1000) - 5000
        return last - STEP_S * 1000 * np.arange(SAMPLES - 1, -1, -1, dtype=np.int64)

    def nodes(self, which: range | None = None) -> tuple[Node, ...]:
        """What the API server tells of them, as the adapter would hand it on."""
        long_ago = self.at - timedelta(days=90)
        ready = (
            *(
                Condition(kind, "False", f"KubeletHas{kind}", "kubelet is fine", long_ago)
                for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
            ),
            Condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", long_ago),
        )
        return tuple(self._node(i, ready, long_ago) for i in which or range(self.size))

    def _node(self, i: int, conditions: tuple[Condition, ...], created: datetime) -> Node:
        sku, rack = SKUS[i // 2500 % len(SKUS)], f"r{i // NODES_PER_RACK}"
        labels = {
            "kubernetes.io/hostname": self.names[i],
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": sku,
            "nvidia.com/gpu.count": str(GPUS_PER_NODE),
            "topology.kubernetes.io/rack": rack,
            "breakfix.dev/pool": "train",
        }
        return Node(
            name=self.names[i],
            uid=f"uid-{i}",
            resource_version=str(i),
            boot_id=f"boot-{i}",
            labels=labels,
            conditions=conditions,
            gpus_allocatable=GPUS_PER_NODE,
            gpus_capacity=GPUS_PER_NODE,
            created_at=created,
            pool="train",
            rack=rack,
            sku=sku,
        )

    def series(self) -> Iterator[Series]:
        """Everything that Prometheus is given, one metric at a time."""
        random = np.random.default_rng(7)
        for metric in METRICS:
            labels = [self.labels(metric.name, gpu) for gpu in range(self.gpus)]
            yield Series(labels, self._values(metric, random))
        yield self._xids()

    def labels(self, metric: str, gpu: int, **more: str) -> tuple[tuple[str, str], ...]:
        """The labels of one GPU's series, sorted by name."""
        node = self.names[gpu // GPUS_PER_NODE]
        index = gpu % GPUS_PER_NODE
        found = {
            "DCGM_FI_DRIVER_VERSION": "580.95.05",
            "Hostname": node,
            "UUID": f"GPU-{gpu:08x}-5c4f-4b1e-9d2a-{gpu * 2654435761 % (1 << 48):012x}",
            "__name__": metric,
            "device": f"nvidia{index}",
            "gpu": str(index),
            "instance": f"{node}:9400",
            "job": "dcgm-exporter",
            "modelName": SKUS[gpu // GPUS_PER_NODE // 2500 % len(SKUS)],
            "node": node,
            "pci_bus_id": f"00000000:{0x1B + 16 * index:02X}:00.0",
            **more,
        }
        return tuple(sorted(found.items()))

    def _sick(self, every: int, phase: int) -> npt.NDArray[np.int64]:
        return np.arange(phase % min(every, self.gpus), self.gpus, every) if every else np.arange(0)

    def _values(self, metric: Metric, random: np.random.Generator) -> Values:
        drift = random.normal(0.0, metric.noise, (self.gpus, 1))
        jitter = random.normal(0.0, metric.noise / 10, (self.gpus, SAMPLES))
        grown = metric.slope * np.arange(SAMPLES)
        values = np.round(np.maximum(metric.level + drift + jitter, 0.0), 3) + grown
        sick = self._sick(metric.sick_every, metric.phase)
        if metric.sick is not None:
            values[sick] = metric.sick
        values[sick] += metric.sick_slope * np.arange(SAMPLES)
        blips = self._sick(metric.blip_every, metric.phase)
        values[blips, -1] += (metric.sick or 0.0) + metric.sick_slope
        return values

    def _xids(self) -> Series:
        """The gauge keeps its last code: a healthy GPU reports 0, a sick one changes its series."""
        half = SAMPLES // 2
        labels = [self.labels(XID, gpu, err_code="0") for gpu in range(self.gpus)]
        sick = self._sick(_XID_EVERY, _XID_PHASE)
        codes = [_XIDS[i % len(_XIDS)] for i in range(len(sick))]
        labels += [
            self.labels(XID, int(gpu), err_code=str(code))
            for gpu, code in zip(sick, codes, strict=True)
        ]
        values = np.zeros((len(labels), SAMPLES))
        values[sick, half:] = np.nan
        values[self.gpus :, :half] = np.nan
        values[self.gpus :, half:] = np.array(codes, dtype=np.float64)[:, None]
        return Series(labels, values)


def fleet_now(nodes: int) -> Fleet:
    """A fleet seen at the last whole second."""
    return Fleet(nodes, datetime.now(UTC).replace(microsecond=0))
