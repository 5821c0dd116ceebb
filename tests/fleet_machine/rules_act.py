"""What must be so whenever something is done to a node; one function a rule, "" when it is kept.

Each looks at the effect, at what the task last read, and at the truth that the world keeps. None
of them calls a guard of the product.
"""

from __future__ import annotations

from datetime import timedelta

from breakfix.model import Action, HaltLevel, NodeState, Scope, ScopeKind
from tests.fleet_machine import truth
from tests.fleet_machine.fleets import GPUS
from tests.fleet_machine.journal import CASE, STATE, TAINT

#: Takes something from somebody: a node out of service, a pod off it, a GPU from under it.
DISRUPTIVE = frozenset({"take", "evict", "repair", "plugin"})
#: What only the case that has the node may do.
OF_THE_CASE = DISRUPTIVE | {"give", "diag"}
EVIDENCE_S = 7200.0
LOOK_BACK_S = 21600.0  # of the query for XIDs
FLEET = Scope(ScopeKind.FLEET, "")


def _case(e):
    return e.task.cases.get(e.case_id)


def _is_recovery(e):
    """The validation restarts the device plugin, too: that takes nothing from anybody."""
    case = _case(e)
    return e.kind == "plugin" and case is not None and case.state is NodeState.VALIDATING


def kill_switch(world, e):
    """Nothing is disrupted while the switch is on, and nothing at all while it holds all."""
    if e.kind == "withdraw":
        return ""  # takes back what was not done yet
    if set(e.task.halts) != {"cluster", "ledger"}:
        return "the switch was not looked at"
    levels = set(e.task.halts.values())
    if HaltLevel.ALL in levels:
        return "it is at all"
    if HaltLevel.DISRUPTION in levels and e.kind in DISRUPTIVE and not _is_recovery(e):
        return "it is at disruption"
    return ""


def fence(world, e):
    """Only who has the case acts for it, and nobody for one that ended or is held."""
    if e.kind not in OF_THE_CASE:
        return ""
    case = _case(e)
    if case is None:
        return "the case was not read"
    if e.task.kind == "stage" and (e.task.case_id, e.task.fence) != (case.id, case.fence):
        return f"the case is at fence {case.fence}, the run at {e.task.fence}"
    if not case.is_open:
        return f"the case has ended ({case.end})"
    return f"a person holds the case: {case.held_by}" if case.held_by else ""


def ownership(world, e):
    """Only the ledger that the cluster names."""
    owner = e.task.owner
    if owner is None:
        return "the owner was not looked at"
    mine = world.ledger
    named = (owner.get("ledger"), owner.get("cluster"))
    if named != (mine.id, mine.cluster):
        return f"the cluster names {named}"
    seq, digest = owner.get("audit_seq", "0"), owner.get("audit_hash")
    hashes = {str(x.seq): x.hash for x in world.entries()}
    return "" if seq == "0" or hashes.get(seq) == digest else f"it has seen another entry {seq}"


def same_machine(world, e):
    """The node that the case was opened for, not another one of its name."""
    case, node = _case(e), e.seen
    if case is None or e.kind not in OF_THE_CASE:
        return ""
    if node is None:
        return "the node was not read"
    return "" if node.uid == case.node_uid else f"another machine: {node.uid}"


def same_boot(world, e):
    """Nothing is disrupted for a boot that is over; what we booted ourselves is another matter."""
    case, node = _case(e), e.seen
    if e.kind not in {"evict", "repair", "take"} or case is None or node is None:
        return ""
    boot, _at = world.truth.admitted[case.id]
    known = {boot, *world.truth.rebooted.get(node.name, ())}
    if e.kind == "repair" and case.state is NodeState.REPAIRING:
        return "" if node.boot_id in known else "the node has booted since"
    return "" if node.boot_id == boot else "the node has booted since"


def persons_hand(world, e):
    """A node that a person uncordoned or untainted is theirs; one of another case is not ours."""
    node = e.seen
    if e.kind not in (OF_THE_CASE - {"take"}) or node is None:
        return ""
    if node.annotations.get(CASE) != e.case_id:
        return f"the node is marked as of {node.annotations.get(CASE)}"
    if e.kind == "give":
        return ""
    if not node.is_unschedulable:
        return "somebody uncordoned it"
    has_taint = any(t.key == TAINT for t in node.taints)
    return "" if has_taint else "somebody took our taint off"


def foreign_cordon(world, e):
    """A node that others cordoned is not taken."""
    if e.kind != "take" or e.before.annotations.get(CASE) == e.case_id:
        return ""
    is_theirs = e.before.is_unschedulable and world.truth.cordon.get(e.node) == "theirs"
    return "others have cordoned it" if is_theirs else ""


def exclusion(world, e):
    """An exclusion label holds every act but the taking back of our own marks."""
    is_meant = e.kind in DISRUPTIVE | {"diag"} and e.seen is not None
    return "it is excluded" if is_meant and truth.is_excluded(e.seen) else ""


def other_owner(world, e):
    """As exclusion, for other tools, the cloud, and people at work."""
    if e.kind not in DISRUPTIVE | {"diag"} or e.seen is None:
        return ""
    return truth.hands_on(e.seen)


def protected(world, e):
    """Control-plane nodes, and those that we run on, are never disrupted."""
    if e.kind not in DISRUPTIVE or e.seen is None or _is_recovery(e):
        return ""
    is_ours = truth.is_protected(e.seen, e.task.pods.values())
    return "it is protected" if is_ours else ""


def mode(world, e):
    """The class may still act by the policy in force."""
    case = _case(e)
    if e.kind not in DISRUPTIVE or case is None or case.requester.startswith("cli:"):
        return ""
    if _is_recovery(e):
        return ""
    mode = e.task.site.modes.get(str(case.failure_class), "recommend")
    return "" if mode in {"approve", "auto"} else f"its mode is {mode}"


def limits(world, e):
    """Nobody is disrupted while the others that are out leave no room in a scope."""
    if e.kind not in DISRUPTIVE or e.seen is None or _is_recovery(e):
        return ""
    return full_scope(world, e.task, e.seen)


def full_scope(world, task, node):
    """The scope that has no room for this node, in words; the worse of ledger and cluster."""
    fleet = [n for n in task.fleet or () if truth.is_gpu_node(n)]
    out = {n.name for n in fleet if truth.is_out(n)}
    out |= {c.node for c in task.cases.values() if c.is_open and c.state in truth.OUT}
    out |= {r.node for r in task.records.values() if r.state is NodeState.ESCALATED}
    for kind, value in truth.kinds_of(node):
        members = {n.name for n in fleet if (kind, value) in truth.kinds_of(n)}
        most = truth.most_out(task.site.out, kind, len(members))
        others = (out & members) - {node.name}
        if len(others) + 1 > most:
            return f"{kind}={value}: {sorted(others)} are out, {most} may be"
    return ""


def free_gpus(task, node, cases, records, earlier=()):
    """GPUs of its SKU and pool that stay free once what must move is placed on what stays."""
    fleet, pods = [n for n in task.fleet if truth.is_gpu_node(n)], list(task.pods.values())
    group = [n for n in fleet if (n.sku, n.pool) == (node.sku, node.pool)]
    busy = {c.node for c in cases if c.is_open and c.state in truth.OUT} | set(earlier)
    escalated = {r.node for r in records if r.state is NodeState.ESCALATED}
    gone = busy | escalated | {node.name}
    stays = [n for n in group if n.name not in gone and not truth.is_out(n)]
    leaves = [n for n in group if n.name in busy | {node.name} or not _is_ready(n)]
    used = sum(q.gpus for n in stays for q in pods if q.node == n.name and not q.is_finished)
    to_move = [q for n in leaves for q in truth.moves(n, pods) if not q.is_terminating]
    return sum(n.gpus_allocatable for n in stays) - used - sum(q.gpus for q in to_move)


def _is_ready(node):
    return [c.status for c in node.conditions if c.type == "Ready"] == ["True"]


def _is_drain_begun(world, e):
    known = [x for x in world.audit_of(e.case_id) if x.event == "step.begun"]
    mine = [x for x in known if str(x.detail.get("step", "")).startswith("drain-")]
    return bool(mine) and mine[-1].at < world.clock.now()


def hours(world, e):
    """Nothing is begun outside the hours of the calendar."""
    if e.kind not in {"take", "evict"} or truth.is_in_hours(e.task.site, world.clock.now()):
        return ""
    return "" if _is_drain_begun(world, e) else f"it is {world.clock.now():%H:%M}"


def alert(world, e):
    """While an alert holds it, nothing that runs there is disturbed."""
    if e.kind not in {"take", "evict"} or e.seen is None:
        return ""
    return truth.alert_over(e.task.site, e.task.firing, e.seen)


def storm(world, e):
    """While the breaker is open nothing is taken out or off."""
    if e.kind not in {"take", "evict"} or e.task.site.storm is None or e.task.storms is None:
        return ""
    return "the breaker is open" if e.task.storms.breaker(FLEET).is_open else ""


def headroom(world, e):
    """What must move finds its GPUs elsewhere, before its node is taken and when it is evicted."""
    if e.kind not in {"take", "evict"} or e.seen is None:
        return ""
    moves = truth.moves(e.seen, e.task.pods.values())
    if not any(p.owners and not p.is_terminating for p in moves):
        return ""  # a pod of nobody is not moved, and one that goes has its successor
    if e.task.fleet is None:
        return "the fleet was not looked at"
    free = free_gpus(e.task, e.seen, e.task.cases.values(), e.task.records.values())
    return "" if free >= e.task.site.headroom else f"{free} GPUs would be free"


def somebody_can_do_it(world, e):
    """Nothing is disturbed for a repair that nobody is there to do."""
    case = _case(e)
    if e.kind not in {"take", "evict"} or case is None or case.action is not Action.POWER_CYCLE:
        return ""
    return "" if world.providers else "nobody switches power"


def reason(world, e):
    """What the case was opened for is still so."""
    case, node = _case(e), e.seen
    if e.kind not in {"evict", "repair", "plugin"} or case is None or node is None:
        return ""
    if _is_recovery(e) or case.state is NodeState.REPAIRING:
        return ""
    if str(case.failure_class) != "device_plugin":
        return ""
    if e.task.telemetry and any(x[0] == e.node for x in e.task.telemetry[0]):
        return ""  # something else speaks of it now
    fresh = e.task.nodes.get(e.node)
    is_well = fresh.is_ready and fresh.gpus_allocatable >= fresh.gpus_capacity
    return "all of its GPUs are offered again" if is_well else ""


def approved(world, e):
    """No drain and no repair without the yes that policy asks for."""
    case = _case(e)
    if e.kind not in {"evict", "repair", "plugin"} or case is None or _is_recovery(e):
        return ""
    if not world.asks_for(case, e.task.site):
        return ""
    return "" if world.has_yes(case, "repair", e.task.site) else "nobody who may has said yes"


def once(world, e):
    """Nothing is repaired twice for one plan of a case."""
    if e.kind != "repair":
        return ""
    known = [s for c, s, _ in world.truth.repairs if c == e.case_id]
    return f"{e.step} was done before" if e.step in known else ""


def nobody_is_on_it(world, e):
    """A GPU is not taken from under a pod that has come since the drain."""
    if e.kind != "repair" or e.seen is None:
        return ""
    here = truth.moves(e.seen, e.task.pods.values())
    return f"{here[0].name} is on it" if here else ""


def drained_first(world, e):
    """Nothing is repaired before its drain is on record as done."""
    if e.kind != "repair":
        return ""
    done = [
        x
        for x in world.audit_of(e.case_id)
        if x.event == "step.finished" and str(x.detail.get("step", "")).startswith("drain-")
    ]
    return "" if done and done[-1].detail.get("status") == "done" else "its drain is not done"


def successors_first(world, e):
    """What the drain took is looked for elsewhere before the node is repaired."""
    if e.kind != "repair":
        return ""
    known = {s.name: s for s in world.ledger.steps(e.case_id)}
    drains = [s for name, s in known.items() if name.startswith("drain-")]
    if not drains or not drains[-1].detail.get("controllers"):
        return ""
    look = known.get(f"replaced-{drains[-1].name.rpartition('-')[2]}")
    is_over = look is not None and look.ended_at is not None
    return "" if is_over else "nobody has looked for what it ran"


def gates(world, e):
    """Back in service only Ready, whole, clear, checked at this boot, and approved."""
    if e.kind != "give" or e.after.labels.get(STATE) != "returning":
        return ""
    case, node, now = _case(e), e.before, world.clock.now()
    if not node.is_ready or node.gpus_allocatable < GPUS:
        return "it is not Ready, or lacks GPUs"
    proofs = {}  # the last run of each diagnostic on this boot
    for owner, boot, at, is_good, word in world.truth.diags:
        if owner == case.id and boot == node.boot_id:
            proofs[word] = (at, is_good)
    if not proofs or not all(is_good for _, is_good in proofs.values()):
        return "no diagnostic has passed on this boot"
    newest = max(at for at, _ in proofs.values())
    if now - newest > timedelta(seconds=EVIDENCE_S):
        return "its diagnostic is old"
    if case.repaired_at and newest < case.repaired_at:
        return "it was checked before its repair"
    return _unclear(e, case) or _unapproved(world, e, case)


def _unclear(e, case):
    if e.task.telemetry is None:
        return "its signals were not read"
    xids, silent, is_down, asked_at = e.task.telemetry
    if is_down or e.node in silent:
        return "its telemetry is silent"
    floor = max(case.repaired_at or case.opened_at, asked_at - timedelta(seconds=LOOK_BACK_S))
    speaks = [x for x in xids if x[0] == e.node and x[2] > floor]
    return f"its signals speak: {speaks[0][1]}" if speaks else ""


def _unapproved(world, e, case):
    if not e.task.site.ask_return:
        return ""
    return "" if world.has_yes(case, "return", e.task.site) else "nobody has said yes to the return"


def not_half_repaired(world, e):
    """A node under repair comes back validated or not at all."""
    if e.kind != "give" or e.after.labels.get(STATE) == "returning":
        return ""
    case = _case(e)
    is_touched = case is not None and case.state in {NodeState.REPAIRING, NodeState.VALIDATING}
    return f"given back while {case.state}" if is_touched else ""


def only_our_cordon(world, e):
    """What others cordoned stays cordoned."""
    if e.before is None or not (e.before.is_unschedulable and not e.after.is_unschedulable):
        return ""
    return "" if world.truth.cordon.get(e.node) == "ours" else "the cordon was not ours"


def others_marks(world, e):
    """Labels, annotations and taints of others are as they were."""
    if e.before is None:
        return ""
    before, after = truth.foreign_of(e.before), truth.foreign_of(e.after)
    return "" if before == after else f"{before} became {after}"


#: The entries of which one must be there before an effect: event, and a word of its step.
_TOLD = {
    "take": [("step.begun", "quarantine-")],
    "give": [("step.begun", "release-")],
    "clear": [("marks.cleared", ""), ("case.moved", ""), ("case.ended", "")],
    "diag": [("step.begun", "diag")],
    "repair": [("step.begun", "repair-")],
    "plugin": [("step.begun", "restart_device_plugin")],
    "withdraw": [("pod.withdrawing", ""), ("step.finished", "")],
}
_LEAVING = frozenset({"pod.evicting", "pod.deleting"})


def told_before(world, e):
    """The audit knew of it before it was done."""
    entries = world.audit_of(e.case_id)
    if e.kind == "evict":
        told = {x.detail.get("uid") for x in entries if x.event in _LEAVING}
        return "" if e.pod.uid in told else f"no entry pod.evicting of {e.pod.name} before it"
    wanted = _TOLD.get(e.kind, [])
    for event, word in wanted:
        if any(x.event == event and word in str(x.detail.get("step", "")) for x in entries):
            return ""
    return f"no entry {wanted} before it" if wanted else ""


def uid_was_read(world, e):
    """Only the very pod that was looked at goes, not who has its name now."""
    if e.kind not in {"evict", "plugin"}:
        return ""
    seen = e.task.pods.get((e.pod.namespace, e.pod.name))
    is_same = seen is not None and seen.uid == e.pod.uid
    return "" if is_same or e.kind == "plugin" else "another pod has its name now"


ACT_RULES = (
    kill_switch,
    fence,
    ownership,
    same_machine,
    same_boot,
    persons_hand,
    foreign_cordon,
    exclusion,
    other_owner,
    protected,
    mode,
    limits,
    hours,
    alert,
    storm,
    headroom,
    somebody_can_do_it,
    reason,
    approved,
    once,
    nobody_is_on_it,
    drained_first,
    successors_first,
    gates,
    not_half_repaired,
    only_our_cordon,
    others_marks,
    told_before,
    uid_was_read,
)
