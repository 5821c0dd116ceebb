"""A fleet that is alive: machines on one side, the cluster's objects on the other.

`LiveFleet.tick` carries news between the two: what is due happens, cordons reach the machines,
driver versions reach the node labels. Everything runs on the event loop's thread.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Protocol

from simfleet.faults import FaultKind, FaultOptions, Repair, Scope, fault_named
from simfleet.fleet import BudgetConfig, FleetConfig, node_specs
from simfleet.hardware import GpuPod
from simfleet.ksm import KubeStateMetrics, quantity
from simfleet.machine import SimMachine
from simfleet.node_exporter import render_node
from simfleet.objects import (
    EXPORTER,
    GPU_RESOURCE,
    OPERATOR_NAMESPACE,
    budget_spec,
    node_labels,
)
from simfleet.telemetry import DcgmExporter
from simfleet.world import World

Obj = dict[str, Any]


class ObjectStore(Protocol):
    """What is needed of the store behind the simulated Kubernetes API."""

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """One object, or None."""

    def objects(self, kind: str) -> Iterable[Obj]:
        """All objects of a kind."""

    def pods_on(self, node: str) -> list[Obj]:
        """Pods bound to a node."""

    def mutate(
        self, kind: str, namespace: str, name: str, change: Callable[[Obj], Obj | None]
    ) -> Obj:
        """Change a private copy of an object and store it."""


class Unavailable(Exception):
    """A scrape target that does not answer; `hangs` when it keeps the scraper waiting."""

    def __init__(self, why: str, *, hangs: bool = False) -> None:
        super().__init__(why)
        self.hangs = hangs


class LiveFleet:
    """The machines of a fleet, their exporters, and the ways to break and mend them."""

    def __init__(self, config: FleetConfig, world: World, store: ObjectStore) -> None:
        self.config = config
        self.world = world
        self.store = store
        self.machines = {spec.name: SimMachine(spec, world) for spec in node_specs(config)}
        for name, machine in self.machines.items():
            machine.who_runs = partial(self._gpu_pods_on, name)
        self._dcgm = {
            name: DcgmExporter(machine, config.dcgm_fields)
            for name, machine in self.machines.items()
            if machine.gpus
        }
        self._ksm = KubeStateMetrics(store.objects)
        self._shown: dict[str, Mapping[str, str]] = {
            name: node_labels(machine) for name, machine in self.machines.items()
        }
        self._shown_for = {name: _label_key(machine) for name, machine in self.machines.items()}

    # ---- time

    def tick(self) -> None:
        """Let happen what is due, and let cluster and machines hear of each other."""
        self.world.agenda.run_due()
        for name, machine in self.machines.items():
            node = self.store.find("Node", "", name)
            if node is not None:
                machine.set_cordoned(cordoned=bool(node.get("spec", {}).get("unschedulable")))
                if machine.is_up():
                    self._show_labels(machine)

    def _show_labels(self, machine: SimMachine) -> None:
        name, key = machine.spec.name, _label_key(machine)
        if key == self._shown_for[name]:
            return
        self._shown_for[name] = key
        wanted, shown = node_labels(machine), self._shown[name]
        gone = shown.keys() - wanted.keys()
        news = {key: value for key, value in wanted.items() if shown.get(key) != value}

        def relabel(node: Obj) -> None:
            labels = node["metadata"].get("labels", {}) | news
            node["metadata"]["labels"] = {k: v for k, v in labels.items() if k not in gone}

        self.store.mutate("Node", "", name, relabel)
        self._shown[name] = wanted

    # ---- scrapes

    def dcgm(self, node: str) -> str:
        """The node's dcgm-exporter now. Raises KeyError, Unavailable."""
        exporter, machine = self._dcgm[node], self.machines[node]
        if machine.exporter_hangs:
            raise Unavailable("DCGM does not answer", hangs=True)
        if not machine.is_powered() or not machine.exporter_up:
            raise Unavailable("no exporter listens")
        pods = self.store.pods_on(node)
        if not any(_is_exporter(pod) for pod in pods):
            raise Unavailable("no exporter pod runs")
        machine.place(_gpu_pods(pods))
        return exporter.render()

    def node_exporter(self, node: str) -> str:
        """The node's node-exporter now. Raises KeyError, Unavailable."""
        machine = self.machines[node]
        if not machine.is_powered():
            raise Unavailable("the machine is down")
        return render_node(machine)

    def kube_state(self) -> str:
        """The cluster's kube-state-metrics now."""
        return self._ksm.render()

    def exporter_pods(self) -> dict[str, str]:
        """Name of the exporter's pod by node, for the labels of scrape targets."""
        return {
            pod["spec"]["nodeName"]: pod["metadata"]["name"]
            for pod in self.store.objects("Pod")
            if pod["metadata"].get("labels", {}).get("app") == EXPORTER
            and pod["metadata"]["namespace"] == OPERATOR_NAMESPACE
            and pod["spec"].get("nodeName")
        }

    def gpu_nodes(self) -> list[str]:
        """Names of the nodes that have GPUs."""
        return list(self._dcgm)

    def _gpu_pods_on(self, node: str) -> list[GpuPod]:
        return _gpu_pods(self.store.pods_on(node))

    # ---- break and mend

    def machine(self, name: str) -> SimMachine:
        """A machine; ValueError when there is none of that name."""
        try:
            return self.machines[name]
        except KeyError:
            raise ValueError(f"no node {name!r} in this fleet") from None

    def break_node(self, name: str, fault: str, options: FaultOptions | None = None) -> list[str]:
        """Start a fault on a node (or on its whole rack, when that is what breaks)."""
        kind = fault_named(fault)
        if kind.scope is Scope.RACK:
            return self.break_rack(self.machine(name).spec.rack, fault, options)
        self.machine(name).break_it(kind, options)
        return [name]

    def break_rack(self, rack: str, fault: str, options: FaultOptions | None = None) -> list[str]:
        """Start a fault on every node of a rack, one after the other; returns their names."""
        kind, options = fault_named(fault), options or FaultOptions()
        if kind.scope is Scope.RACK:
            kind = fault_named("bad_driver")
        found = [m for m in self.machines.values() if m.spec.rack == rack]
        if not found:
            raise ValueError(f"no rack {rack!r} in this fleet")
        for number, machine in enumerate(found):
            self._break_later(machine, kind, options, number * options.stagger_s)
        return [machine.spec.name for machine in found]

    def _break_later(
        self, machine: SimMachine, kind: FaultKind, options: FaultOptions, delay_s: float
    ) -> None:
        self.world.agenda.after(delay_s, lambda: _broken(machine, kind, options))

    def heal(self, name: str, fault: str | None = None) -> int:
        """End faults of a node for good, as new parts would; returns how many."""
        return self.machine(name).heal(fault)

    def roll_back(self, rack: str) -> list[str]:
        """Put the old driver back on a rack; returns its nodes."""
        found = [m for m in self.machines.values() if m.spec.rack == rack]
        for machine in found:
            machine.repair(Repair.DRIVER_ROLLBACK)
        return [machine.spec.name for machine in found]

    def power_cycle(self, name: str) -> None:
        """Switch a machine off and on from outside, whatever its system does."""
        self.machine(name).reboot(power_cycle=True)

    # ---- what people do to the cluster

    def scale(self, namespace: str, name: str, replicas: int) -> None:
        """Change the number of replicas of a workload."""

        def rescale(obj: Obj) -> None:
            obj["spec"]["replicas"] = replicas

        self.store.mutate("ReplicaSet", namespace, name, rescale)
        self.world.note("", "scaled", workload=f"{namespace}/{name}", replicas=replicas)

    def set_budget(self, namespace: str, name: str, budget: BudgetConfig) -> None:
        """Change a disruption budget."""

        def respec(obj: Obj) -> None:
            obj["spec"] = budget_spec(budget, name)

        self.store.mutate("PodDisruptionBudget", namespace, name, respec)
        self.world.note("", "budget_changed", workload=f"{namespace}/{name}")

    def cordon(self, name: str, *, cordoned: bool = True) -> None:
        """Cordon or uncordon a node as a person with kubectl would."""

        def switch(node: Obj) -> None:
            if cordoned:
                node["spec"]["unschedulable"] = True
            else:
                node["spec"].pop("unschedulable", None)

        self.store.mutate("Node", "", self.machine(name).spec.name, switch)
        self.world.note(name, "cordoned_by_person" if cordoned else "uncordoned_by_person")

    def status(self) -> list[dict[str, Any]]:
        """The truth about every node, with what the cluster says beside it."""
        return [self.node_status(name) for name in self.machines]

    def node_status(self, name: str) -> dict[str, Any]:
        """The truth about one node, with what the cluster says beside it."""
        machine = self.machine(name)
        node = self.store.find("Node", "", name) or {}
        conditions = node.get("status", {}).get("conditions") or []
        ready = next((c["status"] for c in conditions if c["type"] == "Ready"), "Unknown")
        pods = [
            f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
            for pod in self.store.pods_on(name)
            if pod["metadata"]["namespace"] != OPERATOR_NAMESPACE
        ]
        cordoned = bool(node.get("spec", {}).get("unschedulable"))
        return machine.truth() | {"ready": ready, "cordoned": cordoned, "pods": pods}


def _label_key(machine: SimMachine) -> tuple[str, dict[str, str]]:
    """What the labels of a node depend on."""
    return machine.driver_version, dict(machine.labels)


def _broken(machine: SimMachine, kind: FaultKind, options: FaultOptions) -> None:
    machine.break_it(kind, options)


def _is_exporter(pod: Obj) -> bool:
    labels = pod["metadata"].get("labels", {})
    return bool(labels.get("app") == EXPORTER and pod.get("status", {}).get("phase") == "Running")


def _gpu_pods(pods: Iterable[Obj]) -> list[GpuPod]:
    found = []
    for pod in pods:
        if pod.get("status", {}).get("phase") != "Running":
            continue
        for container in pod["spec"]["containers"]:
            limits = (container.get("resources") or {}).get("limits") or {}
            if gpus := int(quantity(limits.get(GPU_RESOURCE, 0))):
                meta = pod["metadata"]
                name = container["name"]
                found.append(GpuPod(meta["uid"], meta["namespace"], meta["name"], name, gpus))
    return found
