"""Signals that the API server's own objects tell: conditions and allocatable GPUs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime

from breakfix.model import Coverage, Node, Reading
from breakfix.observe.threshold import is_beyond
from breakfix.policy import KUBERNETES, Policy, SignalRule

GPU_COUNT_LABEL = (
    "nvidia.com/gpu.count"  # GPU feature discovery: what the driver counted at its start
)

_COUNT = re.compile(r"[0-9]{1,3}", re.ASCII)


def expected_gpus(node: Node, policy: Policy) -> int:
    """How many GPUs the node should have; 0 when nobody knows.

    The policy's word for its SKU, else the larger of capacity (which shrinks when the device plugin
    restarts without a GPU) and the label of GPU feature discovery.
    """
    if node.sku in policy.expected_gpus:
        return policy.expected_gpus[node.sku]
    label = node.labels.get(GPU_COUNT_LABEL, "")
    counted = int(label) if _COUNT.fullmatch(label) else 0
    return max(node.gpus_capacity, counted)


def read_kubernetes(
    rule: SignalRule, nodes: Iterable[Node], policy: Policy, at: datetime
) -> tuple[list[Reading], Coverage]:
    """Readings beyond the threshold, and which nodes have what the signal looks at."""
    nodes = list(nodes)
    values = {
        n.name: v for n in nodes if (v := _value(rule.query, n, policy=policy, at=at)) is not None
    }
    readings = [
        Reading(rule.name, name, "", value)
        for name, value in values.items()
        if value >= 0 and is_beyond(rule, value)
    ]
    coverage = Coverage(rule.name, frozenset(values), len(nodes), 0.0 if values else None)
    return readings, coverage


def _value(query: str, node: Node, *, policy: Policy, at: datetime) -> float | None:
    """None: the node does not report it. Negative: it reports that all is well."""
    what = query.removeprefix(KUBERNETES)
    if what == "gpus_short":
        expected = expected_gpus(node, policy)
        return float(expected - node.gpus_allocatable) if expected else None
    kind, _, status = what.removeprefix("condition:").partition("=")
    condition = node.condition(kind.removesuffix("!"))
    if condition is None:
        return None
    if (condition.status == status) == kind.endswith("!"):
        return -1.0
    return max(0.0, (at - condition.since).total_seconds()) if condition.since else 0.0
