"""One GPU: identity, counters that NVML would show, and the XIDs the driver reported on it."""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections import Counter
from dataclasses import dataclass, field

from simfleet.skus import Sku

XID_WINDOW_S = 300.0  # dcgm-exporter --xid-count-window-size, default 300000 ms
XIDS_KEPT = 200
# PCI buses of the eight GPUs of an HGX board, as lspci usually lists them.
PCI_BUSES = ("19", "3b", "4c", "5d", "9b", "bb", "cb", "db")

# Text that the driver gives with each code (NVIDIA Xid catalogue).
XID_TEXT = {
    0: "No Error",
    13: "Graphics Engine Exception",
    31: "GPU memory page fault",
    48: "Double Bit ECC Error",
    63: "GPU memory remapping event",
    64: "GPU memory remapping failure",
    74: "NVLINK Error",
    79: "GPU has fallen off the bus",
    94: "Contained memory error",
    95: "Uncontained memory error",
    119: "GSP RPC Timeout",
    120: "GSP Error",
}


@dataclass(slots=True)
class XidLog:
    """XIDs as an exporter sees them: sticky last value, trailing window, totals since its start."""

    last: int = 0
    recent: list[tuple[float, int]] = field(default_factory=list)
    totals: Counter[int] = field(default_factory=Counter)

    def add(self, at: float, xid: int) -> None:
        """One XID reported by the driver at unix time `at`."""
        self.last = xid
        self.recent = [*self.recent[-XIDS_KEPT:], (at, xid)]
        self.totals[xid] += 1

    def windowed(self, now: float) -> dict[int, int]:
        """Count by code within the exporter's trailing window."""
        return dict(Counter(xid for at, xid in self.recent if now - at <= XID_WINDOW_S))

    def forget(self) -> None:
        """What a restart of the exporter or driver does: the last value and counts are gone."""
        self.last = 0
        self.recent = []
        self.totals = Counter()


@dataclass(slots=True)
class Gpu:
    """State of one GPU; counters are cumulative, `*_vol` since the last reset."""

    index: int
    uuid: str
    pci_bus_id: str
    serial: str
    sku: Sku
    xids: XidLog = field(default_factory=XidLog)
    on_bus: bool = True
    lost_at: float = 0.0
    vanish_after_s: float = 0.0
    temp_c: int | None = None  # forced temperature; None = follows the load
    ecc_sbe_vol: int = 0
    ecc_dbe_vol: int = 0
    ecc_sbe_agg: int = 0
    ecc_dbe_agg: int = 0
    remapped_uncorrectable: int = 0
    remapped_correctable: int = 0
    remap_pending: bool = False
    remap_failed: bool = False
    nvlink_crc_flit: int = 0
    nvlink_crc_data: int = 0
    nvlink_replay: int = 0
    nvlink_recovery: int = 0
    links_down: int = 0
    pcie_replay: int = 0
    thermal_violation_ns: int = 0
    recovery_action: int = 0  # 0 none, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset
    energy_mj: float = 0.0
    nvlink_mb: float = 0.0
    metered_at: float = 0.0

    def reset(self) -> None:
        """What a GPU reset (or driver reload) does: volatile state goes, the aggregate stays."""
        self.ecc_sbe_vol = self.ecc_dbe_vol = 0
        self.nvlink_crc_flit = self.nvlink_crc_data = 0
        self.nvlink_replay = self.nvlink_recovery = 0
        self.links_down = 0
        self.remap_pending = False
        self.recovery_action = 0
        self.pcie_replay = 0

    def came_back(self) -> None:
        """What a power cycle does on top of a reset: the card enumerates again."""
        self.reset()
        self.on_bus = True
        self.lost_at = 0.0
        self.thermal_violation_ns = 0
        self.energy_mj = self.nvlink_mb = 0.0
        self.xids.forget()

    def power_w(self, wobble: float, *, busy: bool) -> float:
        """Power draw; `wobble` in 0..1 moves it a little."""
        base = self.sku.busy_w if busy else self.sku.idle_w
        return base * (0.97 + 0.04 * wobble)

    def meter(self, now: float, *, busy: bool) -> None:
        """Let the energy and NVLink counters grow up to `now`."""
        elapsed = max(0.0, now - self.metered_at) if self.metered_at else 0.0
        self.metered_at = now
        self.energy_mj += elapsed * self.power_w(0.5, busy=busy) * 1000
        if busy:
            self.nvlink_mb += elapsed * 11_000 * (self.sku.nvlinks - self.links_down) / 18


def _digest(*parts: object) -> bytes:
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()


def make_gpu(seed: int, node: str, index: int, sku: Sku) -> Gpu:
    """A healthy GPU whose identity depends only on seed, node and slot."""
    digest = _digest(seed, node, index)
    domain, slot = divmod(index, len(PCI_BUSES))
    return Gpu(
        index=index,
        uuid=f"GPU-{uuid.UUID(bytes=digest[:16])}",
        pci_bus_id=f"{domain:08X}:{PCI_BUSES[slot].upper()}:00.0",
        serial=str(1_650_000_000_000 + int.from_bytes(digest[16:20], "big")),
        sku=sku,
    )


def wobble(identity: str, now: float, period_s: float = 5.0) -> float:
    """A repeatable number in 0..1 which changes every `period_s`: the fleet's only noise."""
    return (zlib.crc32(f"{identity}/{int(now / period_s)}".encode()) & 0xFFFF) / 0xFFFF
