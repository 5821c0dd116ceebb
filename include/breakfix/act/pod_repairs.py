"""Repairs by a pod on the node itself, and by deleting the device plugin's pod.

The far side compares: a pod is found again by its name, does nothing in another boot than the one
it is meant for, and a device plugin is deleted by its uid.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from breakfix.act import pods
from breakfix.act.pods import PodSettings
from breakfix.errors import NotFound, Refused
from breakfix.model import Action, Pod, RefusalReason
from breakfix.ports import Cluster, RepairLook, RepairRequest, RepairStatus

#: What needs nobody but Kubernetes.
POD_ACTIONS = frozenset({Action.RESTART_DEVICE_PLUGIN, Action.RESET_GPU, Action.REBOOT_NODE})


class PodRepairs:
    """`ports.RepairProvider` over the Kubernetes API."""

    name = "pod"
    can_compare = True

    def __init__(self, cluster: Cluster, settings: PodSettings) -> None:
        self._cluster, self._settings = cluster, settings

    def prepare(self, request: RepairRequest) -> Mapping[str, Any]:
        """The pod that will be created, or the plugin's that will go."""
        if request.action not in POD_ACTIONS:
            raise Refused(RefusalReason.UNSUPPORTED, f"no pod can do {request.action}")
        node = request.node.name
        if request.action is Action.RESTART_DEVICE_PLUGIN:
            plugin = self._plugin(node)
            return {
                "node": node,
                "pod": f"{plugin.namespace}/{plugin.name}",
                "uid": plugin.uid,
            }
        pods.check_gpus(request.gpus)
        name = pods.pod_name(request.case_id, request.step)
        return {"node": node, "pod": f"{self._settings.namespace}/{name}"}

    def dispatch(self, request: RepairRequest, handle: Mapping[str, Any]) -> Mapping[str, Any]:
        """Create the pod unless it is there; delete the plugin's unless it is another by now."""
        if request.action is Action.RESTART_DEVICE_PLUGIN:
            namespace, name = pod_of(handle)
            self._cluster.delete_pod(namespace, name, str(handle["uid"]), grace_s=None)
            return {}
        self._cluster.ensure_namespace(self._settings.namespace)
        self._cluster.create_pod(self._manifest(request))
        return {}

    def _manifest(self, request: RepairRequest) -> Mapping[str, Any]:
        case, step, node, boot_id = request.case_id, request.step, request.node, request.boot_id
        if request.action is Action.REBOOT_NODE:
            return pods.reboot_pod(case, step, node, boot_id, self._settings)
        gpus = request.gpus
        return pods.reset_pod(case, step, node, boot_id=boot_id, gpus=gpus, settings=self._settings)

    def look(self, action: Action, handle: Mapping[str, Any]) -> RepairLook:
        """A reset by its pod's exit code, a plugin by its successor. The pod of a reboot dies with
        the node, so that it proves nothing either way.
        """
        match action:
            case Action.RESTART_DEVICE_PLUGIN:
                return self._look_at_plugin(handle)
            case Action.RESET_GPU:
                return self._look_at_pod(handle)
            case _:
                return RepairLook(RepairStatus.RUNNING, "the node runs the same boot")

    def _look_at_pod(self, handle: Mapping[str, Any]) -> RepairLook:
        namespace, name = pod_of(handle)
        try:
            pod = self._cluster.pod(namespace, name)
            if not pod.is_finished:
                return RepairLook(RepairStatus.RUNNING, f"pod {name} is {pod.phase}")
            code = self._cluster.pod_exit_code(namespace, name)
        except NotFound:
            text = f"pod {name} is gone: what it did is not known"
            return RepairLook(RepairStatus.UNKNOWN, text)
        is_done = pod.phase == "Succeeded" and code in (0, None)
        status = RepairStatus.DONE if is_done else RepairStatus.FAILED
        return RepairLook(status, f"pod {pod.phase}, exit code {code}", {"exit_code": code})

    def _look_at_plugin(self, handle: Mapping[str, Any]) -> RepairLook:
        fresh = [
            p
            for p in self._cluster.pods(str(handle["node"]))
            if self._is_plugin(p) and p.uid != handle["uid"] and p.is_ready
        ]
        if not fresh:
            return RepairLook(RepairStatus.RUNNING, "no new device-plugin pod is Ready yet")
        text = "a new device-plugin pod is Ready"
        return RepairLook(RepairStatus.DONE, text, {"new_uid": fresh[0].uid})

    def _plugin(self, node: str) -> Pod:
        found = [p for p in self._cluster.pods(node) if self._is_plugin(p)]
        if not found:
            labels = " or ".join(f"{k}={v}" for k, v in self._settings.plugin_labels)
            raise Refused(
                RefusalReason.REASON_GONE, f"no device-plugin pod ({labels}) on node {node}"
            )
        return found[0]

    def _is_plugin(self, pod: Pod) -> bool:
        """Only a pod that its DaemonSet brings back."""
        owner = pod.controller
        labelled = any(pod.labels.get(k) == v for k, v in self._settings.plugin_labels)
        is_kept = owner is not None and owner.kind == "DaemonSet"
        return labelled and is_kept and not pod.is_terminating


def pod_of(handle: Mapping[str, Any]) -> tuple[str, str]:
    """(namespace, name) of the pod that a handle names."""
    namespace, name = str(handle["pod"]).split("/", 1)
    return namespace, name
