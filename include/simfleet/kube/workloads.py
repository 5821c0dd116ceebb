"""ReplicaSets and DaemonSets: the pods they want to see, and what they report."""

from __future__ import annotations

import copy
import hashlib

import msgspec

from simfleet.kube import defaults, deletion, evictions, placement
from simfleet.kube.admission import check_account, check_namespace
from simfleet.kube.deletion import FINISHED, DeleteOptions
from simfleet.kube.errors import ApiError
from simfleet.kube.kinds import DAEMON_SET, POD, REPLICA_SET, Kind
from simfleet.kube.store import Change, Key, Obj, Store

_DAEMON_TOLERATIONS = (
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
)
_encode = msgspec.json.Encoder(order="deterministic").encode


def is_active(pod: Obj) -> bool:
    """Whether a pod counts for its owner: neither finished nor on its way out."""
    finished = pod["status"].get("phase") in FINISHED
    return not finished and "deletionTimestamp" not in pod["metadata"]


def owner_of(pod: Obj) -> Obj | None:
    """The controlling owner reference of a pod."""
    references = pod["metadata"].get("ownerReferences", [])
    return next((one for one in references if one.get("controller")), None)


def pod_from(store: Store, kind: Kind, owner: Obj, changes: Obj | None = None) -> Obj:
    """Create a pod from an owner's template. Raises ApiError as an API call would."""
    metadata = owner["metadata"]
    template = copy.deepcopy(owner["spec"]["template"])
    made: Obj = {"metadata": dict(template.get("metadata") or {}), "spec": template["spec"]}
    made["metadata"] |= {
        "generateName": f"{metadata['name']}-",
        "namespace": metadata["namespace"],
        "ownerReferences": [
            {
                "apiVersion": kind.api_version,
                "kind": kind.kind,
                "name": metadata["name"],
                "uid": metadata["uid"],
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ],
    }
    if changes:
        labels = made["metadata"].get("labels") or {}
        made["metadata"]["labels"] = labels | changes["labels"]
        made["spec"] |= changes["spec"]
    check_namespace(store, POD, metadata["namespace"], made["metadata"])
    check_account(store, metadata["namespace"], made)
    return store.create("Pod", defaults.for_create("Pod", made, store))


class _Owner:
    """What both controllers share: which of their objects to look at again."""

    kind: Kind

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: set[Key] = set()

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        if change.kind == self.kind.kind:
            self._dirty.add((change.namespace, change.name))
        elif change.kind == "Pod":
            owner = owner_of(change.obj)
            if owner and owner["kind"] == self.kind.kind:
                self._dirty.add((change.namespace, owner["name"]))

    def sync(self) -> None:
        """Bring every object that changed to what its spec says."""
        dirty, self._dirty = self._dirty, set()
        for key in sorted(dirty):
            owner = self._store.find(self.kind.kind, *key)
            if owner is not None and "deletionTimestamp" not in owner["metadata"]:
                self._reconcile(owner)

    def _reconcile(self, owner: Obj) -> None:
        raise NotImplementedError

    def _pods(self, owner: Obj) -> list[Obj]:
        uid, namespace = owner["metadata"]["uid"], owner["metadata"]["namespace"]
        return [
            pod
            for pod in self._store.objects("Pod")
            if pod["metadata"]["namespace"] == namespace
            and (reference := owner_of(pod)) is not None
            and reference["uid"] == uid
        ]

    def _create(self, owner: Obj, changes: Obj | None = None) -> bool:
        """Create a pod; False when the namespace takes none (it is going away)."""
        try:
            pod_from(self._store, self.kind, owner, changes)
        except ApiError as error:
            if error.code not in (403, 404):
                raise
            return False
        return True

    def _delete(self, pod: Obj) -> None:
        deletion.delete(self._store, POD, pod, DeleteOptions())

    def _report(self, owner: Obj, always: Obj, unless_zero: Obj) -> None:
        """Write the status; the counts of `unless_zero` are left out when they are 0."""
        metadata = owner["metadata"]
        status = always | {key: value for key, value in unless_zero.items() if value}
        status |= {"observedGeneration": metadata["generation"]}
        current = self._store.get(self.kind.kind, metadata["namespace"], metadata["name"])
        self._store.replace(self.kind, current, current | {"status": status})


class ReplicaSets(_Owner):
    """Keeps as many pods as `spec.replicas` says; where they run is the scheduler's matter."""

    kind = REPLICA_SET
    kinds = ("ReplicaSet", "Pod")

    def _reconcile(self, owner: Obj) -> None:
        pods = [pod for pod in self._pods(owner) if is_active(pod)]
        missing = owner["spec"].get("replicas", 1) - len(pods)
        for _ in range(missing):
            if not self._create(owner):
                break
        # The least useful go first: unbound, then not ready, then the youngest.
        for pod in sorted(pods, key=_usefulness)[: max(0, -missing)]:
            self._delete(pod)
        self._write_status(owner)

    def _write_status(self, owner: Obj) -> None:
        mine = self._pods(owner)
        pods = [pod for pod in mine if is_active(pod)]
        ready = sum(1 for pod in pods if evictions.is_ready(pod))
        going = sum(1 for pod in mine if "deletionTimestamp" in pod["metadata"])
        counts = {"fullyLabeledReplicas": len(pods), "readyReplicas": ready}
        counts |= {"availableReplicas": ready}
        self._report(owner, {"replicas": len(pods), "terminatingReplicas": going}, counts)


def _usefulness(pod: Obj) -> tuple[bool, bool, int]:
    bound = bool(pod["spec"].get("nodeName"))
    return bound, evictions.is_ready(pod), -int(pod["metadata"]["resourceVersion"])


class DaemonSets(_Owner):
    """Keeps one pod on every node that the template's selector and tolerations allow."""

    kind = DAEMON_SET
    kinds = ("DaemonSet", "Pod", "Node")

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._nodes_changed = False

    def changed(self, change: Change) -> None:
        """Take note of a change; a node's matters when its labels, taints or being change."""
        super().changed(change)
        if change.kind == "Node":
            before, after = change.previous, change.obj
            labels = before is None or before["metadata"].get("labels") != (
                after["metadata"].get("labels")
            )
            taints = before is None or before["spec"].get("taints") != after["spec"].get("taints")
            self._nodes_changed |= labels or taints or change.type == "DELETED"

    def sync(self) -> None:
        """Bring what changed to what the specs say."""
        if self._nodes_changed:
            self._nodes_changed = False
            for owner in self._store.objects("DaemonSet"):
                self._dirty.add((owner["metadata"]["namespace"], owner["metadata"]["name"]))
        super().sync()

    def _reconcile(self, owner: Obj) -> None:
        spec = _with_tolerations(owner["spec"]["template"]["spec"])
        wanted = {
            node["metadata"]["name"]
            for node in self._store.objects("Node")
            if placement.matches_node(spec, node)
            and not placement.untolerated(spec, node, ("NoSchedule", "NoExecute"))
        }
        staying: dict[str, list[Obj]] = {}
        for pod in self._pods(owner):
            if "deletionTimestamp" not in pod["metadata"]:
                staying.setdefault(target_node(pod), []).append(pod)
        for name in sorted(staying.keys() - wanted):
            self._leave(name, staying.pop(name), spec)
        for pods in staying.values():
            for pod in [pod for pod in pods if pod["status"].get("phase") in FINISHED]:
                self._delete(pod)
        blocked = self._blocked_nodes(owner)
        for name in sorted(wanted - staying.keys() - blocked):
            if not self._create(owner, _pinned(owner, spec, name)):
                break
        self._write_status(owner, wanted)

    def _leave(self, name: str, pods: list[Obj], spec: Obj) -> None:
        """A NoSchedule taint alone does not drive out the pod that is already there."""
        node = self._store.find("Node", "", name)
        still_fits = node is not None and placement.matches_node(spec, node)
        if (
            node is not None
            and still_fits
            and not placement.untolerated(spec, node, ("NoExecute",))
        ):
            return
        for pod in pods:
            self._delete(pod)

    def _blocked_nodes(self, owner: Obj) -> set[str]:
        """Nodes where the old pod is still terminating: the new one waits for its end."""
        pods = self._pods(owner)
        return {target_node(pod) for pod in pods if "deletionTimestamp" in pod["metadata"]}

    def _write_status(self, owner: Obj, wanted: set[str]) -> None:
        pods = [pod for pod in self._pods(owner) if is_active(pod)]
        placed = {target_node(pod) for pod in pods}
        ready = sum(1 for pod in pods if evictions.is_ready(pod))
        always = {
            "currentNumberScheduled": len(placed & wanted),
            "numberMisscheduled": len(placed - wanted),
            "desiredNumberScheduled": len(wanted),
            "numberReady": ready,
        }
        rest = {"updatedNumberScheduled": len(placed & wanted), "numberAvailable": ready}
        self._report(owner, always, rest | {"numberUnavailable": len(wanted) - ready})


def target_node(pod: Obj) -> str:
    """The node a daemon's pod belongs to, bound or not yet."""
    if name := pod["spec"].get("nodeName"):
        return str(name)
    affinity = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    for term in required.get("nodeSelectorTerms", []):
        for field in term.get("matchFields", []):
            return str(field["values"][0])
    return ""


def _with_tolerations(spec: Obj) -> Obj:
    added = [
        {"key": key, "operator": "Exists", "effect": effect} for key, effect in _DAEMON_TOLERATIONS
    ]
    return spec | {"tolerations": [*spec.get("tolerations", []), *added]}


def _pinned(owner: Obj, spec: Obj, node: str) -> Obj:
    field = {"key": "metadata.name", "operator": "In", "values": [node]}
    terms = {"nodeSelectorTerms": [{"matchFields": [field]}]}
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}}
    digest = hashlib.sha256(_encode(owner["spec"]["template"])).hexdigest()[:10]
    labels = {"controller-revision-hash": digest}
    labels["pod-template-generation"] = str(owner["metadata"]["generation"])
    return {"labels": labels, "spec": {"affinity": affinity, "tolerations": spec["tolerations"]}}
