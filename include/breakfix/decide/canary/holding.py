"""Repairs wait where a change is to be rolled back. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from breakfix.cohorts import Advice, ChangeAdvice
from breakfix.model import (
    DISRUPTIVE,
    Action,
    FailureClass,
    Incident,
    Judgement,
    Node,
    Observation,
    RefusalReason,
    Verdict,
)


def hold_changes(
    judgement: Judgement, observation: Observation, advices: Iterable[ChangeAdvice]
) -> Judgement:
    """The judgement with no disruption in the scope of a change that is to be rolled back.

    A node is in scope by what it has now; where that is not known, by having been in the cohort.
    """
    nodes = {n.name: n for n in observation.judged}
    verdicts = {v.node: v for v in judgement.verdicts}
    incidents = list(judgement.incidents)
    for advice in advices:
        if advice.advice is not Advice.ROLL_BACK or advice.closed_at is not None:
            continue
        hit = {
            name: verdict
            for name, verdict in verdicts.items()
            if verdict.recommended_action in DISRUPTIVE
            and _is_in(advice, nodes[name], observation.facts.get(name, {}))
        }
        if hit:
            incidents.append(_incident(advice, hit))
            verdicts |= {n: _held(v, advice) for n, v in hit.items()}
    ordered = tuple(verdicts[v.node] for v in judgement.verdicts)
    return replace(judgement, verdicts=ordered, incidents=tuple(incidents))


def _is_in(advice: ChangeAdvice, node: Node, facts: Mapping[str, str]) -> bool:
    fact, value = str(advice.detail.get("what", "")), advice.detail.get("value")
    known = facts.get(fact)
    if known is None:
        return node.name in advice.nodes
    place = (advice.detail.get("sku", ""), advice.detail.get("pool", ""))
    return known == value and (node.sku, node.pool) == place


def _incident(advice: ChangeAdvice, hit: Mapping[str, Verdict]) -> Incident:
    classes = sorted({c for v in hit.values() if (c := v.failure_class)})
    return Incident(advice.scope, tuple(sorted(hit)), tuple(classes), _why(advice))


def _why(advice: ChangeAdvice) -> str:
    return (
        f"{advice.scope} is to be rolled back, and until then no node with it is repaired:"
        f" {advice.reason}"
    )


def _held(verdict: Verdict, advice: ChangeAdvice) -> Verdict:
    return replace(
        verdict,
        failure_class=FailureClass.CHANGE_INDUCED,
        recommended_action=Action.REVIEW,
        refusal=RefusalReason.COMMON_CAUSE,
        reason=f"{_why(advice)}. This node: {verdict.reason}",
    )
