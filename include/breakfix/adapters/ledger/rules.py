"""What may become of a case, as pure functions: case and wish in, next case or error out.

The ledger reads a case under lock, asks here, and writes what comes back. Nothing here reads a
clock or a database.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from breakfix.adapters.ledger.chain import plain
from breakfix.brakes import LIFT_OF, BreakerRule, Emergency, Lift
from breakfix.errors import IllegalTransition, LedgerError, Refused, StaleFence
from breakfix.model import (
    OUR_HOLD,
    REPAIRS,
    TRANSITIONS,
    Action,
    Case,
    CaseEnd,
    FailureClass,
    HaltLevel,
    Intent,
    NodeState,
    Refusal,
    RefusalReason,
    Scope,
    ScopeKind,
    Step,
    StepStatus,
    Tier,
    digest,
)
from breakfix.ports import Lease, Limit, Rung

#: Out of service by our hand: a case may only be in these while it holds its scopes.
HOLDS_SCOPES = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})

#: Steps whose name begins so are repairs: what `attempts` counts.
REPAIR_STEP = "repair"

#: Key of a case's detail under which an end that was begun is noted.
ENDING = "ending"

_ALPHABET = "23456789abcdefghjkmnpqrstvwxyz"  # no letters that a person mixes up
_NAMED = 5  # holders named in a refusal's sentence


def new_case_id(now: datetime) -> str:
    """Sorts by day, fits in a label, a pod name and a run id, e.g. `20260102-k3f9qxm7`."""
    return f"{now:%Y%m%d}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"


# --------------------------------------------------------------------------- admission


def refusal(
    intent: Intent, reason: RefusalReason, text: str, *, scope: Scope | None = None
) -> Refusal:
    """The refusal of one intent."""
    return Refusal(
        node=intent.node,
        reason=reason,
        text=text,
        failure_class=intent.failure_class,
        action=intent.action,
        scope=scope,
    )


def refuse_by_state(intent: Intent, current: Case | None, halt: HaltLevel) -> Refusal | None:
    """Refused whatever the limits say: halted, held by a person, or another case is at work."""
    if halt is not HaltLevel.NONE:
        return refusal(intent, RefusalReason.HALTED, f"halted ({halt}): no node is taken out")
    if current is None:
        return None
    if current.held_by:
        text = f"case {current.id} is held by {current.held_by}"
        return refusal(intent, RefusalReason.HELD, text)
    if current.state is not NodeState.RETURNING:
        text = f"case {current.id} is open ({current.state})"
        return refusal(intent, RefusalReason.CASE_OPEN, text)
    return None


def refuse_by_limit(
    intent: Intent, limit: Limit, leased: Mapping[str, str], emergency: Emergency | None = None
) -> Refusal | None:
    """Refused when the scope has no room. `leased`: node -> case that holds a slot of the scope.

    Counts nodes once, whether the ledger, the cluster or both say that they are out. `emergency`:
    the one that is in force at this instant.
    """
    out = (frozenset(leased) | limit.out_now) - {intent.node}
    maximum = limit.maximum
    if emergency and limit.lifted is not None and LIFT_OF[limit.scope.kind] in emergency.lifts:
        maximum = max(maximum, limit.lifted)
    if len(out) + 1 <= maximum:
        return None
    is_fleet = limit.scope.kind is ScopeKind.FLEET
    reason = RefusalReason.FLEET_SHARE if is_fleet else RefusalReason.SCOPE_FULL
    text = f"{limit.scope} allows {maximum} out; out now: {_holders(sorted(out), leased)}"
    return refusal(intent, reason, text, scope=limit.scope)


def _holders(out: Sequence[str], leased: Mapping[str, str]) -> str:
    if not out:
        return "none"
    named = [
        f"{n} (case {leased[n]})" if n in leased else f"{n} (cordoned or not ready)"
        for n in out[:_NAMED]
    ]
    more = f" and {len(out) - _NAMED} more" if len(out) > _NAMED else ""
    return ", ".join(named) + more


def heeded_breaker(limit: Limit, emergency: Emergency | None) -> BreakerRule | None:
    """The breaker that this limit asks; None where there is none, or an emergency lifts it."""
    is_lifted = emergency is not None and Lift.BREAKER in emergency.lifts
    return None if is_lifted and limit.may_lift_breaker else limit.breaker


def refuse_by_breaker(intent: Intent, limit: Limit, why: str) -> Refusal:
    """Refused by the breaker of a scope."""
    return refusal(intent, RefusalReason.BREAKER, why, scope=limit.scope)


# --------------------------------------------------------------------------- emergencies


def check_emergency_free(last: Emergency | None, now: datetime) -> None:
    """Raise Refused while one is asked for or in force: one at a time, so that all see the same."""
    if last is not None and (last.is_in_force(now) or last.is_asked(now)):
        state = "in force" if last.is_in_force(now) else "asked for"
        msg = f"an emergency is {state} already ({last}): end it first"
        raise Refused(RefusalReason.NOT_APPROVED, msg)


def approvable(last: Emergency | None, approver: str, now: datetime) -> Emergency:
    """The emergency that this person may approve now. Raises Refused."""
    if last is None or not last.is_asked(now):
        msg = "no emergency waits for a yes: none was asked for, or its time is over"
        raise Refused(RefusalReason.NOT_APPROVED, msg)
    if approver == last.requester:
        raise Refused(RefusalReason.NOT_APPROVED, "requester and approver are the same person")
    if approver != last.approver:
        msg = f"{approver or 'nobody'} was not asked: {last.approver} was"
        raise Refused(RefusalReason.NOT_APPROVED, msg)
    return last


def told_emergency(it: Emergency, why: str) -> dict[str, Any]:
    """What the audit keeps of an emergency."""
    return {
        "lifts": sorted(it.lifts),
        "requester": it.requester,
        "approver": it.approver,
        "reason": it.reason,
        "lasts_s": it.lasts_s,
        "until": it.until,
        **({"why": why} if why else {}),
    }


# --------------------------------------------------------------------------- the case


def opened(intent: Intent, *, case_id: str, cluster: str, requester: str, now: datetime) -> Case:
    """The case that an admitted intent begins."""
    return Case(
        id=case_id,
        cluster=cluster,
        node=intent.node,
        node_uid=intent.node_uid,
        fence=1,
        state=NodeState.QUARANTINED,
        failure_class=intent.failure_class,
        action=intent.action,
        confidence=intent.confidence,
        plan_hash=intent.hash,
        reason=intent.reason,
        opened_at=now,
        updated_at=now,
        boot_id=intent.boot_id,
        attempt=intent.attempt,
        scopes=intent.scopes,
        requester=requester,
        detail=intent.evidence(),
    )


def readmitted(case: Case, intent: Intent, *, requester: str, now: datetime) -> Case:
    """A node under watch broke again: the same case, one fence on, with the new plan.

    Where nothing was repaired in between, the intent may be the very one that was answered before
    the node was given back; it is another plan even so, and no old answer is one to it.
    """
    fresh = opened(intent, case_id=case.id, cluster=case.cluster, requester=requester, now=now)
    fence, plan_hash = case.fence + 1, fresh.plan_hash
    if fresh.attempt <= case.attempt:
        plan_hash = digest({"plan": plan_hash, "fence": fence})
    return replace(
        fresh,
        fence=fence,
        plan_hash=plan_hash,
        opened_at=case.opened_at,
        repaired_at=case.repaired_at,
        detail={**_without_climbs(case.detail), **fresh.detail},
    )


def _without_climbs(detail: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in detail.items() if not k.startswith("climbed_")}


# --------------------------------------------------------------------------- a case's life


def check_fence(case: Case, fence: int) -> None:
    """Raise StaleFence unless the case is open and at exactly that fence."""
    if case.fence != fence:
        msg = f"case {case.id} is at fence {case.fence}, not {fence}: somebody else has it now"
        raise StaleFence(msg)
    check_open(case)


def check_open(case: Case) -> None:
    """Raise StaleFence when the case has ended: nobody acts for it any more."""
    if case.ended_at is not None:
        msg = f"case {case.id} has ended ({case.end}) at {case.ended_at:%Y-%m-%d %H:%M:%SZ}"
        raise StaleFence(msg)


def moved(
    case: Case,
    fence: int,
    to: NodeState,
    *,
    holds_scopes: bool,
    reason: str,
    now: datetime,
    deadline: datetime | None,
    repaired_at: datetime | None,
    detail: Mapping[str, Any],
) -> Case:
    """The case in its next state; the very same object when nothing of it is new.

    In the same state a new deadline, repair time or detail is still kept: a watch is prolonged so.
    """
    check_fence(case, fence)
    is_same = to is case.state
    if not is_same:
        _check_way(case.state, to)
    if not is_same and to in HOLDS_SCOPES and not holds_scopes:
        msg = f"case {case.id} holds no scope any more: it must be admitted again to be {to}"
        raise Refused(RefusalReason.SCOPE_FULL, msg)
    after = replace(
        case,
        state=to,
        deadline=deadline or (case.deadline if is_same else None),
        repaired_at=repaired_at or case.repaired_at,
        detail={**case.detail, **plain(detail)},
    )
    if after == case:
        return case
    return replace(after, updated_at=now, detail={**after.detail, "state_reason": reason})


def frees_scopes(case: Case) -> bool:
    """In service again or ended: the only two ways to give scopes back."""
    return case.ended_at is not None or case.state is NodeState.RETURNING


def ended(case: Case, fence: int, end: CaseEnd, *, reason: str, now: datetime) -> Case:
    """The closed case; the very same object when it ended so already.

    An escalated end may be resolved later by a person (any other end), all others stand.
    """
    if case.ended_at is not None and case.fence == fence:
        if case.end is end:
            return case
        if case.end is not CaseEnd.ESCALATED:
            check_open(case)
    else:
        check_fence(case, fence)
    return replace(
        case,
        state=_state_at_end(case.state, end),
        updated_at=now,
        deadline=None,
        ended_at=now,
        end=end,
        detail={**case.detail, "state_reason": reason},
    )


def _state_at_end(state: NodeState, end: CaseEnd) -> NodeState:
    """Returned means healthy and escalated means escalated; else the state says how far it came."""
    after = {CaseEnd.RETURNED: NodeState.HEALTHY, CaseEnd.ESCALATED: NodeState.ESCALATED}.get(end)
    if after is None or after is state:
        return state
    _check_way(state, after)
    return after


def _check_way(before: NodeState, after: NodeState) -> None:
    if after not in TRANSITIONS[before]:
        raise IllegalTransition(before, after)


def taken_over(case: Case, fence: int, *, now: datetime) -> Case:
    """The case at the next fence; the old owner is refused from now on."""
    check_fence(case, fence)
    return replace(case, fence=case.fence + 1, updated_at=now)


def climbed(case: Case, fence: int, rung: Rung, *, reason: str, now: datetime) -> Case:
    """The case at its next rung, under repair again, in nobody's hands but the next owner's."""
    check_fence(case, fence)
    if case.held_by:
        msg = f"case {case.id} is held by {case.held_by}"
        raise Refused(RefusalReason.HELD, msg)
    if case.state is not NodeState.REPAIRING:
        _check_way(case.state, NodeState.REPAIRING)
    if case.state not in {NodeState.REPAIRING, NodeState.VALIDATING}:
        raise IllegalTransition(case.state, NodeState.REPAIRING)
    detail = {
        **case.detail,
        "rung": int(case.detail.get("rung", 1)) + 1,
        "climbed_because": reason,
        "climbed_after": rung.after,
        "needs_approval": rung.tier is not Tier.AUTOMATIC,
        "tier": rung.tier.value,
        "impact": {"pods_evicted": 0, "gpus_stopped": 0, "gpus_free_after": 0},  # it is drained
        "state_reason": reason,
    }
    return replace(
        case,
        fence=case.fence + 1,
        state=NodeState.REPAIRING,
        action=rung.action,
        attempt=rung.attempt,
        plan_hash=rung.plan_hash,
        deadline=None,
        updated_at=now,
        detail=detail,
    )


def reopened(case: Case, *, newest: Case, reason: str, now: datetime) -> Case:
    """An escalated case that goes on with its validation, at the next fence.

    Raises LedgerError unless it is escalated still and the last that was said of its node.
    """
    if case.end is not CaseEnd.ESCALATED:
        msg = f"case {case.id} is {case.end or 'open'}: only an escalated one is opened again"
        raise LedgerError(msg)
    if newest.id != case.id:
        msg = f"case {case.id} is old: {case.node} has case {newest.id} since"
        raise LedgerError(msg)
    _check_way(case.state, NodeState.VALIDATING)
    detail = {k: v for k, v in case.detail.items() if k != ENDING}
    return replace(
        case,
        state=NodeState.VALIDATING,
        fence=case.fence + 1,
        updated_at=now,
        repaired_at=now,
        deadline=None,
        ended_at=None,
        end=None,
        held_by="",
        detail={**detail, "state_reason": reason},
    )


def held(case: Case, *, actor: str, now: datetime) -> Case:
    """The case with a hand on it; the first hand stays, but a person's replaces automation's.

    Automation takes its own hold off when what it waited for has come: never a person's.
    """
    check_open(case)
    by_us = case.held_by.startswith(OUR_HOLD)
    is_replaced = by_us and not actor.startswith(OUR_HOLD)
    if case.held_by and not is_replaced:
        return case
    return replace(case, held_by=actor, updated_at=now)


def unheld(case: Case, *, now: datetime) -> Case:
    """The case without anybody's hand on it."""
    check_open(case)
    return replace(case, held_by="", updated_at=now) if case.held_by else case


def repairs_by_rung(names: Iterable[tuple[str, int, str]]) -> dict[Action, int]:
    """How often each rung was tried, by (case, attempt, name of a repair's step)."""
    tried = {(case, attempt, name.split("-")[1]) for case, attempt, name in names if "-" in name}
    counts = Counter(action for _, _, action in tried)
    return {action: counts[action] for action in REPAIRS if counts[action]}


def attempts_by_class(
    names: Iterable[tuple[str, int, str]], classes: Mapping[str, FailureClass]
) -> dict[FailureClass, int]:
    """How many repairs each failure class had: one a case and attempt, however many steps it took.

    `classes`: of each case, as it is now.
    """
    attempts = {(case, attempt) for case, attempt, _ in names}
    return dict(Counter(classes[case] for case, _ in attempts))


def finished(
    step: Step | None, name: str, status: StepStatus, *, detail: Mapping[str, Any], now: datetime
) -> Step:
    """The step with what became of it; the very same object when that is known already.

    DISPATCHED is a note on the way: the detail is kept, the step has not ended.
    """
    if step is None:
        msg = f"step {name} was never begun: begin it before its effect"
        raise LedgerError(msg)
    merged = {**step.detail, **plain(detail)}
    if status is StepStatus.DISPATCHED:
        if step.status is not StepStatus.DISPATCHED:
            msg = f"step {name} has ended ({step.status}) and is not dispatched any more"
            raise LedgerError(msg)
        return step if merged == dict(step.detail) else replace(step, detail=merged)
    if step.status is status and merged == dict(step.detail):
        return step
    return replace(step, status=status, ended_at=now, detail=merged)


# --------------------------------------------------------------------------- slots


@dataclass(frozen=True, slots=True)
class LeaseDrift:
    """Slots that no open case of theirs holds, and slots that an open case should hold."""

    wrong: tuple[Lease, ...]
    missing: tuple[Lease, ...]

    def told(self) -> tuple[str, ...]:
        """What is to be changed, a sentence each."""
        return tuple(
            f"{what} of {lease.scope} by {lease.node} (case {lease.case_id})"
            for what, leases in (("freed the slot", self.wrong), ("took the slot", self.missing))
            for lease in leases
        )


def lease_drift(open_cases: Sequence[Case], leases: Sequence[Lease]) -> LeaseDrift:
    """Compare the slots with the cases. The transactions that change cases leave no difference."""
    due = {
        (scope, case.node): case
        for case in open_cases
        if case.state in HOLDS_SCOPES
        for scope in case.scopes
    }
    wrong = tuple(
        lease
        for lease in leases
        if (holder := due.get((lease.scope, lease.node))) is None or holder.id != lease.case_id
    )
    right = {(x.scope, x.node) for x in leases} - {(x.scope, x.node) for x in wrong}
    missing = tuple(
        Lease(scope, node, case.id, case.updated_at)
        for (scope, node), case in due.items()
        if (scope, node) not in right
    )
    return LeaseDrift(wrong, missing)
