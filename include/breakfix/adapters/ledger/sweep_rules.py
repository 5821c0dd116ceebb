"""What a sweep leaves, as pure functions: states, refusals, incidents, work for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from breakfix.adapters.ledger.chain import storable
from breakfix.adapters.ledger.review_rules import ReviewKey, Wanted, wanted_reviews
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    FailureClass,
    Incident,
    Judgement,
    NodeRecord,
    NodeState,
    OpenFinding,
    Plan,
    Refusal,
)

#: The states that sweeps write; every other state belongs to a case.
SWEPT = frozenset({NodeState.HEALTHY, NodeState.SUSPECT})

#: Ends that are a word on the evidence: what had happened until then opens no other case.
ANSWERED = frozenset({CaseEnd.OVERRIDDEN, CaseEnd.ABORTED})

#: A refusal at admission that was silent for so long is news again.
QUIET = timedelta(hours=1)

RefusalKey = tuple[str, str, str, str, str]  # node, reason, failure class, action, scope


@dataclass(frozen=True, slots=True)
class Left:
    """What one sweep leaves. `silent`: nodes not judged in full; nothing of theirs is closed."""

    states: Mapping[str, NodeState]
    refusals: Mapping[RefusalKey, Refusal]
    incidents: Mapping[str, Incident]
    reviews: Mapping[ReviewKey, Wanted]
    silent: frozenset[str]
    open_findings: Mapping[str, tuple[OpenFinding, ...]]


def left_by(judgement: Judgement, plan: Plan) -> Left:
    """Everything that the ledger keeps of one judgement and the plan made of it."""
    incidents = {storable(i.scope): i for i in (*judgement.incidents, *plan.incidents)}
    return Left(
        states={storable(v.node): v.state for v in judgement.verdicts if v.state in SWEPT},
        refusals={refusal_key(r): r for r in plan.refusals},
        incidents=incidents,
        reviews=wanted_reviews(judgement, plan, incidents),
        silent=frozenset(storable(v.node) for v in judgement.verdicts if v.unknown),
        open_findings={storable(v.node): _storable(v.open_findings) for v in judgement.verdicts},
    )


def _storable(findings: Iterable[OpenFinding]) -> tuple[OpenFinding, ...]:
    return tuple(replace(f, gpu=storable(f.gpu)) for f in findings)


def refusal_key(refusal: Refusal) -> RefusalKey:
    """What makes two refusals the same one: all but their words, which carry changing numbers."""
    return (
        storable(refusal.node),
        refusal.reason.value,
        refusal.failure_class.value if refusal.failure_class else "",
        refusal.action.value,
        storable(str(refusal.scope)) if refusal.scope else "",
    )


def node_record(
    node: str,
    *,
    swept: tuple[NodeState, datetime] | None,
    last: Case | None,
    last_state_since: datetime | None = None,
    evidence_floor: datetime | None = None,
    last_ended_at: datetime | None = None,
    overridden_at: datetime | None = None,
    attempts_by_class: Mapping[FailureClass, int] | None = None,
    repairs: Mapping[Action, int] | None = None,
    open_findings: Iterable[OpenFinding] = (),
) -> NodeRecord:
    """What is known of a node: an open or escalated case says its state, else the sweep."""
    state, since = swept or (NodeState.HEALTHY, last_ended_at)
    if last is not None and last.is_open:
        state, since = last.state, last_state_since
    elif last is not None and last.end is CaseEnd.ESCALATED:
        state, since = NodeState.ESCALATED, last.ended_at
    elif since is not None and last_ended_at is not None:
        since = max(since, last_ended_at)
    if since is None:
        msg = f"node {node} has neither a state nor a case"
        raise ValueError(msg)
    return NodeRecord(
        node=node,
        state=state,
        since=since,
        last_case=last.id if last else "",
        evidence_floor=evidence_floor,
        attempts=sum((attempts_by_class or {}).values()),
        attempts_by_class=attempts_by_class or {},
        repairs=repairs or {},
        last_ended_at=last_ended_at,
        overridden_at=overridden_at,
        open_findings=tuple(open_findings),
    )
