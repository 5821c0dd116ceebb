"""The node controllers: taints that follow conditions and cordons, pods of lost nodes."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from simfleet.clock import parse_time
from simfleet.kube import deletion, events, placement
from simfleet.kube.defaults import NOT_READY, UNREACHABLE
from simfleet.kube.deletion import DeleteOptions
from simfleet.kube.kinds import NODE, POD
from simfleet.kube.placement import UNSCHEDULABLE
from simfleet.kube.store import Change, Obj, Store

COMPONENT = "node-controller"
TTL_ANNOTATION = "node.alpha.kubernetes.io/ttl"
# Simulated seconds since a node's kubelet was heard of; None for nodes without one.
Silence = Callable[[str], float | None]


def ready_status(node: Obj) -> str | None:
    """`True`, `False`, `Unknown`, or None when nobody has ever said."""
    conditions = node.get("status", {}).get("conditions", [])
    return next((one["status"] for one in conditions if one["type"] == "Ready"), None)


def wanted_taints(node: Obj) -> list[tuple[str, str]]:
    """The taints that the node's state calls for, as (key, effect)."""
    wanted = []
    if node.get("spec", {}).get("unschedulable"):
        wanted.append((UNSCHEDULABLE, "NoSchedule"))
    key = {"False": NOT_READY, "Unknown": UNREACHABLE}.get(ready_status(node) or "")
    if key:
        wanted += [(key, "NoSchedule"), (key, "NoExecute")]
    return wanted


class NodeTaints:
    """Adds and removes the controllers' own taints, one write for each kind of effect.

    A cordon shows its taint `delay_s` simulated seconds later, as on a real cluster.
    """

    kinds = ("Node",)
    OURS = (UNSCHEDULABLE, NOT_READY, UNREACHABLE)

    def __init__(self, store: Store, delay_s: float = 0.2) -> None:
        self._store = store
        self._delay_s = delay_s
        self._due: dict[str, float] = {}

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        if change.type != "DELETED":
            self._due.setdefault(change.name, self._store.clock.elapsed_s() + self._delay_s)

    def sync(self) -> None:
        """Write the taints that are due."""
        now = self._store.clock.elapsed_s()
        for name in [name for name, due in self._due.items() if due <= now]:
            del self._due[name]
            node = self._store.find("Node", "", name)
            if node is not None:
                self.apply(node)

    def apply(self, node: Obj) -> Obj:
        """Bring one node's taints in line with its state."""
        if TTL_ANNOTATION not in (node["metadata"].get("annotations") or {}):
            annotations = (node["metadata"].get("annotations") or {}) | {TTL_ANNOTATION: "0"}
            metadata = node["metadata"] | {"annotations": annotations}
            node = self._store.replace(NODE, node, node | {"metadata": metadata})
        for effect in ("NoSchedule", "NoExecute"):
            node = self._apply_effect(node, effect)
        return node

    def _apply_effect(self, node: Obj, effect: str) -> Obj:
        wanted = [pair for pair in wanted_taints(node) if pair[1] == effect]
        have = node["spec"].get("taints", [])
        kept = [
            one
            for one in have
            if one["effect"] != effect
            or one["key"] not in self.OURS
            or (one["key"], effect) in wanted
        ]
        present = {(one["key"], one["effect"]) for one in kept}
        now = self._store.timestamp()
        added = [
            {"key": key, "effect": effect, "timeAdded": now}
            for key, _ in wanted
            if (key, effect) not in present
        ]
        if not added and len(kept) == len(have):
            return node
        spec = {key: value for key, value in node["spec"].items() if key != "taints"}
        if kept or added:
            spec["taints"] = [*kept, *added]
        return self._store.replace(NODE, node, node | {"spec": spec})


class NodeMonitor:
    """Marks nodes Unknown whose kubelet has been silent for `grace_s` simulated seconds."""

    kinds = ("Node",)

    def __init__(self, store: Store, silence: Silence, grace_s: float = 40.0) -> None:
        self._store = store
        self._silence = silence
        self.grace_s = grace_s

    def changed(self, change: Change) -> None:
        """Silence is no change: `sync` looks at every node."""

    def sync(self) -> None:
        """Mark the silent nodes."""
        for node in list(self._store.objects("Node")):
            silent_s = self._silence(node["metadata"]["name"])
            is_silent = silent_s is not None and silent_s > self.grace_s
            if is_silent and ready_status(node) not in (None, "Unknown"):
                self.mark_unknown(node)

    def mark_unknown(self, node: Obj) -> None:
        """Write all conditions of a node as Unknown."""
        now = self._store.timestamp()
        unknown = {
            "status": "Unknown",
            "reason": "NodeStatusUnknown",
            "message": "Kubelet stopped posting node status.",
            "lastTransitionTime": now,
        }
        conditions = [one | unknown for one in node["status"].get("conditions", [])]
        status = node["status"] | {"conditions": conditions}
        self._store.replace(NODE, node, node | {"status": status})
        name = node["metadata"]["name"]
        text = f"Node {name} status is now: NodeNotReady"
        about: Obj = {"reason": "NodeNotReady", "message": text, "component": COMPONENT}
        events.record(self._store, "Node", node, **about)


class PodsOfLostNodes:
    """Makes pods unready on nodes that are not, and ends those that do not tolerate it.

    Pods bound to a node that is gone are removed, as the pod garbage collector does.
    """

    kinds = ("Node", "Pod")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: set[str] = set()

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        if change.kind == "Node":
            self._dirty.add(change.name)
            return
        node, before = change.obj["spec"].get("nodeName"), change.previous
        is_new = before is None or before["spec"].get("nodeName") != node
        if node and is_new and change.type != "DELETED":
            self._dirty.add(node)

    def sync(self) -> None:
        """Look at the pods of every node that changed, or has taints that drive pods out."""
        again: set[str] = set()
        for name in sorted(self._dirty):
            node = self._store.find("Node", "", name)
            pods = self._store.pods_on(name)
            if node is None:
                for pod in pods:
                    deletion.delete(self._store, POD, pod, DeleteOptions(grace_s=0))
                continue
            if ready_status(node) not in (None, "True"):
                self._make_unready(pods)
            if self._drive_out(node):
                again.add(name)
        self._dirty = again

    def _make_unready(self, pods: list[Obj]) -> None:
        for pod in pods:
            conditions = pod["status"].get("conditions", [])
            if not any(one["type"] == "Ready" and one["status"] == "True" for one in conditions):
                continue
            changed = [
                one | {"status": "False", "lastTransitionTime": self._store.timestamp()}
                if one["type"] == "Ready"
                else one
                for one in conditions
            ]
            status = pod["status"] | {"conditions": changed}
            self._store.replace(POD, pod, pod | {"status": status})
            about: Obj = {"reason": "NodeNotReady", "message": "Node is not ready"}
            events.record(self._store, "Pod", pod, **about, component=COMPONENT, warning=True)

    def _drive_out(self, node: Obj) -> bool:
        """Delete pods whose time under a NoExecute taint is over; True when some still wait."""
        taints = [one for one in node["spec"].get("taints", []) if one["effect"] == "NoExecute"]
        waiting = False
        for pod in self._store.pods_on(node["metadata"]["name"]) if taints else []:
            if "deletionTimestamp" in pod["metadata"]:
                continue
            spans = [_tolerated_s(pod["spec"], taint) for taint in taints]
            left_s = min(
                span - self._store.clock.since_s(since)
                for span, since in zip(spans, map(_added, taints), strict=True)
            )
            if left_s <= 0:
                self._evict(pod)
            waiting |= 0 < left_s < math.inf
        return waiting

    def _evict(self, pod: Obj) -> None:
        namespace, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
        # The taint manager names the pod only: it has no uid at hand.
        events.record(
            self._store,
            "Pod",
            {"metadata": {"namespace": namespace, "name": name}},
            reason="TaintManagerEviction",
            message=f"Marking for deletion Pod {namespace}/{name}",
            component="taint-eviction-controller",
        )
        condition = {
            "type": "DisruptionTarget",
            "observedGeneration": pod["metadata"].get("generation", 1),
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": self._store.timestamp(),
            "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint",
        }
        conditions = [*pod["status"].get("conditions", []), condition]
        status = pod["status"] | {"conditions": conditions}
        pod = self._store.replace(POD, pod, pod | {"status": status})
        deletion.delete(self._store, POD, pod, DeleteOptions())


def _added(taint: Mapping[str, Any]) -> datetime:
    """When a taint was set; taints without a date count from the beginning of time."""
    return parse_time(taint.get("timeAdded") or "1970-01-01T00:00:00Z")


def _tolerated_s(pod_spec: Obj, taint: Mapping[str, Any]) -> float:
    """For how many seconds a pod tolerates a taint: 0 if not at all, inf if for ever."""
    covering = [one for one in pod_spec.get("tolerations", []) if placement.covers(one, taint)]
    spans = [one.get("tolerationSeconds") for one in covering]
    if not covering:
        return 0.0
    return min((float(span) for span in spans if span is not None), default=math.inf)
