"""What had happened before a step that the recording does not show.

`GIVEN[file][step]` is played before that step, `DURING[file][step]` while its watch is open.
Each entry plays the part of somebody else: of the people who prepared the recording, of
kubelets, of the controllers of the recorded cluster. Nothing in here touches the API under
test but through its store (or, in a watch, through another client's request).
"""

from __future__ import annotations

import copy
import json

from simfleet.kube import ApiFault, FaultKind, deletion, events, evictions, podstate, subresources
from simfleet.kube.budgets import BudgetCounter
from simfleet.kube.deletion import DeleteOptions
from simfleet.kube.kinds import NODE, POD
from simfleet.kube.live import Live, LiveSettings
from simfleet.kube.machines import PlainMachine
from simfleet.kube.nodelife import NodeMonitor, NodeTaints, PodsOfLostNodes
from simfleet.kube.scheduler import COMPONENT as SCHEDULER
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


def recorded_nodes() -> dict[str, dict]:
    """The six nodes of the recorded cluster, untainted."""
    source = json.loads((RECORDINGS / "01_nodes.json").read_text())
    pattern, shown = source[1]["response"]["body"], source[3]["response"]["body"]["items"]
    nodes = {}
    for one in shown:
        node = _like(pattern, one)
        node["spec"].pop("taints", None)
        nodes[node["metadata"]["name"]] = node
    return nodes


def fleet(play: Player) -> None:
    """The six nodes are there."""
    for node in recorded_nodes().values():
        play.put("Node", node)


def pod(
    play: Player, namespace: str, name: str, node: str = "", *, state: str = "", **extra
) -> None:
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
    settle(play, "scheduler")


def settle(play: Player, *controllers: str) -> None:
    """The named controllers act until they have nothing left to do."""
    live = Live(play.store, settings=LiveSettings(frozenset(controllers)))

    def act():
        for change in live._existing():
            live._tell(change)
        live.settle()
        live._subscription.close()

    play.call(act)


def recount(play: Player, *names: str, namespace: str = "golden-evict") -> None:
    """The disruption controller counts the budgets anew."""
    counter = BudgetCounter(play.store)
    for name in names:
        play.call(
            lambda name=name: counter.recount(
                play.store.get("PodDisruptionBudget", namespace, name)
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


# 05

WATCHED = "golden-watch"


def watches_05(play: Player) -> None:
    play.namespace(WATCHED)
    fleet(play)
    play.compacted = play.call(lambda: play.store.version)
    for _ in range(3):
        play.bump()


def watched_node(play: Player, name: str, *, wait: bool = False) -> None:
    metadata = {"name": name, "labels": {"watch": "me"}, "annotations": {"sim/unmanaged": "true"}}
    play.make("Node", {"metadata": metadata})


def life_of_w1(play: Player) -> None:
    watched_node(play, "w1")
    taints(play, "w1")
    label(play, "Node", "", "w1", x="1")
    cordon(play, "w1")
    taints(play, "w1")
    play.remove("Node", "", "w1")


def two_nodes(play: Player) -> None:
    """Both are made before the controller is through with either."""
    play.binder.bind("<rv:12>", str(play.call(play.store.bump)))

    def annotate(obj):
        obj["metadata"]["annotations"]["node.alpha.kubernetes.io/ttl"] = "0"

    watched_node(play, "w1")
    play.mutate("Node", "", "w1", annotate)
    watched_node(play, "w2")
    taints(play, "w1")
    play.mutate("Node", "", "w2", annotate)
    taints(play, "w2")


def labels_of(name: str, **labels):
    return lambda play: label(play, "Node", "", name, **labels)


def leave_and_return(play: Player) -> None:
    label(play, "Node", "", "w2", watch="no")
    label(play, "Node", "", "w2", z="1")
    label(play, "Node", "", "w2", watch="me")


def cordon_and_back(play: Player) -> None:
    cordon(play, "w1")
    taints(play, "w1")
    cordon(play, "w1", undo=True)
    taints(play, "w1")


def label_both(play: Player) -> None:
    label(play, "Node", "", "w2", q="1")
    label(play, "Node", "", "w1", q="1")


def delete_pod(play: Player, name: str) -> None:
    def act():
        found = play.store.get("Pod", WATCHED, name)
        deletion.delete(play.store, POD, found, DeleteOptions())

    play.call(act)


def life_of_a(play: Player) -> None:
    pod(play, WATCHED, "a", metadata={"labels": {"app": "a"}}, nodeName="gpu-0004")
    run(play, WATCHED, "a")
    delete_pod(play, "a")
    gone(play, WATCHED, "a")


def life_of_b(play: Player) -> None:
    selector = {"kubernetes.io/hostname": "gpu-0003"}
    pod(play, WATCHED, "b", metadata={"labels": {"app": "b"}}, nodeSelector=selector)
    bound(play, WATCHED, "b", "gpu-0003")


def life_of_cc(play: Player) -> None:
    metadata = {"labels": {"app": "c"}, "annotations": {"sim/run-seconds": "1"}}
    pod(play, WATCHED, "cc", metadata=metadata, restartPolicy="Never")
    play.call(lambda: subresources.bind(play.store, WATCHED, "cc", "gpu-0003"))
    run(play, WATCHED, "cc", "succeeded")


def eviction_of_b(play: Player) -> None:
    def act():
        evictions.evict(play.store, play.store.get("Pod", WATCHED, "b"), DeleteOptions())

    play.call(act)
    gone(play, WATCHED, "b")


def compaction(play: Player) -> None:
    """Somebody begins a paged list; then much is written and the storage is compacted."""
    page = play.fetch("/api/v1/nodes?limit=2")
    play.binder.values["<continue:2>"] = page["metadata"]["continue"]
    play.binder.values["<rv:2>"] = "2"
    label(play, "Node", "", "w1", tick="119")
    play.call(lambda: play.store.compact(play.compacted))


def expired_token(play: Player) -> None:
    """54 events, a paged list of them, and a compaction."""
    names = ["gpu-0000.a", "gpu-0001.18ea33b6485c9500", *(f"gpu-1{n:03d}.a" for n in range(52))]
    for name in names:
        play.make("Event", {"metadata": {"name": name, "namespace": "default"}})
    page = play.fetch("/api/v1/events?limit=1")
    play.binder.values["<continue:5>"] = page["metadata"]["continue"]
    play.bump()
    play.call(lambda: play.store.compact(play.store.version))


GIVEN_05 = {
    0: watches_05,
    1: two_nodes,
    9: lambda play: play.bump(),
    32: compaction,
    40: expired_token,
}
DURING_05 = {
    0: life_of_w1,
    2: labels_of("w2", y="1"),
    4: leave_and_return,
    5: cordon_and_back,
    6: label_both,
    8: lambda play: play.bump(),
    9: labels_of("w2", live="1"),
    11: labels_of("w2", live="2"),
    16: labels_of("w2", t="1"),
    28: life_of_a,
    29: life_of_b,
    30: life_of_cc,
    31: eviction_of_b,
}

# 06

WORK = "golden-work"


def workloads_06(play: Player) -> None:
    play.namespace(WORK)
    fleet(play)
    for item in (0, 1):
        play.put_recorded("Event", 47, item=item)
    more(play, "Event", 47, "gpu-0002.a")
    play.put_recorded("Event", 46, item=0)


def more(play: Player, kind: str, step: int, name: str) -> None:
    """One more object like the first of a list, so that the list has a second page."""
    obj = copy.deepcopy(play.recorded(step, 0))
    obj["metadata"] = {"name": name, "namespace": obj["metadata"]["namespace"]}
    play.put(kind, obj)


def deployed_06(play: Player) -> None:
    """What the Deployment's controllers and kubelets have made."""
    play.put_recorded("Pod", 4, item=1)
    play.put_recorded("Pod", 3, item=0)
    play.put_recorded("ReplicaSet", 2, item=0)


def rolled_06(play: Player) -> None:
    play.put_recorded("Event", 46, item=1)
    more(play, "Event", 46, "infer.z")
    for item in (0, 1):
        play.put_recorded("ReplicaSet", 10, item=item)
    for name in ("infer-5689d47449-979ds", "infer-5689d47449-9h5br"):
        play.remove("Pod", WORK, name)


def daemons_06(play: Player) -> None:
    """DaemonSet controller, scheduler and kubelets do their work."""
    endings = ["2zvcm", "cdvws", "ld4kx", "2n9rb", "nw5zp", "t87g4"]
    words = iter([word for ending in endings for word in ("vvvvv", ending)])
    play.store.suffix = lambda length=5: next(words)
    settle(play, "daemonsets")
    play.store.__dict__.pop("suffix")
    settle(play, "scheduler")
    for ending in endings:
        run(play, WORK, f"agent-{ending}")
    settle(play, "daemonsets")


def unplaced(name: str, gpus: int | None = None, **spec):
    def given(play: Player) -> None:
        container = {"name": "main", "image": "registry.example/app:1"}
        if gpus:
            container["resources"] = {"limits": {"nvidia.com/gpu": str(gpus)}}
        pod(play, WORK, name, containers=[container], **spec)
        schedule(play)

    return given


def hostname(node: str) -> dict:
    return {"nodeSelector": {"kubernetes.io/hostname": node}}


def closed_nodes_06(play: Player) -> None:
    """One node is cordoned, another tainted; the scheduler looks again each time."""

    def taint(node):
        node["spec"]["taints"] = [{"key": "gpu", "value": "xid79", "effect": "NoSchedule"}]

    cordon(play, "gpu-0000")
    taints(play, "gpu-0000")
    schedule(play)
    play.mutate("Node", "", "gpu-0001", taint)
    schedule(play)
    unplaced("on-cordoned", **hostname("gpu-0000"))(play)


def scheduled_others_06(play: Player) -> None:
    """A pod of a Job and one of a StatefulSet were scheduled, too."""
    for name in ("bad-h58rj", "db-0"):
        about = {"metadata": {"name": name, "namespace": WORK, "uid": "0", "resourceVersion": "1"}}
        play.call(
            lambda about=about: events.record(
                play.store, "Pod", about, reason="Scheduled", message="", component=SCHEDULER
            )
        )


def first_events_06(play: Player) -> None:
    scheduled_others_06(play)
    unplaced("too-many", 9)(play)


def reopened_06(play: Player) -> None:
    cordon(play, "gpu-0000", undo=True)
    schedule(play)
    taints(play, "gpu-0000")
    schedule(play)
    play.put_recorded("Lease", 52)


GIVEN_06 = {
    0: workloads_06,
    2: deployed_06,
    10: rolled_06,
    14: daemons_06,
    27: first_events_06,
    29: closed_nodes_06,
    31: unplaced("on-tainted", **hostname("gpu-0001")),
    33: unplaced("nowhere", nodeSelector={"none": "such"}),
    35: unplaced("mixed", 9),
    45: reopened_06,
}


# 08: one node with every sort of pod that a drain tells apart.

DRAINED = "golden-drain"
ON_0002 = {"nodeName": "gpu-0002"}


def clients_08(play: Player) -> None:
    play.namespace(DRAINED, "golden-pods", WORK)
    nodes = recorded_nodes()
    daemon(play, WORK, "agent-nw5zp")
    for name in ("gpu-0000", "gpu-0004", "gpu-0005", "gpu-0002", "gpu-0001"):
        play.put("Node", nodes[name])
    owned(play, "golden-pods", "gpupod", None)
    checked = nodes["gpu-0003"]
    checked["status"]["conditions"].insert(0, {"type": "PyCheck", "status": "True"})
    play.put("Node", checked)


def daemon(play: Player, namespace: str, name: str) -> None:
    """A DaemonSet's pod, and then the DaemonSet (it has written its status last)."""
    metadata = {"name": "agent", "namespace": namespace}
    template = {"metadata": {"labels": {"app": "agent"}}, "spec": {"containers": []}}
    spec = {"selector": {"matchLabels": {"app": "agent"}}, "template": template}
    made = play.make("DaemonSet", {"metadata": metadata, "spec": spec})
    owned(play, namespace, name, ("DaemonSet", "agent", made["metadata"]["uid"]))
    play.touch("DaemonSet", namespace, "agent")


def owned(play: Player, namespace: str, name: str, owner, **spec) -> None:
    """A running pod on the node, with its controller."""
    metadata = {"name": name, "namespace": namespace, "labels": spec.pop("labels", {})}
    if owner is None:
        owner = ("ReplicaSet", "other", "00000000-0000-0000-0000-000000000000")
    if owner:
        kind, owner_name, uid = owner
        reference = {"apiVersion": "apps/v1", "kind": kind, "name": owner_name, "uid": uid}
        metadata["ownerReferences"] = [reference | {"controller": True, "blockOwnerDeletion": True}]
        metadata["generateName"] = f"{owner_name}-"
    container = {"name": "main", "image": "registry.example/app:1"}
    spec = {"containers": [container], "terminationGracePeriodSeconds": 1} | ON_0002 | spec
    state = spec.pop("state", "running")
    play.make("Pod", {"metadata": metadata, "spec": spec})
    run(play, namespace, name, state)


def replica_of(play: Player, app: str, digest: str, *suffixes: str, **spec) -> None:
    """A ReplicaSet's pods."""
    name = f"{app}-{digest}"
    found = play.call(lambda: play.store.find("ReplicaSet", DRAINED, name))
    if found is None:
        template = {"metadata": {"labels": {"app": app}}, "spec": {"containers": []}}
        wanted = {"replicas": 2, "selector": {"matchLabels": {"app": app}}, "template": template}
        metadata = {"name": name, "namespace": DRAINED}
        found = play.make("ReplicaSet", {"metadata": metadata, "spec": wanted})
    owner = ("ReplicaSet", name, found["metadata"]["uid"])
    labels = {"app": app, "pod-template-hash": digest}
    for suffix in suffixes:
        owned(play, DRAINED, f"{name}-{suffix}", owner, labels=labels, **spec)


def drain_08(play: Player) -> None:
    daemon(play, DRAINED, "agent-5szrz")
    owned(play, DRAINED, "bare", (), terminationGracePeriodSeconds=5)
    replica_of(play, "plain", "7c9bd57f99", "lpz9h")
    scratch = [{"name": "scratch", "emptyDir": {}}]
    replica_of(play, "scratch", "5447f4b555", "s4xcs", volumes=scratch)
    replica_of(play, "guarded", "6f8c9f6c6c", "nk2b6")
    owned(play, DRAINED, "finished", (), state="succeeded", restartPolicy="Never")
    replica_of(play, "guarded", "6f8c9f6c6c", "csgqv")
    mirror = {"kubernetes.io/config.mirror": "0123456789abcdef"}
    metadata = {"name": "static-gpu-0002", "namespace": DRAINED, "annotations": mirror}
    spec = {"containers": [{"name": "main", "image": "registry.example/app:1"}]} | ON_0002
    guard = {"selector": {"matchLabels": {"app": "guarded"}}, "minAvailable": 1}
    where = {"name": "guarded", "namespace": DRAINED}
    play.make("PodDisruptionBudget", {"metadata": where, "spec": guard})
    recount(play, "guarded", namespace=DRAINED)
    play.make("Pod", {"metadata": metadata, "spec": spec})
    run(play, DRAINED, "static-gpu-0002")


def uncordoned_08(play: Player) -> None:
    cordon(play, "gpu-0002", undo=True)
    taints(play, "gpu-0002")


def budget_taken_08(play: Player) -> None:
    """kubectl evicts in parallel: the other guarded pod's eviction has the budget already."""

    def take(obj):
        obj["status"]["disruptionsAllowed"] = 0

    play.mutate("PodDisruptionBudget", DRAINED, "guarded", take)


def budget_for_other_08(play: Player) -> None:
    def give(obj):
        obj["status"]["disruptionsAllowed"] = 1

    play.mutate("PodDisruptionBudget", DRAINED, "guarded", give)


def ending(play: Player, name: str) -> None:
    """The kubelet has written the pod's end and not yet removed it."""

    def act():
        old = play.store.get("Pod", DRAINED, name)
        last = old | {"metadata": old["metadata"] | {"deletionGracePeriodSeconds": 0}}
        play.store.mark(POD, old, last)

    play.call(act)


def removed(*names: str):
    return lambda play: [play.remove("Pod", DRAINED, name) for name in names]


def python_08(play: Player) -> None:
    taints(play, "gpu-0002")
    replica_of(play, "guarded", "6f8c9f6c6c", "4m9mf")
    replica_of(play, "plain", "7c9bd57f99", "92rt4")
    replica_of(play, "scratch", "5447f4b555", "6khb2")
    replica_of(play, "guarded", "6f8c9f6c6c", "7qq8b")


def py_evict_08(play: Player) -> None:
    owned(play, DRAINED, "py-evict", ())


GIVEN_08 = {
    0: clients_08,
    15: lambda play: taints(play, "gpu-0002"),
    20: lambda play: taints(play, "gpu-0002"),
    39: drain_08,
    41: lambda play: taints(play, "gpu-0002"),
    70: uncordoned_08,
    105: lambda play: taints(play, "gpu-0002"),
    111: budget_taken_08,
    113: lambda play: gone(play, "golden-pods", "gpupod"),
    118: budget_for_other_08,
    122: lambda play: ending(play, "bare"),
    124: lambda play: ending(play, "scratch-5447f4b555-s4xcs"),
    125: removed("guarded-6f8c9f6c6c-csgqv"),
    126: removed("bare", "scratch-5447f4b555-s4xcs", "plain-7c9bd57f99-lpz9h"),
    130: lambda play: recount(play, "guarded", namespace=DRAINED),
    144: removed("guarded-6f8c9f6c6c-nk2b6"),
    147: lambda play: label(play, "Node", "", "gpu-0000", a="b"),
    154: python_08,
    160: py_evict_08,
    161: removed("py-evict"),
    173: lambda play: play.bump(),
    205: py_evict_08,
}


# 09: a node whose kubelet falls silent and comes back.

LOST = "golden-lost"
SILENT = "sim/kubelet-down"


def lost_09(play: Player) -> None:
    play.namespace(LOST)
    wait = {"operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 5}
    keys = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
    short = [{"key": key} | wait for key in keys]
    for name, tolerations in (("short", short), ("tolerant", [{"operator": "Exists"}])):
        pod(play, LOST, name, state="running", nodeName="lost-0", tolerations=tolerations)
        play.mutate("Pod", LOST, name, _with_host)
    play.put_recorded("Node", 0)


def _with_host(obj: dict) -> None:
    obj["status"] |= {"hostIP": "10.200.0.9", "hostIPs": [{"ip": "10.200.0.9"}]}


def note(play: Player, *, silent: bool) -> None:
    def change(node):
        notes = node["metadata"]["annotations"]
        notes.pop(SILENT, None)
        if silent:
            notes[SILENT] = "true"

    play.mutate("Node", "", "lost-0", change)


def with_node(play: Player, act) -> None:
    play.call(lambda: act(play.store.get("Node", "", "lost-0")))


def silence_09(play: Player) -> None:
    """The node controllers see the silence and act, step by step."""
    note(play, silent=True)
    text = "Node lost-0 event: Registered Node lost-0 in Controller"
    about = {"reason": "RegisteredNode", "message": text, "component": "node-controller"}
    with_node(play, lambda node: events.record(play.store, "Node", node, **about))
    monitor = NodeMonitor(play.store, lambda name: 1e9)
    with_node(play, monitor.mark_unknown)
    tainter = NodeTaints(play.store, 0)
    with_node(play, lambda node: tainter._apply_effect(node, "NoSchedule"))
    lost = PodsOfLostNodes(play.store)
    pods = [play.call(lambda n=n: play.store.get("Pod", LOST, n)) for n in ("tolerant", "short")]
    play.call(lambda: lost._make_unready(pods))
    with_node(play, lambda node: tainter._apply_effect(node, "NoExecute"))
    play.call(lambda: lost._evict(play.store.get("Pod", LOST, "short")))


def return_09(play: Player) -> None:
    """The kubelet reports, the controllers take their taints off, the pod is ready again."""
    note(play, silent=False)
    machine = PlainMachine(0, "")

    def report(node):
        status = podstate.node_status(node, machine, play.store.timestamp())
        play.store.replace(NODE, node, node | {"status": status})

    with_node(play, report)
    tainter = NodeTaints(play.store, 0)
    with_node(play, lambda node: tainter._apply_effect(node, "NoSchedule"))
    tolerant = play.call(lambda: play.store.get("Pod", LOST, "tolerant"))
    play.call(lambda: podstate.make_ready_again(play.store, tolerant))
    with_node(play, lambda node: tainter._apply_effect(node, "NoExecute"))


def busy_07(play: Player) -> None:
    """Priority and fairness turns the next three requests away."""
    rule = ApiFault(FaultKind.TOO_MANY, path="/api/v1/nodes", times=3)
    play.call(lambda: play.kube.faults.add(rule))


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
    "05_watch": GIVEN_05,
    "06_workloads": GIVEN_06,
    "07_discovery_auth": {
        0: lambda play: [fleet(play), play.namespace("golden-auth")],
        55: busy_07,
    },
    "08_clients": GIVEN_08,
    "09_node_lost": {0: lost_09},
}
DURING = {
    "05_watch": DURING_05,
    "09_node_lost": {1: silence_09, 7: return_09},
    "08_clients": {161: lambda play: play.touch("Node", "", "gpu-0002")},
}
