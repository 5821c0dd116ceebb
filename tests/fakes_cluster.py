"""A Kubernetes cluster in memory: the `Cluster` port with versions, budgets, evictions and pods.

Time does not move by itself: what a controller or kubelet would do later happens in `settle()`.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from breakfix.errors import ClusterError, Conflict, NotFound
from breakfix.model import Budget, Condition, Event, Node, Owner, Pod, Taint
from breakfix.ports import Eviction, NodePatch

CORDON_TAINT = Taint("node.kubernetes.io/unschedulable", "NoSchedule")


def make_node(name: str = "gpu-1", **changes: Any) -> Node:
    """A Ready node with eight GPUs; `is_ready=False` makes it NotReady."""
    is_ready = changes.pop("is_ready", True)
    defaults: dict[str, Any] = {
        "uid": f"uid-{name}",
        "resource_version": "1",
        "boot_id": f"boot-{name}-1",
        "conditions": (Condition("Ready", "True" if is_ready else "False"),),
        "gpus_allocatable": 8,
        "gpus_capacity": 8,
        "labels": {"nvidia.com/gpu.present": "true"},
        "pool": "train",
        "rack": "r1",
        "sku": "H100",
    }
    return Node(name=name, **{**defaults, **changes})


def make_pod(name: str = "web-1", node: str = "gpu-1", **changes: Any) -> Pod:
    """A ready pod of a ReplicaSet; `owners=()` makes it unmanaged."""
    defaults: dict[str, Any] = {
        "namespace": "work",
        "uid": f"uid-{name}",
        "owners": (Owner("ReplicaSet", "web", "uid-rs"),),
        "labels": {"app": "web"},
    }
    return Pod(name=name, node=node, **{**defaults, **changes})


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """A labelSelector as the API has it: None selects nothing, an empty one everything."""
    if selector is None:
        return False
    if any(labels.get(k) != v for k, v in selector.get("matchLabels", {}).items()):
        return False
    return all(_expression_holds(e, labels) for e in selector.get("matchExpressions", ()))


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    value = labels.get(expression["key"])
    match expression["operator"]:
        case "In":
            return value in expression["values"]
        case "NotIn":
            return value not in expression["values"]
        case "Exists":
            return value is not None
        case _:
            return value is None


@dataclass
class FakeCluster:
    """Fill it with `add_node`, `add_pod`, `add_budget`; break it with `fail` and `before`.

    `calls` has every call as (method, args). `writes()` are those that change something.
    """

    cluster_uid: str = "cluster-uid"
    pods_go_at_once: bool = True  # evicted pods vanish; else they terminate until settle()
    calls: list[tuple[str, tuple[Any, ...]]] = field(default_factory=list)
    before: dict[str, Callable[..., None]] = field(default_factory=dict)  # runs once, ahead of it
    events: list[tuple[str, str, str, bool]] = field(default_factory=list)
    logs: dict[tuple[str, str], str] = field(default_factory=dict)
    exit_codes: dict[tuple[str, str], int] = field(default_factory=dict)
    manifests: dict[tuple[str, str], Mapping[str, Any]] = field(default_factory=dict)
    namespaces: set[str] = field(default_factory=set)
    config_maps: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    sets: set[tuple[str, str]] = field(default_factory=set)
    said: list[Event] = field(default_factory=list)  # what others say of nodes
    now: Callable[[], datetime] | None = None  # pods that terminate then say until when

    def __post_init__(self) -> None:
        self._nodes: dict[str, Node] = {}
        self._pods: dict[tuple[str, str], Pod] = {}
        self._budgets: dict[tuple[str, str], Budget] = {}
        self._failures: dict[str, list[Exception]] = defaultdict(list)
        self._evictions: list[Eviction] = []
        self._versions = itertools.count(100)
        self._lock = threading.RLock()  # evictions come from several threads

    # -- to build and to break

    def add_node(self, name: str = "gpu-1", **changes: Any) -> Node:
        self._nodes[name] = make_node(name, **changes)
        return self._nodes[name]

    def add_pod(self, name: str = "web-1", node: str = "gpu-1", **changes: Any) -> Pod:
        pod = make_pod(name, node, **changes)
        self._pods[pod.namespace, pod.name] = pod
        return pod

    def add_budget(
        self, name: str, match: Mapping[str, str], *, allowed: int, namespace: str = "work"
    ) -> Budget:
        budget = Budget(namespace, name, {"matchLabels": dict(match)}, allowed)
        self._budgets[namespace, name] = budget
        return budget

    def allow(self, name: str, allowed: int, namespace: str = "work") -> None:
        """Change what a budget allows, as the disruption controller would."""
        old = self._budgets[namespace, name]
        self._budgets[namespace, name] = replace(old, allowed=allowed)

    def change_node(self, name: str, **changes: Any) -> Node:
        """Somebody else changes the node: a new resourceVersion."""
        changes.setdefault("resource_version", str(next(self._versions)))
        self._nodes[name] = replace(self._nodes[name], **changes)
        return self._nodes[name]

    def change_pod(self, namespace: str, name: str, **changes: Any) -> Pod:
        self._pods[namespace, name] = replace(self._pods[namespace, name], **changes)
        return self._pods[namespace, name]

    def remove_node(self, name: str) -> None:
        del self._nodes[name]

    def remove_pod(self, namespace: str, name: str) -> None:
        del self._pods[namespace, name]

    def reboot(self, name: str) -> None:
        """The node came back with another boot id."""
        self.change_node(name, boot_id=f"{self._nodes[name].boot_id}+")

    def finish_pod(self, namespace: str, name: str, exit_code: int = 0, log: str = "") -> None:
        phase = "Succeeded" if exit_code == 0 else "Failed"
        self.change_pod(namespace, name, phase=phase, is_ready=False)
        self.exit_codes[namespace, name] = exit_code
        self.logs[namespace, name] = log

    def fail(self, method: str, error: Exception | None = None, times: int = 1) -> None:
        """The next `times` calls of that method raise."""
        error = error or ClusterError("injected failure", is_transient=True)
        self._failures[method] += [error] * times

    def answer_evictions(self, *answers: Eviction) -> None:
        """The next evictions get these answers, and change nothing."""
        self._evictions += answers

    def settle(self) -> None:
        """What controllers and kubelets do a moment later: cordon taints, terminating pods gone."""
        for name, node in list(self._nodes.items()):
            others = tuple(t for t in node.taints if t != CORDON_TAINT)
            wanted = (*others, CORDON_TAINT) if node.is_unschedulable else others
            if set(wanted) != set(node.taints):
                self.change_node(name, taints=wanted)
        gone = [k for k, p in self._pods.items() if p.is_terminating and self._may_go(p)]
        for key in gone:
            del self._pods[key]

    def _may_go(self, pod: Pod) -> bool:
        node = self._nodes.get(pod.node)
        return not pod.finalizers and (node is None or node.is_ready)

    def writes(self) -> list[tuple[str, tuple[Any, ...]]]:
        changing = {"patch_node", "evict", "delete_pod", "create_pod", "mark_pod"}
        return [c for c in self.calls if c[0] in changing]

    def _enter(self, method: str, *args: Any) -> None:
        self.calls.append((method, args))
        hook = self.before.pop(method, None)
        if hook is not None:
            hook()
        if self._failures[method]:
            raise self._failures[method].pop(0)

    # -- the port: reading

    def uid(self) -> str:
        self._enter("uid")
        return self.cluster_uid

    def nodes(self) -> Sequence[Node]:
        self._enter("nodes")
        return tuple(self._nodes.values())

    def node(self, name: str) -> Node:
        self._enter("node", name)
        if name not in self._nodes:
            raise NotFound(f'nodes "{name}" not found')
        return self._nodes[name]

    def pods(self, node: str | None = None) -> Sequence[Pod]:
        self._enter("pods", node)
        return tuple(p for p in self._pods.values() if node is None or p.node == node)

    def pod(self, namespace: str, name: str) -> Pod:
        self._enter("pod", namespace, name)
        if (namespace, name) not in self._pods:
            raise NotFound(f'pods "{name}" not found')
        return self._pods[namespace, name]

    def budgets(self) -> Sequence[Budget]:
        self._enter("budgets")
        return tuple(self._budgets.values())

    def daemon_sets(self) -> frozenset[tuple[str, str]]:
        self._enter("daemon_sets")
        return frozenset(self.sets)

    def node_events(self) -> Sequence[Event]:
        self._enter("node_events")
        return tuple(self.said)

    def pod_log(self, namespace: str, name: str, *, limit_bytes: int = 1 << 20) -> str:
        self._enter("pod_log", namespace, name)
        if (namespace, name) not in self._pods:
            raise NotFound(f'pods "{name}" not found')
        return self.logs.get((namespace, name), "")[:limit_bytes]

    def pod_exit_code(self, namespace: str, name: str) -> int | None:
        self._enter("pod_exit_code", namespace, name)
        if (namespace, name) not in self._pods:
            raise NotFound(f'pods "{name}" not found')
        return self.exit_codes.get((namespace, name))

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        self._enter("config_map", namespace, name)
        data = self.config_maps.get((namespace, name))
        return None if data is None else dict(data)

    # -- the port: writing

    def patch_node(self, name: str, resource_version: str, patch: NodePatch) -> Node:
        self._enter("patch_node", name, resource_version, patch)
        if name not in self._nodes:
            raise NotFound(f'nodes "{name}" not found')
        old = self._nodes[name]
        if old.resource_version != resource_version:
            raise Conflict(f'nodes "{name}": the object has been modified')
        new = replace(
            old,
            is_unschedulable=_or(patch.is_unschedulable, old.is_unschedulable),
            taints=_or(patch.taints, old.taints),
            labels=_merged(old.labels, patch.labels),
            annotations=_merged(old.annotations, patch.annotations),
        )
        if new != old:  # the API server, too, keeps the version of a patch that changes nothing
            new = replace(new, resource_version=str(next(self._versions)))
        self._nodes[name] = new
        return new

    def evict(
        self, namespace: str, name: str, uid: str, *, grace_s: int | None, dry_run: bool = False
    ) -> Eviction:
        self._enter("evict", namespace, name, uid)
        with self._lock:
            return self._evict(namespace, name, uid, grace_s=grace_s, dry_run=dry_run)

    def _evict(
        self, namespace: str, name: str, uid: str, *, grace_s: int | None, dry_run: bool
    ) -> Eviction:
        if self._evictions:
            return self._evictions.pop(0)
        pod = self._pods.get((namespace, name))
        if pod is None:
            return Eviction("gone", f'pods "{name}" not found')
        if pod.uid != uid:
            return Eviction("conflict", "the UID in the precondition does not match")
        budgets = self._budgets_of(pod)
        if len(budgets) > 1:
            return Eviction("error", "This pod has more than one PodDisruptionBudget")
        if budgets and (budgets[0].allowed < 1 or not budgets[0].is_observed):
            return Eviction("blocked", f"The disruption budget {budgets[0].name} does not allow it")
        if not dry_run:
            for budget in budgets:
                self.allow(budget.name, budget.allowed - 1, namespace)
            self._stop(pod, grace_s)
        return Eviction("evicted")

    def delete_pod(self, namespace: str, name: str, uid: str, *, grace_s: int | None) -> bool:
        self._enter("delete_pod", namespace, name, uid)
        pod = self._pods.get((namespace, name))
        if pod is None or pod.uid != uid:
            return False
        self._stop(pod, grace_s)
        return True

    def mark_pod(
        self,
        namespace: str,
        name: str,
        uid: str,
        *,
        annotations: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> bool:
        self._enter("mark_pod", namespace, name, uid)
        pod = self._pods.get((namespace, name))
        if pod is None or pod.uid != uid:
            return False
        marked = replace(
            pod,
            annotations={**pod.annotations, **annotations},
            labels={**pod.labels, **labels},
        )
        self._pods[namespace, name] = marked
        return True

    def create_pod(self, manifest: Mapping[str, Any]) -> Pod:
        self._enter("create_pod", manifest)
        meta, spec = manifest["metadata"], manifest["spec"]
        key = (meta["namespace"], meta["name"])
        if key not in self._pods:
            self.manifests[key] = manifest
            self._pods[key] = Pod(
                *key,
                uid=f"uid-{key[1]}-{next(self._versions)}",
                node=spec.get("nodeName", ""),
                phase="Pending",
                labels=meta.get("labels", {}),
                annotations=meta.get("annotations", {}),
                is_ready=False,
            )
        return self._pods[key]

    def post_event(self, node: Node, *, reason: str, message: str, is_warning: bool) -> None:
        self._enter("post_event", node.name, reason)
        self.events.append((node.name, reason, message, is_warning))

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> bool:
        self._enter("create_config_map", namespace, name)
        if (namespace, name) in self.config_maps:
            return False
        self.config_maps[namespace, name] = dict(data)
        return True

    def update_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        self._enter("update_config_map", namespace, name)
        if (namespace, name) not in self.config_maps:
            raise NotFound(f'configmaps "{name}" not found')
        self.config_maps[namespace, name].update(data)

    def ensure_namespace(self, name: str) -> None:
        self._enter("ensure_namespace", name)
        self.namespaces.add(name)

    def _budgets_of(self, pod: Pod) -> list[Budget]:
        if pod.is_finished or pod.is_terminating or pod.phase == "Pending":
            return []  # those bypass budgets
        return [
            b
            for b in self._budgets.values()
            if b.namespace == pod.namespace and selects(b.selector, pod.labels)
        ]

    def _stop(self, pod: Pod, grace_s: int | None) -> None:
        key = (pod.namespace, pod.name)
        if pod.is_terminating:
            return
        is_free = self.pods_go_at_once or grace_s == 0 or pod.is_finished or not pod.node
        if is_free and not pod.finalizers:
            self._pods.pop(key, None)
        else:
            grace = timedelta(seconds=30 if pod.grace_s is None else pod.grace_s)
            stops_by = self.now() + grace if self.now else None
            self._pods[key] = replace(pod, is_terminating=True, is_ready=False, stops_by=stops_by)


def _or(new: Any, old: Any) -> Any:
    return old if new is None else new


def _merged(old: Mapping[str, str], changes: Mapping[str, str | None] | None) -> Mapping[str, str]:
    merged = {**old, **(changes or {})}
    return {k: v for k, v in merged.items() if v is not None}
