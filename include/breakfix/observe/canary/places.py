"""Which node or pod of a cohort a series speaks of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from breakfix.cohorts import Cohort
from breakfix.ports import Sample

Pods = Mapping[tuple[str, str], str]  # (namespace, pod) -> node


@dataclass(frozen=True, slots=True)
class Places:
    """Pods and their nodes, of now and of within the window."""

    node_of: Pods

    @classmethod
    def of(cls, bound: Pods, samples: Iterable[Sample]) -> tuple[Places, tuple[str, ...]]:
        """Pods of the API server and of kube_pod_info; (places, what was odd).

        A pod that two nodes claim (a stateful one that moved within the window) is placed nowhere.
        """
        claims: dict[tuple[str, str], set[str]] = {pod: {node} for pod, node in bound.items()}
        for sample in samples:
            pod = _pod(sample.labels)
            if node := sample.labels.get("node", ""):
                claims.setdefault(pod, set()).add(node)
        moved = sorted("/".join(p) for p, nodes in claims.items() if len(nodes) > 1)
        odd = (f"pods on two nodes in the window, not counted: {len(moved)}",) if moved else ()
        return cls({p: next(iter(n)) for p, n in claims.items() if len(n) == 1}), odd

    def unit_of(self, labels: Mapping[str, str], cohort: Cohort) -> str:
        """The member of the cohort, "" when the series is of none."""
        if cohort.nodes is not None:
            node = self.node_of.get(_pod(labels)) or labels.get("instance", "").rpartition(":")[0]
            return node if node in cohort.nodes else ""
        if cohort.pods is not None:
            return "/".join(_pod(labels)) if _pod(labels) in cohort.pods else ""
        return ",".join(f"{k}={v}" for k, v in sorted(labels.items()) if k != "le") or "all"


def _pod(labels: Mapping[str, str]) -> tuple[str, str]:
    return labels.get("namespace", ""), labels.get("pod", "")
