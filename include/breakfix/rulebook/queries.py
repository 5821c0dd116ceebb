"""Queries of a policy that are not understood here. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from breakfix.observe.promql import coverage_query, fact_query, signal_query, since_query
from breakfix.policy import Policy
from breakfix.replay.promql.syntax import NotPromql, parse


def not_understood(policy: Policy) -> Iterator[str]:
    """A note for each query, as it is sent, that the parser of replays does not understand.

    No error: it knows the PromQL that the default policy uses, and Prometheus knows more.
    """
    for path, query in _queries(policy):
        try:
            parse(query)
        except NotPromql as e:
            yield (
                f"{path} is not understood here: {e}. Prometheus knows more PromQL than this check:"
                " ask it once, or test the rule with `breakfix policy test`"
            )


def _queries(policy: Policy) -> Iterator[tuple[str, str]]:
    names, stale_s = policy.names, policy.timing.stale_sample_s
    for rule in policy.signals:
        if rule.is_kubernetes:
            continue
        path = f"signals.{rule.name}"
        yield f"{path}.query", signal_query(rule, names, most_gpus=1)
        yield f"{path}.coverage", coverage_query(rule, names, stale_s=stale_s)
        if rule.since_query:
            yield f"{path}.since_query", since_query(rule, names, rule.window_s)
    for name, fact in policy.facts.items():
        yield f"facts.{name}.query", fact_query(fact, names)
