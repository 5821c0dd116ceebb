"""A cluster to hold the adapter to: simulated, or real when BREAKFIX_TEST_KUBECONFIG names one.

The test plays kubelet: its nodes are its own, no kubelet serves them, and their pods are bound by
name. Whatever is made carries a unique name and label, and is removed afterwards, also on failure.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

import yaml
from kubernetes import client, config

from breakfix.adapters.kubernetes import KubernetesCluster, connect
from breakfix.adapters.kubernetes.transport import Transport
from simfleet.kube import SimKube
from simfleet.kube.live import CONTROLLERS, LiveSettings

REAL = os.environ.get("BREAKFIX_TEST_KUBECONFIG", "")
LABEL = "breakfix.dev/contract-test"
DEADLINE_S = 30.0
T = TypeVar("T")


def hosts() -> list[str]:
    """Where the tests may connect to: loopback, and the real cluster's API server."""
    allowed = ["127.0.0.1", "::1", "localhost"]
    if REAL:
        clusters = yaml.safe_load(Path(REAL).read_text())["clusters"]
        allowed += [urlsplit(c["cluster"]["server"]).hostname or "" for c in clusters]
    return allowed


@contextmanager
def kubeconfig_of_a_cluster(folder: Path) -> Iterator[Path]:
    """The real cluster's kubeconfig, or that of a simulated one without kubelets."""
    if REAL:
        yield Path(REAL)
        return
    settings = LiveSettings(CONTROLLERS - {"kubelet"})
    with SimKube(live=True, settings=settings, tls=True) as kube:
        yield kube.kubeconfig(folder / "kubeconfig")
        wait_for(lambda: kube.call(lambda: _is_idle(kube)), "the last connection closes")


def _is_idle(kube: SimKube) -> bool:
    """Whether the server has noticed that its clients went: only then it stops without a rest."""
    server = kube._runner.server if kube._runner is not None else None
    return server is None or not server.connections


def wait_for(what: Callable[[], T], reason: str) -> T:
    """The first true answer; fails when there is none in time."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        answer = what()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {DEADLINE_S:.0f} s: {reason}")
        time.sleep(0.05)


class ClusterWorld:
    """One test's part of the cluster: a namespace, and nodes that carry its label."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.id = f"bf-{uuid.uuid4().hex[:10]}"
        self.namespace = self.id
        self._api = config.new_client_from_config(str(kubeconfig))
        self.core = client.CoreV1Api(self._api)
        self.apps = client.AppsV1Api(self._api)
        self.policy = client.PolicyV1Api(self._api)
        self.cluster: KubernetesCluster = connect(kubeconfig=str(kubeconfig), timeout_s=10.0)

    def __enter__(self) -> Self:
        self.core.create_namespace(
            {"metadata": {"name": self.namespace, "labels": {LABEL: self.id}}}
        )
        try:
            wait_for(self._has_service_account, "the namespace's ServiceAccount")
        except BaseException:
            self.__exit__()
            raise
        return self

    def _has_service_account(self) -> bool:
        found = self.core.list_namespaced_service_account(self.namespace).items
        return any(a.metadata.name == "default" for a in found)

    def __exit__(self, *_: object) -> None:
        try:
            for remove in (self._remove_workloads, self._remove_pods, self._remove_nodes):
                remove()
            self.core.delete_namespace(self.namespace)
        finally:
            self.cluster.close()
            Transport(self._api, timeout_s=1.0).close()

    def _remove_workloads(self) -> None:
        self.apps.delete_collection_namespaced_daemon_set(self.namespace)
        self.apps.delete_collection_namespaced_replica_set(self.namespace)
        self.policy.delete_collection_namespaced_pod_disruption_budget(self.namespace)

    def _remove_pods(self) -> None:
        self.core.delete_collection_namespaced_pod(
            self.namespace, body={"gracePeriodSeconds": 0, "propagationPolicy": "Background"}
        )

    def _remove_nodes(self) -> None:
        for node in self.core.list_node(label_selector=f"{LABEL}={self.id}").items:
            for pod in self.core.list_pod_for_all_namespaces(
                field_selector=f"spec.nodeName={node.metadata.name}"
            ).items:
                self.kill(pod.metadata.name, pod.metadata.namespace)
            self.core.delete_node(node.metadata.name)

    # -- nodes

    def node(self, name: str = "a", *, gpus: int = 8, **labels: str) -> str:
        """Create a Ready node with GPUs; its full name. Nobody else's pods are scheduled there."""
        full = f"{self.id}-{name}"
        own = {LABEL: self.id, "kubernetes.io/hostname": full, **labels}
        taint = {"key": LABEL, "value": self.id, "effect": "NoSchedule"}
        self.core.create_node(
            {"metadata": {"name": full, "labels": own}, "spec": {"taints": [taint]}}
        )
        self.core.patch_node_status(full, {"status": _node_status(gpus)})
        wait_for(lambda: not self._is_not_ready(full), "the taint of a new node goes")
        return full

    def _is_not_ready(self, name: str) -> bool:
        node = self.core.read_node(name)
        return any(t.key == "node.kubernetes.io/not-ready" for t in node.spec.taints or ())

    # -- pods

    def pod(self, name: str, node: str = "", *, is_running: bool = True, **spec: Any) -> str:
        """Create a pod bound to that node and (by default) Running and Ready; its uid."""
        meta = {
            "name": name,
            "labels": {LABEL: self.id, **spec.pop("labels", {})},
            "annotations": spec.pop("annotations", {}),
            "finalizers": spec.pop("finalizers", []),
        }
        body = {"metadata": meta, "spec": {**pod_spec(node), **spec}}
        uid: str = self.core.create_namespaced_pod(self.namespace, body).metadata.uid
        if node and is_running:
            self.run(name)
        return uid

    def run(self, name: str) -> None:
        """What a kubelet says of a pod that runs and is ready."""
        conditions = [{"type": t, "status": "True"} for t in ("ContainersReady", "Ready")]
        self.status(name, phase="Running", conditions=conditions)

    def end(self, name: str, exit_code: int) -> None:
        """What a kubelet says of a pod whose container has ended."""
        state = {"terminated": {"exitCode": exit_code, "reason": "Completed"}}
        container = {
            "name": "main",
            "image": "registry.example/app:1",
            "imageID": "sha256:0",
            "ready": False,
            "restartCount": 0,
            "state": state,
        }
        phase = "Failed" if exit_code else "Succeeded"
        self.status(name, phase=phase, containerStatuses=[container])

    def status(self, name: str, **status: Any) -> None:
        self.core.patch_namespaced_pod_status(name, self.namespace, {"status": status})

    def kill(self, name: str, namespace: str = "") -> None:
        """Remove a pod at once, as its kubelet would have by now."""
        try:
            self.core.delete_namespaced_pod(
                name, namespace or self.namespace, body={"gracePeriodSeconds": 0}
            )
        except client.ApiException as e:
            if e.status != 404:
                raise

    def budget(self, name: str, app: str, minimum: int, *, until: int | None = None) -> None:
        """A PodDisruptionBudget over `app=<app>`; waits until it allows `until` (None: no wait)."""
        spec = {"selector": {"matchLabels": {"app": app}}, "minAvailable": minimum}
        body = {"metadata": {"name": name}, "spec": spec}
        self.policy.create_namespaced_pod_disruption_budget(self.namespace, body)
        if until is not None:
            wait_for(lambda: self._allows(name, until), f"budget {name} allows {until}")

    def _allows(self, name: str, number: int) -> bool:
        it = self.policy.read_namespaced_pod_disruption_budget(name, self.namespace)
        status = it.status
        is_observed = (status.observed_generation or 0) >= it.metadata.generation
        return is_observed and status.disruptions_allowed == number

    def replica_set(self, name: str, node: str, replicas: int = 1, **spec: Any) -> list[str]:
        """Names of the pods of a ReplicaSet that binds them all to that node."""
        self.apps.create_namespaced_replica_set(
            self.namespace, _workload(name, {"replicas": replicas}, {**pod_spec(node), **spec})
        )
        return self._pods_of(name, replicas)

    def daemon_set(self, name: str, node: str) -> list[str]:
        """Names of the one pod of a DaemonSet that wants that node only."""
        spec = {
            **pod_spec(""),
            "nodeSelector": {"kubernetes.io/hostname": node},
            "tolerations": [{"operator": "Exists"}],
        }
        self.apps.create_namespaced_daemon_set(self.namespace, _workload(name, {}, spec))
        return self._pods_of(name, 1)

    def _pods_of(self, app: str, number: int) -> list[str]:
        def bound() -> list[str]:
            found = self.core.list_namespaced_pod(self.namespace, label_selector=f"app={app}").items
            names = [p.metadata.name for p in found if p.spec.node_name]
            return names if len(names) == number else []

        return wait_for(bound, f"{number} bound pods of {app}")


def pod_spec(node: str) -> dict[str, Any]:
    """The least a pod needs; bound to `node` when there is one."""
    spec: dict[str, Any] = {
        "containers": [{"name": "main", "image": "registry.example/app:1"}],
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
    }
    return {**spec, "nodeName": node} if node else spec


def _workload(name: str, spec: dict[str, Any], pod: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {**spec, "selector": {"matchLabels": labels}, "template": template},
    }


def _node_status(gpus: int) -> dict[str, Any]:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    resources = {"cpu": "64", "memory": "256Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "KubeletReady",
        "message": "played by a test",
        "lastHeartbeatTime": now,
        "lastTransitionTime": now,
    }
    info = {
        "architecture": "amd64",
        "bootID": "boot-1",
        "containerRuntimeVersion": "test://1",
        "kernelVersion": "6.1",
        "kubeProxyVersion": "",
        "kubeletVersion": "v1.36.0",
        "machineID": "m",
        "operatingSystem": "linux",
        "osImage": "test",
        "systemUUID": "s",
    }
    return {
        "capacity": resources,
        "allocatable": resources,
        "conditions": [ready],
        "nodeInfo": info,
        # nothing listens there, which a request for a log learns at once
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 9}},
    }
