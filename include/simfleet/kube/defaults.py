"""What the API server fills in when an object is created: defaults and built-in admission."""

from __future__ import annotations

from typing import Any

from simfleet.kube.store import Obj, Store

NODE_INFO_FIELDS = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
MIRROR = "kubernetes.io/config.mirror"
TOPOLOGY_LABELS = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone")
TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path
BUDGET_ZEROES = {
    "disruptionsAllowed": 0,
    "currentHealthy": 0,
    "desiredHealthy": 0,
    "expectedPods": 0,
}
DAEMON_SET_ZEROES = {
    "currentNumberScheduled": 0,
    "numberMisscheduled": 0,
    "desiredNumberScheduled": 0,
    "numberReady": 0,
}


def complete(kind: str, obj: Obj) -> Obj:
    """The fields a stored or bookmarked object of a kind always has, even when empty."""
    match kind:
        case "Node":
            return obj | {
                "spec": obj.get("spec") or {},
                "status": complete_node_status(obj.get("status") or {}),
            }
        case "Event":
            empty: Obj = {"source": {}, "firstTimestamp": None, "lastTimestamp": None}
            empty |= {"eventTime": None, "reportingComponent": "", "reportingInstance": ""}
            return empty | {"involvedObject": {}} | obj
        case "Pod" | "Namespace" | "DaemonSet" | "ReplicaSet" | "PodDisruptionBudget":
            return obj | {"spec": obj.get("spec") or {}, "status": obj.get("status") or {}}
        case "Lease":
            return obj | {"spec": obj.get("spec") or {}}
    return obj


def complete_node_status(status: Obj) -> Obj:
    """Node status with its fixed members, empty where nobody has written them yet."""
    info = dict.fromkeys(NODE_INFO_FIELDS, "") | status.get("nodeInfo", {})
    endpoints = status.get("daemonEndpoints") or {"kubeletEndpoint": {"Port": 0}}
    return status | {"daemonEndpoints": endpoints, "nodeInfo": info}


def for_create(kind: str, obj: Obj, store: Store) -> Obj:
    """The object as admission and defaulting leave it. `obj` is the caller's own copy."""
    match kind:
        case "Node":
            taint = {"key": NOT_READY, "effect": "NoSchedule"}
            spec = dict(obj.get("spec") or {})
            taints = spec.get("taints", [])
            if taint["key"] not in {one.get("key") for one in taints}:
                spec["taints"] = [*taints, taint]
            obj = obj | {"spec": spec, "status": complete_node_status(obj.get("status") or {})}
        case "Pod":
            obj = _pod(obj, store)
        case "PodDisruptionBudget":
            obj = obj | {"status": dict(BUDGET_ZEROES)}
        case "ReplicaSet":
            obj = _workload(obj) | {"status": {"replicas": 0}}
            obj["spec"].setdefault("replicas", 1)
        case "DaemonSet":
            obj = _daemon_set(obj)
        case "Namespace":
            labels = {"kubernetes.io/metadata.name": obj["metadata"].get("name", "")}
            obj["metadata"]["labels"] = (obj["metadata"].get("labels") or {}) | labels
            obj = obj | {"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}
    return complete(kind, obj)


def _daemon_set(obj: Obj) -> Obj:
    obj = _workload(obj) | {"status": dict(DAEMON_SET_ZEROES)}
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}}
    obj["spec"].setdefault("updateStrategy", rolling)
    obj["spec"].setdefault("revisionHistoryLimit", 10)
    annotations = obj["metadata"].get("annotations") or {}
    generation = {"deprecated.daemonset.template.generation": "1"}
    obj["metadata"]["annotations"] = annotations | generation
    return obj


def _workload(obj: Obj) -> Obj:
    spec = dict(obj.get("spec") or {})
    template = dict(spec.get("template") or {})
    template.setdefault("metadata", {})
    template["spec"] = pod_spec(dict(template.get("spec") or {}))
    return obj | {"spec": spec | {"template": template}}


def pod_spec(spec: Obj) -> Obj:
    """Defaults of a pod spec, in a template as in a pod."""
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", 30)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")
    if "serviceAccountName" in spec:
        spec["serviceAccount"] = spec["serviceAccountName"]
    for field in ("containers", "initContainers"):
        if field in spec:
            spec[field] = [_container(dict(one)) for one in spec[field]]
    return spec


def _container(container: Obj) -> Obj:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    tag = container.get("image", "").rpartition("/")[2].partition(":")[2]
    container.setdefault("imagePullPolicy", "Always" if tag in ("", "latest") else "IfNotPresent")
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
    return container


def _pod(obj: Obj, store: Store) -> Obj:
    metadata = obj["metadata"]
    spec = pod_spec(dict(obj.get("spec") or {}))
    spec["containers"] = [_limits_as_requests(one) for one in spec.get("containers", [])]
    if MIRROR not in (metadata.get("annotations") or {}):
        _mount_token(spec, store)
    spec.setdefault("tolerations", [])
    for key in (NOT_READY, UNREACHABLE):
        if not _tolerates(spec["tolerations"], key):
            wait = {"key": key, "operator": "Exists", "effect": "NoExecute"}
            spec["tolerations"] = [*spec["tolerations"], wait | {"tolerationSeconds": 300}]
    spec.setdefault("priority", 0)
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    if node := store.find("Node", "", spec.get("nodeName", "")):
        copy_topology(metadata, node)
    return obj | {"spec": spec, "status": {"phase": "Pending", "qosClass": qos_class(spec)}}


def copy_topology(metadata: Obj, node: Obj) -> None:
    """Put region and zone of the node on the pod, as admission does when a pod is bound."""
    have = node["metadata"].get("labels") or {}
    topology = {key: have[key] for key in TOPOLOGY_LABELS if key in have}
    if topology:
        metadata["labels"] = (metadata.get("labels") or {}) | topology


def _limits_as_requests(container: Obj) -> Obj:
    resources = container["resources"]
    if limits := resources.get("limits"):
        requests = dict(limits) | resources.get("requests", {})
        container["resources"] = resources | {"requests": requests}
    return container


def _tolerates(tolerations: list[Any], key: str) -> bool:
    return any(
        one.get("key", key) == key and one.get("effect", "NoExecute") == "NoExecute"
        for one in tolerations
    )


def _mount_token(spec: Obj, store: Store) -> None:
    account = spec.setdefault("serviceAccountName", "default")
    spec["serviceAccount"] = account
    if spec.get("automountServiceAccountToken") is False:
        return
    name = f"kube-api-access-{store.suffix()}"
    sources = [
        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
        {
            "configMap": {
                "name": "kube-root-ca.crt",
                "items": [{"key": "ca.crt", "path": "ca.crt"}],
            }
        },
        {
            "downwardAPI": {
                "items": [
                    {
                        "path": "namespace",
                        "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                    }
                ]
            }
        },
    ]
    volume = {"name": name, "projected": {"sources": sources, "defaultMode": 420}}
    spec["volumes"] = [*spec.get("volumes", []), volume]
    mount = {"name": name, "readOnly": True, "mountPath": TOKEN_MOUNT}
    for container in [*spec.get("containers", []), *spec.get("initContainers", [])]:
        if TOKEN_MOUNT not in {one["mountPath"] for one in container.get("volumeMounts", [])}:
            container["volumeMounts"] = [*container.get("volumeMounts", []), mount]


def qos_class(spec: Obj) -> str:
    """BestEffort, Burstable or Guaranteed, from cpu and memory alone."""
    wanted = [one.get("resources", {}) for one in spec.get("containers", [])]
    compute = ("cpu", "memory")
    if not any(name in part for one in wanted for part in one.values() for name in compute):
        return "BestEffort"
    for one in wanted:
        limits, requests = one.get("limits", {}), one.get("requests", {})
        if any(name not in limits or limits[name] != requests.get(name) for name in compute):
            return "Burstable"
    return "Guaranteed"
