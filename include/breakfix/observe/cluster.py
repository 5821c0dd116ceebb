"""What Kubernetes holds now: nodes, pods, budgets, DaemonSets."""

from __future__ import annotations

from dataclasses import dataclass

from breakfix.model import Budget, Node, Pod
from breakfix.ports import Cluster


@dataclass(frozen=True, slots=True)
class ClusterView:
    """The cluster's objects, listed one kind after the other."""

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    budgets: tuple[Budget, ...]
    daemon_sets: frozenset[tuple[str, str]]


def see_cluster(cluster: Cluster) -> ClusterView:
    """All objects that limits and drains look at. Raises ClusterError."""
    return ClusterView(
        nodes=tuple(sorted(cluster.nodes(), key=lambda n: n.name)),
        pods=tuple(cluster.pods()),
        budgets=tuple(cluster.budgets()),
        daemon_sets=cluster.daemon_sets(),
    )
