"""Whether all that runs and waits finds its GPUs when a node is taken out, per SKU and pool. Pure.

Counted once a group and kept up to date, so that a thousand candidates of one plan cost no more
than the fleet once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from breakfix.model import Node, Pod
from breakfix.plan.selectors import fits

_ALL = 1_000_000  # more GPUs than any node has
Group = tuple[str, str]  # SKU, pool


def group_of(node: Node) -> Group:
    """Nodes that stand in for one another."""
    return node.sku, node.pool


@dataclass(slots=True)
class _Tally:
    """One group: free GPUs by node, where pods may go; what those that leave have to place."""

    nodes: list[Node]
    free: dict[str, int] = field(default_factory=dict)
    to_place: dict[str, int] = field(default_factory=dict)
    pending: int = 0
    total_free: int = 0
    total_to_place: int = 0
    by_free: dict[int, dict[str, Node]] = field(default_factory=lambda: defaultdict(dict))

    def places(self) -> Iterator[Node]:
        """Nodes with a free GPU, the fullest first."""
        for free in sorted(self.by_free):
            yield from self.by_free[free].values()

    def with_room(self, pod: Pod, used: Mapping[str, int]) -> Iterator[Node]:
        """Nodes where the pod fits beside what is used already, the fullest first."""
        for free in sorted(f for f in self.by_free if f >= pod.gpus):
            for name, node in self.by_free[free].items():
                if free - used.get(name, 0) >= pod.gpus and fits(pod, node):
                    yield node


class Headroom:
    """`in_use`, `to_move`: GPUs of a node's pods that run, and of those that a drain would move.

    `is_out`: nothing more is scheduled there; `is_leaving`: what runs there needs another place.
    """

    def __init__(
        self,
        fleet: Sequence[Node],
        pending: Sequence[Pod],
        *,
        in_use: Callable[[str], int],
        to_move: Callable[[str], int],
        is_out: Callable[[Node], bool],
        is_leaving: Callable[[Node], bool],
    ) -> None:
        self._pending = [p for p in pending if p.gpus and not p.is_finished]
        self._to_move = to_move
        self._in_use, self._is_out, self._is_leaving = in_use, is_out, is_leaving
        self._nodes: dict[Group, list[Node]] = defaultdict(list)
        for node in sorted(fleet, key=lambda n: n.name):
            self._nodes[group_of(node)].append(node)
        self._tallies: dict[Group, _Tally] = {}

    def free_after(self, node: Node) -> int:
        """GPUs of the node's group that stay free without it; negative: that many short."""
        tally = self._tally(group_of(node))
        free = tally.total_free - tally.free.get(node.name, 0)
        to_place = tally.total_to_place
        if node.name not in tally.to_place:
            to_place += self._to_move(node.name)
        return free - to_place - tally.pending

    def free_now(self) -> dict[Group, int]:
        """GPUs of every group that stay free as things are."""
        tallies = {group: self._tally(group) for group in self._nodes}
        return {g: t.total_free - t.total_to_place - t.pending for g, t in tallies.items()}

    def take(self, node: Node) -> None:
        """The plan takes it: later candidates find it gone, and its pods in need of a place."""
        tally = self._tally(group_of(node))
        free = tally.free.pop(node.name, 0)
        tally.total_free -= free
        tally.by_free[free].pop(node.name, None)
        if node.name not in tally.to_place:
            tally.to_place[node.name] = self._to_move(node.name)
            tally.total_to_place += tally.to_place[node.name]

    def misfit(self, node: Node, moving: Sequence[Pod]) -> tuple[Pod, int] | None:
        """The first of these pods, the largest before the others, for which no single node of the
        group has room, and the most that one has. Taints, selectors and required affinity count.
        """
        tally = self._tally(group_of(node))
        used: dict[str, int] = defaultdict(int, {node.name: _ALL})
        for pod in sorted(moving, key=lambda p: (-p.gpus, p.namespace, p.name)):
            place = next(tally.with_room(pod, used), None)
            if place is None:
                room = (tally.free[n.name] - used[n.name] for n in tally.places() if fits(pod, n))
                return pod, max(0, max(room, default=0))
            used[place.name] += pod.gpus
        return None

    def _tally(self, group: Group) -> _Tally:
        if group not in self._tallies:
            self._tallies[group] = self._count(self._nodes.get(group, []))
        return self._tallies[group]

    def _count(self, nodes: list[Node]) -> _Tally:
        tally = _Tally(nodes, pending=self._wanted_by_pending(nodes))
        for node in nodes:
            if not self._is_out(node):
                free = node.gpus_allocatable - self._in_use(node.name)
                tally.free[node.name] = free
                if free > 0:
                    tally.by_free[free][node.name] = node
            if self._is_leaving(node):
                tally.to_place[node.name] = self._to_move(node.name)
        tally.total_free = sum(tally.free.values())
        tally.total_to_place = sum(tally.to_place.values())
        return tally

    def _wanted_by_pending(self, nodes: Sequence[Node]) -> int:
        """A pending pod counts where its selector and affinity let it onto a node of the group;
        pods that want the same are asked about once.
        """
        answers: dict[str, bool] = {}
        wanted = 0
        for pod in self._pending:
            key = repr((sorted(pod.node_selector.items()), pod.node_terms))
            if key not in answers:
                answers[key] = any(fits(pod, n, heed_taints=False) for n in nodes)
            wanted += pod.gpus if answers[key] else 0
        return wanted
