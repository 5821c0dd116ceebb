"""What happens to nodes, pods, telemetry and repairs. Each takes the machine and a random source.

A function returns what it did, in a few words; None when there was nothing to do it to.
"""

from __future__ import annotations

from breakfix.flow.stages import Stage
from breakfix.model import Action, Condition, HaltLevel, Taint
from tests.fleet_machine import truth
from tests.fleet_machine.fleets import GPUS, WATCHDOG, Power
from tests.fleet_machine.journal import CASE, STATE
from tests.flow.world import DIAG_PASSES

BAD_DIAGS = ((0, "no JSON at all"), (1, DIAG_PASSES), (0, ""), (226, "{}"))


def some_node(m, rng, wanted=lambda node: True):
    """A random node that is there and is so; None when none is."""
    names = [n for n in m.world.nodes if n in m.world.cluster._nodes]
    names = [n for n in names if wanted(m.world.node(n))]
    return rng.choice(names) if names else None


def victim(m, rng):
    """Rather a node with which something else is going on: there the guards are asked."""
    truths = m.world.truth

    def is_special(node):
        return bool(
            truth.is_excluded(node)
            or truth.hands_on(node)
            or truth.CONTROL_PLANE in node.labels
            or node.name in truths.cordon
            or node.name in truths.taken_back
            or node.name in truths.ended
            or node.name in m.world.metrics.untied
        )

    special = some_node(m, rng, is_special)
    return special if special and rng.random() < 0.4 else some_node(m, rng)


def _break(m, rng, xid):
    name = victim(m, rng)
    if name is None:
        return None
    m.world.break_node(name, xid)
    return f"{name} says XID {xid}"


def gpu_off_bus(m, rng):
    return _break(m, rng, 79)


def double_bit_error(m, rng):
    return _break(m, rng, 95)


def breaks_again(m, rng):
    """A node that was just repaired speaks of an XID once more."""
    state = rng.choice(("validating", "returning"))
    name = some_node(m, rng, lambda n: n.labels.get(STATE) == state)
    if name is None:
        return None
    m.world.break_node(name, rng.choice((79, 95)))
    return f"{name} breaks again"


def gpus_short(m, rng):
    name = victim(m, rng)
    if name is None or m.world.node(name).gpus_allocatable < GPUS:
        return None
    m.world.cluster.change_node(name, gpus_allocatable=GPUS - 1)
    return f"{name} offers {GPUS - 1} GPUs"


def before_return(m, rng):
    """Right before a node is given back: hours go by, or it is not as it was when it was proved.
    One of these, once for each run: several would hide what each guard is there for.
    """
    runs = [r for r in m.world.road.runs.values() if r.stage is Stage.RETURN_NODE and not r.is_over]
    runs = [
        r for r in runs if r.node in m.world.cluster._nodes and (r.case_id, r.fence) not in m.late
    ]
    if not runs:
        return None
    run, what = rng.choice(runs), rng.choice(("late", "not ready", "forgotten", "xid"))
    name = run.node
    m.late.add((run.case_id, run.fence))
    match what:
        case "late":
            m.world.clock.sleep(9000)
        case "not ready":
            m.world.set_ready(name, is_ready=False)
        case "forgotten":
            fewer = {"gpus_allocatable": GPUS - 1, "gpus_capacity": GPUS - 1}
            m.world.cluster.change_node(name, **fewer)
        case _:
            m.world.break_node(name, rng.choice((79, 95)))
    return f"{name} before its return: {what}"


def gpu_forgotten(m, rng):
    """A node under validation that no longer knows that it ever had that GPU."""
    name = some_node(m, rng, lambda n: n.labels.get(STATE) == "validating")
    if name is None or m.world.node(name).gpus_capacity < GPUS:
        return None
    m.world.cluster.change_node(name, gpus_allocatable=GPUS - 1, gpus_capacity=GPUS - 1)
    return f"{name} knows of {GPUS - 1} GPUs"


def gpus_back(m, rng):
    name = some_node(m, rng, lambda n: n.gpus_allocatable < GPUS)
    if name is None:
        return None
    m.world.cluster.change_node(name, gpus_allocatable=GPUS, gpus_capacity=GPUS)
    return f"{name} offers all GPUs"


def not_ready(m, rng):
    name = some_node(m, rng, lambda n: n.is_ready)
    if name is None:
        return None
    m.world.set_ready(name, is_ready=False)
    return f"{name} is NotReady"


def ready(m, rng):
    name = some_node(m, rng, lambda n: not n.is_ready)
    if name is None:
        return None
    m.world.set_ready(name, is_ready=True)
    return f"{name} is Ready"


def silence(m, rng):
    name = some_node(m, rng)
    if name is None:
        return None
    m.world.metrics.silent.add(name)
    return f"{name} is silent"


def speech(m, rng):
    if not m.world.metrics.silent:
        return None
    m.world.metrics.silent.clear()
    return "all exporters speak"


def lie(m, rng):
    """An XID under this node's name that nothing ties to the node."""
    name = some_node(m, rng)
    if name is None:
        return None
    m.world.metrics.untied.add(name)
    m.world.break_node(name, rng.choice((79, 95)))
    return f"somebody lies about {name}"


def tie(m, rng):
    if not m.world.metrics.untied:
        return None
    m.world.metrics.untied.clear()
    return "all metrics are tied to their nodes"


def prometheus_away(m, rng):
    m.world.metrics.is_down = True
    return "Prometheus is down"


def prometheus_back(m, rng):
    if not m.world.metrics.is_down:
        return None
    m.world.metrics.is_down = False
    return "Prometheus is up"


def bad_diag(m, rng):
    m.world.diag = rng.choice(BAD_DIAGS)
    m.world.quick_diag = rng.choice(((0, DIAG_PASSES), m.world.diag))
    return "the diagnostic does not pass"


def good_diag(m, rng):
    if m.world.diag == (0, DIAG_PASSES):
        return None
    m.world.diag = m.world.quick_diag = (0, DIAG_PASSES)
    return "the diagnostic passes"


def bad_repairs(m, rng):
    m.world.reboot_works = rng.random() < 0.5
    m.world.reset_exit = rng.choice((0, 1))
    m.world.repair_clears = rng.random() < 0.5
    return "repairs go wrong"


def good_repairs(m, rng):
    w = m.world
    if (w.reboot_works, w.reset_exit, w.repair_clears) == (True, 0, True):
        return None
    m.world.reboot_works, m.world.reset_exit, m.world.repair_clears = True, 0, True
    return "repairs go well"


def kubelet_asleep(m, rng):
    m.world.is_kubelet_asleep = not m.world.is_kubelet_asleep
    return f"kubelets {'sleep' if m.world.is_kubelet_asleep else 'work'}"


def node_gone(m, rng):
    name = some_node(m, rng)
    if name is None or len(m.world.cluster._nodes) < 3:
        return None
    m.forget_node(name)
    m.world.cluster.remove_node(name)
    for key, pod in list(m.world.cluster._pods.items()):
        if pod.node == name:
            del m.world.cluster._pods[key]
    return f"{name} is gone"


def node_replaced(m, rng):
    """Another machine comes under the name of one that is gone, or that goes now."""
    name = rng.choice(m.world.nodes)
    old = m.world.cluster._nodes.get(name)
    if old is not None:
        node_gone_pods(m, name)
    like = old or m.world.cluster._nodes[some_node(m, rng)]
    _new_object(m, name, like, boot_id=f"boot-{name}-m{m.machines + 1}")
    return f"{name} is another machine"


def _new_object(m, name, like, **own):
    """Another object of that name, with another uid, and nothing of ours written on it."""
    m.forget_node(name)
    m.machines += 1
    place = {"rack": like.rack, "pool": like.pool, "sku": like.sku, "fabric": like.fabric}
    m.world.cluster.add_node(name, uid=f"uid-{name}-{m.machines}", **place, **own)
    m.world.truth.note_foreign(m.world.node(name))


def registered_again(m, rng):
    """The same machine under a new object, as after somebody deleted it: without our marks."""
    name = some_node(m, rng)
    if name is None:
        return None
    old = m.world.node(name)
    _new_object(m, name, old, boot_id=old.boot_id, gpus_allocatable=old.gpus_allocatable)
    return f"{name} is registered again"


def node_gone_pods(m, name):
    for key, pod in list(m.world.cluster._pods.items()):
        if pod.node == name:
            del m.world.cluster._pods[key]


def booted_by_others(m, rng):
    name = some_node(m, rng)
    if name is None:
        return None
    m.world.cluster.reboot(name)
    return f"somebody reboots {name}"


def alert(m, rng):
    """An alert fires for a rack or for all, or nobody can tell."""
    rack = rng.choice(("r0", "r1", "r2", ""))
    hot = {"alertname": "NodesHot", **({"rack": rack} if rack else {})}
    m.world.metrics.firing = rng.choice(([WATCHDOG, hot], [WATCHDOG, hot], []))
    return f"alerts: {m.world.metrics.firing}"


def no_alert(m, rng):
    if m.world.metrics.firing == [WATCHDOG]:
        return None
    m.world.metrics.firing = [WATCHDOG]
    return "no alert fires"


def nobody_at_the_switch(m, rng):
    """Whoever can switch power is there no more, or again."""
    if m.world.providers:
        m.world.providers.clear()
        return "nobody switches power"
    m.world.providers[Action.POWER_CYCLE] = Power(m.world)
    return "power can be switched again"


# -- pods and budgets


def new_work(m, rng):
    name = some_node(m, rng, lambda n: not n.is_unschedulable)
    if name is None:
        return None
    m.world.add_work(rng, name, 9)
    return f"work lands on {name}"


def bare_pod(m, rng):
    name = some_node(m, rng)
    if name is None:
        return None
    m.world.cluster.add_pod(f"bare-{name}", name, owners=())
    return f"a pod without owner on {name}"


def work_ends(m, rng):
    keys = [k for k, p in m.world.cluster._pods.items() if p.namespace == "work"]
    for key in rng.sample(keys, min(len(keys), 2)):
        del m.world.cluster._pods[key]
    return "work ends"


def pod_comes_again(m, rng):
    """A pod of a node that is out ends, and another of its name starts elsewhere, as of a set."""
    elsewhere = some_node(m, rng, lambda n: not n.is_unschedulable)
    out = {n.name for n in m.world.cluster._nodes.values() if n.is_unschedulable}
    pods = [p for p in m.world.cluster._pods.values() if p.namespace == "work" and p.node in out]
    if elsewhere is None or not pods:
        return None
    for pod in rng.sample(pods, min(len(pods), 3)):
        m.pods += 1
        again = {"uid": f"{pod.uid}-{m.pods}", "owners": pod.owners, "labels": dict(pod.labels)}
        m.world.cluster.add_pod(pod.name, elsewhere, gpus=pod.gpus, **again)
    return f"pods come again on {elsewhere}"


def stray_work(m, rng):
    """Somebody binds a pod to a node that is out, past the scheduler."""
    name = some_node(m, rng, lambda n: n.is_unschedulable)
    if name is None:
        return None
    m.world.add_work(rng, name, 8)
    return f"somebody puts work on {name}, which is out"


def airflow_moves(m, rng):
    """Airflow's scheduler pod lands on a node, wherever it may, or leaves all."""
    keys = [k for k, p in m.world.cluster._pods.items() if p.labels == truth.AIRFLOW]
    name = some_node(m, rng)
    if keys or name is None:
        for key in keys:
            del m.world.cluster._pods[key]
        return "Airflow leaves"
    m.world.cluster.add_pod(f"airflow-{name}", name, labels=dict(truth.AIRFLOW))
    return f"Airflow runs on {name}"


def budget(m, rng):
    if ("work", "db") not in m.world.cluster._budgets:
        return None
    allowed = rng.choice((0, 1, 2, 9))
    m.world.cluster.allow("db", allowed)
    return f"the budget allows {allowed}"


# -- other controllers


def others_cordon(m, rng):
    name = some_node(m, rng, lambda n: not n.is_unschedulable)
    if name is None:
        return None
    m.world.cluster.change_node(name, is_unschedulable=True)
    m.world.truth.cordon[name] = "theirs"
    return f"others cordon {name}"


def others_uncordon(m, rng):
    name = some_node(m, rng, lambda n: m.world.truth.cordon.get(n.name) == "theirs")
    if name is None:
        return None
    m.world.cluster.change_node(name, is_unschedulable=False)
    del m.world.truth.cordon[name]
    return f"others uncordon {name}"


def others_write(m, rng):
    """A label, an annotation and a taint of somebody else change."""
    name = some_node(m, rng)
    if name is None:
        return None
    node, mark = m.world.node(name), str(m.steps)
    others = tuple(t for t in node.taints if t.key != "team")
    m.world.cluster.change_node(
        name,
        labels={**node.labels, "team": mark},
        annotations={**node.annotations, "other.io/note": mark},
        taints=(*others, Taint("team", "NoSchedule", mark)),
    )
    m.world.truth.note_foreign(m.world.node(name))
    return f"others write on {name}"


def claimed(m, rng):
    """Somebody writes another case into our annotation on a node that is out."""
    name = some_node(m, rng, lambda n: CASE in n.annotations)
    if name is None:
        return None
    notes = {**m.world.node(name).annotations, CASE: "20200101-another"}
    m.world.cluster.change_node(name, annotations=notes)
    return f"{name} is marked as of another case"


def _toggle(m, rng, kind):
    name = some_node(m, rng)
    if name is None:
        return None
    node = m.world.node(name)
    is_on = bool(truth.hands_on(node))
    m.let_go(name) if is_on else _put(m.world, node, kind)
    m.world.truth.note_foreign(m.world.node(name))
    return f"{kind} {'leaves' if is_on else 'has'} {name}"


def _put(world, node, kind):
    match kind:
        case "upgrade":
            world.relabel(node.name, dict([truth.UPGRADE]))
        case "kured":
            notes = {**node.annotations, truth.KURED: "now"}
            world.cluster.change_node(node.name, annotations=notes)
        case "autoscaler":
            taints = (*node.taints, Taint(truth.AUTOSCALER, "NoSchedule"))
            world.cluster.change_node(node.name, taints=taints)
        case _:
            conditions = (*node.conditions, Condition(truth.EVENT, "True"))
            world.cluster.change_node(node.name, conditions=conditions)


def other_owner(m, rng):
    return _toggle(m, rng, rng.choice(("upgrade", "kured", "autoscaler", "cloud event")))


def other_owner_leaves(m, rng):
    name = some_node(m, rng, lambda n: bool(truth.hands_on(n)))
    if name is None:
        return None
    m.let_go(name)
    m.world.truth.note_foreign(m.world.node(name))
    return f"the other owner leaves {name}"


def owner_map(m, rng):
    """Somebody says that another ledger owns the cluster, or that ours has written what it has
    not, or something that nobody can read.
    """
    data = m.world.cluster.config_maps.get((m.namespace, "breakfix-ledger"))
    if data is None or m.owner_was is not None:
        return None
    seq = m.world.ledger.head()[0]
    lie = rng.choice(
        (
            {"ledger": "another"},
            {"cluster": "another"},
            {"audit_seq": str(seq + 1000)},
            {"audit_hash": "of another history"},
            {"audit_seq": "unreadable"},
        )
    )
    m.owner_was = dict(data)
    data.update(lie)
    return f"the cluster says {lie}"


def owner_map_back(m, rng):
    data = m.world.cluster.config_maps.get((m.namespace, "breakfix-ledger"))
    if data is None or m.owner_was is None:
        return None
    data.update(m.owner_was)
    m.owner_was = None
    return "the cluster names our ledger again"


def calm(m):
    """Everything is well again, and nobody holds anything any more."""
    w = m.world
    w.metrics.xids.clear()
    w.metrics.silent.clear()
    w.metrics.untied.clear()
    w.metrics.is_down = w.is_kubelet_asleep = False
    good_repairs(m, None)
    good_diag(m, None)
    owner_map_back(m, None)
    w.metrics.firing = [WATCHDOG]
    w.providers.setdefault(Action.POWER_CYCLE, Power(w))
    w.ledger.set_halt(HaltLevel.NONE, actor="ann", reason="calm", now=w.clock.now())
    w.cluster.config_maps.pop((m.namespace, "breakfix-halt"), None)
    for key in [k for k, p in w.cluster._pods.items() if not p.owners and p.namespace == "work"]:
        del w.cluster._pods[key]
    for name, node in list(w.cluster._nodes.items()):
        m.let_go(name)
        w.relabel(name, {truth.EXCLUDE[0]: None, truth.SKIP[0]: None})
        w.set_ready(name, is_ready=True)
        w.cluster.change_node(name, gpus_allocatable=GPUS, gpus_capacity=GPUS)
        w.truth.note_foreign(w.node(name))
        del node
    for case in w.open_cases():
        if case.held_by:
            w.ledger.unhold(case.id, actor="ann", reason="calm", now=w.clock.now())
    if ("work", "db") in w.cluster._budgets:
        w.cluster.allow("db", 99)


def strip_hands(world, name):
    """Take every other owner's hold off a node."""
    node = world.node(name)
    world.cluster.change_node(
        name,
        labels={k: v for k, v in node.labels.items() if k != truth.UPGRADE[0]},
        annotations={k: v for k, v in node.annotations.items() if k != truth.KURED},
        taints=tuple(t for t in node.taints if t.key != truth.AUTOSCALER),
        conditions=tuple(c for c in node.conditions if c.type != truth.EVENT),
    )
