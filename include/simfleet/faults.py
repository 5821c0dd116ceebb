"""Faults as data: what each one shows, which repair ends it, and what the diagnostics say.

Codes, repairs and device-plugin behaviour: NVIDIA Xid catalogue (79 restart the machine, 48 and
95 reset, 74 NVLink workflow, 63 a reset applies the remap, 64 with a failed remap is hardware,
13 and 31 are the application's) and DCGM 4.6.0 error table (ids and severities of `Finding`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from simfleet import symptoms

if TYPE_CHECKING:
    from simfleet.machine import SimMachine


class Scope(StrEnum):
    """What a fault hits."""

    GPU = "gpu"
    NODE = "node"
    RACK = "rack"


class Link(StrEnum):
    """What a fault can slow down."""

    NVLINK = "nvlink"
    PCIE = "pcie"


class Repair(StrEnum):
    """What can be done to a machine."""

    GPU_RESET = "gpu_reset"
    REBOOT = "reboot"
    PLUGIN_RESTART = "plugin_restart"
    EXPORTER_RESTART = "exporter_restart"
    DRIVER_ROLLBACK = "driver_rollback"

    def touches(self, fault: ActiveFault, gpus: list[int]) -> bool:
        """Whether this repair, done to these GPUs, reaches the fault at all."""
        return self is not Repair.GPU_RESET or fault.gpu is None or fault.gpu in gpus


class FaultOptions(BaseModel):
    """Knobs of a fault, from the command line, a scenario or the control API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    gpu: int = Field(default=0, ge=0, description="GPU index, for faults of one GPU")
    lasts_s: float | None = Field(default=None, gt=0, description="ends by itself after this")
    vanish_after_s: float = Field(
        default=30.0, ge=0, description="a lost GPU's XID series stay this long, then vanish"
    )
    fails_again_after_s: float | None = Field(
        default=None, ge=0, description="comes back this long after the right repair"
    )
    again_on: Literal["repair", "uncordon"] = Field(
        default="uncordon", description="what that time is counted from"
    )
    times: int = Field(default=-1, ge=-1, description="how often it comes back; -1 = always")
    every_s: float = Field(default=5.0, gt=0, description="between repeated events")
    count: int = Field(default=1, ge=1, description="repeated events")
    temp_c: int = Field(default=83, ge=20, le=120, description="temperature of `hot`")
    mode: Literal["frozen", "vanish"] = Field(default="frozen", description="of `stale_series`")
    driver: str = Field(default="590.12.01", description="version that a rollout installs")
    upgrade_state: str = Field(default="", description="nvidia.com/gpu-driver-upgrade-state")
    stagger_s: float = Field(default=1.0, ge=0, description="between nodes of a rack")


@dataclass(frozen=True, slots=True)
class Finding:
    """What `dcgmi diag` reports while a fault is there, from run level `level` on."""

    level: int
    test: str
    error_id: int
    severity: int
    category: int
    text: str  # {gpu} stands for the index


def _nothing(_machine: SimMachine, _fault: ActiveFault) -> None:
    """No effect of its own."""


@dataclass(frozen=True, slots=True)
class FaultKind:
    """One kind of trouble."""

    name: str
    what: str
    scope: Scope
    cleared_by: frozenset[Repair]
    symptoms: Callable[[SimMachine, ActiveFault], None]
    relief: Callable[[SimMachine, ActiveFault], None] = _nothing
    finding: Finding | None = None
    again_after_s: float | None = None
    holds_boot: bool = False
    hangs_dcgm: bool = False
    once: bool = False  # a repair does not bring its symptoms back
    slows: tuple[Link, float] | None = None  # which links, to which share of their bandwidth
    diag_exit: int = 0  # what every diagnostic ends with, without running
    blocks_init: str = ""  # init container of the operator's validator that never completes


@dataclass(slots=True, eq=False)
class ActiveFault:
    """A fault that is there now."""

    kind: FaultKind
    options: FaultOptions
    since: float

    @property
    def gpu(self) -> int | None:
        """Index of the GPU it is on; None for a fault of the node."""
        return self.options.gpu if self.kind.scope is Scope.GPU else None

    @property
    def lasts_s(self) -> float | None:
        """Real seconds after which it ends without help."""
        return self.options.lasts_s

    @property
    def again_after_s(self) -> float | None:
        """Real seconds after which it returns; None when a repair holds."""
        own = self.options.fails_again_after_s
        return self.kind.again_after_s if own is None else own

    def again(self, now: float) -> ActiveFault:
        """The same fault, come back."""
        left = self.options.times
        options = self.options.model_copy(update={"times": left - 1 if left > 0 else left})
        return ActiveFault(self.kind, options, since=now)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready description."""
        return {
            "fault": self.kind.name,
            "gpu": self.gpu,
            "since": self.since,
            "cleared_by": sorted(self.kind.cleared_by),
            "comes_again": self.again_after_s is not None and self.options.times != 0,
        }


RESET_OR_REBOOT = frozenset({Repair.GPU_RESET, Repair.REBOOT})
REBOOT_ONLY = frozenset({Repair.REBOOT})
EXPORTER_OR_REBOOT = frozenset({Repair.EXPORTER_RESTART, Repair.REBOOT})
NO_REPAIR: frozenset[Repair] = frozenset()

OFF_BUS = Finding(1, "software", 120, 2, 15, "GPU {gpu} has fallen off the bus")
DBE = Finding(2, "memory", 4, 2, 10, "Detected volatile double-bit ECC errors in GPU {gpu}")
UNCONTAINED = Finding(2, "memory", 81, 2, 5, "GPU {gpu} had an uncontained error (XID 95)")
NVLINK_DOWN = Finding(2, "pcie", 14, 4, 11, "GPU {gpu}'s NvLink link 3 is currently down")
REMAP_PENDING = Finding(
    1, "software", 85, 6, 10, "GPU {gpu} had memory errors and row remappings are pending"
)
REMAP_FAILED = Finding(
    1, "software", 80, 6, 10, "GPU {gpu} had uncorrectable memory errors and row remapping failed"
)
COUNT_SHORT = Finding(1, "software", 20, 5, 8, "NVML and /dev disagree on the number of GPUs")
MISMATCH = Finding(2, "memory", 58, 2, 10, "A memory mismatch was detected on GPU {gpu}")
LINK_NOISE = Finding(2, "pcie", 117, 1, 11, "GPU {gpu} replays more PCIe packets than usual")
GSP_XID = Finding(2, "memory", 101, 4, 5, "Detected XID 119 on GPU {gpu}")

_GPU_KINDS = (
    FaultKind("xid79", "GPU falls off the bus, its series vanish", Scope.GPU,
              REBOOT_ONLY, symptoms.off_the_bus, finding=OFF_BUS),
    FaultKind("lemon", "as xid79, and again after each return", Scope.GPU,
              REBOOT_ONLY, symptoms.off_the_bus, finding=OFF_BUS, again_after_s=5.0),
    FaultKind("xid48", "double-bit ECC error", Scope.GPU,
              RESET_OR_REBOOT, symptoms.double_bit, finding=DBE),
    FaultKind("ecc_dbe", "double-bit ECC count without an XID", Scope.GPU,
              RESET_OR_REBOOT, symptoms.double_bit_silent, finding=DBE),
    FaultKind("xid95", "uncontained memory error", Scope.GPU,
              RESET_OR_REBOOT, symptoms.uncontained, finding=UNCONTAINED),
    FaultKind("xid74", "NVLink error", Scope.GPU,
              RESET_OR_REBOOT, symptoms.nvlink_error, finding=NVLINK_DOWN),
    FaultKind("nvlink_down", "an NVLink is down, no XID", Scope.GPU,
              RESET_OR_REBOOT, symptoms.nvlink_down, finding=NVLINK_DOWN),
    FaultKind("xid63", "row remap waits for a reset", Scope.GPU,
              RESET_OR_REBOOT, symptoms.remap_pending, finding=REMAP_PENDING),
    FaultKind("xid64", "row remap failed: the card must go", Scope.GPU,
              NO_REPAIR, symptoms.remap_failed, finding=REMAP_FAILED),
    FaultKind("bad_memory", "XID 95 after every reset: the card must go", Scope.GPU,
              NO_REPAIR, symptoms.uncontained, finding=MISMATCH),
    FaultKind("gpu_missing", "one GPU fewer, without an XID", Scope.GPU,
              REBOOT_ONLY, symptoms.missing, finding=COUNT_SHORT),
    FaultKind("hot", "hot, and nothing else", Scope.GPU,
              NO_REPAIR, symptoms.hot, symptoms.cooled),
    FaultKind("app_xid13", "the application's graphics exception", Scope.GPU,
              NO_REPAIR, symptoms.app_xid13, once=True),
    FaultKind("app_xid31", "the application's page fault", Scope.GPU,
              NO_REPAIR, symptoms.app_xid31, once=True),
    FaultKind("slow_nvlink", "NVLink at 60 %, and nothing else shows it", Scope.GPU,
              REBOOT_ONLY, symptoms.nothing_yet, slows=(Link.NVLINK, 0.6)),
    FaultKind("slow_pcie", "half of the PCIe lanes, and nothing else shows it", Scope.GPU,
              REBOOT_ONLY, symptoms.nothing_yet, slows=(Link.PCIE, 0.5)),
    FaultKind("noisy_link", "a PCIe link that a diagnostic only remarks on", Scope.GPU,
              NO_REPAIR, symptoms.nothing_yet, finding=LINK_NOISE),
)  # fmt: skip
_NODE_KINDS = (
    FaultKind("not_ready", "the kubelet is dead", Scope.NODE,
              REBOOT_ONLY, symptoms.kubelet_dies, symptoms.kubelet_lives),
    FaultKind("exporter_gone", "dcgm-exporter does not answer", Scope.NODE,
              EXPORTER_OR_REBOOT, symptoms.exporter_dies, symptoms.exporter_lives),
    FaultKind("dcgm_hung", "DCGM and its exporter hang", Scope.NODE,
              EXPORTER_OR_REBOOT, symptoms.exporter_hangs, symptoms.exporter_lives,
              hangs_dcgm=True),
    FaultKind("stale_series", "series freeze or half of them vanish", Scope.NODE,
              EXPORTER_OR_REBOOT, symptoms.series_stall, symptoms.series_flow),
    FaultKind("bad_driver", "a driver version that brings GSP timeouts", Scope.NODE,
              frozenset({Repair.DRIVER_ROLLBACK}), symptoms.bad_driver, symptoms.old_driver,
              finding=GSP_XID),
    FaultKind("reboot_hangs", "the next reboot never ends", Scope.NODE,
              NO_REPAIR, symptoms.nothing_yet, symptoms.powered_again, holds_boot=True),
    FaultKind("diag_busy", "another diagnostic runs", Scope.NODE,
              NO_REPAIR, symptoms.nothing_yet, diag_exit=217),
    FaultKind("diag_missing", "the image has no diagnostic binary", Scope.NODE,
              NO_REPAIR, symptoms.nothing_yet, diag_exit=204),
    FaultKind("toolkit_broken", "the container toolkit fails at its next start", Scope.NODE,
              NO_REPAIR, symptoms.nothing_yet, blocks_init="toolkit-validation"),
)  # fmt: skip
_RACK_KINDS = (
    FaultKind("bad_driver_rollout", "bad_driver on every node of the rack", Scope.RACK,
              NO_REPAIR, symptoms.nothing_yet),
)  # fmt: skip

FAULTS: MappingProxyType[str, FaultKind] = MappingProxyType(
    {kind.name: kind for kind in _GPU_KINDS + _NODE_KINDS + _RACK_KINDS}
)


def fault_named(name: str) -> FaultKind:
    """The kind called `name`; ValueError names the known ones."""
    try:
        return FAULTS[name]
    except KeyError:
        raise ValueError(f"unknown fault {name!r}; known: {', '.join(sorted(FAULTS))}") from None
