"""The scheduler: gives pods without a node one that takes them."""

from __future__ import annotations

import heapq
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
        """Try to place every waiting pod; pods that want the same are looked at together."""
        if not self._retry:
            return
        self._retry = False
        offers: dict[bytes, list[tuple[float, str]]] = {}
        hopeless: dict[bytes, str] = {}
        for key in sorted(self._waiting):
            pod = self._store.find("Pod", *key)
            if pod is None or not is_waiting(pod):
                self._waiting.discard(key)
                continue
            want = _signature(pod)
            if want not in offers:
                offers[want] = self._offers(pod)
            if node := self._take(pod, offers[want]):
                self._bind(pod, node)
                continue
            if want not in hopeless:
                hopeless[want] = self._why_nowhere(pod)
            self._report(pod, hopeless[want])

    def _offers(self, pod: Obj) -> list[tuple[float, str]]:
        """A heap of the nodes a pod may run on whatever their room, most free GPUs first."""
        found = [
            (-self._free_gpus(node), node["metadata"]["name"])
            for node in self._store.objects("Node")
            if placement.why_not(pod["spec"], node) is None
        ]
        heapq.heapify(found)
        return found

    def _take(self, pod: Obj, offers: list[tuple[float, str]]) -> str:
        """The best node with room, or "". Room only shrinks meanwhile: who has none is dropped."""
        wanted = placement.requests_of(pod)
        while offers:
            free, name = offers[0]
            node = self._store.get("Node", "", name)
            if (now_free := -self._free_gpus(node)) != free:
                heapq.heapreplace(offers, (now_free, name))
            elif placement.lacking(wanted, self._used.get(name, Counter()), node):
                heapq.heappop(offers)
            else:
                return name
        return ""

    def _free_gpus(self, node: Obj) -> float:
        room = node["status"].get("allocatable", {}).get(placement.GPU, 0)
        used = self._used.get(node["metadata"]["name"], Counter())[placement.GPU]
        return placement.quantity(room) - used

    def _why_nowhere(self, pod: Obj) -> str:
        wanted = placement.requests_of(pod)
        reasons: Counter[str] = Counter()
        nodes = list(self._store.objects("Node"))
        for node in nodes:
            used = self._used.get(node["metadata"]["name"], Counter())
            reason = placement.why_not(pod["spec"], node)
            short = placement.lacking(wanted, used, node)
            reasons.update([reason] if reason else [f"Insufficient {one}" for one in short])
        return _unplaceable(reasons, len(nodes))

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
