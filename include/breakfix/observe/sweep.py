"""The fleet at one instant: metrics and Kubernetes' objects put side by side. Reads only."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime

from breakfix.model import Observation, OpenFinding
from breakfix.observe.alerts import read_alerts
from breakfix.observe.asked import Asked
from breakfix.observe.coverage import with_gpu_telemetry
from breakfix.observe.facts import fact_queries, read_facts
from breakfix.observe.fleet import Fleet
from breakfix.observe.floors import reread_since
from breakfix.observe.kubernetes_signals import KubernetesView, read_kubernetes, view_of
from breakfix.observe.labels import NodeNames
from breakfix.observe.pods import waiting_reasons
from breakfix.observe.selector import matches
from breakfix.observe.signals import Gathered, read_signals, signal_queries
from breakfix.observe.unreported import read_unreported
from breakfix.policy import Policy
from breakfix.ports import Cluster, Metrics

PAST = "nodes, pods and conditions are of now, only the metrics are of then"


def observe(
    metrics: Metrics,
    cluster: Cluster,
    policy: Policy,
    *,
    at: datetime,
    gpu_node_selector: str,
    floors: Mapping[str, datetime] | None = None,
    open_findings: Mapping[str, Collection[OpenFinding]] | None = None,
    is_past: bool = False,
) -> Observation:
    """One Observation. The GPU nodes, those that match the selector, are in `gpu_nodes`.

    `floors`: node -> end of its last repair, or of a case that a person ended; events of before it
    or of before the node's boot do not count. `open_findings`: node -> what spoke at the last
    sweep; what is silent now and not reported is in `unreported`. `is_past`: `at` is not now, and a
    warning says what that means. A signal that cannot be read is in `coverage` with its error;
    raises ClusterError when the cluster cannot be listed.
    """
    everyone = tuple(sorted(cluster.nodes(), key=lambda n: n.name))
    nodes = {n.name: n for n in everyone if matches(n.labels, gpu_node_selector)}
    fleet = Fleet(nodes, NodeNames(policy.names, frozenset(n.name for n in everyone)))
    wanted = [*signal_queries(fleet, policy), *fact_queries(policy).values()]
    metrics = Asked.of(metrics, wanted, at=at)
    gathered = read_signals(metrics, fleet, policy, at=at)
    telling = with_gpu_telemetry(gathered.coverage, policy)
    facts, odd = read_facts(metrics, fleet, policy, at=at, telling=telling)
    reread_since(gathered, metrics, fleet, policy, at=at, floors=floors or {}, facts=facts)
    unreported, untold = read_unreported(
        metrics,
        fleet,
        policy,
        at=at,
        readings=gathered.readings,
        coverage=gathered.coverage,
        open_findings=open_findings or {},
    )
    view = view_of(cluster, nodes, policy, at=at, floors=floors or {}, facts=facts)
    _add_kubernetes(gathered, view, policy)
    warnings = [*([PAST] if is_past else []), *gathered.warnings, *odd, *untold]
    return Observation(
        at=at,
        nodes=everyone,
        pods=view.pods,
        budgets=tuple(cluster.budgets()),
        daemon_sets=cluster.daemon_sets(),
        gpu_nodes=frozenset(nodes),
        readings=tuple(sorted(gathered.readings, key=lambda r: (r.node, r.signal, r.gpu, r.key))),
        coverage=gathered.coverage,
        facts=facts,
        waiting=waiting_reasons(view.pods),
        alerts=read_alerts(metrics, policy, at=at),
        unreported=unreported,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _add_kubernetes(gathered: Gathered, view: KubernetesView, policy: Policy) -> None:
    for rule in policy.signals:
        if rule.is_kubernetes:
            readings, cover = read_kubernetes(rule, view, policy)
            gathered.readings += readings
            gathered.coverage[rule.name] = cover
