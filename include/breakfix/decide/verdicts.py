"""One node's verdict: its state, the class, what is recommended, and a sentence for the person
woken by it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from breakfix.decide.consequences import follow_causes
from breakfix.decide.fuse import Assessment, best_assessment
from breakfix.decide.holds import is_fresh, other_owner
from breakfix.decide.telemetry import Blindness, absences
from breakfix.model import (
    DISRUPTIVE,
    Action,
    FailureClass,
    Finding,
    Node,
    NodeRecord,
    NodeState,
    Observation,
    RefusalReason,
    SignalKind,
    SignalMode,
    Verdict,
)
from breakfix.policy import Policy

_IN_HAND = frozenset(NodeState) - {NodeState.HEALTHY, NodeState.SUSPECT}


@dataclass(frozen=True, slots=True)
class Subject:
    """Everything that is known of one node."""

    node: Node
    findings: tuple[Finding, ...]
    blindness: Blindness
    facts: Mapping[str, str]
    record: NodeRecord | None

    def state(self, *, is_suspect: bool) -> NodeState:
        """The node's state now: what the ledger has in hand stays, else what this sweep sees."""
        if self.record is not None and self.record.state in _IN_HAND:
            return self.record.state
        return NodeState.SUSPECT if is_suspect else NodeState.HEALTHY

    @property
    def attempts(self) -> int:
        return self.record.attempts if self.record is not None else 0


def judge_node(
    subject: Subject, observation: Observation, policy: Policy, now: datetime
) -> Verdict:
    """The verdict of one node by itself; what the fleet has to say about it comes after
    (common_cause).
    """
    owner = other_owner(subject.node, policy)
    if not (owner or subject.findings or subject.blindness.lost):
        return _healthy(subject)  # nearly all nodes of a fleet
    found = follow_causes(subject.findings, policy)
    if any(f.failure_class is FailureClass.NODE_NOT_READY for f in found):
        found = (*found, *absences(subject.node.name, observation, policy))
    subject = replace(subject, findings=found)
    if owner:
        return _owned(subject, owner, policy)
    usable, held = _usable(subject, policy, now)
    best = best_assessment(usable, policy)
    if subject.blindness.lost and not _is_gone(best):
        return _telemetry_lost(subject)
    if best is None or (best.is_context and held):
        return _settling(subject, policy) if held else _healthy(subject)
    return _judged(subject, best, policy)


def _usable(
    subject: Subject, policy: Policy, now: datetime
) -> tuple[tuple[Finding, ...], tuple[Finding, ...]]:
    """(findings that count, findings held back because the node has just come up)."""
    if not is_fresh(subject.node, subject.facts, policy, now):
        return subject.findings, ()
    is_held = [
        f.kind is SignalKind.STATE and f.mode is not SignalMode.NEVER for f in subject.findings
    ]
    pairs = list(zip(subject.findings, is_held, strict=True))
    return tuple(f for f, held in pairs if not held), tuple(f for f, held in pairs if held)


def _is_gone(best: Assessment | None) -> bool:
    """NotReady, and several sources agree that the node is gone: then silence is part of the
    finding.
    """
    return best is not None and best.is_proven and best.failure_class is FailureClass.NODE_NOT_READY


def _verdict(
    subject: Subject,
    failure_class: FailureClass | None,
    confidence: float,
    action: Action,
    reason: str,
    *,
    is_suspect: bool,
    refusal: RefusalReason | None = None,
) -> Verdict:
    return Verdict(
        node=subject.node.name,
        state=subject.state(is_suspect=is_suspect),
        failure_class=failure_class,
        confidence=confidence,
        findings=subject.findings,
        unknown=subject.blindness.unknown,
        recommended_action=action,
        reason=reason,
        refusal=refusal,
    )


def _healthy(subject: Subject) -> Verdict:
    return _verdict(subject, None, 0.0, Action.NONE, "no signal speaks", is_suspect=False)


def _owned(subject: Subject, owner: str, policy: Policy) -> Verdict:
    best = best_assessment(subject.findings, policy)
    return _verdict(
        subject,
        best.failure_class if best else None,
        best.confidence if best else 0.0,
        Action.NONE,
        f"another owner has the node ({owner}): nothing is done, and silence means nothing"
        + (f". Seen: {_texts(subject.findings)}" if best else ""),
        is_suspect=_is_suspicious(subject.findings),
        refusal=RefusalReason.OTHER_OWNER,
    )


def _telemetry_lost(subject: Subject) -> Verdict:
    is_suspicious = _is_suspicious(subject.findings)
    lost = ", ".join(subject.blindness.lost)
    reason = f"telemetry is lost ({lost}): the node is neither cleared nor condemned"
    if is_suspicious:
        reason += f". Still seen: {_texts(subject.findings)}"
    return _verdict(
        subject,
        FailureClass.TELEMETRY_LOST,
        0.0,
        Action.REVIEW if is_suspicious else Action.NONE,
        reason,
        is_suspect=True,
        refusal=RefusalReason.TELEMETRY if is_suspicious else None,
    )


def _settling(subject: Subject, policy: Policy) -> Verdict:
    best = best_assessment(subject.findings, policy)
    return _verdict(
        subject,
        best.failure_class if best else None,
        0.0,
        Action.NONE,
        f"the node came up less than {policy.timing.boot_grace_s:.0f} s ago, so this does not count"
        f" yet: {_texts(subject.findings)}",
        is_suspect=True,
        refusal=RefusalReason.COOLDOWN,
    )


def _judged(subject: Subject, best: Assessment, policy: Policy) -> Verdict:
    what = _texts(best.evidence)
    if best.is_context:
        reason = f"no fault of the node; for context: {what}"
        return _verdict(subject, None, 0.0, Action.NONE, reason, is_suspect=False)
    if not best.is_proven:
        reason = (
            f"{best.failure_class} is suspected, but no second, independent source makes it sure"
            f" enough: {what}"
        )
        action = Action.REVIEW
        refusal: RefusalReason | None = RefusalReason.NOT_CORROBORATED
    else:
        action, refusal = _action(subject, best, policy)
        wanted = policy.class_rule(best.failure_class).min_confidence
        reason = (
            f"{best.failure_class} with confidence {best.confidence:.2f} (wanted {wanted:.2f}):"
            f" {what}. Recommended: {action}, repair {subject.attempts + 1}"
        )
    return _verdict(
        subject,
        best.failure_class,
        best.confidence,
        action,
        reason,
        is_suspect=True,
        refusal=refusal,
    )


def _action(
    subject: Subject, best: Assessment, policy: Policy
) -> tuple[Action, RefusalReason | None]:
    """The rung for this attempt, begun where the findings say that lower rungs are of no use."""
    rule = policy.class_rule(best.failure_class)
    if rule.mode == "off":
        return Action.REVIEW, RefusalReason.MODE_RECOMMEND
    starts = [
        rule.ladder.index(f.action)
        for f in best.evidence
        if f.failure_class is best.failure_class and f.action in rule.ladder
    ]
    action = rule.action_for(subject.attempts + 1 + max(starts, default=0))
    return action, None if action in DISRUPTIVE else RefusalReason.MODE_RECOMMEND


def _is_suspicious(findings: Sequence[Finding]) -> bool:
    return any(f.mode is not SignalMode.NEVER for f in findings)


def _texts(findings: Sequence[Finding]) -> str:
    return "; ".join(dict.fromkeys(f.text for f in findings))
