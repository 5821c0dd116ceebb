"""How many GPUs a node should have: the policy's word, its own, or that of its like."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping

from breakfix.model import Node
from breakfix.policy import Policy

GPU_COUNT_LABEL = (
    "nvidia.com/gpu.count"  # GPU feature discovery: what the driver counted at its start
)

#: The MIG manager's: the partitioning that is in force.
MIG_CONFIG_LABEL = "nvidia.com/mig.config"

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


def expectation(policy: Policy, peers: Iterable[Node]) -> Callable[[Node], int]:
    """`expected_gpus` beside the same peers for many nodes: what is usual is counted once."""
    usual = usual_gpus(peers)
    return lambda node: _expected(node, policy, usual)


def _expected(node: Node, policy: Policy, usual: Mapping[Like, int]) -> int:
    if node.sku in policy.expected_gpus:
        return policy.expected_gpus[node.sku]
    return max(_own_count(node), usual.get(_like(node), 0))


def is_partitioned(node: Node) -> bool:
    """Whether its GPUs are in MIG mode: what it offers then are slices, or other resources."""
    config = node.labels.get(MIG_CONFIG_LABEL, "")
    return "-MIG-" in node.sku or config not in {"", "all-disabled"}


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


def gpus_unlike_peers(nodes: Iterable[Node], policy: Policy) -> Mapping[str, float]:
    """How many GPUs fewer a node shows, in capacity and label, than its like usually have."""
    nodes = list(nodes)
    usual = usual_gpus(nodes)
    expected = {n.name: (expected_gpus(n, policy), _expected(n, policy, usual)) for n in nodes}
    return {name: float(like - own) for name, (own, like) in expected.items() if like}


def gpus_short(nodes: Iterable[Node], policy: Policy) -> Mapping[str, float]:
    """How many GPUs fewer are allocatable than the node should have, where that is known."""
    counts = ((n, expected_gpus(n, policy)) for n in nodes)
    return {n.name: float(count - n.gpus_allocatable) for n, count in counts if count}


def _like(node: Node) -> Like:
    return node.sku, node.pool, node.labels.get(INSTANCE_TYPE_LABEL, "")


def _own_count(node: Node) -> int:
    label = node.labels.get(GPU_COUNT_LABEL, "")
    return max(node.gpus_capacity, int(label) if _COUNT.fullmatch(label) else 0)
