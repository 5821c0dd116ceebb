"""The cluster as it is now, without metrics: enough for limits, budgets and pods."""

from __future__ import annotations

from breakfix.act.guard import halt_level
from breakfix.flow.services import Services
from breakfix.model import Node, Observation
from breakfix.observe.cluster import see_cluster
from breakfix.plan.world import World, build_world


def look(services: Services) -> World:
    """The cluster as it is, without metrics: enough for limits, budgets and pods."""
    seen = see_cluster(services.cluster)
    observation = Observation(
        at=services.clock.now(),
        nodes=seen.nodes,
        pods=seen.pods,
        budgets=seen.budgets,
        daemon_sets=seen.daemon_sets,
    )
    ledger = services.ledger
    selector = services.settings.gpu_node_selector
    fleet = frozenset(n.name for n in seen.nodes if is_gpu_node(n, selector))
    return build_world(
        observation,
        fleet,
        services.policy,
        ledger.node_records() if ledger else {},
        ledger.cases(open_only=True) if ledger else (),
        halt_level(services.cluster, ledger, services.settings.namespace),
    )


def is_gpu_node(node: Node, selector: str) -> bool:
    """Whether the node's labels match `key=value,key2` (what BREAKFIX_GPU_NODE_SELECTOR may say)."""
    for part in filter(None, (p.strip() for p in selector.split(","))):
        key, has_value, value = part.partition("=")
        if node.labels.get(key) is None or (has_value and node.labels[key] != value):
            return False
    return True
