"""The guardrails: each a pure function from one candidate and the world to None or a Refusal.

They run in this order when planning, and the ones that can change meanwhile run again before every
act. The order is of cost to a reader: what a person decided first, then what the cluster says, then
arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from breakfix.hands_off import hands_off, is_cordoned_by_others
from breakfix.model import (
    REPAIRS,
    Action,
    FailureClass,
    HaltLevel,
    Node,
    Pod,
    PodAction,
    Refusal,
    RefusalReason,
    Scope,
    ScopeKind,
)
from breakfix.plan.world import World, budgets_of
from breakfix.policy import PodMatch


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node somebody wants out of service, and why."""

    node: Node
    failure_class: FailureClass
    action: Action
    now: datetime
    is_by_person: bool = False

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
    if record is None or record.last_ended_at is None:
        return None
    until = record.last_ended_at + timedelta(seconds=world.policy.limits.cooldown_s)
    if candidate.now >= until:
        return None
    return candidate.refused(RefusalReason.COOLDOWN, f"cooling down until {until:%H:%M:%S} UTC")


def scopes_full(candidate: Candidate, world: World) -> Refusal | None:
    """So many nodes of a rack, pool, SKU, fabric domain or of the fleet may be out at a time."""
    for scope in candidate.node.scopes():
        out, maximum = world.out_besides(candidate.node.name, scope), world.maximum(scope)
        if len(out) + 1 > maximum:
            reason = RefusalReason.SCOPE_FULL
            if scope.kind is ScopeKind.FLEET:
                reason = RefusalReason.FLEET_SHARE
            who = ", ".join(sorted(out)[:_NAMED]) + (" and more" if len(out) > _NAMED else "")
            text = f"{len(out)} of at most {maximum} out in {scope}: {who or 'none may be'}"
            return candidate.refused(reason, text, scope)
    return None


def no_headroom(candidate: Candidate, world: World) -> Refusal | None:
    """Running and pending pods must find their GPUs on what stays schedulable, per SKU and pool."""
    free = free_gpus_after(candidate.node, world)
    wanted = world.policy.limits.headroom_gpus
    if free >= wanted:
        return None
    text = (
        f"without it {candidate.node.sku or 'its SKU'} in pool {candidate.node.pool or '-'} "
        f"would have {free} free GPUs; {wanted} must stay free"
    )
    return candidate.refused(RefusalReason.HEADROOM, text)


def free_gpus_after(node: Node, world: World) -> int:
    """GPUs of the node's SKU and pool that stay free once all that must move, and all that waits,
    is placed.

    What must move: the pods of this node, and of those that others are emptying or that are not
    Ready. Negative: that many GPUs short. GPUs of finished pods are free; a pod that is going has
    its successor among the pending.
    """
    group = [n for n in world.fleet if n.sku == node.sku and n.pool == node.pool]
    stays = [
        n
        for n in group
        if n.name != node.name and n.name not in world.taken and n.name not in world.out
    ]
    leaves = [n for n in group if n.name == node.name or world.is_leaving(n)]
    free = sum(n.gpus_allocatable - _gpus_in_use(n.name, world) for n in stays)
    to_place = sum(_gpus_to_move(n.name, world) for n in leaves)
    pending = sum(p.gpus for p in world.pods_on.get("", ()) if _could_want(p, group))
    return free - to_place - pending


def _gpus_in_use(node: str, world: World) -> int:
    return sum(p.gpus for p in world.pods_on.get(node, ()) if not p.is_finished)


def _gpus_to_move(node: str, world: World) -> int:
    going = {p.uid for p in world.pods_on.get(node, ()) if p.is_terminating}
    return sum(
        d.gpus
        for d in world.pods_to_drain(node)
        if d.action is PodAction.EVICT and d.uid not in going
    )


def _could_want(pod: Pod, group: Sequence[Node]) -> bool:
    """A pending pod counts where its nodeSelector lets it onto a node of the group."""
    if pod.is_finished or not pod.gpus:
        return False
    wanted = pod.node_selector.items()
    return any(all(n.labels.get(k) == v for k, v in wanted) for n in group)


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
    budgets = world.observation.budgets
    for pod in _pods_leaving(candidate.node.name, world):
        for budget in budgets_of(pod, budgets):
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
        for budget in budgets_of(pod, world.observation.budgets):
            world.budget_used[(budget.namespace, budget.name)] += 1
    world.taken.add(node.name)


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
    scopes_full,
    no_headroom,
    pod_refused,
    budget_blocks,
)

#: Those that are asked again before a disruptive act of a case that was admitted already.
#: The policy may have changed since the admission: a class that may no longer act stops here.
ACT_GUARDS: tuple[Guard, ...] = (
    recommended_only,
    unsupported,
    protected,
    excluded,
    other_owner,
    scopes_full,
)

#: Before the node is ours: somebody may have cordoned it since the admission.
QUARANTINE_GUARDS: tuple[Guard, ...] = (*ACT_GUARDS, cordoned_by_others)


def first_refusal(
    candidate: Candidate, world: World, guards: tuple[Guard, ...] = GUARDS
) -> Refusal | None:
    """The first guard that says no, or None when all agree."""
    return next((r for guard in guards if (r := guard(candidate, world)) is not None), None)


def attempts_left(world: World, node: str) -> bool:
    """Whether policy allows one more repair of this node in its window."""
    record = world.records.get(node)
    return record is None or record.attempts < world.policy.limits.max_attempts
