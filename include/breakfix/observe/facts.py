"""Properties of nodes that tell one part of the fleet from another: driver, kernel, boot time."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.observe.fleet import Fleet, run
from breakfix.observe.labels import Missed, printable
from breakfix.observe.promql import fact_query
from breakfix.policy import Policy
from breakfix.ports import Metrics

Facts = Mapping[str, Mapping[str, str]]


def fact_queries(policy: Policy) -> Mapping[str, str]:
    """By fact, what it asks of Prometheus."""
    return {name: fact_query(rule, policy.names) for name, rule in policy.facts.items()}


def read_facts(
    metrics: Metrics, fleet: Fleet, policy: Policy, *, at: datetime
) -> tuple[Facts, tuple[str, ...]]:
    """Node -> fact -> value, and warnings. Several values at once (a rollout in progress) are
    joined by commas.
    """
    queries = fact_queries(policy)
    answers = run(metrics, queries.values(), at=at)
    facts: dict[str, dict[str, str]] = {}
    warnings = []
    for name, rule in policy.facts.items():
        answer = answers[queries[name]]
        if isinstance(answer, str):
            warnings.append(f"fact {name} could not be read: {answer}")
            continue
        rows = answer.rows(fleet.names.names.node, (rule.label,))
        for (labels, (text,)), number in zip(rows, answer.values, strict=True):
            node = fleet.names.node_named(labels)
            value = printable(text) if rule.label else repr(number)
            if value and not isinstance(node, Missed) and node in fleet.nodes:
                named = facts.setdefault(node, {})
                named[name] = _joined(named[name], value) if name in named else value
    return facts, tuple(warnings)


def _joined(known: str, value: str) -> str:
    return ",".join(sorted({*known.split(","), value}))
