"""A verdict again, from what a case or a review item kept of it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from breakfix.model import Action, Case, FailureClass, Finding, NodeState, RefusalReason, Verdict


def verdict_of_case(case: Case) -> Verdict | None:
    """What the case was opened on; None where no finding was kept (by hand, an old record)."""
    findings = kept_findings(case.detail)
    if not findings:
        return None
    return Verdict(
        node=case.node,
        state=case.state,
        failure_class=case.failure_class,
        confidence=case.confidence,
        findings=findings,
        unknown=(),
        recommended_action=case.action,
        reason=case.reason,
    )


def verdict_of_review(node: str, reason: str, detail: Mapping[str, Any]) -> Verdict | None:
    """What a review item was queued for; None for an incident, or where no finding was kept."""
    findings = kept_findings(detail)
    if not findings:
        return None
    named, refusal = detail.get("failure_class"), detail.get("refusal")
    return Verdict(
        node=node,
        state=NodeState(detail.get("state", NodeState.SUSPECT)),
        failure_class=FailureClass(named) if named else None,
        confidence=float(detail.get("confidence", 0.0)),
        findings=findings,
        unknown=tuple(detail.get("unknown", ())),
        recommended_action=Action(detail.get("recommended_action", Action.REVIEW)),
        reason=str(detail.get("verdict", reason)),
        refusal=RefusalReason(refusal) if refusal else None,
    )


def kept_findings(detail: Mapping[str, Any]) -> tuple[Finding, ...]:
    """The findings of a record's detail; none where a former version kept less of them."""
    try:
        return msgspec.convert(detail.get("findings", ()), tuple[Finding, ...], strict=False)
    except msgspec.ValidationError:
        return ()


def kept_policy(detail: Mapping[str, Any]) -> str:
    """The hash of the policy that a record was made under; empty where it was not kept."""
    policy = detail.get("policy")
    kept = policy.get("hash", "") if isinstance(policy, Mapping) else detail.get("policy_hash", "")
    return str(kept)
