"""The nodes that are judged, and how Prometheus is asked about them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from breakfix.model import Node
from breakfix.observe.labels import NodeNames
from breakfix.policy import SignalRule
from breakfix.ports import Metrics, QueryResult


@dataclass(frozen=True, slots=True)
class Fleet:
    """The GPU nodes that are judged, and the names of all nodes of the cluster."""

    nodes: Mapping[str, Node]
    names: NodeNames


def run(
    metrics: Metrics, queries: Iterable[str], *, at: datetime
) -> Mapping[str, QueryResult | str]:
    """Each distinct query once; the answer, or the error's text, by query."""
    return metrics.query_many({q: q for q in dict.fromkeys(queries)}, at=at)


def odd(rule: SignalRule, unmatched: int, doubted: Iterable[str]) -> tuple[str, ...]:
    """In words: how many series of a signal name nobody, and which nodes' series contradict."""
    lines = []
    if unmatched:
        lines.append(f"{rule.name}: {unmatched} series name no node of the cluster")
    if names := sorted(doubted):
        lines.append(
            f"{rule.name}: series name more than one node, so they are not used: {', '.join(names)}"
        )
    return tuple(lines)
