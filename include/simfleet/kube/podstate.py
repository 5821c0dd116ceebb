"""What a kubelet writes: the status of pods and of its node."""

from __future__ import annotations

import zlib
from typing import Any

from simfleet.kube.kinds import POD
from simfleet.kube.machines import Machine
from simfleet.kube.placement import GPU
from simfleet.kube.seeds import conditions as healthy_conditions
from simfleet.kube.store import Obj, Store

_CONDITIONS = ("PodReadyToStartContainers", "Initialized", "ContainersReady", "Ready")
LOST_EXIT_CODE = 255


def has_command(pod: Obj) -> bool:
    """Whether the first container names what to run."""
    containers = pod["spec"].get("containers") or [{}]
    return bool(containers[0].get("command") or containers[0].get("args"))


def _conditions(pod: Obj, now: str, *, ready: bool, reason: str = "") -> list[Obj]:
    have = {one["type"]: one for one in pod["status"].get("conditions", [])}
    made: list[Obj] = []
    for kind in _CONDITIONS:
        status = "True" if ready or kind in _CONDITIONS[:2] else "False"
        since = have.get(kind, {})
        when = since["lastTransitionTime"] if since.get("status") == status else now
        condition = {"type": kind, "status": status, "lastProbeTime": None}
        condition["lastTransitionTime"] = when
        if reason and status == "False":
            condition["reason"] = reason
        made.append(condition)
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None}
    since = have.get("PodScheduled", {}).get("lastTransitionTime", now)
    made.append(scheduled | {"lastTransitionTime": since})
    return made + [one for kind, one in have.items() if kind == "DisruptionTarget"]


def _containers(pod: Obj, state: Obj, *, ready: bool, restarts: int) -> list[Obj]:
    uid = pod["metadata"]["uid"]
    return [
        {
            "name": one["name"],
            "state": state,
            "lastState": {},
            "ready": ready,
            "restartCount": restarts,
            "image": one.get("image", ""),
            "imageID": f"sim://{one.get('image', '')}",
            "containerID": f"sim://{uid}/{one['name']}",
            "started": "running" in state or "terminated" in state,
        }
        for one in pod["spec"].get("containers", [])
    ]


def pod_address(uid: str) -> str:
    """An address that a pod keeps."""
    number = zlib.crc32(uid.encode())
    return f"10.{number >> 16 & 127 | 128}.{number >> 8 & 255}.{number & 255 or 1}"


def host_address(store: Store, node: str) -> str:
    """The internal address of a node."""
    found = store.find("Node", "", node) or {}
    addresses = found.get("status", {}).get("addresses", [])
    return next((one["address"] for one in addresses if one["type"] == "InternalIP"), "")


def _init_containers(pod: Obj, now: str, blocked: str = "") -> list[Obj]:
    """Their statuses: those before `blocked` have completed, it runs, the others wait."""
    names = [one["name"] for one in pod["spec"].get("initContainers") or []]
    at = names.index(blocked) if blocked in names else len(names)
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}}
    waits = {"waiting": {"reason": "PodInitializing"}}
    states = [ended] * at + [{"running": {"startedAt": now}}] + [waits] * len(names)
    return [
        {"name": name, "state": state, "ready": state is ended, "restartCount": 0}
        for name, state in zip(names, states, strict=False)
    ]


def initialize(store: Store, pod: Obj, blocked: str) -> None:
    """The pod waits for one of its init containers."""
    had = pod["status"].get("initContainerStatuses") or []
    if any(one["name"] == blocked and "running" in one["state"] for one in had):
        return
    now = store.timestamp()
    status = pod["status"] | {
        "phase": "Pending",
        "initContainerStatuses": _init_containers(pod, now, blocked),
        "conditions": _conditions(pod, now, ready=False, reason="ContainersNotInitialized"),
    }
    store.replace(POD, pod, pod | {"status": status})


def start(store: Store, pod: Obj) -> Obj:
    """The pod runs and is ready."""
    now, address = store.timestamp(), pod_address(pod["metadata"]["uid"])
    host = host_address(store, pod["spec"]["nodeName"])
    state = {"running": {"startedAt": now}}
    had = [one.get("restartCount", 0) for one in pod["status"].get("containerStatuses", [])]
    restarts = max(had, default=0)
    status = pod["status"] | {
        "phase": "Running",
        "conditions": _conditions(pod, now, ready=True),
        "podIP": address,
        "podIPs": [{"ip": address}],
        "startTime": pod["status"].get("startTime", now),
        "containerStatuses": _containers(pod, state, ready=True, restarts=restarts),
    }
    if pod["spec"].get("initContainers"):
        status["initContainerStatuses"] = _init_containers(pod, now)
    if host:
        status |= {"hostIP": host, "hostIPs": [{"ip": host}]}
    return store.replace(POD, pod, pod | {"status": status})


def _ended(pod: Obj, now: str, exit_code: int, reason: str, message: str = "") -> Obj:
    containers = pod["status"].get("containerStatuses", [])
    running = containers[0]["state"].get("running", {}) if containers else {}
    began = running.get("startedAt", now)
    ended: dict[str, Any] = {"exitCode": exit_code, "reason": reason}
    if message:
        ended["message"] = message
    state = {"terminated": ended | {"startedAt": began, "finishedAt": now}}
    succeeded = exit_code == 0
    why = "PodCompleted" if succeeded else "PodFailed"
    return {
        "phase": "Succeeded" if succeeded else "Failed",
        "conditions": _conditions(pod, now, ready=False, reason=why),
        "containerStatuses": _containers(pod, state, ready=False, restarts=0),
    }


def finish(store: Store, pod: Obj, exit_code: int) -> Obj:
    """The pod's command has ended."""
    reason = "Completed" if exit_code == 0 else "Error"
    ended = _ended(pod, store.timestamp(), exit_code, reason)
    return store.replace(POD, pod, pod | {"status": pod["status"] | ended})


def lose(store: Store, pod: Obj) -> Obj:
    """The node went down under the pod's command: it failed, nobody knows how."""
    text = "The container could not be located when the pod was terminated"
    ended = _ended(pod, store.timestamp(), LOST_EXIT_CODE, "Unknown", text)
    lost = {"reason": "NodeLost", "message": "The node was restarted while the pod was running"}
    return store.replace(POD, pod, pod | {"status": pod["status"] | ended | lost})


def interrupt(store: Store, pod: Obj) -> Obj:
    """The node went down under a service: its containers wait to be started again."""
    now = store.timestamp()
    containers = [
        one
        | {
            "state": {"waiting": {"reason": "ContainerCreating"}},
            "ready": False,
            "started": False,
            "restartCount": one.get("restartCount", 0) + 1,
        }
        for one in pod["status"].get("containerStatuses", [])
    ]
    reason = "ContainersNotReady"
    status = pod["status"] | {"phase": "Pending", "containerStatuses": containers}
    status["conditions"] = _conditions(pod, now, ready=False, reason=reason)
    return store.replace(POD, pod, pod | {"status": status})


def make_ready_again(store: Store, pod: Obj) -> None:
    """Ready again after the node was only out of sight, if the pod ran all the time."""
    current = store.find("Pod", pod["metadata"]["namespace"], pod["metadata"]["name"])
    if current is None or current["status"].get("phase") != "Running":
        return
    conditions = _conditions(current, store.timestamp(), ready=True)
    status = current["status"] | {"conditions": conditions}
    store.replace(POD, current, current | {"status": status})


def node_status(node: Obj, machine: Machine, now: str) -> Obj:
    """The node's status as its kubelet sees it; equal to the old one when nothing changed."""
    status: Obj = node["status"]
    have = {one["type"]: one for one in status.get("conditions", [])}
    wanted = healthy_conditions(now)
    changed = any(have.get(one["type"], {}).get("status") != one["status"] for one in wanted)
    if changed:
        ours = {one["type"] for one in wanted}
        others = [one for one in status.get("conditions", []) if one["type"] not in ours]
        status = status | {"conditions": [*wanted, *others]}
    info = status.get("nodeInfo", {})
    if info.get("bootID") != machine.boot_id:
        status = status | {"nodeInfo": info | {"bootID": machine.boot_id}}
    allocatable = status.get("allocatable", {})
    gpus = str(machine.allocatable_gpus())
    if GPU in allocatable and allocatable[GPU] != gpus:
        status = status | {"allocatable": allocatable | {GPU: gpus}}
    return status
