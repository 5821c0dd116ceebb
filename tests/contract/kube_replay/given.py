"""What had happened before a step that the recording does not show.

`GIVEN[file][step]` is played before that step, `DURING[file][step]` while its watch is open.
Each entry plays the part of somebody else: of the people who prepared the recording, of
kubelets, of the controllers of the recorded cluster. Nothing in here touches the API under
test but through its store (or, in a watch, through another client's request).
"""

from __future__ import annotations

import copy
import json

from simfleet.kube import deletion, podstate, subresources
from simfleet.kube.budgets import BudgetCounter
from simfleet.kube.live import Live, LiveSettings
from simfleet.kube.nodelife import NodeTaints
from tests.contract.kube_replay.player import RECORDINGS, Player

ZONES = ("zone-a", "zone-b", "zone-c")


def taints(play: Player, name: str) -> None:
    """The node controller does its work on a node."""
    controller = NodeTaints(play.store, 0)
    play.call(lambda: controller.apply(play.store.get("Node", "", name)))


def label(play: Player, kind: str, namespace: str, name: str, **labels) -> None:
    def change(obj):
        merged = (obj["metadata"].get("labels") or {}) | labels
        obj["metadata"]["labels"] = {k: v for k, v in merged.items() if v is not None}

    play.mutate(kind, namespace, name, change)


def cordon(play: Player, name: str, *, undo: bool = False) -> None:
    def change(node):
        node["spec"].pop("unschedulable", None)
        if not undo:
            node["spec"]["unschedulable"] = True

    play.mutate("Node", "", name, change)


# 01: six nodes, made in the order of their recorded versions.



def nodes_01(play: Player) -> None:
    pattern = play.recorded(1)
    shown = {one["metadata"]["name"]: one for one in play.recorded(3)["items"]}
    full = {one["metadata"]["name"]: one for one in play.recorded(2)["items"]}
    for name in ("gpu-0003", "gpu-0001", "gpu-0002", "gpu-0005", "gpu-0004", "gpu-0000"):
        play.put("Node", full.get(name) or _like(pattern, shown[name]))


def _like(pattern: dict, shown: dict) -> dict:
    """A node of which the recording shows only labels and spec."""
    name = shown["metadata"]["name"]
    node = copy.deepcopy(pattern)
    node["metadata"] = {
        "name": name,
        "labels": shown["metadata"]["labels"],
        "annotations": pattern["metadata"]["annotations"],
    }
    node["spec"] = shown["spec"]
    number = int(name[-4:]) + 1
    node["status"]["addresses"][0]["address"] = f"10.200.0.{number}"
    node["status"]["addresses"][1]["address"] = name
    for field in ("machineID", "systemUUID", "bootID"):
        node["status"]["nodeInfo"][field] = name
    return node


def unlabel_0005(play: Player) -> None:
    label(play, "Node", "", "gpu-0005", changed=None)


# 02: one node; the controllers follow cordons; others apply in between.


def node_02(play: Player) -> None:
    node = copy.deepcopy(play.steps[46]["request"]["body"])
    node["metadata"]["labels"].pop("absent")
    node["metadata"]["labels"].pop("w")
    play.put("Node", node)


def applied_78(play: Player) -> None:
    status = play.call(lambda: play.store.get("Node", "", "gpu-0000"))["status"]
    play.put("Node", play.recorded(77) | {"status": status})


# Pods, and the kubelets, controllers and schedulers that bring them along.


def fleet(play: Player) -> None:
    """The six nodes of the recorded cluster."""
    source = json.loads((RECORDINGS / "01_nodes.json").read_text())
    pattern, shown = source[1]["response"]["body"], source[3]["response"]["body"]["items"]
    for one in shown:
        node = _like(pattern, one)
        node["spec"].pop("taints", None)
        play.put("Node", node)


def pod(play: Player, namespace: str, name: str, node: str = "", *, state: str = "", **extra) -> None:
    """A pod; `state` is running, unready, succeeded or failed, as a kubelet would leave it."""
    metadata = {"name": name, "namespace": namespace} | extra.pop("metadata", {})
    container = {"name": "main", "image": "registry.example/app:1"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 5} | extra
    play.make("Pod", {"metadata": metadata, "spec": spec})
    if node:
        play.call(lambda: subresources.bind(play.store, namespace, name, node))
    if state:
        run(play, namespace, name, state)


def run(play: Player, namespace: str, name: str, state: str = "running") -> None:
    """The kubelet runs a bound pod."""

    def act():
        running = podstate.start(play.store, play.store.get("Pod", namespace, name))
        if state in ("succeeded", "failed"):
            podstate.finish(play.store, running, 0 if state == "succeeded" else 1)

    play.call(act)
    if state == "unready":
        play.mutate("Pod", namespace, name, _unready)


def _unready(obj: dict) -> None:
    for condition in obj["status"]["conditions"]:
        if condition["type"] in ("Ready", "ContainersReady"):
            condition["status"] = "False"


def bound(play: Player, namespace: str, name: str, node: str) -> None:
    """The scheduler binds a pod and the kubelet runs it."""
    play.call(lambda: subresources.bind(play.store, namespace, name, node))
    run(play, namespace, name)


def gone(play: Player, namespace: str, name: str) -> None:
    """The kubelet confirms the end of a pod."""

    def act():
        uid = play.store.get("Pod", namespace, name)["metadata"]["uid"]
        deletion.finish_pod(play.store, namespace, name, uid)

    play.call(act)


def schedule(play: Player) -> None:
    """The scheduler looks at all pods."""
    live = Live(play.store, settings=LiveSettings(frozenset({"scheduler"})))

    def act():
        for change in live._existing():
            live._tell(change)
        live.settle()
        live._subscription.close()

    play.call(act)


def recount(play: Player, *names: str) -> None:
    """The disruption controller counts the budgets anew."""
    counter = BudgetCounter(play.store)
    for name in names:
        play.call(
            lambda name=name: counter.recount(
                play.store.get("PodDisruptionBudget", "golden-evict", name)
            )
        )


# 03


def pods_03(play: Player) -> None:
    play.namespace("golden-pods")
    fleet(play)


def pods_seen_from_20(play: Player) -> None:
    space = "golden-pods"
    for name in ("gen-755jw", "gen-smzgv"):
        bound(play, space, name, "gpu-0003")
    bound(play, space, "gpupod", "gpu-0002")
    for name in ("pinned", "static-gpu-0001"):
        run(play, space, name)
    notes = {"annotations": {"sim/run-seconds": "0"}}
    pod(play, space, "done", "gpu-0005", state="succeeded", metadata=notes, restartPolicy="Never")
    notes = {"annotations": {"sim/run-seconds": "0", "sim/exit-code": "1"}}
    pod(play, space, "failed", "gpu-0005", state="failed", metadata=notes, restartPolicy="Never")
    pod(play, space, "pending", nodeSelector={"none": "such"})
    schedule(play)


def running_03(name: str, **metadata):
    def given(play: Player) -> None:
        pod(play, "golden-pods", name, "gpu-0003", state="running", metadata=metadata)

    return given


def d3b_03(play: Player) -> None:
    running_03("d3b")(play)
    play.bind_uid("<uid:22>", "Pod", "golden-pods", "d3b")


GIVEN_03 = {
    0: pods_03,
    1: lambda play: bound(play, "golden-pods", "bare", "gpu-0003"),
    16: lambda play: [play.put_recorded("Pod", step, item=0) for step in (16, 17, 18)],
    17: lambda play: play.put_recorded("Pod", 19, item=0),
    20: pods_seen_from_20,
    46: running_03("d1", annotations={"sim/stuck-terminating": "true"}),
    52: running_03("d2"),
    53: lambda play: gone(play, "golden-pods", "d2"),
    54: running_03("d3"),
    59: d3b_03,
    62: running_03("fin", finalizers=["example.com/hold"]),
    67: lambda play: pod(play, "golden-pods", "np", nodeSelector={"none": "such"}),
}


# 04

SPACE = "golden-evict"


def evictable(play: Player, name: str, app: str, *, state: str = "running", **extra) -> None:
    metadata = {"labels": {"app": app}} | extra.pop("metadata", {})
    node = "" if state == "pending" else "gpu-0001"
    state = "" if state == "pending" else state
    pod(play, SPACE, name, node, state=state, metadata=metadata, **extra)


def budget(play: Player, name: str, app: str, **spec) -> None:
    """A budget that the disruption controller has counted."""
    selector = {"selector": {"matchLabels": {"app": app}}}
    metadata = {"name": name, "namespace": SPACE}
    play.make("PodDisruptionBudget", {"metadata": metadata, "spec": selector | spec})
    recount(play, name)


def no_budget(play: Player, *names: str) -> None:
    for name in names:
        play.remove("PodDisruptionBudget", SPACE, name)


def replicas(play: Player, owner: str, app: str, suffixes: list[str], **extra) -> None:
    """A ReplicaSet with its running pods."""
    labels = {"app": app, "pod-template-hash": owner.rpartition("-")[2]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": []}}
    spec = {"replicas": len(suffixes), "selector": {"matchLabels": labels}, "template": template}
    metadata = {"name": owner, "namespace": SPACE}
    made = play.make("ReplicaSet", {"metadata": metadata, "spec": spec})
    for suffix in suffixes:
        replica(play, made, app, labels, suffix, **extra)


def replica(play: Player, owner: dict, app: str, labels: dict, suffix: str, **extra) -> None:
    name = owner["metadata"]["name"]
    reference = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": name}
    reference |= {"uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True}
    metadata = {"generateName": f"{name}-", "ownerReferences": [reference], "labels": labels}
    metadata |= {"annotations": {"sim/start-seconds": "4"}}
    evictable(play, f"{name}-{suffix}", app, metadata=metadata, **extra)


def evictions_04(play: Player) -> None:
    play.namespace(SPACE)
    fleet(play)
    notes = {"annotations": {"sim/terminate-seconds": "3"}, "labels": {"app": "free"}}
    evictable(play, "free", "free", metadata=notes)


def web_04(play: Player) -> None:
    suffixes = ["45xvq", "hlb9r", "zz9x2"]
    replicas(play, "web-7bbcbdb766", "web", suffixes, terminationGracePeriodSeconds=3)


def counted_amid_04(play: Player) -> None:
    """The controller counted between the two writes of the eviction (budget first, then pod)."""

    def change(obj):
        obj["status"]["currentHealthy"] = 2
        condition = {"status": "False", "reason": "InsufficientPods"}
        obj["status"]["conditions"][0] |= condition

    play.mutate("PodDisruptionBudget", SPACE, "web", change)


def replacement_04(play: Player) -> None:
    owner = play.call(lambda: play.store.get("ReplicaSet", SPACE, "web-7bbcbdb766"))
    labels = owner["spec"]["selector"]["matchLabels"]
    replica(play, owner, "web", labels, "zz9x3", terminationGracePeriodSeconds=3)
    recount(play, "web")


def share_04(play: Player) -> None:
    no_budget(play, "web2")
    replicas(play, "pct-5445c9858", "pct", ["8fvml", "a", "b", "c", "d"])
    budget(play, "pct-min", "pct", minAvailable="50%")


def next_budget(old: str, name: str, app: str, **spec):
    def given(play: Player) -> None:
        no_budget(play, old)
        budget(play, name, app, **spec)

    return given


def bare_04(play: Player) -> None:
    no_budget(play, "all-min")
    evictable(play, "bare1", "bare")
    evictable(play, "bare2", "bare")
    budget(play, "bare-max", "bare", maxUnavailable=1)


def finished_04(play: Player) -> None:
    evictable(play, "done", "web", state="succeeded", restartPolicy="Never")
    evictable(play, "bad", "web", state="failed", restartPolicy="Never")
    evictable(play, "pend", "web", state="pending", nodeSelector={"none": "such"})
    recount(play, "web")


def unhealthy_04(app: str, floor: int, policy: str | None):
    def given(play: Player) -> None:
        for name in (f"{app}-h0", f"{app}-h1"):
            evictable(play, name, app)
        evictable(play, f"{app}-u", app, state="unready")
        spec = {"unhealthyPodEvictionPolicy": policy} if policy else {}
        budget(play, app, app, minAvailable=floor, **spec)

    return given


GIVEN_04 = {
    0: evictions_04,
    5: lambda play: evictable(play, "f2", "f2"),
    20: lambda play: evictable(play, "f3", "f3"),
    22: lambda play: evictable(play, "f4", "f4"),
    23: web_04,
    25: lambda play: recount(play, "web"),
    29: counted_amid_04,
    31: lambda play: recount(play, "web"),
    35: lambda play: gone(play, SPACE, "web-7bbcbdb766-45xvq"),
    37: replacement_04,
    38: lambda play: budget(play, "web2", "web", minAvailable=1),
    39: share_04,
    40: next_budget("pct-min", "pct-max", "pct", maxUnavailable="30%"),
    41: next_budget("pct-max", "int-max", "pct", maxUnavailable=1),
    42: next_budget("int-max", "zero-max", "pct", maxUnavailable=0),
    44: next_budget("zero-max", "all-min", "pct", minAvailable="100%"),
    46: bare_04,
    48: next_budget("bare-max", "bare-min", "bare", minAvailable=1),
    49: next_budget("bare-min", "bare-pct", "bare", minAvailable="50%"),
    50: lambda play: [gone(play, SPACE, name) for name in ("free", "f2")],
    51: lambda play: recount(play, "every"),
    53: lambda play: recount(play, "noone"),
    55: lambda play: no_budget(play, "every", "noone", "bare-pct"),
    56: lambda play: recount(play, "web"),
    60: finished_04,
    66: unhealthy_04("default-met", 2, None),
    69: unhealthy_04("default-unmet", 3, None),
    72: unhealthy_04("ifhealthy-met", 2, "IfHealthyBudget"),
    75: unhealthy_04("ifhealthy-unmet", 3, "IfHealthyBudget"),
    78: unhealthy_04("always-met", 2, "AlwaysAllow"),
    81: unhealthy_04("always-unmet", 3, "AlwaysAllow"),
}


GIVEN = {
    "01_nodes": {
        0: nodes_01,
        24: lambda play: play.bump(),
        26: lambda play: cordon(play, "gpu-0001"),
        46: lambda play: cordon(play, "gpu-0001", undo=True),
        55: unlabel_0005,
        67: lambda play: play.touch("Node", "", "gpu-0001"),
    },
    "02_patches": {
        0: node_02,
        8: lambda play: taints(play, "gpu-0000"),
        11: lambda play: taints(play, "gpu-0000"),
        78: applied_78,
    },
    "03_pods": GIVEN_03,
    "04_eviction": GIVEN_04,
}
DURING = {}
