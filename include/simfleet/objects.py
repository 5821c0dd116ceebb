"""The Kubernetes objects of a fleet: nodes as their kubelets would register them, workloads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from simfleet.fleet import BudgetConfig, FleetConfig, WorkloadConfig
from simfleet.hardware import NodeSpec
from simfleet.machine import SimMachine

POOL_LABEL = "breakfix.dev/pool"
GPU_RESOURCE = "nvidia.com/gpu"
OPERATOR_NAMESPACE = "gpu-operator"
EXPORTER = "nvidia-dcgm-exporter"
PLUGIN = "nvidia-device-plugin-daemonset"
VALIDATOR = "nvidia-operator-validator"
VALIDATOR_IMAGE = "nvcr.io/nvidia/cloud-native/gpu-operator-validator:v25.10.0"
PLUGIN_IMAGE = "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"
EXPORTER_IMAGE = "nvcr.io/nvidia/k8s/dcgm-exporter:4.6.0-4.8.3"
KUBELET_VERSION = "v1.36.2"
SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
Obj = dict[str, Any]

# (type, status, reason, message) of a healthy node
_CONDITIONS = (
    ("MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory"),
    ("DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
    ("PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available"),
    ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
)


def node_labels(machine: SimMachine) -> dict[str, str]:
    """Every label of the node: fixed ones, what GPU feature discovery finds, a rollout's."""
    spec = machine.spec
    found = {
        "beta.kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/hostname": spec.name,
        "kubernetes.io/os": "linux",
        POOL_LABEL: spec.pool,
        "topology.kubernetes.io/rack": spec.rack,
        "topology.kubernetes.io/region": "sim",
        "topology.kubernetes.io/zone": spec.zone,
    }
    if spec.sku is not None:
        major, _, rest = machine.driver_version.partition(".")
        found |= {
            "nvidia.com/cuda.driver-version.full": machine.driver_version,
            "nvidia.com/cuda.driver-version.major": major,
            "nvidia.com/cuda.driver-version.minor": rest.partition(".")[0],
            "nvidia.com/gpu.count": str(spec.gpus),
            "nvidia.com/gpu.memory": str(spec.sku.fb_mib),
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": spec.sku.product,
        }
    if spec.clique:
        found["nvidia.com/gpu.clique"] = spec.clique
    return found | dict(spec.labels) | machine.labels


def node_object(machine: SimMachine, number: int, now: str) -> Obj:
    """The node as its kubelet registered it; `now` is an API time, `number` makes addresses."""
    spec = machine.spec
    taints = [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]
    body: Obj = {"providerID": f"sim:///{spec.zone}/{spec.name}"}
    if spec.cordoned:
        body |= {"unschedulable": True, "taints": taints}
    return {
        "metadata": {
            "name": spec.name,
            "labels": node_labels(machine),
            "annotations": {"node.alpha.kubernetes.io/ttl": "0"},
        },
        "spec": body,
        "status": _node_status(machine, number, now),
    }


def _node_status(machine: SimMachine, number: int, now: str) -> Obj:
    spec = machine.spec
    room = {"cpu": "192", "ephemeral-storage": "3500Gi", "memory": "2048Gi", "pods": "110"}
    gpus = {GPU_RESOURCE: str(spec.gpus)} if spec.sku else {}
    address = f"10.{200 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"
    return {
        "capacity": room | gpus,
        "allocatable": room | gpus,
        "conditions": [
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
                "reason": reason,
                "message": message,
            }
            for kind, status, reason, message in _CONDITIONS
        ],
        "addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": spec.name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
        "nodeInfo": node_info(machine),
    }


def node_info(machine: SimMachine) -> dict[str, str]:
    """What the kubelet reports of the host it runs on."""
    spec: NodeSpec = machine.spec
    return {
        "machineID": spec.name,
        "systemUUID": spec.name,
        "bootID": machine.boot_id,
        "kernelVersion": spec.kernel_version,
        "osImage": "Ubuntu 24.04.3 LTS",
        "containerRuntimeVersion": "containerd://2.1.4",
        "kubeletVersion": KUBELET_VERSION,
        "kubeProxyVersion": "",
        "operatingSystem": "linux",
        "architecture": "amd64",
    }


def fleet_objects(config: FleetConfig) -> Iterator[tuple[str, Obj]]:
    """(kind, object) of everything but nodes, in an order in which they can be created."""
    used = {work.namespace for work in config.workloads} | {OPERATOR_NAMESPACE}
    for name in (*SYSTEM_NAMESPACES, *sorted(used - set(SYSTEM_NAMESPACES))):
        labels = {"kubernetes.io/metadata.name": name}
        yield "Namespace", {"metadata": {"name": name, "labels": labels}}
    yield (
        "DaemonSet",
        _daemon_set(PLUGIN, "nvidia-device-plugin", "nvcr.io/nvidia/k8s-device-plugin:v0.20.0"),
    )
    yield (
        "DaemonSet",
        _daemon_set(EXPORTER, EXPORTER, "nvcr.io/nvidia/k8s/dcgm-exporter:4.6.0-4.8.3"),
    )
    if config.operator_validator:
        yield "DaemonSet", _validator()
    for work in config.workloads:
        yield from _workload(work)


def _validator() -> Obj:
    """The GPU operator's: its init containers validate one layer each, then it only sleeps."""
    made = _daemon_set(VALIDATOR, "sleep", VALIDATOR_IMAGE)
    made["spec"]["template"]["spec"]["initContainers"] = [
        {"name": f"{layer}-validation", "image": VALIDATOR_IMAGE, "command": ["nvidia-validator"]}
        for layer in ("driver", "toolkit", "cuda", "plugin")
    ]
    return made


def _daemon_set(name: str, program: str, image: str) -> Obj:
    labels = {"app": name}
    return {
        "metadata": {"name": name, "namespace": OPERATOR_NAMESPACE, "labels": labels},
        "spec": {
            "selector": {"matchLabels": labels},
            "updateStrategy": {"type": "OnDelete"},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "nodeSelector": {"nvidia.com/gpu.present": "true"},
                    "tolerations": [{"operator": "Exists"}],
                    "restartPolicy": "Always",
                    "priorityClassName": "system-node-critical",
                    "containers": [{"name": name, "image": image, "command": [program]}],
                },
            },
        },
    }


def _workload(work: WorkloadConfig) -> Iterator[tuple[str, Obj]]:
    labels = {"app": work.name}
    meta = {"name": work.name, "namespace": work.namespace, "labels": labels}
    if work.kind == "ReplicaSet":
        template = {"metadata": {"labels": labels}, "spec": _pod_spec(work)}
        yield (
            "ReplicaSet",
            {
                "metadata": meta,
                "spec": {
                    "replicas": work.replicas,
                    "selector": {"matchLabels": labels},
                    "template": template,
                },
            },
        )
    else:
        for number in range(work.replicas):
            name = f"{work.name}-{number}"
            yield "Pod", {"metadata": meta | {"name": name}, "spec": _pod_spec(work)}
    if work.budget is not None:
        yield "PodDisruptionBudget", {"metadata": meta, "spec": budget_spec(work.budget, work.name)}


def budget_spec(budget: BudgetConfig, app: str) -> Obj:
    """The spec of a PodDisruptionBudget over the pods of one workload."""
    limit = (
        {"minAvailable": budget.min_available}
        if budget.min_available is not None
        else {"maxUnavailable": budget.max_unavailable}
    )
    return limit | {"selector": {"matchLabels": {"app": app}}}


def _pod_spec(work: WorkloadConfig) -> Obj:
    container: Obj = {"name": "main", "image": "registry.example/train:1"}
    amounts = {"cpu": "8", "memory": "64Gi"}
    if work.gpus:
        amounts |= {GPU_RESOURCE: str(work.gpus)}
        container["resources"] = {"requests": amounts, "limits": {GPU_RESOURCE: str(work.gpus)}}
    else:
        container["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}}
    spec: Obj = {"restartPolicy": "Always", "containers": [container]}
    selector = {POOL_LABEL: work.pool} if work.pool else {}
    if work.node:
        selector["kubernetes.io/hostname"] = work.node
    if selector:
        spec["nodeSelector"] = selector
    if work.empty_dir:
        medium = {"medium": "Memory"} if work.empty_dir == "memory" else {}
        spec["volumes"] = [{"name": "scratch", "emptyDir": medium}]
        container["volumeMounts"] = [{"name": "scratch", "mountPath": "/scratch"}]
    return spec
