"""Signals that the API server's own objects tell: conditions and allocatable GPUs."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime

from breakfix.model import Coverage, Node, Reading
from breakfix.observe.threshold import is_beyond
from breakfix.policy import KUBERNETES, Policy, SignalRule

GPU_COUNT_LABEL = (
    "nvidia.com/gpu.count"  # GPU feature discovery: what the driver counted at its start
)

#: Kubernetes' well-known label: clouds put one, four and eight GPUs of one SKU in machines.
INSTANCE_TYPE_LABEL = "node.kubernetes.io/instance-type"
_FEWEST_ALIKE = 2

Like = tuple[str, str, str]  # SKU, pool, instance type

_COUNT = re.compile(r"[0-9]{1,3}", re.ASCII)


def expected_gpus(node: Node, policy: Policy, peers: Iterable[Node] = ()) -> int:
    """How many GPUs the node should have; 0 when nobody knows.

    The policy's word for its SKU, else the largest of its capacity (which shrinks when the device
    plugin restarts without a GPU), the label of GPU feature discovery (which shrinks too when the
    node boots without it), and what `usual_gpus` of `peers` says of its like.
    """
    return _expected(node, policy, usual_gpus(peers))


def _expected(node: Node, policy: Policy, usual: Mapping[Like, int]) -> int:
    if node.sku in policy.expected_gpus:
        return policy.expected_gpus[node.sku]
    return max(_own_count(node), usual.get(_like(node), 0))


def usual_gpus(nodes: Iterable[Node]) -> Mapping[Like, int]:
    """SKU, pool and instance type -> the GPUs that such nodes usually have, where that can be said.

    The largest count that at least half of them, and at least two, have. Where fewer agree there is
    no usual count: one SKU comes in machines of one, four and eight GPUs.
    """
    counts: dict[Like, Counter[int]] = defaultdict(Counter)
    for node in nodes:
        if node.sku:
            counts[_like(node)][_own_count(node)] += 1
    usual = {}
    for like, of_like in counts.items():
        enough = max(_FEWEST_ALIKE, of_like.total() / 2)
        agreed = [count for count, nodes_with in of_like.items() if nodes_with >= enough]
        usual[like] = max(agreed, default=0)
    return usual


def _like(node: Node) -> Like:
    return node.sku, node.pool, node.labels.get(INSTANCE_TYPE_LABEL, "")


def _own_count(node: Node) -> int:
    label = node.labels.get(GPU_COUNT_LABEL, "")
    return max(node.gpus_capacity, int(label) if _COUNT.fullmatch(label) else 0)


def read_kubernetes(
    rule: SignalRule, nodes: Iterable[Node], policy: Policy, at: datetime
) -> tuple[list[Reading], Coverage]:
    """Readings beyond the threshold, and which nodes have what the signal looks at."""
    nodes = list(nodes)
    what = rule.query.removeprefix(KUBERNETES)
    found = (
        _unlike_peers(nodes, policy)
        if what == "gpus_unlike_peers"
        else {n.name: _value(what, n, policy=policy, at=at) for n in nodes}
    )
    values = {name: value for name, value in found.items() if value is not None}
    readings = [
        Reading(rule.name, name, "", value)
        for name, value in values.items()
        if value >= 0 and is_beyond(rule, value)
    ]
    coverage = Coverage(rule.name, frozenset(values), len(nodes), 0.0 if values else None)
    return readings, coverage


def _unlike_peers(nodes: Iterable[Node], policy: Policy) -> dict[str, float | None]:
    """How many GPUs fewer a node shows, in capacity and label, than its like usually have."""
    nodes = list(nodes)
    usual = usual_gpus(nodes)
    expected = {n.name: (expected_gpus(n, policy), _expected(n, policy, usual)) for n in nodes}
    return {name: float(like - own) if like else None for name, (own, like) in expected.items()}


def _value(what: str, node: Node, *, policy: Policy, at: datetime) -> float | None:
    """None: the node does not report it. Negative: it reports that all is well."""
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
