"""The cluster as it is now, without metrics: enough for limits, budgets and pods."""

from __future__ import annotations

from breakfix.act.guard import halt_level
from breakfix.flow.providers import available
from breakfix.flow.services import Services
from breakfix.model import Observation
from breakfix.observe.selector import matches
from breakfix.plan.world import World, build_world


def look(services: Services) -> World:
    """Nodes, pods and budgets, indexed for the guardrails; GPU nodes are those of the selector."""
    cluster, ledger = services.cluster, services.ledger
    observation = Observation(
        at=services.clock.now(),
        nodes=tuple(cluster.nodes()),
        pods=tuple(cluster.pods()),
        budgets=tuple(cluster.budgets()),
        daemon_sets=cluster.daemon_sets(),
    )
    selector = services.settings.gpu_node_selector
    fleet = frozenset(n.name for n in observation.nodes if matches(n.labels, selector))
    return build_world(
        observation,
        fleet,
        services.policy,
        records=ledger.node_records(now=observation.at) if ledger else {},
        cases=ledger.cases(open_only=True) if ledger else (),
        halt=halt_level(cluster, ledger, services.settings.namespace),
        available=available(services),
    )
