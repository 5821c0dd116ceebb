"""dcgm-exporter of one node: its exact names, labels and traps, from the machine's state.

Names, types and labels: dcgm-exporter 4.5 - 4.8 (default-counters.csv and its exporter-made
metrics). The default set is what an installation without configuration shows; `full` adds the
fields that are commented out there. XID_ERRORS is a sticky last value; a GPU that fell off the
bus loses its series; idle GPUs carry no pod labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from simfleet.exposition import escape, header, labels, number
from simfleet.gpu import XID_TEXT, XID_WINDOW_S, Gpu, wobble

if TYPE_CHECKING:
    from simfleet.machine import SimMachine

Fields = Literal["default", "full"]
HEALTH_WATCHES = (
    "PCIE", "NVLINK", "PMU", "MCU", "MEM", "SM", "INFOROM", "THERMAL", "POWER", "DRIVER", "ALL",
)  # fmt: skip
HEALTH_PASS, HEALTH_WARN, HEALTH_FAIL = 0, 10, 20


@dataclass(frozen=True, slots=True)
class Reading:
    """What one GPU does at this instant."""

    busy: bool
    wobble: float  # 0..1


@dataclass(frozen=True, slots=True)
class Field:
    """One metric of the exporter."""

    name: str
    kind: Literal["gauge", "counter"]
    text: str
    read: Callable[[Gpu, Reading], float]
    optional: bool = False


def _temp(gpu: Gpu, now: Reading) -> int:
    if gpu.temp_c is not None:
        return gpu.temp_c
    base = gpu.sku.busy_temp if now.busy else gpu.sku.idle_temp
    return base + int(3 * now.wobble)


def _util(_gpu: Gpu, now: Reading) -> int:
    return 92 + int(7 * now.wobble) if now.busy else 0


def _ratio(top: float) -> Callable[[Gpu, Reading], float]:
    return lambda _gpu, now: top * (0.95 + 0.05 * now.wobble) if now.busy else 0.0


def _used(gpu: Gpu, now: Reading) -> int:
    return int(gpu.sku.fb_mib * 0.87) if now.busy else 4


def _always(value: int) -> Callable[[Gpu, Reading], int]:
    return lambda _gpu, _now: value


_RESERVED_MIB = 540
FIELDS: tuple[Field, ...] = (
    Field("DCGM_FI_DEV_SM_CLOCK", "gauge", "SM clock frequency (in MHz).",
          lambda g, r: g.sku.sm_clock if r.busy else 345),
    Field("DCGM_FI_DEV_MEM_CLOCK", "gauge", "Memory clock frequency (in MHz).",
          lambda g, _r: g.sku.mem_clock),
    Field("DCGM_FI_DEV_MEMORY_TEMP", "gauge", "Memory temperature (in C).",
          lambda g, r: _temp(g, r) + 9),
    Field("DCGM_FI_DEV_GPU_TEMP", "gauge", "GPU temperature (in C).", _temp),
    Field("DCGM_FI_DEV_POWER_USAGE", "gauge", "Power draw (in W).",
          lambda g, r: g.power_w(r.wobble, busy=r.busy)),
    Field("DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", "counter",
          "Total energy consumption since boot (in mJ).", lambda g, _r: int(g.energy_mj)),
    Field("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "counter", "Total number of PCIe retries.",
          lambda g, _r: g.pcie_replay),
    Field("DCGM_FI_DEV_GPU_UTIL", "gauge", "GPU utilization (in %).", _util),
    Field("DCGM_FI_DEV_MEM_COPY_UTIL", "gauge", "Memory utilization (in %).",
          lambda g, r: _util(g, r) // 2),
    Field("DCGM_FI_DEV_ENC_UTIL", "gauge", "Encoder utilization (in %).", _always(0)),
    Field("DCGM_FI_DEV_DEC_UTIL", "gauge", "Decoder utilization (in %).", _always(0)),
    Field("DCGM_FI_DEV_FB_FREE", "gauge", "Framebuffer memory free (in MiB).",
          lambda g, r: g.sku.fb_mib - _RESERVED_MIB - _used(g, r)),
    Field("DCGM_FI_DEV_FB_USED", "gauge", "Framebuffer memory used (in MiB).", _used),
    Field("DCGM_FI_DEV_FB_RESERVED", "gauge", "Framebuffer memory reserved (in MiB).",
          _always(_RESERVED_MIB)),
    Field("DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS", "counter",
          "Number of remapped rows for uncorrectable errors",
          lambda g, _r: g.remapped_uncorrectable),
    Field("DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS", "counter",
          "Number of remapped rows for correctable errors", lambda g, _r: g.remapped_correctable),
    Field("DCGM_FI_DEV_ROW_REMAP_FAILURE", "gauge", "Whether remapping of rows has failed",
          lambda g, _r: int(g.remap_failed)),
    Field("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "gauge", "vGPU License status", _always(0)),
    Field("DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "counter",
          "Total number of NVLink bandwidth counters for all lanes.",
          lambda g, _r: int(g.nvlink_mb)),
    Field("DCGM_FI_PROF_GR_ENGINE_ACTIVE", "gauge",
          "Ratio of time the graphics engine is active.", _ratio(0.99)),
    Field("DCGM_FI_PROF_PIPE_TENSOR_ACTIVE", "gauge",
          "Ratio of cycles the tensor (HMMA) pipe is active.", _ratio(0.43)),
    Field("DCGM_FI_PROF_DRAM_ACTIVE", "gauge",
          "Ratio of cycles the device memory interface is active.", _ratio(0.38)),
    Field("DCGM_FI_PROF_PCIE_TX_BYTES", "gauge", "PCIe bytes transmitted per second.",
          lambda _g, r: int(2.1e9 * r.wobble) if r.busy else 120_000),
    Field("DCGM_FI_PROF_PCIE_RX_BYTES", "gauge", "PCIe bytes received per second.",
          lambda _g, r: int(2.7e9 * r.wobble) if r.busy else 90_000),
    # ---- commented out in the exporter's default file
    Field("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "counter",
          "Total number of single-bit volatile ECC errors.", lambda g, _r: g.ecc_sbe_vol, True),
    Field("DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "counter",
          "Total number of double-bit volatile ECC errors.", lambda g, _r: g.ecc_dbe_vol, True),
    Field("DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "counter",
          "Total number of single-bit persistent ECC errors.", lambda g, _r: g.ecc_sbe_agg, True),
    Field("DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "counter",
          "Total number of double-bit persistent ECC errors.", lambda g, _r: g.ecc_dbe_agg, True),
    Field("DCGM_FI_DEV_POWER_VIOLATION", "counter",
          "Throttling duration due to power constraints (in ns).", _always(0), True),
    Field("DCGM_FI_DEV_THERMAL_VIOLATION", "counter",
          "Throttling duration due to thermal constraints (in ns).",
          lambda g, _r: g.thermal_violation_ns, True),
    Field("DCGM_FI_DEV_RELIABILITY_VIOLATION", "counter",
          "Throttling duration due to reliability constraints (in ns).", _always(0), True),
    Field("DCGM_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL", "counter",
          "Total number of NVLink flow-control CRC errors.", lambda g, _r: g.nvlink_crc_flit, True),
    Field("DCGM_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL", "counter",
          "Total number of NVLink data CRC errors.", lambda g, _r: g.nvlink_crc_data, True),
    Field("DCGM_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL", "counter",
          "Total number of NVLink retries.", lambda g, _r: g.nvlink_replay, True),
    Field("DCGM_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL", "counter",
          "Total number of NVLink recovery errors.", lambda g, _r: g.nvlink_recovery, True),
    Field("DCGM_FI_DEV_ROW_REMAP_PENDING", "gauge", "Whether a row remap waits for a reset",
          lambda g, _r: int(g.remap_pending), True),
    Field("DCGM_FI_DEV_GPU_RECOVERY_ACTION", "gauge",
          "Recovery action: 0 none, 1 reset, 2 reboot, 3 drain P2P, 4 drain and reset",
          lambda g, _r: g.recovery_action, True),
    Field("DCGM_FI_DEV_SLOWDOWN_TEMP", "gauge", "Slowdown temperature (in C).",
          lambda g, _r: g.sku.slowdown_temp, True),
    Field("DCGM_FI_DEV_SHUTDOWN_TEMP", "gauge", "Shutdown temperature (in C).",
          lambda g, _r: g.sku.shutdown_temp, True),
    Field("DCGM_FI_DEV_PCIE_LINK_GEN", "gauge", "PCIe link generation",
          lambda g, _r: g.sku.pcie_gen, True),
    Field("DCGM_FI_DEV_PCIE_LINK_WIDTH", "gauge", "PCIe link width", _always(16), True),
    Field("DCGM_FI_DEV_FABRIC_MANAGER_STATUS", "gauge",
          "Fabric manager: 0 not supported, 3 success, 4 failure",
          lambda g, _r: 3 if g.sku.nvlinks else 0, True),
)  # fmt: skip


class DcgmExporter:
    """Renders one machine's metrics; label strings are prepared and kept while they hold."""

    def __init__(self, machine: SimMachine, fields: Fields) -> None:
        self.machine = machine
        self.full = fields == "full"
        self._fields = [
            (field.name, header(field.name, field.kind, field.text), field.read)
            for field in FIELDS
            if self.full or not field.optional
        ]
        self._labels: dict[int, tuple[tuple[str, str], str]] = {}
        self._frozen = ""

    def render(self) -> str:
        """The exporter's answer now."""
        if self.machine.series_frozen and self._frozen:
            return self._frozen
        self._frozen = "".join(self._render())
        return self._frozen

    def _render(self) -> Iterator[str]:
        now = self.machine.world.now()
        shown = [(g, self._labels_of(g)) for g in self.machine.gpus if self._is_shown(g, now)]
        live = [(g, text, self._reading(g, now)) for g, text in shown if g.on_bus]
        for name, head, read in self._fields:
            if live:
                yield head
                for gpu, text, reading in live:
                    yield f"{name}{{{text}}} {number(read(gpu, reading))}\n"
        if shown:
            yield from _xid_last(shown)
        if self.full and shown:
            yield from _xid_counts(shown, now)
            yield from _health(shown)

    def _is_shown(self, gpu: Gpu, now: float) -> bool:
        if gpu.index in self.machine.series_missing:
            return False
        return gpu.on_bus or now - gpu.lost_at < gpu.vanish_after_s

    def _reading(self, gpu: Gpu, now: float) -> Reading:
        busy = gpu.index in self.machine.holders
        gpu.meter(now, busy=busy)
        return Reading(busy, wobble(gpu.uuid, now))

    def _labels_of(self, gpu: Gpu) -> str:
        machine = self.machine
        holder = machine.holders.get(gpu.index)
        key = (machine.driver_version, holder.uid if holder else "")
        kept = self._labels.get(gpu.index)
        if kept is None or kept[0] != key:
            pairs = {
                "gpu": str(gpu.index),
                "UUID": gpu.uuid,
                "pci_bus_id": gpu.pci_bus_id,
                "device": f"nvidia{gpu.index}",
                "modelName": gpu.sku.model_name,
                "Hostname": machine.spec.name,
                "DCGM_FI_DRIVER_VERSION": machine.driver_version,
            }
            if holder is not None:
                pairs |= {
                    "container": holder.container,
                    "namespace": holder.namespace,
                    "pod": holder.name,
                }
            kept = (key, labels(pairs))
            self._labels[gpu.index] = kept
        return kept[1]


Shown = list[tuple[Gpu, str]]


def _xid_last(shown: Shown) -> Iterator[str]:
    name = "DCGM_FI_DEV_XID_ERRORS"
    yield header(name, "gauge", "Value of the last XID error encountered.")
    for gpu, text in shown:
        code = gpu.xids.last
        message = escape(XID_TEXT.get(code, "Unknown Error"))
        yield f'{name}{{{text},err_code="{code}",err_msg="{message}"}} {code}\n'


def _xid_counts(shown: Shown, now: float) -> Iterator[str]:
    name = "DCGM_EXP_XID_ERRORS_COUNT"
    window = f'window_size_in_ms="{int(XID_WINDOW_S * 1000)}"'
    yield header(name, "counter", "Count of XID errors within the trailing window.")
    for gpu, text in shown:
        counts = gpu.xids.windowed(now)
        if not counts:
            yield f"{name}{{{text},{window}}} 0\n"
        for xid, count in sorted(counts.items()):
            yield f'{name}{{{text},{window},xid="{xid}"}} {count}\n'
    name = "DCGM_EXP_XID_ERRORS_TOTAL"
    if any(gpu.xids.totals for gpu, _ in shown):
        yield header(name, "counter", "Count of XID errors since the exporter started.")
    for gpu, text in shown:
        for xid, count in sorted(gpu.xids.totals.items()):
            yield f'{name}{{{text},xid="{xid}"}} {count}\n'


def _health(shown: Shown) -> Iterator[str]:
    name = "DCGM_EXP_GPU_HEALTH_STATUS"
    yield header(name, "counter", "Health status that DCGM reports: 0 pass, 10 warn, 20 fail.")
    for gpu, text in shown:
        bad = health_of(gpu)
        for watch in HEALTH_WATCHES:
            code, value = bad.get(watch, ("DCGM_FR_OK", HEALTH_PASS))
            yield f'{name}{{{text},health_error_code="{code}",health_watch="{watch}"}} {value}\n'


def health_of(gpu: Gpu) -> dict[str, tuple[str, int]]:
    """DCGM health watches that are not passing (rules of DCGM's health module)."""
    bad: dict[str, tuple[str, int]] = {}
    if gpu.ecc_dbe_vol:
        bad["MEM"] = ("DCGM_FR_VOLATILE_DBE_DETECTED", HEALTH_FAIL)
    if gpu.remap_failed:
        bad["MEM"] = ("DCGM_FR_ROW_REMAP_FAILURE", HEALTH_FAIL)
    if gpu.links_down:
        bad["NVLINK"] = ("DCGM_FR_NVLINK_DOWN", HEALTH_FAIL)
    if gpu.recovery_action in _RECOVERY_CODES:
        bad["DRIVER"] = (_RECOVERY_CODES[gpu.recovery_action], HEALTH_FAIL)
    if gpu.xids.last in _XID_CODES:
        bad["ALL"] = (_XID_CODES[gpu.xids.last], HEALTH_FAIL)
    return bad


_RECOVERY_CODES = {
    1: "DCGM_FR_GPU_RECOVERY_RESET",
    2: "DCGM_FR_GPU_RECOVERY_REBOOT",
    4: "DCGM_FR_GPU_RECOVERY_DRAIN_RESET",
}
_XID_CODES = {
    48: "DCGM_FR_XID_ERROR",
    74: "DCGM_FR_XID_ERROR",
    79: "DCGM_FR_FALLEN_OFF_BUS",
    95: "DCGM_FR_UNCONTAINED_ERROR",
    119: "DCGM_FR_XID_ERROR",
    120: "DCGM_FR_XID_ERROR",
}
