"""The Table form of objects: what `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from simfleet.clock import parse_time
from simfleet.kube.store import Obj

NONE, UNKNOWN, UNSET = "<none>", "<unknown>", "<unset>"


@dataclass(frozen=True, slots=True)
class Column:
    """A column: `priority` above 0 shows only with `-o wide`."""

    name: str
    priority: int = 0
    type: str = "string"

    def definition(self) -> dict[str, Any]:
        """The column as the Table object describes it."""
        return {
            "name": self.name,
            "type": self.type,
            "format": "name" if self.name == "Name" else "",
            "description": f"{self.name} of the object",
            "priority": self.priority,
        }


Cells = Callable[[Obj, datetime], list[Any]]


def human_age(created: str | None, now: datetime) -> str:
    """`45s`, `4m59s`, `26m`, `3h5m`, `2d`: an age as kubectl shows it."""
    if not created:
        return UNKNOWN
    seconds = max(0, int((now - parse_time(created)).total_seconds()))
    for below_s, (unit, unit_s), (small, small_s) in _AGES:
        if seconds < below_s:
            rest = seconds % unit_s // small_s if small else 0
            return f"{seconds // unit_s}{unit}" + (f"{rest}{small}" if rest else "")
    return f"{seconds // 86400}d"


# Below how many seconds an age is shown in which unit, and with which smaller one.
_AGES = (
    (120, ("s", 1), ("", 1)),
    (600, ("m", 60), ("s", 1)),
    (3 * 3600, ("m", 60), ("", 1)),
    (8 * 3600, ("h", 3600), ("m", 60)),
    (48 * 3600, ("h", 3600), ("", 1)),
    (8 * 86400, ("d", 86400), ("h", 3600)),
)


def _age(obj: Obj, now: datetime) -> str:
    return human_age(obj["metadata"].get("creationTimestamp"), now)


def _node(obj: Obj, now: datetime) -> list[Any]:
    status, labels = obj.get("status", {}), obj["metadata"].get("labels") or {}
    info = status.get("nodeInfo", {})
    conditions = {one["type"]: one["status"] for one in status.get("conditions", [])}
    ready = {"True": "Ready", None: "Unknown"}.get(conditions.get("Ready"), "NotReady")
    if obj.get("spec", {}).get("unschedulable"):
        ready += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    roles = sorted(key.removeprefix(prefix) for key in labels if key.startswith(prefix))
    addresses = {one["type"]: one["address"] for one in status.get("addresses", [])}
    kernel = info.get("kernelVersion")
    return [
        obj["metadata"]["name"],
        ready,
        ",".join(roles) or NONE,
        _age(obj, now),
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", NONE),
        addresses.get("ExternalIP", NONE),
        info.get("osImage") or UNKNOWN,
        f"{kernel} ({info.get('architecture')})" if kernel else UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def pod_reason(obj: Obj) -> str:
    """The word kubectl shows as a pod's status."""
    status = obj.get("status", {})
    reason = str(status.get("reason") or status.get("phase", ""))
    for container in status.get("containerStatuses", []):
        state = container.get("state", {})
        waiting, ended = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            reason = waiting["reason"]
        elif ended:
            reason = ended.get("reason") or f"ExitCode:{ended.get('exitCode')}"
    if "deletionTimestamp" in obj["metadata"]:
        return "Unknown" if status.get("reason") == "NodeLost" else "Terminating"
    return reason


def _pod(obj: Obj, now: datetime) -> list[Any]:
    spec, status = obj.get("spec", {}), obj.get("status", {})
    containers = status.get("containerStatuses", [])
    ready = sum(1 for one in containers if one.get("ready"))
    return [
        obj["metadata"]["name"],
        f"{ready}/{len(spec.get('containers', []))}",
        pod_reason(obj),
        str(sum(one.get("restartCount", 0) for one in containers)),
        _age(obj, now),
        status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        NONE,
    ]


def _budget(obj: Obj, now: datetime) -> list[Any]:
    spec = obj.get("spec", {})
    return [
        obj["metadata"]["name"],
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        obj.get("status", {}).get("disruptionsAllowed", 0),
        _age(obj, now),
    ]


def _replica_set(obj: Obj, now: datetime) -> list[Any]:
    status = obj.get("status", {})
    counts = [obj["spec"].get("replicas", 1), status.get("replicas", 0)]
    return [obj["metadata"]["name"], *counts, status.get("readyReplicas", 0), _age(obj, now)]


def _daemon_set(obj: Obj, now: datetime) -> list[Any]:
    status = obj.get("status", {})
    fields = ("desiredNumberScheduled", "currentNumberScheduled", "numberReady")
    counts = [status.get(field, 0) for field in fields]
    counts += [status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)]
    wanted = obj["spec"]["template"]["spec"].get("nodeSelector") or {}
    selector = ",".join(f"{key}={value}" for key, value in sorted(wanted.items()))
    return [obj["metadata"]["name"], *counts, selector or NONE, _age(obj, now)]


def _namespace(obj: Obj, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], obj.get("status", {}).get("phase", ""), _age(obj, now)]


def _event(obj: Obj, now: datetime) -> list[Any]:
    about = obj.get("involvedObject", {})
    last = obj.get("lastTimestamp") or obj.get("eventTime")
    target = f"{str(about.get('kind', '')).lower()}/{about.get('name', '')}"
    message = str(obj.get("message", "")).strip()
    return [human_age(last, now), obj.get("type", ""), obj.get("reason", ""), target, message]


def _lease(obj: Obj, now: datetime) -> list[Any]:
    return [
        obj["metadata"]["name"],
        obj.get("spec", {}).get("holderIdentity", ""),
        _age(obj, now),
    ]


def _config_map(obj: Obj, now: datetime) -> list[Any]:
    count = len(obj.get("data", {})) + len(obj.get("binaryData", {}))
    return [obj["metadata"]["name"], count, _age(obj, now)]


def _plain(obj: Obj, now: datetime) -> list[Any]:
    return [obj["metadata"]["name"], _age(obj, now)]


def _columns(*names: str, wide: tuple[str, ...] = ()) -> tuple[Column, ...]:
    return (*(Column(name) for name in names), *(Column(name, 1) for name in wide))


_NODE_WIDE = ("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime")
_POD_WIDE = ("IP", "Node", "Nominated Node", "Readiness Gates")
_FORMS: dict[str, tuple[tuple[Column, ...], Cells]] = {
    "Node": (_columns("Name", "Status", "Roles", "Age", "Version", wide=_NODE_WIDE), _node),
    "Pod": (_columns("Name", "Ready", "Status", "Restarts", "Age", wide=_POD_WIDE), _pod),
    "PodDisruptionBudget": (
        (
            *_columns("Name", "Min Available", "Max Unavailable"),
            Column("Allowed Disruptions", type="integer"),
            Column("Age"),
        ),
        _budget,
    ),
    "ReplicaSet": (_columns("Name", "Desired", "Current", "Ready", "Age"), _replica_set),
    "DaemonSet": (
        _columns(
            *("Name", "Desired", "Current", "Ready", "Up-to-date", "Available"),
            *("Node Selector", "Age"),
        ),
        _daemon_set,
    ),
    "Namespace": (_columns("Name", "Status", "Age"), _namespace),
    "Event": (_columns("Last Seen", "Type", "Reason", "Object", "Message"), _event),
    "Lease": (_columns("Name", "Holder", "Age"), _lease),
    "ConfigMap": (_columns("Name", "Data", "Age"), _config_map),
}
_PLAIN = (_columns("Name", "Age"), _plain)
_POD_END = {
    "Succeeded": "The pod has completed successfully.",
    "Failed": "The pod failed.",
}


def definitions(kind: str) -> list[dict[str, Any]]:
    """The columns of a kind's table."""
    return [column.definition() for column in _FORMS.get(kind, _PLAIN)[0]]


def partial(kind_fields: Mapping[str, str], obj: Obj) -> Obj:
    """PartialObjectMetadata of an object."""
    return {**kind_fields, "metadata": obj["metadata"]}


PARTIAL = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}


def row(kind: str, api_version: str, obj: Obj, include: str, now: datetime) -> dict[str, Any]:
    """One row; `include` is Metadata, Object or None."""
    made: dict[str, Any] = {"cells": _FORMS.get(kind, _PLAIN)[1](obj, now)}
    phase = obj.get("status", {}).get("phase") if kind == "Pod" else None
    if phase in _POD_END:
        message = _POD_END[phase]
        condition = {"type": "Completed", "status": "True", "reason": phase, "message": message}
        made["conditions"] = [condition]
    match include:
        case "None":
            made["object"] = None
        case "Object":
            made["object"] = {"kind": kind, "apiVersion": api_version} | obj
        case _:
            made["object"] = partial(PARTIAL, obj)
    return made


def table(metadata: Mapping[str, Any], rows: list[Any], kind: str | None) -> dict[str, Any]:
    """The Table object; without a kind the columns are left out (later events of a watch)."""
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(metadata),
        "columnDefinitions": definitions(kind) if kind else None,
        "rows": rows,
    }
