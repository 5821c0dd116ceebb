"""A node under watch that does worse than its peers: a finding for people, no action. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from breakfix.cohorts import Advice
from breakfix.model import (
    Action,
    Case,
    FailureClass,
    Finding,
    Judgement,
    NodeState,
    RefusalReason,
    SignalKind,
    SignalMode,
    Verdict,
)

#: Key of a case's detail with the last comparison of its node to its peers.
SOAK = "soak"
SIGNAL = "worse_than_peers"
_WEIGHT = 0.5  # ours: a hint that wants a second source


def soak_of(case: Case) -> dict[str, Any] | None:
    """The last comparison in this watch: {"advice", "reason", "at", "looks", "fence"}."""
    found = case.detail.get(SOAK)
    if not isinstance(found, dict) or found.get("fence") != case.fence:
        return None
    return found


def heed_soaks(judgement: Judgement, cases: Iterable[Case]) -> Judgement:
    """The judgement with a finding on each returned node that its peers leave behind."""
    bad = {
        c.node: soak
        for c in cases
        if c.state is NodeState.RETURNING
        and (soak := soak_of(c)) is not None
        and soak["advice"] == Advice.ROLL_BACK
    }
    if not bad:
        return judgement
    verdicts = tuple(
        _with(v, str(bad[v.node]["reason"])) if v.node in bad else v for v in judgement.verdicts
    )
    return replace(judgement, verdicts=verdicts)


def _with(verdict: Verdict, reason: str) -> Verdict:
    """One more finding; a review of a node that nothing else is said of."""
    text = f"since its return the node does worse than its peers: {reason}"
    found = (*verdict.findings, _finding(verdict.node, text))
    if verdict.failure_class is not None or verdict.recommended_action is not Action.NONE:
        return replace(verdict, findings=found)
    return replace(
        verdict,
        findings=found,
        failure_class=FailureClass.STRAGGLER,
        recommended_action=Action.REVIEW,
        refusal=RefusalReason.NOT_CORROBORATED,
        reason=text,
    )


def _finding(node: str, text: str) -> Finding:
    return Finding(
        signal=SIGNAL,
        node=node,
        gpu="",
        value=1.0,
        threshold=0.0,
        window_s=0.0,
        age_s=0.0,
        weight=_WEIGHT,
        group="workload",
        mode=SignalMode.CORROBORATE,
        kind=SignalKind.STATE,
        failure_class=FailureClass.STRAGGLER,
        action=Action.REVIEW,
        source="ours: canary comparison with nodes of the same SKU and pool",
        text=text,
    )
