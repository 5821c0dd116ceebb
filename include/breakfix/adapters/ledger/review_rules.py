"""The review queue as pure functions: what a sweep wants in it, and what answers keep out of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from breakfix.adapters.ledger.chain import storable
from breakfix.errors import LedgerError
from breakfix.evidence import (
    INCIDENT,
    covers,
    is_in_force,
    marks_of,
    marks_of_incident,
    may_rest,
    rests,
    topic_of,
)
from breakfix.model import (
    Action,
    Case,
    FailureClass,
    Incident,
    Judgement,
    Label,
    Labelling,
    Plan,
    Refusal,
    RefusalReason,
    SignalMode,
    Verdict,
)
from breakfix.ports import ReviewItem

#: Refusals that do not pass by waiting: a person must look, or nothing will ever happen.
FOR_PEOPLE = frozenset(
    {
        RefusalReason.PROTECTED,
        RefusalReason.EXCLUDED,
        RefusalReason.FOREIGN_CORDON,
        RefusalReason.OTHER_OWNER,
        RefusalReason.POD_REFUSED,
        RefusalReason.ATTEMPTS,
        RefusalReason.NOT_CORROBORATED,
        RefusalReason.MODE_RECOMMEND,
        RefusalReason.MODE_OFF,
        RefusalReason.OVERRIDDEN,
    }
)

_MAX_MEMBERS = 20  # nodes of an incident whose findings its item tells

ReviewKey = tuple[str, str]  # node (or scope of an incident), topic


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one sweep would have in the review queue. `marks`: what its evidence is known by."""

    reason: str
    detail: Mapping[str, Any]
    marks: tuple[str, ...]

    @property
    def may_rest(self) -> bool:
        return bool(self.detail["may_rest"])


def wanted_reviews(
    judgement: Judgement, plan: Plan, incidents: Mapping[str, Incident]
) -> dict[ReviewKey, Wanted]:
    """What a judgement and its plan leave to people, with the evidence for each. The nodes of an
    incident are one item together.
    """
    verdicts = {v.node: v for v in judgement.verdicts}
    policy = {"version": judgement.policy_version, "hash": judgement.policy_hash}
    found: dict[ReviewKey, Wanted] = {}
    for verdict in judgement.verdicts:
        is_of_incident = verdict.refusal is RefusalReason.COMMON_CAUSE
        if verdict.recommended_action is Action.REVIEW and not is_of_incident:
            key = storable(verdict.node), storable(topic_of(verdict))
            found[key] = _wanted(verdict.reason, verdict, None, policy)
    for refusal in plan.refusals:
        if refusal.reason in FOR_PEOPLE:
            topic = refusal.failure_class or refusal.reason
            verdict_ = verdicts.get(refusal.node)
            key = storable(refusal.node), topic.value
            found[key] = _wanted(refusal.text, verdict_, refusal, policy)
    for scope, incident in incidents.items():
        found[scope, INCIDENT] = _wanted_incident(incident, verdicts, policy)
    return found


def _wanted(
    reason: str,
    verdict: Verdict | None,
    refusal: Refusal | None,
    policy: Mapping[str, str],
) -> Wanted:
    """A review item of a node, with all the evidence that a person needs to answer it."""
    evidence: dict[str, Any] = {"policy": policy, "may_rest": may_rest(verdict)}
    marks: tuple[str, ...] = ()
    if verdict is not None:
        marks = tuple(storable(m) for m in marks_of(verdict.findings))
        evidence |= {
            "state": verdict.state,
            "failure_class": verdict.failure_class,
            "confidence": verdict.confidence,
            "findings": verdict.findings,
            "unknown": verdict.unknown,
            "recommended_action": verdict.recommended_action,
            "refusal": verdict.refusal,
            "verdict": verdict.reason,
        }
    if refusal is not None:
        evidence |= {"refusal": refusal.reason, "action": refusal.action}
    return Wanted(reason, {**evidence, "marks": marks}, marks)


def _wanted_incident(
    incident: Incident, verdicts: Mapping[str, Verdict], policy: Mapping[str, str]
) -> Wanted:
    """One item for a whole scope. Where a node of it has proof of its own, it may not rest."""
    marks = tuple(storable(m) for m in marks_of_incident(incident))
    members = [verdicts[n] for n in incident.nodes if n in verdicts]
    evidence = {
        "cause": incident.cause,
        "nodes": incident.nodes,
        "failure_classes": incident.failure_classes,
        "seen": {
            v.node: [f.text for f in v.findings if f.mode is not SignalMode.NEVER]
            for v in members[:_MAX_MEMBERS]
        },
        "policy": policy,
        "may_rest": all(may_rest(v) for v in members),
        "marks": marks,
    }
    return Wanted(incident.reason, evidence, marks)


@dataclass(frozen=True, slots=True)
class QueueChange:
    """What a sweep does to the queue: items by number, new ones by key."""

    opened: Mapping[ReviewKey, Wanted]
    renewed: Mapping[int, Wanted]
    closed: Mapping[ReviewKey, int]


def queue_change(
    known: Mapping[ReviewKey, int],
    wanted: Mapping[ReviewKey, Wanted],
    silent: frozenset[str],
    answers: Sequence[Labelling],
    *,
    now: datetime,
) -> QueueChange:
    """Open what is new, renew what is still seen, close what is gone and was judged in full.

    `answers` are those in force. What an answer does not speak of is a new item; what somebody
    called noise or known is not queued again before its time.
    """
    by_item = {a.review_id: a for a in answers}
    opened: dict[ReviewKey, Wanted] = {}
    renewed: dict[int, Wanted] = {}
    closed = {k: n for k, n in known.items() if k not in wanted and k[0] not in silent}
    for key, item in wanted.items():
        number = known.get(key)
        if number is not None and _still_stands(by_item.get(number), key, item, now):
            renewed[number] = item
            continue
        if number is not None:
            closed[key] = number
        if not (item.may_rest and rests(answers, *key, item.marks, now)):
            opened[key] = item
    return QueueChange(opened, renewed, closed)


def _still_stands(answer: Labelling | None, key: ReviewKey, item: Wanted, now: datetime) -> bool:
    """An item without an answer takes new evidence in; an answer is for what it was given for."""
    if answer is None:
        return True
    return is_in_force(answer, now) and covers(answer, *key, item.marks)


def latest(labellings: Iterable[Labelling]) -> dict[int, Labelling]:
    """Review id -> the labelling that stands."""
    ordered = sorted(labellings, key=lambda a: a.id)
    return {a.review_id: a for a in ordered if a.review_id is not None}


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody says, before it is known of what."""

    label: Label
    actor: str
    note: str
    failure_class: FailureClass | None
    until: datetime | None
    now: datetime


def review_labelling(item: ReviewItem, said: Said) -> Labelling:
    """What was said, bound to the item's node, topic and evidence. Raises LedgerError."""
    label, until = said.label, said.until
    if label is Label.REAL and until is not None:
        raise LedgerError("`real` has no end: it holds until the evidence changes")
    if label is not Label.REAL and (until is None or until <= said.now):
        raise LedgerError(f"`{label}` needs a time to come until which it holds, not {until}")
    return Labelling(
        id=0,
        at=said.now,
        actor=storable(said.actor),
        label=label,
        node=item.node,
        topic=item.topic,
        marks=tuple(item.detail.get("marks", ())),
        note=storable(said.note),
        failure_class=said.failure_class,
        until=until,
        review_id=item.id,
    )


def case_labelling(case: Case, said: Said) -> Labelling:
    """What was said, bound to the case."""
    return Labelling(
        id=0,
        at=said.now,
        actor=storable(said.actor),
        label=said.label,
        node=case.node,
        topic=case.failure_class.value,
        note=storable(said.note),
        failure_class=said.failure_class,
        case_id=case.id,
    )


def is_same_word(before: Labelling | None, after: Labelling) -> bool:
    """Whether somebody only said once more what they had said; a later end is news."""
    if before is None:
        return False
    return replace(before, id=0, at=after.at) == replace(after, id=0)
