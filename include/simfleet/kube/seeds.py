"""The objects every cluster has before anybody does anything, and nodes to begin with."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from simfleet.kube import defaults
from simfleet.kube.store import Obj, Store

FIRST_NAMESPACES = ("default", "kube-node-lease", "kube-public", "kube-system")
_CONDITIONS = (
    ("Ready", "True", "KubeletReady"),
    ("MemoryPressure", "False", "KubeletHasSufficientMemory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID"),
)


def add_namespace(store: Store, name: str) -> None:
    """A namespace with what its controllers put in it; nothing if it exists."""
    if store.find("Namespace", "", name) is None:
        store.create(
            "Namespace", defaults.for_create("Namespace", {"metadata": {"name": name}}, store)
        )
    fill_namespace(store, name)


def fill_namespace(store: Store, name: str) -> None:
    """The default ServiceAccount and the root certificate ConfigMap of a namespace."""
    if store.find("ServiceAccount", name, "default") is None:
        store.create("ServiceAccount", {"metadata": {"name": "default", "namespace": name}})
    if store.find("ConfigMap", name, "kube-root-ca.crt") is None:
        metadata = {"name": "kube-root-ca.crt", "namespace": name}
        store.create("ConfigMap", {"metadata": metadata, "data": {"ca.crt": ""}})


def seed_cluster(store: Store, nodes: Sequence[Obj] = ()) -> None:
    """First namespaces and the given nodes (dicts of Node, or made by `node`)."""
    for name in FIRST_NAMESPACES:
        add_namespace(store, name)
    for obj in nodes:
        store.create("Node", defaults.complete("Node", copy.deepcopy(obj)))


def conditions(now: str) -> list[Obj]:
    """The conditions of a healthy node."""
    return [
        {
            "type": kind,
            "status": status,
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
            "reason": reason,
            "message": "kubelet",
        }
        for kind, status, reason in _CONDITIONS
    ]


def node(
    name: str,
    *,
    gpus: int = 8,
    labels: Mapping[str, str] | None = None,
    address: str = "10.200.0.1",
    boot_id: str = "",
    now: str = "2026-01-01T00:00:00Z",
) -> Obj:
    """A healthy node with GPUs, as a Node object."""
    capacity = {
        "cpu": "192",
        "ephemeral-storage": "1000Gi",
        "memory": "2000Gi",
        "nvidia.com/gpu": str(gpus),
        "pods": "110",
    }
    info: dict[str, Any] = {
        "machineID": name,
        "systemUUID": name,
        "bootID": boot_id or name,
        "kernelVersion": "6.1.0-sim",
        "osImage": "Sim Linux",
        "containerRuntimeVersion": "sim://1",
        "kubeletVersion": "v1.36.2",
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }
    addresses = [
        {"type": "InternalIP", "address": address},
        {"type": "Hostname", "address": name},
    ]
    own = {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux"}
    return {
        "metadata": {"name": name, "labels": own | dict(labels or {})},
        "spec": {"providerID": f"sim:///{name}"},
        "status": {
            "capacity": capacity,
            "allocatable": dict(capacity),
            "conditions": conditions(now),
            "addresses": addresses,
            "nodeInfo": info,
        },
    }
