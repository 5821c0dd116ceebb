"""What a piece of evidence is known by, and which answers of people speak of it. Pure.

An answer is bound to the node, the topic and the very findings it was given for. Fewer of them are
still the same matter; one that was not there is a new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from breakfix.model import (
    DISRUPTIVE,
    FailureClass,
    Finding,
    Incident,
    Label,
    Labelling,
    RefusalReason,
    SignalMode,
    Verdict,
)

INCIDENT = "incident"


def topic_of(verdict: Verdict) -> str:
    """What a verdict is about: its failure class, or what held it."""
    if verdict.failure_class:
        return verdict.failure_class.value
    return verdict.refusal.value if verdict.refusal else "unclear"


def mark_of(finding: Finding) -> str:
    """A finding's name within its node: signal, GPU, key. Its value and age may change."""
    return f"{finding.signal}|{finding.gpu}|{finding.key}"


def marks_of(findings: Sequence[Finding]) -> tuple[str, ...]:
    """What the findings are known by; those that are context only count when there is no other."""
    counting = [f for f in findings if f.mode is not SignalMode.NEVER] or findings
    return tuple(sorted({mark_of(f) for f in counting}))


def marks_of_incident(incident: Incident) -> tuple[str, ...]:
    """An incident is the same one while no node and no class joins it."""
    return tuple(sorted({*incident.nodes, *(f"class:{c}" for c in incident.failure_classes)}))


def may_rest(verdict: Verdict | None) -> bool:
    """Whether noise or known may keep it out of the queue for a while.

    Never what could take the node out by itself, never what is recommended to take it out, never
    lost telemetry. What has no verdict (an excluded node) may rest.
    """
    if verdict is None:
        return True
    return not (
        verdict.recommended_action in DISRUPTIVE
        or verdict.failure_class is FailureClass.TELEMETRY_LOST
        or verdict.refusal is RefusalReason.TELEMETRY
        or any(f.mode is SignalMode.ALONE for f in verdict.findings)
    )


def covers(answer: Labelling, node: str, topic: str, marks: Sequence[str]) -> bool:
    """Whether the answer was given for this evidence, or for more of the same."""
    is_same_kind = bool(marks) == bool(answer.marks)
    is_same = (answer.node, answer.topic) == (node, topic)
    return is_same and is_same_kind and set(marks) <= set(answer.marks)


def is_in_force(answer: Labelling, now: datetime) -> bool:
    """`real` until the evidence changes; noise and known until their time is over."""
    return answer.label is Label.REAL or (answer.until is not None and now < answer.until)


def rests(
    answers: Iterable[Labelling], node: str, topic: str, marks: Sequence[str], now: datetime
) -> bool:
    """Whether somebody said noise or known of this, and the time for that is not over."""
    return any(
        a.label is not Label.REAL and is_in_force(a, now) and covers(a, node, topic, marks)
        for a in answers
    )


def answer_to(verdict: Verdict, answers: Iterable[Labelling], now: datetime) -> Labelling | None:
    """The newest answer in force that speaks of what this verdict says."""
    marks, topic = marks_of(verdict.findings), topic_of(verdict)
    found = [a for a in answers if is_in_force(a, now) and covers(a, verdict.node, topic, marks)]
    return max(found, key=lambda a: a.id, default=None)
