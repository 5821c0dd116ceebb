"""One node's verdict: its state, the class, what is recommended, and a sentence for the person
woken by it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from breakfix.decide.consequences import follow_causes
from breakfix.decide.fuse import Assessment, best_assessment
from breakfix.decide.holds import fresh_changes, hold_planned_work, hold_states, is_fresh
from breakfix.decide.sentences import missed, texts
from breakfix.decide.telemetry import Blindness, absences
from breakfix.hands_off import HandsOff, hands_off, is_cordoned_by_others
from breakfix.model import (
    DISRUPTIVE,
    Action,
    FailureClass,
    Finding,
    Node,
    NodeRecord,
    NodeState,
    Observation,
    OpenFinding,
    RefusalReason,
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
    owner = hands_off(subject.node, policy.limits, now)
    blindness = subject.blindness
    if not (owner or subject.findings) and blindness.is_whole:
        return _verdict(subject, None, 0.0, Action.NONE, "no signal speaks", is_suspect=False)
    subject = replace(subject, findings=_findings(subject, observation, policy, now))
    changes = fresh_changes(subject.facts, policy)
    best = best_assessment(subject.findings, policy, is_changed=bool(changes))
    if owner:
        return _owned(subject, owner, best)
    if blindness.lost and not _is_gone(best):
        return _telemetry_lost(subject, blindness.lost)
    if best is None or best.is_context:
        return _quiet(subject, best, policy)
    if best.is_proven:
        return _proven(subject, best, policy)
    return _unproven(subject, best, changes, policy)


def _findings(
    subject: Subject, observation: Observation, policy: Policy, now: datetime
) -> tuple[Finding, ...]:
    """All findings, consequences under their causes, with what is held back marked so."""
    found = follow_causes(subject.findings, policy)
    is_down = not subject.node.is_ready  # of a Ready node silence is lost telemetry, no witness
    if is_down and any(f.failure_class is FailureClass.NODE_NOT_READY for f in found):
        found = (*found, *absences(subject.node.name, observation, policy))
    if is_fresh(subject.node, subject.facts, policy, now):
        found = hold_states(found, policy.timing.boot_grace_s)
    if is_cordoned_by_others(subject.node):
        found = hold_planned_work(found, policy)
    return found


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
        open_findings=_open(subject),
    )


def _open(subject: Subject) -> tuple[OpenFinding, ...]:
    """What the next sweep must see end before the node is healthy."""
    speaking = {(f.signal, f.gpu) for f in subject.findings if f.mode is not SignalMode.NEVER}
    return (
        *(OpenFinding(signal, gpu) for signal, gpu in sorted(speaking)),
        *subject.blindness.unreported,
    )


def _owned(subject: Subject, owner: HandsOff, best: Assessment | None) -> Verdict:
    return _verdict(
        subject,
        best.failure_class if best else None,
        best.confidence if best else 0.0,
        Action.NONE,
        f"another owner has the node ({owner.text}): nothing is done, and silence means nothing"
        + (f". Seen: {texts(subject.findings)}" if subject.findings else ""),
        is_suspect=_is_suspicious(subject.findings) or bool(subject.blindness.unreported),
        refusal=owner.reason,
    )


def _telemetry_lost(subject: Subject, lost: Sequence[str]) -> Verdict:
    is_suspicious = _is_suspicious(subject.findings)
    reason = f"telemetry is lost ({', '.join(lost)}): the node is neither cleared nor condemned"
    if is_suspicious:
        reason += f". Still seen: {texts(subject.findings)}"
    return _verdict(
        subject,
        FailureClass.TELEMETRY_LOST,
        0.0,
        Action.REVIEW if is_suspicious else Action.NONE,
        reason,
        is_suspect=True,
        refusal=RefusalReason.TELEMETRY if is_suspicious else None,
    )


def _quiet(subject: Subject, best: Assessment | None, policy: Policy) -> Verdict:
    """Nothing that may count speaks now: held back for a while, half blind, or truly quiet."""
    held = [f for f in subject.findings if f.held]
    if held:
        return _held_back(subject, held, policy)
    if subject.blindness.partly:
        return _telemetry_lost(subject, subject.blindness.partly)
    if subject.blindness.unreported:
        return _telemetry_lost(subject, [missed(f) for f in subject.blindness.unreported])
    reason = f"no fault of the node; for context: {texts(best.evidence)}" if best else ""
    return _verdict(subject, None, 0.0, Action.NONE, reason or "no signal speaks", is_suspect=False)


def _held_back(subject: Subject, held: Sequence[Finding], policy: Policy) -> Verdict:
    is_theirs = is_cordoned_by_others(subject.node)
    best = best_assessment([replace(f, held="") for f in held], policy)
    return _verdict(
        subject,
        best.failure_class if best else None,
        0.0,
        Action.NONE,
        f"{held[0].held}, so this does not count yet: {texts(held)}",
        is_suspect=True,
        refusal=RefusalReason.FOREIGN_CORDON if is_theirs else RefusalReason.COOLDOWN,
    )


def _unproven(subject: Subject, best: Assessment, changes: str, policy: Policy) -> Verdict:
    """A person looks: one source alone, or a fresh change that explains it as well as a fault."""
    failure_class, refusal = best.failure_class, RefusalReason.NOT_CORROBORATED
    plain = best_assessment(subject.findings, policy) if changes else None
    if plain is not None and (changes and policy.class_rule(failure_class).is_change_sensitive):
        refusal = RefusalReason.RECENT_CHANGE
        reason = (
            f"{failure_class} right after a change of {changes}: the change is as likely a cause as"
            " a fault, and nothing that only hardware brings about speaks"
        )
        failure_class = FailureClass.CHANGE_INDUCED
    elif plain is not None and plain.is_proven:
        refusal = RefusalReason.RECENT_CHANGE
        reason = f"{failure_class} right after a change of {changes}, so a second source is wanted"
    else:
        reason = (
            f"{failure_class} is suspected, but no second, independent source makes it sure enough"
        )
    return _verdict(
        subject,
        failure_class,
        best.confidence,
        Action.REVIEW,
        f"{reason}: {texts(best.evidence)}{_beside(subject, best)}",
        is_suspect=True,
        refusal=refusal,
    )


def _proven(subject: Subject, best: Assessment, policy: Policy) -> Verdict:
    action, refusal = action_for(best, subject.record, policy)
    wanted = policy.class_rule(best.failure_class).min_confidence
    return _verdict(
        subject,
        best.failure_class,
        best.confidence,
        action,
        f"{best.failure_class} with confidence {best.confidence:.2f} (wanted {wanted:.2f}):"
        f" {texts(best.evidence)}{_beside(subject, best)}."
        f" Recommended: {action}, repair {subject.attempts + 1}",
        is_suspect=True,
        refusal=refusal,
    )


def action_for(
    best: Assessment, record: NodeRecord | None, policy: Policy
) -> tuple[Action, RefusalReason | None]:
    """The rung for this attempt, begun where the findings say that lower rungs are of no use."""
    attempts = record.attempts if record is not None else 0
    repairs = record.repairs if record is not None else {}
    rule = policy.class_rule(best.failure_class)
    if rule.mode == "off":
        return Action.REVIEW, RefusalReason.MODE_RECOMMEND
    starts = [
        rule.ladder.index(f.action)
        for f in best.evidence
        if f.failure_class is best.failure_class and f.action in rule.ladder
    ]
    action = rule.action_for(attempts + 1 + max(starts, default=0), repairs)
    return action, None if action in DISRUPTIVE else RefusalReason.MODE_RECOMMEND


def _beside(subject: Subject, best: Assessment) -> str:
    """What speaks of another trouble, or of another GPU: it is said, it does not add up."""
    others = [
        f
        for f in subject.findings
        if f not in best.evidence and not f.held and f.mode is not SignalMode.NEVER
    ]
    return f". Beside it: {texts(others)}" if others else ""


def _is_suspicious(findings: Sequence[Finding]) -> bool:
    return any(f.mode is not SignalMode.NEVER and not f.held for f in findings)
