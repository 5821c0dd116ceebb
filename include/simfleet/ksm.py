"""kube-state-metrics over the simulated cluster's objects.

Names and labels: kube-state-metrics documentation. Each object is rendered once per version and
kept; a scrape joins the kept lines family by family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

from simfleet.exposition import header, labels

Obj = dict[str, Any]
Sample = tuple[str, dict[str, str], float]
STATUSES = ("true", "false", "unknown")
PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")
_RESOURCES = {  # name in Kubernetes -> sanitised name, unit
    "cpu": ("cpu", "core"),
    "memory": ("memory", "byte"),
    "pods": ("pods", "integer"),
    "ephemeral-storage": ("ephemeral_storage", "byte"),
    "nvidia.com/gpu": ("nvidia_com_gpu", "integer"),
}
_BINARY = {"Ki": 1024, "Mi": 1024**2, "Gi": 1024**3, "Ti": 1024**4}

# family -> (type, help), in the order of the answer
FAMILIES = {
    "kube_node_info": ("gauge", "Information about a cluster node."),
    "kube_node_created": ("gauge", "Unix creation timestamp"),
    "kube_node_labels": ("gauge", "Kubernetes labels converted to Prometheus labels."),
    "kube_node_spec_unschedulable": ("gauge", "Whether a node can schedule new pods."),
    "kube_node_spec_taint": ("gauge", "The taint of a cluster node."),
    "kube_node_status_condition": ("gauge", "The condition of a cluster node."),
    "kube_node_status_capacity": ("gauge", "The total amount of resources of a node."),
    "kube_node_status_allocatable": ("gauge", "The amount of resources for pods of a node."),
    "kube_pod_info": ("gauge", "Information about pod."),
    "kube_pod_owner": ("gauge", "Information about the Pod's owner."),
    "kube_pod_status_phase": ("gauge", "The pods current phase."),
    "kube_pod_status_ready": ("gauge", "Whether the pod is ready to serve requests."),
    "kube_pod_deletion_timestamp": ("gauge", "Unix deletion timestamp"),
    "kube_pod_container_resource_requests": ("gauge", "The requested resources of a container."),
    "kube_pod_container_status_restarts_total": ("counter", "Container restarts."),
    "kube_replicaset_spec_replicas": ("gauge", "Number of desired pods for a ReplicaSet."),
    "kube_replicaset_status_ready_replicas": ("gauge", "Ready replicas per ReplicaSet."),
    "kube_daemonset_metadata_generation": ("gauge", "Generation of the desired state."),
    "kube_daemonset_status_desired_number_scheduled": ("gauge", "Nodes that should run it."),
    "kube_daemonset_status_number_ready": ("gauge", "Nodes where it runs and is ready."),
    "kube_poddisruptionbudget_status_pod_disruptions_allowed": ("gauge", "Disruptions allowed."),
}


def quantity(text: str | float) -> float:
    """A Kubernetes quantity as a number: `8`, `500m`, `2048Gi`."""
    if not isinstance(text, str):
        return text
    if text[-2:] in _BINARY:
        return int(text[:-2]) * _BINARY[text[-2:]]
    if text.endswith("m"):
        return int(text[:-1]) / 1000
    return int(text) if text.isdigit() else float(text)


def unix_time(text: str) -> int:
    """An API time as unix seconds."""
    return int(datetime.fromisoformat(text).timestamp())


def node_samples(node: Obj) -> Iterator[Sample]:
    """Every sample of one node."""
    meta, spec, status = node["metadata"], node.get("spec", {}), node.get("status", {})
    name = {"node": meta["name"]}
    info = status.get("nodeInfo", {})
    addresses = {a["type"]: a["address"] for a in status.get("addresses", [])}
    about = {
        "kernel_version": info.get("kernelVersion", ""),
        "os_image": info.get("osImage", ""),
        "container_runtime_version": info.get("containerRuntimeVersion", ""),
        "kubelet_version": info.get("kubeletVersion", ""),
        "kubeproxy_version": "deprecated",
        "provider_id": spec.get("providerID", ""),
        "system_uuid": info.get("systemUUID", ""),
        "internal_ip": addresses.get("InternalIP", ""),
    }
    yield "kube_node_info", name | about, 1
    yield "kube_node_created", name, unix_time(meta["creationTimestamp"])
    yield "kube_node_labels", name | _sanitised(meta.get("labels", {})), 1
    yield "kube_node_spec_unschedulable", name, int(bool(spec.get("unschedulable")))
    for taint in spec.get("taints") or []:
        pairs = {"key": taint["key"], "value": taint.get("value", ""), "effect": taint["effect"]}
        yield "kube_node_spec_taint", name | pairs, 1
    for condition in status.get("conditions") or []:
        now = condition["status"].lower()
        for value in STATUSES:
            pairs = {"condition": condition["type"], "status": value}
            yield "kube_node_status_condition", name | pairs, int(now == value)
    for family in ("capacity", "allocatable"):
        for pairs, amount in _amounts(status.get(family) or {}):
            yield f"kube_node_status_{family}", name | pairs, amount


def _sanitised(found: dict[str, str]) -> dict[str, str]:
    return {
        "label_" + "".join(c if c.isalnum() else "_" for c in key): value
        for key, value in found.items()
    }


def _amounts(resources: dict[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    for resource, amount in resources.items():
        if resource in _RESOURCES:
            name, unit = _RESOURCES[resource]
            yield {"resource": name, "unit": unit}, quantity(amount)


def pod_samples(pod: Obj) -> Iterator[Sample]:
    """Every sample of one pod."""
    meta, spec, status = pod["metadata"], pod.get("spec", {}), pod.get("status", {})
    who = {"namespace": meta["namespace"], "pod": meta["name"], "uid": meta["uid"]}
    node = spec.get("nodeName", "")
    owner: Obj = next(iter(meta.get("ownerReferences") or []), {})
    yield "kube_pod_info", who | _pod_about(spec, status, node, owner), 1
    owned = {
        "owner_kind": owner.get("kind", ""),
        "owner_name": owner.get("name", ""),
        "owner_is_controller": str(bool(owner.get("controller"))).lower() if owner else "",
    }
    yield "kube_pod_owner", who | owned, 1
    for phase in PHASES:
        is_it = status.get("phase", "Pending") == phase
        yield "kube_pod_status_phase", who | {"phase": phase}, int(is_it)
    ready = next((c for c in status.get("conditions") or [] if c["type"] == "Ready"), None)
    if ready is not None:
        for value in STATUSES:
            is_it = ready["status"].lower() == value
            yield "kube_pod_status_ready", who | {"condition": value}, int(is_it)
    if meta.get("deletionTimestamp"):
        yield "kube_pod_deletion_timestamp", who, unix_time(meta["deletionTimestamp"])
    for container in spec.get("containers", []):
        named = who | {"container": container["name"]}
        requests = (container.get("resources") or {}).get("requests") or {}
        for pairs, amount in _amounts(requests):
            where = named | {"node": node} | pairs
            yield "kube_pod_container_resource_requests", where, amount
    for container in status.get("containerStatuses") or []:
        named = who | {"container": container["name"]}
        restarts = container.get("restartCount", 0)
        yield "kube_pod_container_status_restarts_total", named, restarts


def _pod_about(spec: Obj, status: Obj, node: str, owner: Obj) -> dict[str, str]:
    return {
        "host_ip": status.get("hostIP", ""),
        "pod_ip": status.get("podIP", ""),
        "node": node,
        "created_by_kind": owner.get("kind", ""),
        "created_by_name": owner.get("name", ""),
        "priority_class": spec.get("priorityClassName", ""),
        "host_network": str(bool(spec.get("hostNetwork"))).lower(),
    }


def replica_set_samples(obj: Obj) -> Iterator[Sample]:
    """Every sample of one ReplicaSet."""
    meta = obj["metadata"]
    who = {"namespace": meta["namespace"], "replicaset": meta["name"]}
    yield "kube_replicaset_spec_replicas", who, obj["spec"].get("replicas", 1)
    ready = obj.get("status", {}).get("readyReplicas", 0)
    yield "kube_replicaset_status_ready_replicas", who, ready


def daemon_set_samples(obj: Obj) -> Iterator[Sample]:
    """Every sample of one DaemonSet."""
    meta, status = obj["metadata"], obj.get("status", {})
    who = {"namespace": meta["namespace"], "daemonset": meta["name"]}
    yield "kube_daemonset_metadata_generation", who, meta.get("generation", 1)
    wanted = status.get("desiredNumberScheduled", 0)
    yield "kube_daemonset_status_desired_number_scheduled", who, wanted
    yield "kube_daemonset_status_number_ready", who, status.get("numberReady", 0)


def budget_samples(obj: Obj) -> Iterator[Sample]:
    """Every sample of one PodDisruptionBudget."""
    meta = obj["metadata"]
    who = {"namespace": meta["namespace"], "poddisruptionbudget": meta["name"]}
    allowed = obj.get("status", {}).get("disruptionsAllowed", 0)
    yield "kube_poddisruptionbudget_status_pod_disruptions_allowed", who, allowed


RENDERERS: dict[str, Callable[[Obj], Iterator[Sample]]] = {
    "Node": node_samples,
    "Pod": pod_samples,
    "ReplicaSet": replica_set_samples,
    "DaemonSet": daemon_set_samples,
    "PodDisruptionBudget": budget_samples,
}


class KubeStateMetrics:
    """Joins the lines of all objects; keeps each object's lines until it changes."""

    def __init__(self, objects: Callable[[str], Iterable[Obj]]) -> None:
        self._objects = objects
        self._kept: dict[str, tuple[str, dict[str, str]]] = {}

    def render(self) -> str:
        """The exporter's answer now."""
        parts: dict[str, list[str]] = {family: [] for family in FAMILIES}
        fresh: dict[str, tuple[str, dict[str, str]]] = {}
        for kind, samples_of in RENDERERS.items():
            for obj in self._objects(kind):
                uid, version = obj["metadata"]["uid"], obj["metadata"]["resourceVersion"]
                kept = self._kept.get(uid)
                if kept is None or kept[0] != version:
                    kept = (version, _lines(samples_of(obj)))
                fresh[uid] = kept
                for family, lines in kept[1].items():
                    parts[family].append(lines)
        self._kept = fresh
        return "".join(
            header(family, *FAMILIES[family]) + "".join(lines)
            for family, lines in parts.items()
            if lines
        )


def _lines(samples: Iterable[Sample]) -> dict[str, str]:
    lines: dict[str, str] = {}
    for family, pairs, value in samples:
        lines[family] = lines.get(family, "") + f"{family}{{{labels(pairs)}}} {value}\n"
    return lines
