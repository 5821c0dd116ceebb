"""The fleet at one instant: metrics and Kubernetes' objects put side by side. Reads only."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.model import Node, Observation
from breakfix.observe.after_repair import reread_since_repair
from breakfix.observe.facts import read_facts
from breakfix.observe.kubernetes_signals import read_kubernetes
from breakfix.observe.labels import NodeNames
from breakfix.observe.selector import matches
from breakfix.observe.signals import Fleet, Gathered, read_signals
from breakfix.policy import Policy
from breakfix.ports import Cluster, Metrics


def observe(
    metrics: Metrics,
    cluster: Cluster,
    policy: Policy,
    *,
    at: datetime,
    gpu_node_selector: str,
    floors: Mapping[str, datetime] | None = None,
    with_pods: bool = True,
    is_past: bool = False,
) -> Observation:
    """One Observation of the GPU nodes that match the selector.

    `floors`: node -> end of its last repair; events of before it do not count. `is_past`: `at` is not now, so
    metrics are of then and the cluster's objects of now, which a warning says. Signals that cannot be read are
    in `coverage` with their error; raises ClusterError when the nodes themselves cannot be listed.
    """
    everyone = cluster.nodes()
    nodes = {n.name: n for n in everyone if matches(n.labels, gpu_node_selector)}
    fleet = Fleet(nodes, NodeNames(policy.names, frozenset(n.name for n in everyone)))
    gathered = read_signals(metrics, fleet, policy, at=at)
    reread_since_repair(gathered, metrics, fleet, policy, at=at, floors=floors or {})
    _add_kubernetes(gathered, nodes, policy, at=at)
    facts, odd = read_facts(metrics, fleet, policy, at=at)
    past = ["the cluster's objects are of now, the metrics of the past"] if is_past else []
    return Observation(
        at=at,
        nodes=tuple(sorted(nodes.values(), key=lambda n: n.name)),
        pods=tuple(cluster.pods()) if with_pods else (),
        budgets=tuple(cluster.budgets()) if with_pods else (),
        daemon_sets=cluster.daemon_sets() if with_pods else frozenset(),
        readings=tuple(sorted(gathered.readings, key=lambda r: (r.node, r.signal, r.gpu, r.key))),
        coverage=gathered.coverage,
        facts=facts,
        warnings=tuple(dict.fromkeys([*past, *gathered.warnings, *odd])),
    )


def _add_kubernetes(
    gathered: Gathered, nodes: Mapping[str, Node], policy: Policy, *, at: datetime
) -> None:
    for rule in policy.signals:
        if rule.is_kubernetes:
            readings, cover = read_kubernetes(rule, nodes.values(), policy, at)
            gathered.readings += readings
            gathered.coverage[rule.name] = cover
