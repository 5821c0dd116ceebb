"""What makes the API a cluster: controllers and kubelets, each of which can be left out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from simfleet.kube.budgets import BudgetCounter
from simfleet.kube.garbage import GarbageCollector, NamespaceKeeper
from simfleet.kube.kubelet import Kubelet, KubeletSettings
from simfleet.kube.machines import Machine
from simfleet.kube.nodelife import NodeMonitor, NodeTaints, PodsOfLostNodes
from simfleet.kube.scheduler import Scheduler
from simfleet.kube.store import Change, Store
from simfleet.kube.workloads import DaemonSets, ReplicaSets

log = logging.getLogger(__name__)


class Controller(Protocol):
    """Something that follows the store and acts on it."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds whose changes it wants to hear of."""

    def changed(self, change: Change) -> None:
        """Take note of a change."""

    def sync(self) -> None:
        """Act on what was noted."""


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """Which parts run, and how long things take in simulated seconds.

    `controllers` are names of `CONTROLLERS`; `cordon_taint_s` is the delay of the taint after a
    cordon, `node_grace_s` how long a silent kubelet is waited for.
    """

    controllers: frozenset[str] = frozenset()
    cordon_taint_s: float = 0.2
    node_grace_s: float = 40.0
    kubelet: KubeletSettings = field(default_factory=KubeletSettings)


CONTROLLERS = frozenset(
    {
        "budgets",
        "daemonsets",
        "garbage",
        "kubelet",
        "lostpods",
        "monitor",
        "namespaces",
        "replicasets",
        "scheduler",
        "taints",
    }
)
EVERYTHING_LIVE = LiveSettings(CONTROLLERS)


class Live:
    """Runs the controllers over a store: `start()`, later `await stop()`."""

    def __init__(
        self,
        store: Store,
        *,
        machines: Mapping[str, Machine] | None = None,
        settings: LiveSettings = EVERYTHING_LIVE,
    ) -> None:
        self._store = store
        self._settings = settings
        self.kubelet = Kubelet(store, machines, settings.kubelet)
        made: dict[str, Controller] = {
            "namespaces": NamespaceKeeper(store),
            "garbage": GarbageCollector(store),
            "taints": NodeTaints(store, settings.cordon_taint_s),
            "monitor": NodeMonitor(store, self.kubelet.silent_s, settings.node_grace_s),
            "lostpods": PodsOfLostNodes(store),
            "daemonsets": DaemonSets(store),
            "replicasets": ReplicaSets(store),
            "scheduler": Scheduler(store),
            "kubelet": self.kubelet,
            "budgets": BudgetCounter(store),
        }
        self.controllers = {name: one for name, one in made.items() if name in settings.controllers}
        self._subscription = store.subscribe()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin: every object that exists counts as new."""
        for change in self._existing():
            self._tell(change)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End the controllers and all running pods."""
        self._subscription.close()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.kubelet.stop()

    def settle(self) -> None:
        """Let the controllers act on all that has happened, until nothing follows."""
        for _ in range(100):
            changes = self._subscription.drain()
            for change in changes:
                self._tell(change)
            self._sync()
            if not changes:
                return

    def _existing(self) -> list[Change]:
        order = ("Namespace", "Node", "DaemonSet", "ReplicaSet", "Pod", "PodDisruptionBudget")
        return [
            Change(
                int(obj["metadata"]["resourceVersion"]),
                "ADDED",
                kind,
                obj["metadata"].get("namespace", ""),
                obj["metadata"]["name"],
                obj,
                None,
            )
            for kind in order
            for obj in self._store.list(kind)
        ]

    def _tell(self, change: Change) -> None:
        for controller in self.controllers.values():
            if change.kind in controller.kinds:
                controller.changed(change)

    def _sync(self) -> None:
        for controller in self.controllers.values():
            controller.sync()

    async def _run(self) -> None:
        tick_s = self._settings.kubelet.tick_s
        next_tick = self._store.clock.elapsed_s()
        while True:
            self.settle()
            if self._store.clock.elapsed_s() >= next_tick:
                if "kubelet" in self.controllers:
                    self.kubelet.tick()
                next_tick = self._store.clock.elapsed_s() + tick_s
                self.settle()
            # Never a tighter loop than this, however fast the simulated clock runs.
            wait_s = max(0.01, self._store.clock.real_s(min(tick_s, 0.2)))
            try:
                change = await asyncio.wait_for(self._subscription.get(), wait_s)
            except TimeoutError:
                continue
            self._tell(change)
