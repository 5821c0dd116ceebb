"""Do the metrics that accuse a node really come from it? A second source must say so before anybody
acts.

A label is easily wrong: a copied host name, a relabelling, a proxy. So one label alone is not
believed. What confirms: a pod that the series name (the exporter's own, or the workload's) and that
Kubernetes has bound to that node; or two labels from different hands that name it, the scrape
target's and the exporter's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from breakfix.model import Observation
from breakfix.observe.labels import Missed, NodeNames
from breakfix.observe.promql import fill
from breakfix.policy import Policy
from breakfix.ports import Metrics

#: Long enough to see the neighbours of a GPU that has just vanished, ours.
_WINDOW_S = 900.0
_QUERY = (
    "count by ($node, namespace, pod, exported_namespace, exported_pod) "
    "(last_over_time(DCGM_FI_DEV_GPU_TEMP[$window]))"
)
#: Labels that a scrape configuration sets; the others come with the series, from the exporter.
_OF_TARGET = frozenset({"node", "kubernetes_node", "instance"})


def confirmed_nodes(
    metrics: Metrics, observation: Observation, policy: Policy, wanted: Iterable[str]
) -> Mapping[str, str]:
    """Node -> what confirms that its metrics are its own, for those of `wanted` that something
    confirms.

    One query, and only when a node is accused. Raises MetricsError: what cannot be asked confirms
    nothing.
    """
    accused = frozenset(wanted)
    if not accused:
        return {}
    names = NodeNames(policy.names, frozenset(n.name for n in observation.nodes))
    bound = {(p.namespace, p.name): p.node for p in observation.pods if p.node}
    confirmed: dict[str, str] = {}
    answer = metrics.query(fill(_QUERY, policy.names, _WINDOW_S), at=observation.at)
    for sample in answer.samples:
        node = names.node_of(sample.labels)
        if not isinstance(node, Missed) and node in accused and node not in confirmed:
            said = _by_pod(sample.labels, node, bound) or _by_labels(sample.labels, node, names)
            if said:
                confirmed[node] = said
    return confirmed


def _by_pod(labels: Mapping[str, str], node: str, bound: Mapping[tuple[str, str], str]) -> str:
    for prefix in ("", "exported_"):
        pod = (labels.get(f"{prefix}namespace", ""), labels.get(f"{prefix}pod", ""))
        if bound.get(pod) == node:
            return f"pod {pod[0]}/{pod[1]} runs there"
    return ""


def _by_labels(labels: Mapping[str, str], node: str, names: NodeNames) -> str:
    naming = names.labels_naming(labels, node)
    if naming & _OF_TARGET and naming - _OF_TARGET:
        return f"labels {', '.join(sorted(naming))} agree"
    return ""
