"""Label selectors as the Kubernetes API defines them, on plain label maps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from breakfix.model import Node, Pod


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a `LabelSelector` object selects these labels.

    None selects nothing, an empty selector everything (policy/v1). An operator we do not know
    selects: for a budget that is the careful side, since a budget that might protect a pod is taken
    to protect it.
    """
    if selector is None:
        return False
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(k) != v for k, v in wanted.items()):
        return False
    return all(_expression_holds(e, labels) for e in selector.get("matchExpressions") or ())


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, values = expression.get("key", ""), expression.get("values") or ()
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return True


def fits(pod: Pod, node: Node, *, heed_taints: bool = True) -> bool:
    """Whether the scheduler may put the pod there, by selector, required affinity and taints.

    What a node has free, and where other pods are, is not asked here.
    """
    if any(node.labels.get(k) != v for k, v in pod.node_selector.items()):
        return False
    if pod.node_terms and not any(_term_holds(t, node) for t in pod.node_terms):
        return False
    return not heed_taints or all(
        any(toleration.tolerates(taint) for toleration in pod.tolerations)
        for taint in node.taints
        if taint.effect in ("NoSchedule", "NoExecute")
    )


def _term_holds(term: Mapping[str, Any], node: Node) -> bool:
    """One term of a required node affinity; one that says nothing holds for no node."""
    labels = term.get("matchExpressions") or ()
    own = term.get("matchFields") or ()
    if not labels and not own:
        return False
    fields = {"metadata.name": node.name}
    return all(_node_expression_holds(e, node.labels) for e in labels) and all(
        _node_expression_holds(e, fields) for e in own
    )


def _node_expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    """As `_expression_holds`, with the two operators that only node affinity has; one that we do
    not know keeps the pod off the node, which is the careful side here.
    """
    operator = expression.get("operator")
    if operator in ("Gt", "Lt"):
        return _compares(operator, labels.get(expression.get("key", "")), expression.get("values"))
    known = ("In", "NotIn", "Exists", "DoesNotExist")
    return operator in known and _expression_holds(expression, labels)


def _compares(operator: str, own: str | None, values: object) -> bool:
    try:
        value, bound = int(own or ""), int((values or [""])[0])  # type: ignore[index]
    except (ValueError, TypeError, LookupError):
        return False
    return value > bound if operator == "Gt" else value < bound
