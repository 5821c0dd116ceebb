"""Properties of nodes that tell one part of the fleet from another: driver, kernel, boot time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from breakfix.observe.fleet import Fleet, run
from breakfix.observe.labels import Missed, printable
from breakfix.observe.promql import FEW, REST, fact_query
from breakfix.policy import FactRule, Policy
from breakfix.ports import Metrics, QueryResult

Facts = Mapping[str, Mapping[str, str]]


def fact_queries(policy: Policy) -> Mapping[str, str]:
    """By fact, what it asks of Prometheus first: of what each GPU tells alike, two of each node."""
    return {name: fact_query(rule, policy.names, gpus=FEW) for name, rule in policy.facts.items()}


def read_facts(
    metrics: Metrics,
    fleet: Fleet,
    policy: Policy,
    *,
    at: datetime,
    telling: Collection[str] | None = None,
) -> tuple[Facts, tuple[str, ...]]:
    """Node -> fact -> value, and warnings. Several values at once (a rollout in progress) are
    joined by commas. The other GPUs are asked where two leave a node without the fact, of those
    whose GPUs tell anything (`telling`; None: it may be any node).
    """
    expected = fleet.nodes.keys() if telling is None else telling
    queries = fact_queries(policy)
    answers = run(metrics, queries.values(), at=at)
    facts: dict[str, dict[str, str]] = {}
    warnings = []
    for name, rule in policy.facts.items():
        rest = fact_query(rule, policy.names, gpus=REST)
        answer = answers[queries[name]]
        told = list(_told(rule, answer, fleet))
        known = {node for node, _ in told}
        if rest != queries[name] and not isinstance(answer, str) and not known.issuperset(expected):
            answer = run(metrics, [rest], at=at)[rest]
            told += (t for t in _told(rule, answer, fleet) if t[0] not in known)
        if isinstance(answer, str):
            warnings.append(f"fact {name} could not be read: {answer}")
        for node, value in told:
            named = facts.setdefault(node, {})
            named[name] = _joined(named[name], value) if name in named else value
    return facts, tuple(warnings)


def _told(rule: FactRule, answer: QueryResult | str, fleet: Fleet) -> Iterator[tuple[str, str]]:
    """Which node has which value; an error tells none."""
    if isinstance(answer, str):
        return
    rows = answer.rows(fleet.names.names.node, (rule.label,))
    for (labels, (text,)), number in zip(rows, answer.values, strict=True):
        node = fleet.names.node_named(labels)
        value = printable(text) if rule.label else repr(number)
        if value and not isinstance(node, Missed) and node in fleet.nodes:
            yield node, value


def _joined(known: str, value: str) -> str:
    return ",".join(sorted({*known.split(","), value}))
