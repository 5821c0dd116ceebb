"""Which waits are over: one look at the cluster answers for all that wait, however many cases there
are.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from breakfix.flow.services import Services
from breakfix.flow.stages import Wait, WaitKind
from breakfix.leaving import Standing, is_left_behind, standings, turn_of
from breakfix.model import Budget, Node, Pod, PodAction, RungKind
from breakfix.plan.drain_ladder import decide_drain
from breakfix.plan.replaced import are_ready_elsewhere
from breakfix.plan.world import OUR_PODS, budgets_of

_NEEDS_PODS = frozenset({WaitKind.PODS_GONE, WaitKind.PODS_READY, WaitKind.POD_FINISHED})
_NEEDS_NODES = frozenset({WaitKind.BOOTED, WaitKind.GPUS_BACK})


@dataclass(frozen=True, slots=True)
class _Seen:
    """One look at the cluster, as far as the waits need it."""

    now: datetime
    nodes: Mapping[str, Node]
    pods: Mapping[str, Sequence[Pod]]  # by node
    budgets: Sequence[Budget]
    daemon_sets: frozenset[tuple[str, str]]


def over(services: Services, waits: Sequence[Wait]) -> list[bool]:
    """For each wait whether its stage should run again now. Reads only, and each thing once.

    Raises what the ports raise; the caller asks again later, and every wait still ends at its
    deadline.
    """
    seen = _look(services, waits)
    return [_is_over(wait, services, seen) for wait in waits]


def _look(services: Services, waits: Sequence[Wait]) -> _Seen:
    now, cluster = services.clock.now(), services.cluster
    kinds = {w.kind for w in waits if now < w.deadline}
    drains = WaitKind.PODS_GONE in kinds
    pods: dict[str, list[Pod]] = defaultdict(list)
    for pod in cluster.pods() if kinds & _NEEDS_PODS else ():
        pods[pod.node].append(pod)
    needs_nodes = kinds & _NEEDS_NODES or (drains and services.policy.drain.dead_node == "leave")
    nodes = cluster.nodes() if needs_nodes else ()
    return _Seen(
        now=now,
        nodes={n.name: n for n in nodes},
        pods=pods,
        budgets=cluster.budgets() if drains else (),
        daemon_sets=cluster.daemon_sets() if drains else frozenset(),
    )


def _is_over(wait: Wait, services: Services, seen: _Seen) -> bool:
    if seen.now >= wait.deadline:
        return True
    if wait.not_before is not None and seen.now < wait.not_before:
        return False
    match wait.kind:
        case WaitKind.TIME:
            return True
        case WaitKind.BOOTED | WaitKind.GPUS_BACK:
            return _node_is_back(wait, seen.nodes.get(wait.node))
        case WaitKind.POD_FINISHED:
            return _pod_finished(wait, seen.pods)
        case WaitKind.PODS_GONE:
            return _drain_can_go_on(wait, services, seen)
        case WaitKind.PODS_READY:
            everywhere = (p for ps in seen.pods.values() for p in ps)
            return are_ready_elsewhere(wait.ready_elsewhere, everywhere, wait.node)


def _node_is_back(wait: Wait, node: Node | None) -> bool:
    """Or gone for good, which the stage then finds out."""
    if node is None:
        return True
    if wait.kind is WaitKind.BOOTED:
        return node.boot_id != wait.boot_id and node.is_ready
    return node.is_ready and node.gpus_allocatable >= wait.gpus


def _pod_finished(wait: Wait, pods: Mapping[str, Sequence[Pod]]) -> bool:
    found = (p for ps in pods.values() for p in ps if f"{p.namespace}/{p.name}" == wait.pod)
    pod = next(found, None)
    return pod is None or pod.is_finished


def _drain_can_go_on(wait: Wait, services: Services, seen: _Seen) -> bool:
    """Nothing left, the turn of others has come, or a pod is to leave now that no budget holds."""
    drain = services.policy.drain
    node = seen.nodes.get(wait.node)
    is_ready = node is None or node.is_ready
    pods = [
        p
        for p in seen.pods.get(wait.node, ())
        if OUR_PODS not in p.labels
        and not is_left_behind(p, is_node_ready=is_ready, now=seen.now, drain=drain)
    ]
    by_uid = {p.uid: p for p in pods}
    decisions = decide_drain(pods, daemon_sets=seen.daemon_sets, drain=drain)
    leaving = [(d, by_uid[d.uid]) for d in decisions if d.action is PodAction.EVICT]
    if not leaving or turn_of(leaving) != wait.turn:
        return True
    left = standings(
        leaving,
        since=wait.since or seen.now,
        now=seen.now,
        checkpoint=drain.checkpoint,
        case_id=wait.case_id,
        tolerant=wait.tolerant,
    )
    return any(s.is_taken_now and _is_allowed(s, seen) for s in left)


def _is_allowed(standing: Standing, seen: _Seen) -> bool:
    """Whether the API server may let it go: a pod that is not Ready can pass its budget, one with
    two is never evicted.
    """
    pod = standing.pod
    if standing.do is RungKind.DELETE or pod.is_finished:
        return True
    budgets = budgets_of(pod, seen.budgets)
    if len(budgets) > 1:
        return False
    return not pod.is_ready or all(b.allowed > 0 and b.is_observed for b in budgets)
