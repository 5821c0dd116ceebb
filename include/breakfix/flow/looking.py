"""The cluster as it is now: enough for limits, budgets and pods. Of metrics only the alerts are
asked, and only where policy names any.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from breakfix.act.guard import halt_level
from breakfix.brakes import Brakes
from breakfix.flow.providers import available
from breakfix.flow.services import Services
from breakfix.model import Observation
from breakfix.observe.alerts import read_alerts
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
        alerts=read_alerts(services.metrics, services.policy, at=services.clock.now()),
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
        brakes=brakes_of(services, observation.at),
        available=available(services),
    )


def brakes_of(services: Services, now: datetime) -> Brakes:
    """Storms and the emergency in force, by the ledger; none where there is no ledger."""
    if services.ledger is None:
        return Brakes()
    breaker = services.policy.limits.breaker
    since = now - timedelta(seconds=max(breaker.window_s, breaker.cool_down_s))
    newest = next(iter(services.ledger.emergencies(limit=1)), None)
    return Brakes(services.ledger.storms(since=since), newest)
