"""Past verdicts as episodes: what was said of a node, how surely, and what it turned out to be."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from breakfix.learn.labels import LabelSource, Truth, is_by_hand, truth_of, truth_of_case
from breakfix.model import (
    DISRUPTIVE,
    Action,
    Case,
    CaseEnd,
    FailureClass,
    Label,
    Labelling,
    RefusalReason,
    SignalMode,
    Step,
)
from breakfix.ports import ReviewItem

#: A case by hand so soon after a recommendation follows it (ours).
_FOLLOWS = timedelta(days=1)

_RELEASE, _QUARANTINE = "release-", "quarantine-"  # steps of each round of a case


@dataclass(frozen=True, slots=True)
class History:
    """What the ledger has: cases with their steps, review items, everything people said."""

    cases: Sequence[Case]
    reviews: Sequence[ReviewItem]
    labellings: Sequence[Labelling]
    steps: Mapping[str, Sequence[Step]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sign:
    """One signal of an episode; `key` tells XIDs apart."""

    signal: str
    key: str
    group: str
    is_context: bool


@dataclass(frozen=True, slots=True)
class Episode:
    """One verdict that mattered: a case, or an item for people.

    `is_disruptive`: it took the node out, or would have done, but for a guardrail. `is_advice`:
    policy only recommends for its class.
    """

    name: str
    node: str
    at: datetime
    failure_class: FailureClass
    confidence: float
    signs: tuple[Sign, ...]
    truth: Truth
    is_case: bool
    is_disruptive: bool
    is_advice: bool = False
    is_followed: bool = False  # people took the node out themselves
    is_override: bool = False
    return_s: float | None = None  # from its opening to the node's last return
    failed_returns: int = 0

    @property
    def is_right(self) -> bool | None:
        """Whether the class was right; None where nothing is known, or it was a known issue."""
        truth = self.truth
        if truth.label is Label.REAL:
            return truth.failure_class in {None, self.failure_class}
        return False if truth.label is Label.NOISE else None


def episodes_of(history: History) -> tuple[Episode, ...]:
    """All episodes, oldest first. Cases by hand are none: nothing was judged.

    An item for people whose node got a case of that class meanwhile is that case's story.
    """
    said = {a.case_id: a for a in sorted(history.labellings, key=lambda a: a.id) if a.case_id}
    of_cases = [
        _of_case(c, said.get(c.id), history.steps.get(c.id, ()))
        for c in history.cases
        if not is_by_hand(c)
    ]
    by_hand = [c for c in history.cases if is_by_hand(c)]
    opened: dict[tuple[str, str], list[datetime]] = defaultdict(list)
    for case in history.cases:
        if not is_by_hand(case):
            opened[case.node, case.failure_class.value].append(case.opened_at)
    of_reviews = [
        _of_review(i, by_hand)
        for i in history.reviews
        if _is_judged(i) and not any(i.at <= t <= _end(i) for t in opened[i.node, i.topic])
    ]
    return tuple(sorted([*of_cases, *of_reviews], key=lambda e: (e.at, e.name)))


def _end(item: ReviewItem) -> datetime:
    """When it was over; one that is open may be older than the case that its last sweep opened."""
    return item.closed_at or item.last_seen + _FOLLOWS


def _is_judged(item: ReviewItem) -> bool:
    """A verdict with a class; an incident or an excluded node has none."""
    return item.detail.get("failure_class") in set(FailureClass) - {FailureClass.TELEMETRY_LOST}


def _of_case(case: Case, said: Labelling | None, steps: Sequence[Step]) -> Episode:
    released = [s.ended_at for s in steps if s.name.startswith(_RELEASE) and s.ended_at]
    rounds = sum(s.name.startswith(_QUARANTINE) for s in steps)
    is_back = case.end is CaseEnd.RETURNED and bool(released)
    return Episode(
        name=f"case {case.id}",
        node=case.node,
        at=case.opened_at,
        failure_class=case.failure_class,
        confidence=case.confidence,
        signs=_signs(case.detail.get("findings", ())),
        truth=truth_of_case(case, said),
        is_case=True,
        is_disruptive=True,
        is_override=_is_override(case),
        return_s=(max(released) - case.opened_at).total_seconds() if is_back else None,
        failed_returns=max(0, rounds - 1),
    )


def _is_override(case: Case) -> bool:
    """A person's hand ended it; not a reason that passed, and not another owner."""
    ending = case.detail.get("ending", {})
    if case.end is CaseEnd.OVERRIDDEN:
        return not ending.get("releases")
    return ":" in str(ending.get("actor", ""))  # cli:ann, not node_case


def _of_review(item: ReviewItem, by_hand: Sequence[Case]) -> Episode:
    detail, answer = item.detail, item.answer
    truth = truth_of(answer) if answer else Truth(None, LabelSource.NONE, "nobody answered")
    until = (item.closed_at or item.last_seen) + _FOLLOWS
    is_followed = any(c.node == item.node and item.at <= c.opened_at <= until for c in by_hand)
    recommended = detail.get("action") or detail.get("recommended_action")
    is_disruptive = recommended in DISRUPTIVE
    return Episode(
        name=f"review {item.id}",
        node=item.node,
        at=item.at,
        failure_class=FailureClass(detail["failure_class"]),
        confidence=float(detail.get("confidence", 0.0)),
        signs=_signs(detail.get("findings", ())),
        truth=truth,
        is_case=False,
        is_disruptive=is_disruptive,
        is_advice=is_disruptive and detail.get("refusal") == RefusalReason.MODE_RECOMMEND,
        is_followed=is_followed,
    )


def _signs(findings: Sequence[Mapping[str, Any]]) -> tuple[Sign, ...]:
    """The signals of an episode, once each; older records may lack what newer ones have."""
    signs = {
        Sign(
            signal=str(f.get("signal", "")),
            key=str(f.get("key", "")),
            group=str(f.get("group", "")),
            is_context=f.get("mode") == SignalMode.NEVER or f.get("action") == Action.NONE,
        )
        for f in findings
    }
    return tuple(sorted(signs, key=lambda s: (s.signal, s.key)))
