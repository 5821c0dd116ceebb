"""The scheduler: gives pods without a node one that takes them."""

from __future__ import annotations

from collections import Counter

import msgspec

from simfleet.kube import events, placement, subresources
from simfleet.kube.deletion import FINISHED
from simfleet.kube.kinds import POD
from simfleet.kube.store import Change, Key, Obj, Store

COMPONENT = "default-scheduler"
_encode = msgspec.json.Encoder(order="deterministic").encode


class Scheduler:
    """Keeps count of what is used on each node and places pods where most GPUs are free."""

    kinds = ("Pod", "Node")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._used: dict[str, Counter[str]] = {}
        self._held: dict[Key, tuple[str, Counter[str]]] = {}
        self._waiting: set[Key] = set()
        self._retry = False

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        if change.kind == "Node":
            self._retry = True
            return
        key = (change.namespace, change.name)
        gone = change.type == "DELETED"
        self._retry |= self._hold(key, None if gone else change.obj)
        if gone or not is_waiting(change.obj):
            self._waiting.discard(key)
        elif change.previous is None:
            self._waiting.add(key)
            self._retry = True

    def _hold(self, key: Key, pod: Obj | None) -> bool:
        """Count what a pod holds on its node; may be told twice. True when room came free.

        Finished pods hold nothing; terminating ones hold on until they are gone.
        """
        before = self._held.pop(key, None)
        if before is not None:
            self._used[before[0]].subtract(before[1])
        if pod is None or pod["status"].get("phase") in FINISHED:
            return before is not None
        if node := pod["spec"].get("nodeName"):
            wanted = placement.requests_of(pod)
            self._used.setdefault(node, Counter()).update(wanted)
            self._held[key] = (node, wanted)
        return False

    def sync(self) -> None:
        """Try to place every waiting pod; pods that want the same are looked at once."""
        if not self._retry:
            return
        self._retry = False
        hopeless: dict[bytes, str] = {}
        for key in sorted(self._waiting):
            pod = self._store.find("Pod", *key)
            if pod is None or not is_waiting(pod):
                self._waiting.discard(key)
                continue
            want = _signature(pod)
            message = hopeless.get(want) or self._place(pod)
            if message:
                hopeless[want] = message
                self._report(pod, message)

    def _place(self, pod: Obj) -> str:
        """Bind the pod, or say why no node takes it."""
        wanted = placement.requests_of(pod)
        reasons: Counter[str] = Counter()
        best: tuple[float, str] | None = None
        candidates = list(self._store.objects("Node"))
        for node in candidates:
            name = node["metadata"]["name"]
            reason = placement.why_not(pod["spec"], node)
            used = self._used.get(name, Counter())
            short = [] if reason else placement.lacking(wanted, used, node)
            if reason or short:
                reasons.update([reason] if reason else [f"Insufficient {one}" for one in short])
                continue
            room = node["status"].get("allocatable", {})
            free = placement.quantity(room.get(placement.GPU, 0)) - used.get(placement.GPU, 0)
            # Most free GPUs first, then by name, so that runs repeat.
            if best is None or (-free, name) < best:
                best = (-free, name)
        if best is None:
            return _unplaceable(reasons, len(candidates))
        self._bind(pod, best[1])
        return ""

    def _bind(self, pod: Obj, node: str) -> None:
        namespace, name = key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._hold(key, subresources.bind(self._store, namespace, name, node))
        self._waiting.discard(key)
        text = f"Successfully assigned {namespace}/{name} to {node}"
        about: Obj = {"reason": "Scheduled", "message": text, "component": COMPONENT}
        events.record(self._store, "Pod", pod, **about)

    def _report(self, pod: Obj, message: str) -> None:
        conditions = pod["status"].get("conditions", [])
        have: Obj = next((one for one in conditions if one["type"] == "PodScheduled"), {})
        if have.get("message") == message:
            return
        condition = {
            "type": "PodScheduled",
            "observedGeneration": pod["metadata"].get("generation", 1),
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": self._store.timestamp(),
            "reason": "Unschedulable",
            "message": message,
        }
        kept = [one for one in conditions if one["type"] != "PodScheduled"]
        status = pod["status"] | {"conditions": [*kept, condition]}
        self._store.replace(POD, pod, pod | {"status": status})
        about: Obj = {"reason": "FailedScheduling", "message": message, "component": COMPONENT}
        events.record(self._store, "Pod", pod, **about, warning=True)


def is_waiting(pod: Obj) -> bool:
    """Whether a pod is the scheduler's to place."""
    return (
        not pod["spec"].get("nodeName")
        and pod["spec"].get("schedulerName", COMPONENT) == COMPONENT
        and "deletionTimestamp" not in pod["metadata"]
        and pod["status"].get("phase") not in FINISHED
    )


def _signature(pod: Obj) -> bytes:
    spec = pod["spec"]
    fields = ("nodeSelector", "affinity", "tolerations")
    return _encode([placement.requests_of(pod), *(spec.get(field) for field in fields)])


def _unplaceable(reasons: Counter[str], nodes: int) -> str:
    listed = ", ".join(sorted(f"{count} {reason}" for reason, count in reasons.items()))
    head = f"0/{nodes} nodes are available"
    tail = f"preemption: {head}: {nodes} Preemption is not helpful for scheduling."
    if not nodes:
        return "no nodes available to schedule pods"
    return f"{head}: {listed}. no new claims to deallocate, {tail}"
