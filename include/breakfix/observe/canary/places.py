"""Which node or pod of a cohort a series speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from breakfix.cohorts import Cohort
from breakfix.ports import Sample

Pods = Mapping[tuple[str, str], str]  # (namespace, pod) -> node
#: What a series speaks of, where its scrape target has labels of these names itself.
EXPORTED = ("exported_namespace", "exported_pod")
#: Labels that name a node, in the order they are believed where no pod tells it.
NODE_LABELS = ("node", "Hostname", "hostname", "nodename", "kubernetes_node")
EXPORTED_NODE = "exported_node"


def placing(cohort: Cohort) -> tuple[str, ...]:
    """Labels to keep beside the policy's, to know a member of the cohort by."""
    if cohort.nodes is not None:
        return (*EXPORTED, EXPORTED_NODE, *NODE_LABELS)
    return EXPORTED if cohort.pods is not None else ()


@dataclass(frozen=True, slots=True)
class Places:
    """Pods and their nodes, of now and of within the window."""

    node_of: Pods
    nodes: frozenset[str] = frozenset()  # that are compared: another value names no node
    moved: frozenset[tuple[str, str]] = frozenset()

    @classmethod
    def of(
        cls, bound: Pods, samples: Iterable[Sample], nodes: frozenset[str] = frozenset()
    ) -> tuple[Places, tuple[str, ...]]:
        """Pods of the API server and of kube_pod_info; (places, what was odd).

        A pod that two nodes claim (a stateful one that moved within the window) is placed nowhere.
        """
        claims: dict[tuple[str, str], set[str]] = {pod: {node} for pod, node in bound.items()}
        for sample in samples:
            pod = _own_pod(sample.labels)
            if node := sample.labels.get("node", ""):
                claims.setdefault(pod, set()).add(node)
        moved = frozenset(p for p, claimed in claims.items() if len(claimed) > 1)
        odd = (f"pods on two nodes in the window, not counted: {len(moved)}",) if moved else ()
        placed = {p: next(iter(n)) for p, n in claims.items() if p not in moved}
        return cls(placed, nodes, moved), odd

    def unit_of(self, labels: Mapping[str, str], cohort: Cohort) -> str:
        """The member of the cohort, "" when the series is of none."""
        if cohort.nodes is not None:
            return self._node_of(labels, cohort.nodes)
        if cohort.pods is not None:
            return "/".join(_pod(labels)) if _pod(labels) in cohort.pods else ""
        return ",".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "le") or "all"

    def _node_of(self, labels: Mapping[str, str], members: frozenset[str]) -> str:
        """The first name that is a node's; a pod that moved is on none, whatever its labels say."""
        pod = _pod(labels)
        if pod in self.moved:
            return ""
        if pod in self.node_of:
            node = self.node_of[pod]
        else:
            known = self.nodes | members
            node = next((name for name in _names(labels) if name in known), "")
        return node if node in members else ""


def _names(labels: Mapping[str, str]) -> Iterator[str]:
    """Whatever could name the series' node: labels of that kind, and the host of its target."""
    for label in (EXPORTED_NODE, *NODE_LABELS):
        if value := labels.get(label, ""):
            yield value
    instance = labels.get("instance", "")
    yield instance.rpartition(":")[0] or instance


def _pod(labels: Mapping[str, str]) -> tuple[str, str]:
    """The pod that the series speaks of, which need not be the one that was scraped."""
    namespace, pod = (labels.get(label, "") for label in EXPORTED)
    return (namespace, pod) if namespace and pod else _own_pod(labels)


def _own_pod(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("namespace", ""), labels.get("pod", "")
