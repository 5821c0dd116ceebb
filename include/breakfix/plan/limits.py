"""The guardrails: each a pure function from one candidate and the world to None or a Refusal.

They run in this order when planning, and the ones that can change meanwhile run again before every
act. The order is of cost to a reader: what a person decided first, then what the cluster says, then
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from breakfix.brakes import Lift, open_text, over_most
from breakfix.hands_off import hands_off, is_cordoned_by_others
from breakfix.model import (
    REPAIRS,
    Action,
    FailureClass,
    HaltLevel,
    Node,
    NodeRecord,
    Pod,
    PodAction,
    Refusal,
    RefusalReason,
    Scope,
    ScopeKind,
)
from breakfix.plan.world import World
from breakfix.policy import Limits, PodMatch


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node somebody wants out of service, and why.

    `is_begun`: it is ours and its drain has begun, so that what would only have kept it from being
    taken does not leave it half done.
    """

    node: Node
    failure_class: FailureClass
    action: Action
    now: datetime
    is_by_person: bool = False
    is_begun: bool = False

    def refused(self, reason: RefusalReason, text: str, scope: Scope | None = None) -> Refusal:
        return Refusal(self.node.name, reason, text, self.failure_class, self.action, scope)


_NAMED = 3  # nodes named in a refusal's sentence

Guard = Callable[[Candidate, World], Refusal | None]


def halted(candidate: Candidate, world: World) -> Refusal | None:
    """The kill switch holds every new disruption."""
    if world.halt is HaltLevel.NONE:
        return None
    return candidate.refused(RefusalReason.HALTED, f"automation is halted (level {world.halt})")


def recommended_only(candidate: Candidate, world: World) -> Refusal | None:
    """Policy lets this class act only when its mode says approve or auto. A person's own request
    may.
    """
    mode = world.policy.class_rule(candidate.failure_class).mode
    if candidate.is_by_person or mode in ("approve", "auto"):
        return None
    if mode == "off":
        text = f"policy turns {candidate.failure_class} off: seen, and neither done nor recommended"
        return candidate.refused(RefusalReason.MODE_OFF, text)
    text = f"policy mode of {candidate.failure_class} is {mode}: recommended, not done"
    return candidate.refused(RefusalReason.MODE_RECOMMEND, text)


def unsupported(candidate: Candidate, world: World) -> Refusal | None:
    """A repair that nobody is there to do takes no node out."""
    if candidate.action not in REPAIRS or candidate.action in world.available:
        return None
    text = (
        f"{candidate.action} is the next rung for {candidate.failure_class}, and nobody is"
        " configured to do it: see BREAKFIX_REPAIR_PROVIDERS"
    )
    return candidate.refused(RefusalReason.UNSUPPORTED, text)


def protected(candidate: Candidate, world: World) -> Refusal | None:
    """Control-plane nodes, and those that run Airflow, the ledger or Prometheus, are never
    targets.
    """
    limits = world.policy.limits
    for label in limits.protected_node_labels:
        if label in candidate.node.labels:
            return candidate.refused(RefusalReason.PROTECTED, f"the node carries label {label}")
    if candidate.node.pool in limits.protected_pools:
        text = f"pool {candidate.node.pool or '(none)'} is protected"
        return candidate.refused(RefusalReason.PROTECTED, text)
    for pod in world.pods_on.get(candidate.node.name, ()):
        if not pod.is_finished and any(_matches(m, pod) for m in limits.protected_pods):
            text = f"the node runs protected pod {pod.namespace}/{pod.name}"
            return candidate.refused(RefusalReason.PROTECTED, text)
    return None


def _matches(match: PodMatch, pod: Pod) -> bool:
    if match.namespace and match.namespace != pod.namespace:
        return False
    return all(pod.labels.get(k) == v for k, v in match.labels.items())


def excluded(candidate: Candidate, world: World) -> Refusal | None:
    """Somebody put an exclusion label on the node."""
    for label, value in world.policy.limits.exclusion_labels.items():
        if candidate.node.labels.get(label) == value:
            return candidate.refused(RefusalReason.EXCLUDED, f"excluded by label {label}={value}")
    return None


def other_owner(candidate: Candidate, world: World) -> Refusal | None:
    """A driver upgrade, another tool, the cloud or people at work have the node in their hands."""
    hold = hands_off(candidate.node, world.policy.limits, candidate.now)
    if hold is None:
        return None
    return candidate.refused(hold.reason, f"another owner has the node: {hold.text}")


def cordoned_by_others(candidate: Candidate, world: World) -> Refusal | None:
    """A cordon that is not ours means that somebody has a plan for this node."""
    del world
    if is_cordoned_by_others(candidate.node):
        return candidate.refused(RefusalReason.FOREIGN_CORDON, "cordoned by somebody else")
    return None


def given_back(candidate: Candidate, world: World) -> Refusal | None:
    """A person took this node back from us: their word holds for a while, whatever signals say."""
    record = world.records.get(candidate.node.name)
    if candidate.is_by_person or record is None or record.overridden_at is None:
        return None
    until = record.overridden_at + timedelta(seconds=world.policy.limits.override_hold_s)
    if candidate.now >= until:
        return None
    text = f"a person took the node back; left to them until {until:%Y-%m-%d %H:%M} UTC"
    return candidate.refused(RefusalReason.OVERRIDDEN, text)


def unconfirmed(candidate: Candidate, world: World) -> Refusal | None:
    """Metrics alone accuse nobody: a second source tied to the node must say that they speak of it.

    The node's own word is one: not Ready, or fewer GPUs offered than it has. Else a pod that the
    series name and that runs there, or the scrape target's label beside the exporter's
    (observe/identity.py).
    """
    node = candidate.node
    if candidate.is_by_person or not node.is_ready or node.gpus_allocatable < node.gpus_capacity:
        return None
    if node.name in world.confirmed:
        return None
    text = "no second source confirms that the metrics are of this node"
    return candidate.refused(RefusalReason.NOT_CORROBORATED, text)


def cooling_down(candidate: Candidate, world: World) -> Refusal | None:
    """Not again right after a case of this node ended; a recurrence under watch is another
    matter.
    """
    record = world.records.get(candidate.node.name)
    if candidate.is_by_person or candidate.node.name in world.cases:
        return None
    if record is None or record.last_ended_at is None or world.is_lifted(Lift.COOLDOWN):
        return None
    wait_s = cooldown_of(record, world.policy.limits)
    until = record.last_ended_at + timedelta(seconds=wait_s)
    if candidate.now >= until:
        return None
    text = f"cooling down until {until:%Y-%m-%d %H:%M:%S} UTC"
    if record.attempts > 1:
        text += f": {record.attempts} repairs, {wait_s / 60:g} min"
    return candidate.refused(RefusalReason.COOLDOWN, text)


def cooldown_of(record: NodeRecord, limits: Limits) -> float:
    """Seconds between two cases of a node: longer with each repair after the first."""
    grown = limits.cooldown_s * limits.cooldown_factor ** max(0, min(record.attempts, 64) - 1)
    return min(grown, max(limits.cooldown_longest_s, limits.cooldown_s))


def outside_windows(candidate: Candidate, world: World) -> Refusal | None:
    """The calendar: hours in which no node is taken out. What was begun is not left half done."""
    if candidate.is_begun or world.is_lifted(Lift.WINDOWS):
        return None
    closed = world.closed_for(candidate.node)
    return None if closed is None else candidate.refused(RefusalReason.WINDOW, closed.text)


def alert_fires(candidate: Candidate, world: World) -> Refusal | None:
    """An alert that policy names holds disruption: the fleet's, or that of the nodes it names."""
    if not world.policy.limits.alerts.block or world.is_lifted(Lift.ALERTS):
        return None
    if _is_empty(candidate, world):
        return None
    why = world.alerts.hold(candidate.node)
    return candidate.refused(RefusalReason.ALERT, why) if why else None


def _is_empty(candidate: Candidate, world: World) -> bool:
    """Begun, and nothing is left to move: what comes now disturbs nobody and gives GPUs back."""
    return candidate.is_begun and not world.moving(candidate.node.name)


def storm(candidate: Candidate, world: World) -> Refusal | None:
    """Too many nodes fell ill or were taken out in a short time: the breaker is open, or this one
    would open it. It holds new disruption alone; no recovery asks here.
    """
    if world.is_lifted(Lift.BREAKER) or _is_empty(candidate, world):
        return None
    storms = world.brakes.storms
    for scope in candidate.node.scopes():
        rule = world.breaker_rule(scope)
        if rule is None:
            continue
        breaker = storms.breaker(scope)
        if breaker.is_open:
            text = open_text(rule, breaker, storms.last_strike(scope))
            return candidate.refused(RefusalReason.BREAKER, text, scope)
        struck = world.struck(rule)
        count = len(struck) + (candidate.node.name not in struck)
        over = "" if candidate.is_begun else over_most(rule, count)
        if over:
            text = f"this would open the breaker: {over}"
            return candidate.refused(RefusalReason.BREAKER, text, scope)
    return None


def scopes_full(candidate: Candidate, world: World) -> Refusal | None:
    """So many nodes of a rack, pool, SKU, fabric domain or of the fleet may be out at a time."""
    for scope in candidate.node.scopes():
        name, maximum = candidate.node.name, world.allowed_out(scope)
        out = world.count_out(name, scope)
        if out + 1 > maximum:
            reason = RefusalReason.SCOPE_FULL
            if scope.kind is ScopeKind.FLEET:
                reason = RefusalReason.FLEET_SHARE
            who = ", ".join(world.first_out(name, scope, _NAMED))
            who += " and more" if out > _NAMED else ""
            text = f"{out} of at most {maximum} out in {scope}: {who or 'none may be'}"
            return candidate.refused(reason, text, scope)
    return None


def no_headroom(candidate: Candidate, world: World) -> Refusal | None:
    """Running and pending pods must find their GPUs on what stays schedulable, per SKU and pool;
    each pod that has to move, on one node that it may run on.
    """
    if world.is_lifted(Lift.HEADROOM):
        return None
    node, limits = candidate.node, world.policy.limits
    where = f"{node.sku or 'its SKU'} in pool {node.pool or '-'}"
    free = free_gpus_after(node, world)
    if free < limits.headroom_gpus:
        text = f"without it {where} would have {free} free GPUs; {limits.headroom_gpus} must stay"
        return candidate.refused(RefusalReason.HEADROOM, f"{text} free")
    moving = world.moving(node.name)
    claimed = next((p for p in moving if p.claims), None)
    if claimed is not None and limits.headroom_claims == "hold":
        text = f"cannot tell: pod {claimed.namespace}/{claimed.name} holds devices by claims (DRA)"
        return candidate.refused(RefusalReason.HEADROOM, text)
    misfit = world.headroom.misfit(node, [p for p in moving if p.gpus])
    if misfit is None:
        return None
    pod, most = misfit
    text = f"pod {pod.namespace}/{pod.name} wants {pod.gpus} GPUs on one node of {where}"
    return candidate.refused(RefusalReason.HEADROOM, f"{text}; the most that one has is {most}")


def no_headroom_to_move(candidate: Candidate, world: World) -> Refusal | None:
    """The same before an act: a node from which nothing has to move takes nobody's GPUs."""
    return no_headroom(candidate, world) if world.moving(candidate.node.name) else None


def free_gpus_after(node: Node, world: World) -> int:
    """GPUs of the node's SKU and pool that stay free once all that must move, and all that waits,
    is placed.

    What must move: the pods of this node, and of those that others are emptying or that are not
    Ready. Negative: that many GPUs short. GPUs of finished pods are free; a pod that is going has
    its successor among the pending. A gang whose other pods start anew frees what it then wants,
    so only its pods here count.
    """
    return world.headroom.free_after(node)


def pod_refused(candidate: Candidate, world: World) -> Refusal | None:
    """A pod that a drain may not take holds the whole node, before the cordon."""
    refused = [d for d in world.pods_to_drain(candidate.node.name) if d.action is PodAction.REFUSE]
    if not refused:
        return None
    first = refused[0]
    text = f"drain would refuse {first.namespace}/{first.name}: {first.reason}"
    if len(refused) > 1:
        text += f" (and {len(refused) - 1} more)"
    return candidate.refused(RefusalReason.POD_REFUSED, text)


def budget_blocks(candidate: Candidate, world: World) -> Refusal | None:
    """A budget that allows nothing now would leave the node cordoned and not drained.

    One that allows some, but fewer than the node has, lets a drain go on pod by pod. Pods that are
    not ready, finished or terminating bypass budgets, as in the API server.
    """
    for pod in _pods_leaving(candidate.node.name, world):
        for budget in world.budgets_of(pod):
            used = world.budget_used.get((budget.namespace, budget.name), 0)
            if not budget.is_observed or budget.allowed - used <= 0:
                text = (
                    f"budget {budget.namespace}/{budget.name} allows no disruption now "
                    f"and protects pod {pod.name}"
                )
                return candidate.refused(RefusalReason.BUDGET, text)
    return None


def _pods_leaving(node: str, world: World) -> list[Pod]:
    """Pods a drain would evict and that budgets protect."""
    evicted = {
        (d.namespace, d.name) for d in world.pods_to_drain(node) if d.action is PodAction.EVICT
    }
    return [
        p
        for p in world.pods_on.get(node, ())
        if (p.namespace, p.name) in evicted
        and p.is_ready
        and not p.is_finished
        and not p.is_terminating
    ]


def promise(node: Node, world: World) -> None:
    """Note that the plan takes this node: later candidates see it out, and its budgets used."""
    for pod in _pods_leaving(node.name, world):
        for budget in world.budgets_of(pod):
            world.budget_used[(budget.namespace, budget.name)] += 1
    world.take(node)


#: In the order in which they are asked; the first that says no is the one that is recorded.
GUARDS: tuple[Guard, ...] = (
    halted,
    recommended_only,
    unsupported,
    protected,
    excluded,
    other_owner,
    cordoned_by_others,
    given_back,
    unconfirmed,
    cooling_down,
    outside_windows,
    alert_fires,
    storm,
    scopes_full,
    no_headroom,
    pod_refused,
    budget_blocks,
)

#: Those that are asked again before a disruptive act of a case that was admitted already.
#: The policy may have changed since the admission: a class that may no longer act stops here.
#: Exclusion and other owners are asked in act/guard.py, on the node as it is read before each act.
ACT_GUARDS: tuple[Guard, ...] = (
    recommended_only,
    unsupported,
    protected,
    outside_windows,
    alert_fires,
    storm,
    scopes_full,
    no_headroom_to_move,
)

#: Before the node is ours: somebody may have cordoned it since the admission.
QUARANTINE_GUARDS: tuple[Guard, ...] = (*ACT_GUARDS, cordoned_by_others)


def first_refusal(
    candidate: Candidate, world: World, guards: tuple[Guard, ...] = GUARDS
) -> Refusal | None:
    """The first guard that says no, or None when all agree."""
    return next((r for guard in guards if (r := guard(candidate, world)) is not None), None)


def attempts_left(world: World, node: str, failure_class: FailureClass) -> bool:
    """Whether policy allows one more repair of this node, and of this class on it, in its
    window.
    """
    record = world.records.get(node)
    return record is None or not why_no_attempt(record, failure_class, world.policy.limits)


def why_no_attempt(record: NodeRecord, failure_class: FailureClass, limits: Limits) -> str:
    """Why there is no further repair of the node, or of this class on it; empty when there is."""
    if record.attempts >= limits.max_attempts:
        return f"{record.attempts} of {limits.max_attempts} repairs were tried"
    of_class = record.attempts_by_class.get(failure_class, 0)
    if of_class >= limits.max_attempts_of_class:
        return f"{of_class} of {limits.max_attempts_of_class} repairs of {failure_class} were tried"
    return ""
