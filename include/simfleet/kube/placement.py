"""Whether a pod may run on a node: taints, selectors, room. Pure functions."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from simfleet.kube.store import Obj

GPU = "nvidia.com/gpu"
UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
_SCALES = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "": 1.0,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "Pi": 2.0**50,
}
_QUANTITY = re.compile(r"([0-9.]+(?:e[0-9]+)?)([A-Za-z]*)")


def quantity(text: str | float) -> float:
    """`500m` -> 0.5, `2Gi` -> 2147483648.0. Raises ValueError."""
    found = _QUANTITY.fullmatch(str(text))
    if found is None or found[2] not in _SCALES:
        raise ValueError(f"not a quantity: {text}")
    return float(found[1]) * _SCALES[found[2]]


def requests_of(pod: Obj) -> Counter[str]:
    """What a pod asks of a node, one `pods` included."""
    total: Counter[str] = Counter({"pods": 1})
    for container in pod["spec"].get("containers", []):
        for name, amount in container.get("resources", {}).get("requests", {}).items():
            total[name] += quantity(amount)  # type: ignore[assignment]
    return total


def tolerates(tolerations: Iterable[Mapping[str, Any]], taint: Mapping[str, Any]) -> bool:
    """Whether one of the tolerations covers the taint."""
    return any(covers(one, taint) for one in tolerations)


def covers(toleration: Mapping[str, Any], taint: Mapping[str, Any]) -> bool:
    """Whether a toleration covers a taint."""
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("key") not in (None, "", taint.get("key")):
        return False
    if toleration.get("operator", "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and toleration.get("value", "") == taint.get("value", "")


def untolerated(pod_spec: Obj, node: Obj, effects: tuple[str, ...]) -> list[Obj]:
    """The node's taints of the given effects that the pod does not tolerate."""
    have = pod_spec.get("tolerations", [])
    return [
        taint
        for taint in node.get("spec", {}).get("taints", [])
        if taint["effect"] in effects and not tolerates(have, taint)
    ]


def matches_node(pod_spec: Obj, node: Obj) -> bool:
    """NodeSelector and required node affinity."""
    labels = node["metadata"].get("labels") or {}
    wanted = pod_spec.get("nodeSelector") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    affinity = (pod_spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if not required:
        return True
    terms = required.get("nodeSelectorTerms", [])
    return any(_term_matches(term, labels, node["metadata"]["name"]) for term in terms)


def _term_matches(term: Obj, labels: Mapping[str, str], name: str) -> bool:
    fields = {"metadata.name": name}
    expressions = [(labels, one) for one in term.get("matchExpressions", [])]
    expressions += [(fields, one) for one in term.get("matchFields", [])]
    return bool(expressions) and all(_expression(have, one) for have, one in expressions)


def _expression(have: Mapping[str, str], wanted: Obj) -> bool:
    value, values = have.get(wanted["key"]), wanted.get("values", [])
    match wanted["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    return False


def why_not(pod_spec: Obj, node: Obj) -> str | None:
    """Why a node is out of the question whatever its room; None when it is not."""
    cordon = {"key": UNSCHEDULABLE, "effect": "NoSchedule"}
    is_cordoned = node.get("spec", {}).get("unschedulable")
    if is_cordoned and not tolerates(pod_spec.get("tolerations", []), cordon):
        return "node(s) were unschedulable"
    if untolerated(pod_spec, node, ("NoSchedule", "NoExecute")):
        return "node(s) had untolerated taint(s)"
    if not matches_node(pod_spec, node):
        return "node(s) didn't match Pod's node affinity/selector"
    return None


def lacking(wanted: Mapping[str, float], used: Mapping[str, float], node: Obj) -> list[str]:
    """The resources a node has too little left of."""
    room = node.get("status", {}).get("allocatable") or {}
    return [
        name
        for name, amount in wanted.items()
        if amount > 0 and amount > quantity(room.get(name, 0)) - used.get(name, 0)
    ]
