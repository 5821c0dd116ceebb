"""What exporters say of a healthy node: names and values as dcgm-exporter, node exporter and
kube-state-metrics have them. The small variation depends on the trace's seed alone.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from breakfix.replay.trace import Trace
from breakfix.replay.values import Floats, Track, constant

#: Health watches of dcgm-exporter's DCGM_EXP_GPU_HEALTH_STATUS.
WATCHES = ("PCIE", "NVLINK", "MEM", "SM", "THERMAL", "POWER", "DRIVER", "ALL")
HEALTH = "DCGM_EXP_GPU_HEALTH_STATUS"
XID_LAST = "DCGM_FI_DEV_XID_ERRORS"
XID_COUNT = "DCGM_EXP_XID_ERRORS_COUNT"
XID_TOTAL = "DCGM_EXP_XID_ERRORS_TOTAL"


@dataclass(frozen=True, slots=True)
class Moment:
    """The scrapes of one target: seconds since the first sweep, and who is scraped."""

    times: Floats
    identity: str

    def random(self, metric: str) -> np.random.Generator:
        return np.random.default_rng(zlib.crc32(f"{self.identity}/{metric}".encode()))


def _busy(base: float, spread: float, *, whole: bool = True) -> Callable[[Moment, str], Floats]:
    def make(moment: Moment, metric: str) -> Floats:
        dice = moment.random(metric)
        level = base * (1 + 0.02 * dice.standard_normal())
        values = level + spread * dice.uniform(-1, 1, len(moment.times))
        return np.rint(values) if whole else np.round(values, 3)

    return make


def _flat(value: float) -> Callable[[Moment, str], Floats]:
    return lambda moment, _metric: np.full(len(moment.times), float(value))


def _grows(rate: float) -> Callable[[Moment, str], Floats]:
    def make(moment: Moment, metric: str) -> Floats:
        start = 1e9 * (1 + moment.random(metric).uniform())
        return np.rint(start + rate * (moment.times + 1e7))

    return make


Maker = Callable[[Moment, str], Floats]

GROUPS: Mapping[str, Mapping[str, Maker]] = {
    "basic": {
        "DCGM_FI_DEV_GPU_TEMP": _busy(60, 2),
        "DCGM_FI_DEV_POWER_USAGE": _busy(640, 20, whole=False),
        "DCGM_FI_DEV_GPU_UTIL": _busy(95, 3),
        "DCGM_FI_DEV_SM_CLOCK": _flat(1755),
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": _grows(640_000),
    },
    "more": {
        "DCGM_FI_DEV_MEMORY_TEMP": _busy(70, 2),
        "DCGM_FI_DEV_MEM_CLOCK": _flat(2619),
        "DCGM_FI_DEV_MEM_COPY_UTIL": _busy(48, 4),
        "DCGM_FI_DEV_FB_USED": _busy(71_000, 40),
        "DCGM_FI_DEV_FB_FREE": _busy(10_000, 40),
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE": _busy(0.95, 0.02, whole=False),
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": _busy(0.41, 0.02, whole=False),
        "DCGM_FI_PROF_DRAM_ACTIVE": _busy(0.37, 0.02, whole=False),
    },
    "remap": {
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS": _flat(0),
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS": _flat(0),
        "DCGM_FI_DEV_ROW_REMAP_FAILURE": _flat(0),
    },
    "remap_pending": {"DCGM_FI_DEV_ROW_REMAP_PENDING": _flat(0)},
    "ecc": {
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL": _flat(0),
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": _flat(0),
        "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL": _flat(0),
        "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL": _flat(0),
    },
    "pages": {
        "DCGM_FI_DEV_RETIRED_SBE": _flat(0),
        "DCGM_FI_DEV_RETIRED_DBE": _flat(0),
        "DCGM_FI_DEV_RETIRED_PENDING": _flat(0),
    },
    "pcie": {"DCGM_FI_DEV_PCIE_REPLAY_COUNTER": _flat(0)},
    "pcie_link": {"DCGM_FI_DEV_PCIE_LINK_GEN": _flat(5), "DCGM_FI_DEV_PCIE_LINK_WIDTH": _flat(16)},
    "nvlink": {
        "DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL": _flat(0),
        "DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL": _flat(0),
        "DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL": _flat(0),
        "DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL": _flat(0),
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": _grows(11_000),
    },
    "violations": {
        "DCGM_FI_DEV_POWER_VIOLATION": _flat(0),
        "DCGM_FI_DEV_THERMAL_VIOLATION": _flat(0),
        "DCGM_FI_DEV_RELIABILITY_VIOLATION": _flat(0),
    },
    "recovery": {"DCGM_FI_DEV_GPU_RECOVERY_ACTION": _flat(0)},
    "sram": {"DCGM_FI_DEV_THRESHOLD_SRM": _flat(0)},
    "fabric": {"DCGM_FI_DEV_FABRIC_MANAGER_STATUS": _flat(3)},
    "limits": {"DCGM_FI_DEV_SLOWDOWN_TEMP": _flat(87), "DCGM_FI_DEV_SHUTDOWN_TEMP": _flat(92)},
}


@dataclass(slots=True)
class Plain:
    """A series before its target's labels are added. `value_label`: see Series.value_label."""

    metric: str
    labels: dict[str, str]
    track: Track
    value_label: str = ""
    without: tuple[str, ...] = ()
    relabel: Mapping[str, str] = field(default_factory=dict)


def gpu_series(trace: Trace, moment: Moment, only: frozenset[str] | None = None) -> Iterator[Plain]:
    """The healthy series of one GPU, XIDs aside; `only` those metrics."""
    makers = {m: make for g in trace.telemetry.metrics for m, make in GROUPS.get(g, {}).items()}
    for metric in makers if only is None else makers.keys() & only:
        yield Plain(metric, {}, Track(makers[metric](moment, metric), _held(moment)))
    if "health" in trace.telemetry.metrics:
        for watch in WATCHES:
            labels = {"health_watch": watch, "health_error_code": "DCGM_FR_OK"}
            yield Plain(HEALTH, labels, constant(0.0, len(moment.times)))
    if "clock_events" in trace.telemetry.metrics:
        labels = {"clock_event": "power_cap", "window_size_in_ms": "300000"}
        track = Track(_busy(2, 1)(moment, "clock_events").clip(0), _held(moment))
        yield Plain("DCGM_EXP_CLOCK_EVENTS_COUNT", labels, track)
    for metric, value in trace.telemetry.also.items():
        if not metric.startswith("node_"):
            yield Plain(metric, {}, constant(value, len(moment.times)))


def _held(moment: Moment) -> np.ndarray:
    return np.zeros(len(moment.times), np.uint8)


def node_series(trace: Trace, moment: Moment) -> Iterator[Plain]:
    """The healthy series of one node's node exporter; boot time and name come with the node."""
    size = len(moment.times)
    root = {"device": "/dev/nvme0n1p2", "fstype": "ext4", "mountpoint": "/"}
    flat = {
        "node_load1": _busy(40, 4, whole=False),
        "node_memory_MemTotal_bytes": _flat(2048 * 1024**3),
        "node_memory_MemAvailable_bytes": _busy(820 * 1024**3, 1e9),
        "node_vmstat_oom_kill": _flat(0),
    }
    for metric, make in flat.items():
        yield Plain(metric, {}, Track(make(moment, metric), _held(moment)))
    for metric, value in (
        ("node_filesystem_readonly", 0.0),
        ("node_filesystem_size_bytes", 3500.0 * 1024**3),
        ("node_filesystem_avail_bytes", 2600.0 * 1024**3),
    ):
        yield Plain(metric, dict(root), constant(value, size))
    for port in range(trace.telemetry.infiniband):
        labels = {"device": f"mlx5_{port}", "port": "1"}
        for metric, value in _INFINIBAND.items():
            yield Plain(metric, dict(labels), constant(value, size))
    for metric, value in trace.telemetry.also.items():
        if metric.startswith("node_"):
            yield Plain(metric, {}, constant(value, size))


_INFINIBAND = {
    "node_infiniband_state_id": 4.0,  # ACTIVE
    "node_infiniband_physical_state_id": 5.0,  # LinkUp
    "node_infiniband_rate_bytes_per_second": 5e10,  # 400 Gb/s
    "node_infiniband_link_downed_total": 0.0,
    "node_infiniband_symbol_error_total": 0.0,
    "node_infiniband_link_error_recovery_total": 0.0,
    "node_infiniband_port_errors_received_total": 0.0,
    "node_infiniband_port_transmit_discards_total": 0.0,
}
