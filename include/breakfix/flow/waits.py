"""Which waits are over: one look at the cluster answers for all that wait, however many cases there are."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

from breakfix.flow.services import Services
from breakfix.flow.stages import Wait, WaitKind
from breakfix.model import Budget, Node, Pod, PodAction
from breakfix.plan.drain_pods import decide_pods
from breakfix.plan.world import budgets_of

_NEEDS_PODS = frozenset({WaitKind.PODS_GONE, WaitKind.POD_FINISHED})
_NEEDS_NODES = frozenset({WaitKind.BOOTED, WaitKind.GPUS_BACK})


def over(services: Services, waits: Sequence[Wait]) -> list[bool]:
    """For each wait whether its stage should run again now. Reads only: nodes once, pods once, budgets once.

    Raises what the ports raise; the caller asks again later, and every wait still ends at its deadline.
    """
    now = services.clock.now()
    kinds = {w.kind for w in waits if now < w.deadline}
    nodes: Mapping[str, Node] = {}
    pods: dict[str, list[Pod]] = defaultdict(list)
    if kinds & _NEEDS_NODES:
        nodes = {n.name: n for n in services.cluster.nodes()}
    if kinds & _NEEDS_PODS:
        for pod in services.cluster.pods():
            pods[pod.node].append(pod)
    budgets = services.cluster.budgets() if WaitKind.PODS_GONE in kinds else ()
    daemon_sets = services.cluster.daemon_sets() if WaitKind.PODS_GONE in kinds else frozenset()
    return [_is_over(w, services, now, nodes, pods, budgets, daemon_sets) for w in waits]


def _is_over(
    wait: Wait,
    services: Services,
    now: datetime,
    nodes: Mapping[str, Node],
    pods: Mapping[str, Sequence[Pod]],
    budgets: Sequence[Budget],
    daemon_sets: frozenset[tuple[str, str]],
) -> bool:
    if now >= wait.deadline:
        return True
    if wait.not_before is not None and now < wait.not_before:
        return False
    node = nodes.get(wait.node)
    match wait.kind:
        case WaitKind.TIME:
            return True
        case WaitKind.BOOTED:
            return node is None or (node.boot_id != wait.boot_id and node.is_ready)
        case WaitKind.GPUS_BACK:
            return node is None or (node.is_ready and node.gpus_allocatable >= wait.gpus)
        case WaitKind.POD_FINISHED:
            return _pod_finished(wait, pods)
        case WaitKind.PODS_GONE:
            return _drain_can_go_on(services, pods.get(wait.node, ()), budgets, daemon_sets)


def _pod_finished(wait: Wait, pods: Mapping[str, Sequence[Pod]]) -> bool:
    found = (p for ps in pods.values() for p in ps if f"{p.namespace}/{p.name}" == wait.pod)
    pod = next(found, None)
    return pod is None or pod.is_finished


def _drain_can_go_on(
    services: Services,
    pods: Sequence[Pod],
    budgets: Sequence[Budget],
    daemon_sets: frozenset[tuple[str, str]],
) -> bool:
    """Nothing left, or a pod that is not yet leaving and that no budget holds now."""
    decisions = decide_pods(
        pods,
        daemon_sets=daemon_sets,
        allow_disk_empty_dir=services.policy.drain.may_delete_disk_empty_dir,
        allow_unmanaged=services.policy.drain.may_delete_unmanaged,
    )
    by_name = {(p.namespace, p.name): p for p in pods}
    leaving = [by_name[d.namespace, d.name] for d in decisions if d.action is PodAction.EVICT]
    if not leaving:
        return True
    return any(
        not p.is_terminating and all(b.allowed > 0 for b in budgets_of(p, budgets)) for p in leaving
    )
