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
from breakfix.model import Budget, Node, Pod, PodAction
from breakfix.plan.drain_pods import decide_pods
from breakfix.plan.world import budgets_of

_NEEDS_PODS = frozenset({WaitKind.PODS_GONE, WaitKind.POD_FINISHED})
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
    nodes = cluster.nodes() if kinds & _NEEDS_NODES else ()
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
    node = seen.nodes.get(wait.node)
    match wait.kind:
        case WaitKind.TIME:
            return True
        case WaitKind.BOOTED:
            return node is None or (node.boot_id != wait.boot_id and node.is_ready)
        case WaitKind.GPUS_BACK:
            return node is None or (node.is_ready and node.gpus_allocatable >= wait.gpus)
        case WaitKind.POD_FINISHED:
            return _pod_finished(wait, seen.pods)
        case WaitKind.PODS_GONE:
            return _drain_can_go_on(services, seen.pods.get(wait.node, ()), seen)


def _pod_finished(wait: Wait, pods: Mapping[str, Sequence[Pod]]) -> bool:
    found = (p for ps in pods.values() for p in ps if f"{p.namespace}/{p.name}" == wait.pod)
    pod = next(found, None)
    return pod is None or pod.is_finished


def _drain_can_go_on(services: Services, pods: Sequence[Pod], seen: _Seen) -> bool:
    """Nothing left, or a pod that is not yet leaving and that no budget holds now."""
    decisions = decide_pods(
        pods,
        daemon_sets=seen.daemon_sets,
        allow_disk_empty_dir=services.policy.drain.may_delete_disk_empty_dir,
        allow_unmanaged=services.policy.drain.may_delete_unmanaged,
    )
    by_name = {(p.namespace, p.name): p for p in pods}
    leaving = [by_name[d.namespace, d.name] for d in decisions if d.action is PodAction.EVICT]
    if not leaving:
        return True
    return any(
        not p.is_terminating and all(b.allowed > 0 for b in budgets_of(p, seen.budgets))
        for p in leaving
    )
