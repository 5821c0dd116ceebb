"""One machine: its GPUs, what is broken in it, and what repairs really do to it.

The kubelet of the simulated cluster talks to a `SimMachine`; telemetry reads it; faults and
repairs change it. Nothing here knows Kubernetes beyond the pod dict handed to `run`.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from typing import Any

from simfleet.commands import run_pod
from simfleet.faults import (
    ActiveFault,
    FaultKind,
    FaultOptions,
    Link,
    Repair,
    Scope,
    fault_named,
)
from simfleet.gpu import Gpu, make_gpu
from simfleet.hardware import GpuPod, NodeSpec
from simfleet.kube.machines import Execution
from simfleet.world import World

VALIDATOR_APP = "nvidia-operator-validator"
# The k8s device plugin (v0.20) marks a device unhealthy on any XID but these, and never takes
# that back until it restarts.
XIDS_PLUGIN_IGNORES = frozenset({13, 31, 43, 45, 68, 109})


class SimMachine:
    """The hardware and host software of one node."""

    def __init__(self, spec: NodeSpec, world: World) -> None:
        self.spec = spec
        self.world = world
        count = spec.gpus if spec.sku else 0
        self.gpus = [make_gpu(world.seed, spec.name, i, spec.sku) for i in range(count) if spec.sku]
        self.faults: list[ActiveFault] = []
        self.boots = 0
        self.boot_id = self._next_boot_id()
        self.boot_time = world.now() - 86_400 * 9
        self.driver_version = spec.driver_version
        self.labels: dict[str, str] = {}  # dynamic node labels (driver rollout)
        self.rebooting = False
        self.dead = False  # powered, but never comes up
        self.kubelet_alive = True
        self.exporter_up = True
        self.exporter_hangs = False
        self.series_frozen = False
        self.series_missing: frozenset[int] = frozenset()
        self.unhealthy: set[int] = set()
        self.enumerated = set(range(count))
        self.holders: dict[int, GpuPod] = {}
        self.who_runs: Callable[[], Iterable[GpuPod]] | None = None
        self.diag_until = 0.0
        self.cordoned = spec.cordoned
        self._returning: list[ActiveFault] = []

    # ---- what the kubelet asks

    def is_up(self) -> bool:
        return self.is_powered() and self.kubelet_alive

    def is_powered(self) -> bool:
        """Whether the operating system runs, whatever the kubelet does."""
        return not self.rebooting and not self.dead

    def allocatable_gpus(self) -> int:
        return len(self.enumerated - self.unhealthy)

    def plugin_restarted(self) -> None:
        self.repair(Repair.PLUGIN_RESTART)

    def run(self, pod: dict[str, Any]) -> Execution | None:
        if self.who_runs is not None:
            self.place(self.who_runs())
        return run_pod(self, pod)

    def slowed(self, link: Link, gpu: int | None = None) -> float:
        """The share of its bandwidth that a link has: of one GPU's, or of the slowest one's."""
        kinds = (f.kind.slows for f in self.faults if gpu is None or f.gpu in {gpu, None})
        return min((slow[1] for slow in kinds if slow and slow[0] is link), default=1.0)

    def init_blocked(self, pod: dict[str, Any]) -> str:
        """The init container of the GPU operator's validator that does not complete now."""
        if (pod["metadata"].get("labels") or {}).get("app") != VALIDATOR_APP:
            return ""
        blocked = next((f.kind.blocks_init for f in self.faults if f.kind.blocks_init), "")
        if blocked or self.allocatable_gpus():
            return blocked
        return "plugin-validation"

    # ---- who holds which GPU

    def place(self, pods: Iterable[GpuPod]) -> None:
        """Give GPUs to the pods running here now; a pod keeps the ones it has."""
        wanted = {pod.uid: pod for pod in pods}
        self.holders = {i: pod for i, pod in self.holders.items() if pod.uid in wanted}
        held = {pod.uid for pod in self.holders.values()}
        free = [i for i in sorted(self.enumerated - self.unhealthy) if i not in self.holders]
        for pod in wanted.values():
            if pod.uid not in held:
                for index in free[: pod.gpus]:
                    self.holders[index] = pod
                free = free[pod.gpus :]

    # ---- faults

    def break_it(self, kind: FaultKind | str, options: FaultOptions | None = None) -> ActiveFault:
        """Start a fault here now; ValueError when this machine cannot have it."""
        kind = fault_named(kind) if isinstance(kind, str) else kind
        options = options or FaultOptions()
        if kind.scope is Scope.GPU and options.gpu not in range(len(self.gpus)):
            raise ValueError(f"{self.spec.name} has no GPU {options.gpu}")
        fault = ActiveFault(kind, options, since=self.world.now())
        self._start(fault)
        return fault

    def _start(self, fault: ActiveFault) -> None:
        self.faults.append(fault)
        self.world.note(self.spec.name, "fault", fault=fault.kind.name, gpu=fault.gpu)
        fault.kind.symptoms(self, fault)
        if fault.lasts_s is not None:
            self.world.agenda.after(fault.lasts_s, lambda: self._gone_by_itself(fault))

    def _gone_by_itself(self, fault: ActiveFault) -> None:
        if fault in self.faults:
            self._over(fault, "by itself")
            self._restore_card(fault)

    def _over(self, fault: ActiveFault, why: str) -> None:
        if fault not in self.faults:
            return
        self._end(fault, why)
        self._expect_again(fault)

    def _end(self, fault: ActiveFault, why: str) -> None:
        self.faults.remove(fault)
        fault.kind.relief(self, fault)
        name = fault.kind.name
        self.world.note(self.spec.name, "cleared", fault=name, gpu=fault.gpu, by=why)

    def _expect_again(self, fault: ActiveFault) -> None:
        if fault.again_after_s is None or fault.options.times == 0:
            return
        if fault.options.again_on == "uncordon" and self.cordoned:
            self._returning.append(fault)
        else:
            self._schedule_again(fault)

    def _schedule_again(self, fault: ActiveFault) -> None:
        again = fault.again(self.world.now())
        self.world.agenda.after(fault.again_after_s or 0.0, lambda: self._start(again))

    def heal(self, name: str | None = None) -> int:
        """Hands and parts: end all faults (or those called `name`) for good; returns how many."""
        self._returning = [f for f in self._returning if name and f.kind.name != name]
        ending = [f for f in self.faults if name in {None, f.kind.name}]
        for fault in ending:
            self._end(fault, "replaced")
            self._restore_card(fault)
        return len(ending)

    def _restore_card(self, fault: ActiveFault) -> None:
        if fault.gpu is None or fault.kind.finding is None:
            return  # nothing in the card was broken
        index, gpu = fault.gpu, self.gpus[fault.gpu]
        gpu.came_back()
        gpu.remap_failed = False
        gpu.remapped_uncorrectable = gpu.ecc_dbe_agg = gpu.ecc_sbe_agg = 0
        self.enumerated.add(index)
        self.unhealthy.discard(index)

    def set_cordoned(self, *, cordoned: bool) -> None:
        """Tell the machine whether it takes work again: some faults come back only then."""
        returned = self.cordoned and not cordoned
        self.cordoned = cordoned
        if returned:
            for fault in self._returning:
                self._schedule_again(fault)
            self._returning = []

    def report_xid(self, gpu: Gpu, xid: int) -> None:
        """The driver reports an XID: exporter and device plugin both hear of it."""
        gpu.xids.add(self.world.now(), xid)
        if xid not in XIDS_PLUGIN_IGNORES:
            self.unhealthy.add(gpu.index)

    # ---- repairs

    def repair(self, repair: Repair, gpus: Iterable[int] | None = None) -> None:
        """Do what the repair physically does, then end the faults that it cures."""
        indexes = sorted(range(len(self.gpus)) if gpus is None else gpus)
        self.world.note(self.spec.name, repair.value, gpus=indexes)
        self._physical(repair, indexes)
        for fault in tuple(self.faults):
            if repair.touches(fault, indexes):
                if repair in fault.kind.cleared_by:
                    self._over(fault, repair.value)
                elif repair in {Repair.GPU_RESET, Repair.REBOOT} and not fault.kind.once:
                    fault.kind.symptoms(self, fault)

    def _physical(self, repair: Repair, indexes: list[int]) -> None:
        if repair is Repair.GPU_RESET:
            for index in indexes:
                self.gpus[index].reset()
        if repair is Repair.REBOOT:
            for gpu in self.gpus:
                gpu.came_back()
            self.exporter_up, self.exporter_hangs = True, False
            self.kubelet_alive = True
        if repair in {Repair.EXPORTER_RESTART, Repair.REBOOT}:
            self.series_frozen, self.series_missing = False, frozenset()
            for gpu in self.gpus:
                gpu.xids.forget()
        if repair in {Repair.PLUGIN_RESTART, Repair.REBOOT}:
            self.unhealthy = set()
            self.enumerated = {gpu.index for gpu in self.gpus if gpu.on_bus}

    def reboot(self, *, power_cycle: bool = False) -> None:
        """Go down now and, unless something holds it, come back after the boot time."""
        if self.rebooting:
            return
        self.rebooting = True
        self.holders = {}
        self.world.note(self.spec.name, "reboot_started", power_cycle=power_cycle)
        stuck = any(f.kind.holds_boot for f in self.faults) and not power_cycle
        if stuck:
            self.dead = True
            self.rebooting = False
            self.world.note(self.spec.name, "reboot_stuck")
            return
        self.world.agenda.after(self.world.takes("reboot"), self._booted)

    def _booted(self) -> None:
        self.rebooting = self.dead = False
        self.boots += 1
        self.boot_id = self._next_boot_id()
        self.boot_time = self.world.now()
        self.repair(Repair.REBOOT)

    def _next_boot_id(self) -> str:
        return str(
            uuid.uuid5(uuid.NAMESPACE_OID, f"{self.world.seed}/{self.spec.name}/{self.boots}")
        )

    # ---- truth, for the control API

    def truth(self) -> dict[str, Any]:
        """What is really the case here, as JSON-ready data."""
        return {
            "node": self.spec.name,
            "pool": self.spec.pool,
            "rack": self.spec.rack,
            "sku": self.spec.sku.product if self.spec.sku else "",
            "up": self.is_up(),
            "state": self.power_state(),
            "boot_id": self.boot_id,
            "boot_time": self.boot_time,
            "reboots": self.boots,
            "gpus": len(self.gpus),
            "allocatable_gpus": self.allocatable_gpus(),
            "unhealthy_gpus": sorted(self.unhealthy),
            "driver_version": self.driver_version,
            "faults": [fault.as_dict() for fault in self.faults],
            "comes_again": [fault.as_dict() for fault in self._returning],
        }

    def power_state(self) -> str:
        """One word for people: up, rebooting, dead or kubelet-dead."""
        if self.rebooting:
            return "rebooting"
        if self.dead:
            return "dead"
        return "up" if self.kubelet_alive else "kubelet-dead"
