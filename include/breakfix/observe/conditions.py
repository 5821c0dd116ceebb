"""Node conditions: the agents' words on a node, each with the polarity that its rule names."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from breakfix.model import Condition, Node

Values = Mapping[tuple[str, str], float]  # (node, key) -> value


def read_conditions(
    what: str, nodes: Iterable[Node], at: datetime
) -> tuple[Values, frozenset[str]]:
    """`TYPE|TYPE=STATUS` or `TYPE!=STATUS`: for how many seconds it has been so, by node and type;
    and the nodes that have one of these conditions at all.
    """
    types, _, status = what.partition("=")
    is_not = types.endswith("!")
    wanted = frozenset(types.removesuffix("!").split("|"))
    values: dict[tuple[str, str], float] = {}
    seen: set[str] = set()
    for node in nodes:
        for condition in node.conditions:
            if condition.type not in wanted:
                continue
            seen.add(node.name)
            if (condition.status == status) != is_not:
                key = condition.type if len(wanted) > 1 else ""
                values[node.name, key] = _lasted_s(condition, at)
    return values, frozenset(seen)


def _lasted_s(condition: Condition, at: datetime) -> float:
    return max(0.0, (at - condition.since).total_seconds()) if condition.since else 0.0
