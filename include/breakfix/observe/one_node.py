"""Queries about one node, for its validation: nothing is read of the rest of the fleet."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from datetime import datetime

from breakfix.observe.labels import NodeNames
from breakfix.observe.promql import BLANK, BLANKS, fill
from breakfix.policy import Policy
from breakfix.policy_validation import CounterRule
from breakfix.ports import Metrics, QueryResult


def counters_of(
    metrics: Metrics,
    policy: Policy,
    node: str,
    rules: Iterable[CounterRule],
    *,
    at: datetime,
    window_s: float,
) -> Mapping[str, Mapping[str, float] | str]:
    """Counter -> GPU -> its value in the window that ends at `at`, or why it cannot be read.

    A GPU that reports no measurement has no value. Raises MetricsError when nothing can be asked.
    """
    queries = {r.name: node_query(r.query, policy, node, window_s) for r in rules}
    if not queries:
        return {}
    answers = metrics.query_many(queries, at=at)
    return {name: _by_gpu(answers.get(name, "not asked"), policy, node) for name in queries}


def least_of(metrics: Metrics, policy: Policy, node: str, query: str, *, at: datetime) -> float:
    """The least value that the node reports; NaN when it reports none. Raises MetricsError."""
    answer = metrics.query(node_query(query, policy, node, 300.0), at=at)
    names = NodeNames(policy.names, frozenset({node}))
    own = (s.value for s in answer.samples if names.node_of(s.labels) == node)
    return min(own, default=math.nan)


def node_query(query: str, policy: Policy, node: str, window_s: float) -> str:
    """The query with `$match` as a matcher of this node: one way of naming it or another."""
    text = fill(query, policy.names, window_s)
    return " or ".join(
        f"({text.replace('$match', _matcher(label, node))})" for label in policy.names.node
    )


def _matcher(label: str, node: str) -> str:
    """A node's name has letters, digits, `-` and `.`; of those only the dot means something."""
    plain = re.sub(r"[^a-z0-9.-]", "", node)
    if label == "instance":
        return f'instance=~"{plain.replace(".", "[.]")}(:[0-9]+)?"'
    return f'{label}="{plain}"'


def _by_gpu(answer: QueryResult | str, policy: Policy, node: str) -> Mapping[str, float] | str:
    if isinstance(answer, str):
        return answer[:200]
    if answer.warnings:
        return f"incomplete: {answer.warnings[0][:200]}"
    return _values(answer, policy, node)


def _values(answer: QueryResult, policy: Policy, node: str) -> dict[str, float]:
    """The largest value of each GPU; series that name another node as well are not this one's."""
    names = NodeNames(policy.names, frozenset({node}))
    found: dict[str, float] = {}
    for sample in answer.samples:
        is_number = abs(sample.value) < BLANK and sample.value not in BLANKS
        if is_number and names.node_of(sample.labels) == node:
            gpu = names.gpu_of(sample.labels)
            found[gpu] = max(sample.value, found.get(gpu, -math.inf))
    return found
