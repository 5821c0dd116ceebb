"""The `Cluster` port: what we ask of the Kubernetes API and how its answers are meant."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import msgspec

from breakfix.adapters.kubernetes.decoding import (
    FleetLabels,
    KBudget,
    KConfigMap,
    KEvent,
    KNode,
    KObject,
    KPod,
    Page,
    taint_body,
    to_budget,
    to_event,
    to_node,
    to_pod,
)
from breakfix.adapters.kubernetes.evictions import eviction_body, eviction_of
from breakfix.adapters.kubernetes.known import Known
from breakfix.adapters.kubernetes.transport import (
    MERGE_PATCH,
    Expired,
    LeftAlone,
    Transport,
    Unavailable,
)
from breakfix.errors import ClusterError, Conflict, Forbidden, NotFound
from breakfix.model import Budget, Event, Node, Pod
from breakfix.ports import Eviction, NodePatch

#: Objects per page: a page of nodes is some 4 MB, decoded in a few milliseconds.
PAGE = 500
_RESTARTS = 3  # of a list whose version expired while it was read

_NODE = msgspec.json.Decoder(KNode)
_POD = msgspec.json.Decoder(KPod)
_OBJECT = msgspec.json.Decoder(KObject)
_CONFIG_MAP = msgspec.json.Decoder(KConfigMap)
_NODES = msgspec.json.Decoder(Page[KNode])
_PODS = msgspec.json.Decoder(Page[KPod])
_BUDGETS = msgspec.json.Decoder(Page[KBudget])
_EVENTS = msgspec.json.Decoder(Page[KEvent])
_OBJECTS = msgspec.json.Decoder(Page[KObject])

T = TypeVar("T")


class KubernetesCluster:
    """One cluster. Every call is bounded in time and raises only ClusterErrors."""

    def __init__(
        self,
        transport: Transport,
        *,
        labels: FleetLabels | None = None,
        gpu_resource: str = "nvidia.com/gpu",
        page: int = PAGE,
    ) -> None:
        self._api = transport
        self._labels = labels or FleetLabels()
        self._gpu = gpu_resource
        self._page = page
        self._uid = ""
        self._nodes: Known[KNode, Node] = Known(self._node)
        self._pods: Known[KPod, Pod] = Known(self._pod)

    def close(self) -> None:
        """Give the connections back."""
        self._api.close()

    # -- reading

    def uid(self) -> str:
        if not self._uid:
            self._uid = self._get("/api/v1/namespaces/kube-system", _OBJECT).metadata.uid
        return self._uid

    def nodes(self) -> Sequence[Node]:
        return tuple(self._nodes.of(n) for n in self._list("/api/v1/nodes", _NODES))

    def node(self, name: str) -> Node:
        return self._node(self._get(_node_path(name), _NODE))

    def pods(self, node: str | None = None) -> Sequence[Pod]:
        query = {} if node is None else {"fieldSelector": f"spec.nodeName={node}"}
        return tuple(self._pods.of(p) for p in self._list("/api/v1/pods", _PODS, query))

    def pod(self, namespace: str, name: str) -> Pod:
        return self._pod(self._get(_pod_path(namespace, name), _POD))

    def budgets(self) -> Sequence[Budget]:
        path = "/apis/policy/v1/poddisruptionbudgets"
        return tuple(to_budget(b) for b in self._list(path, _BUDGETS))

    def daemon_sets(self) -> frozenset[tuple[str, str]]:
        found = self._list("/apis/apps/v1/daemonsets", _OBJECTS)
        return frozenset((d.metadata.namespace, d.metadata.name) for d in found)

    def node_events(self) -> Sequence[Event]:
        """Only those of nodes: a busy cluster has many times more of pods."""
        query = {"fieldSelector": "involvedObject.kind=Node"}
        return tuple(to_event(e) for e in self._list("/api/v1/events", _EVENTS, query))

    def pod_log(self, namespace: str, name: str, *, limit_bytes: int = 1 << 20) -> str:
        """Empty before the container has started."""
        path = f"{_pod_path(namespace, name)}/log"
        try:
            body = self._api.read(path, {"limitBytes": limit_bytes})
        except ClusterError as e:
            if "is waiting to start" in str(e):
                return ""
            raise
        return body.decode("utf-8", "replace")

    def pod_exit_code(self, namespace: str, name: str) -> int | None:
        return self._get(_pod_path(namespace, name), _POD).exit_code

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None:
        try:
            return self._get(_config_map_path(namespace, name), _CONFIG_MAP).data or {}
        except NotFound:
            return None

    # -- writing

    def patch_node(self, name: str, resource_version: str, patch: NodePatch) -> Node:
        """A merge patch: maps key by key (None removes), the taints as one list.

        The resourceVersion in it makes a repetition harmless: at worst it is a Conflict.
        """
        body = self._api.write(
            "PATCH",
            _node_path(name),
            _patch_body(resource_version, patch),
            content_type=MERGE_PATCH,
            is_repeatable=True,
        )
        return self._node(_decoded(body, _NODE, _node_path(name)))

    def evict(
        self, namespace: str, name: str, uid: str, *, grace_s: int | None, dry_run: bool = False
    ) -> Eviction:
        """Sent once: after an unclear answer (`busy`) the caller looks at the pod again."""
        path = f"{_pod_path(namespace, name)}/eviction"
        query = {"dryRun": "All"} if dry_run else None
        try:
            answer = self._api.send(
                "POST", path, query, eviction_body(namespace, name, uid, grace_s)
            )
        except Unavailable as e:
            return Eviction("busy", str(e), e.retry_after_s)
        except LeftAlone as e:
            return Eviction("busy", str(e))
        return eviction_of(answer, f"evicting pod {namespace}/{name}")

    def delete_pod(self, namespace: str, name: str, uid: str, *, grace_s: int | None) -> bool:
        options: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "preconditions": {"uid": uid},
        }
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            self._api.write("DELETE", _pod_path(namespace, name), options, is_repeatable=True)
        except NotFound:
            return False
        except Conflict as e:
            if "UID in the precondition" in str(e):
                return False
            raise
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
        """The uid in the patch makes the server refuse (422) one that meets another pod."""
        metadata = {"uid": uid, "annotations": dict(annotations), "labels": dict(labels)}
        try:
            self._api.write(
                "PATCH",
                _pod_path(namespace, name),
                {"metadata": {k: v for k, v in metadata.items() if v}},
                content_type=MERGE_PATCH,
                is_repeatable=True,
            )
        except NotFound:
            return False
        except ClusterError as e:
            if "metadata.uid" in str(e) and "field is immutable" in str(e):
                return False
            raise
        return True

    def create_pod(self, manifest: Mapping[str, Any]) -> Pod:
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        path = f"/api/v1/namespaces/{quote(namespace)}/pods"
        try:
            body = self._api.write("POST", path, manifest, is_repeatable=True)
        except Conflict as e:
            if "already exists" not in str(e):
                raise
            return self.pod(namespace, name)
        except Forbidden as e:
            if "serviceaccount" in str(e) and "not found" in str(e):
                # a new namespace gets its default ServiceAccount a moment later
                raise ClusterError(str(e), is_transient=True) from e
            raise
        return to_pod(_decoded(body, _POD, path), self._gpu)

    def post_event(self, node: Node, *, reason: str, message: str, is_warning: bool) -> None:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{node.name}.{uuid.uuid4().hex[:16]}", "namespace": "default"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Node",
                "name": node.name,
                "uid": node.uid,
            },
            "reason": reason,
            "message": message[:1024],  # the API server refuses longer ones
            "type": "Warning" if is_warning else "Normal",
            "source": {"component": "breakfix"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        self._api.write("POST", "/api/v1/namespaces/default/events", event)

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> bool:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "namespace": namespace},
            "data": dict(data),
        }
        return self._create(f"/api/v1/namespaces/{quote(namespace)}/configmaps", body)

    def update_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        self._api.write(
            "PATCH",
            _config_map_path(namespace, name),
            {"data": dict(data)},
            content_type=MERGE_PATCH,
            is_repeatable=True,
        )

    def ensure_namespace(self, name: str) -> None:
        try:
            self._api.read(f"/api/v1/namespaces/{quote(name)}")
        except NotFound:
            body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            self._create("/api/v1/namespaces", body)

    # -- how

    def _node(self, node: KNode) -> Node:
        return to_node(node, self._labels, self._gpu)

    def _pod(self, pod: KPod) -> Pod:
        return to_pod(pod, self._gpu)

    def _get(self, path: str, decoder: msgspec.json.Decoder[T]) -> T:
        return _decoded(self._api.read(path), decoder, path)

    def _create(self, path: str, body: Mapping[str, Any]) -> bool:
        try:
            self._api.write("POST", path, body)
        except Conflict as e:
            if "already exists" in str(e):
                return False
            raise
        return True

    def _list(
        self,
        path: str,
        decoder: msgspec.json.Decoder[Page[T]],
        query: Mapping[str, str] | None = None,
    ) -> list[T]:
        """All items at one version. A list that expires while it is read is read again, whole."""
        for _ in range(_RESTARTS):
            try:
                return self._pages(path, decoder, query or {})
            except Expired:
                continue
        raise ClusterError(f"{path}: expired {_RESTARTS} times while listing", is_transient=True)

    def _pages(
        self, path: str, decoder: msgspec.json.Decoder[Page[T]], query: Mapping[str, str]
    ) -> list[T]:
        items: list[T] = []
        token = ""
        while True:
            more = {"continue": token} if token else {}
            body = self._api.read(path, {"limit": self._page, **query, **more})
            page = _decoded(body, decoder, path)
            items += page.items or ()
            token = page.metadata.continue_
            if not token:
                return items


def _decoded(body: bytes, decoder: msgspec.json.Decoder[T], path: str) -> T:
    try:
        return decoder.decode(body)
    except msgspec.MsgspecError as e:
        raise ClusterError(f"{path}: answered something else than the Kubernetes API: {e}") from e


def _patch_body(resource_version: str, patch: NodePatch) -> dict[str, Any]:
    metadata: dict[str, Any] = {"resourceVersion": resource_version}
    if patch.labels is not None:
        metadata["labels"] = dict(patch.labels)
    if patch.annotations is not None:
        metadata["annotations"] = dict(patch.annotations)
    spec: dict[str, Any] = {}
    if patch.is_unschedulable is not None:
        # absent, not false, is what kubectl leaves behind as well
        spec["unschedulable"] = True if patch.is_unschedulable else None
    if patch.taints is not None:
        spec["taints"] = [taint_body(t) for t in patch.taints]
    return {"metadata": metadata, "spec": spec} if spec else {"metadata": metadata}


def _node_path(name: str) -> str:
    return f"/api/v1/nodes/{quote(name, safe='')}"


def _pod_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(name, safe='')}"


def _config_map_path(namespace: str, name: str) -> str:
    return f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps/{quote(name, safe='')}"
