"""What becomes of a drain that does not end well: overdue, on hold and resumed, or needless as the
node is healthy again.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import timedelta

from breakfix.act import steps
from breakfix.act.guard import halt_level
from breakfix.errors import BreakfixError
from breakfix.flow import waits
from breakfix.flow.draining import Overdue, drain_step, since_of, tolerant_of
from breakfix.flow.endings import escalate, give_up, is_ending
from breakfix.flow.guarding import acting, why_recovered
from breakfix.flow.holds import OVERDUE_HOLD, REPLACED_HOLD, hold, is_ours, let_go_on
from breakfix.flow.replaced import is_replaced_now
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import (
    Case,
    CaseEnd,
    HaltLevel,
    Judgement,
    NodeState,
    Step,
    StepStatus,
)

log = logging.getLogger(__name__)


def drain_overdue(services: Services, case: Case, overdue: Overdue) -> Go:
    """By policy: the node is given back, waits for people with its case, or is theirs for good.

    On hold the step stays open: the drain is not over, and may be resumed.
    """
    what: str = services.policy.drain.overdue
    if overdue.step.status is StepStatus.FAILED:  # ended before, and the run was cut short then
        what = str(overdue.step.detail.get("overdue", "escalate"))
    detail = {"text": overdue.text, "overdue": what}
    if what == "hold":
        if overdue.step.detail.get("text") != overdue.text:
            services.book.finish_step(
                case.id,
                case.fence,
                overdue.step.name,
                StepStatus.DISPATCHED,
                detail=detail,
                now=services.clock.now(),
            )
        hold(services, case, OVERDUE_HOLD, overdue.text)
        return Go(Stage.SETTLE_RUN, f"on hold: {overdue.text}")
    steps.finish(acting(services), case, overdue.step.name, StepStatus.FAILED, detail)
    if what == "uncordon":
        return give_up(services, case, CaseEnd.ABORTED, f"drain {overdue.text}")
    return Go(Stage.ESCALATE, "drain overdue")


def resume_case(services: Services, case_id: str, *, actor: str, reason: str) -> str:
    """A person lets a held case go on from where the world is; says what happens next.

    An ended case is not resumed: its node is with people.
    """
    case = services.book.case(case_id)
    if not case.is_open:
        return (
            f"case {case.id} has ended ({case.end}): there is nothing to resume;"
            f" `breakfix case return {case.id}` wants its node back"
        )
    if not case.held_by:
        return f"case {case.id} is not held: it goes on by itself"
    was = case.held_by
    let_go_on(services, case, actor=actor, reason=reason or "resumed")
    return f"case {case.id} was held by {was}; it goes on with the next reconciliation"


# --------------------------------------------------------------------------- held, and let go on


def hold_is_old(services: Services, case: Case) -> bool:
    """Whether nobody has come for a case that automation holds, for as long as policy waits."""
    until = case.updated_at + timedelta(seconds=services.policy.drain.hold_s)
    return is_ours(case) and services.clock.now() >= until


def why_goes_on(services: Services, case: Case) -> str:
    """Why a case that automation holds may go on now; an empty string while it may not."""
    drain = drain_step(services, case)
    if drain is None:
        return ""
    if case.held_by == REPLACED_HOLD:
        return "the pods are Ready elsewhere now" if is_replaced_now(services, case, drain) else ""
    return "what held its drain has gone" if _may_go_on(services, case, drain) else ""


def _may_go_on(services: Services, case: Case, drain: Step) -> bool:
    """The look that a waiting drain gets: nothing is left, or a pod that may go now."""
    now = services.clock.now()
    turns = [int(t) for t in drain.detail.get("turns", {"0": ""})]
    turn = max(turns, default=0)
    wait = Wait(
        WaitKind.PODS_GONE,
        case.id,
        case.node,
        now + timedelta(seconds=1.0),
        since=since_of(services, case, drain, turn),
        turn=turn,
        tolerant=tuple(tolerant_of(drain)),
    )
    return waits.over(services, [wait])[0]


# --------------------------------------------------------------------------- healthy again


def give_back_recovered(services: Services, judgement: Judgement, *, actor: str) -> list[str]:
    """End the cases whose node turned healthy while it was being drained; their ids.

    By the judgement of just now, and by the rule by which a pass of the drain stops: an event (an
    XID) stands until a repair, a state must be seen. Nothing was done to such a node yet.
    """
    if halt_level(services.cluster, services.book, services.settings.namespace) is HaltLevel.ALL:
        return []
    ended = []
    for case, text in list(_recovered(services, judgement)):
        try:
            is_given = give_back(services, case, text, actor=actor)
        except BreakfixError as e:  # one node's trouble must not hold the sweep of all others
            log.warning("case=%s node=%s not given back: %s", case.id, case.node, e)
            continue
        ended += [case.id] if is_given else []
    return ended


def give_back(services: Services, case: Case, text: str, *, actor: str) -> bool:
    """Take the case from whoever runs it, and put the node to work.

    The fence moves first: a drain that has ended just before is followed by the repair, which may
    be under way. Such a node is not given back (False); the next run of its case goes on.
    """
    now = services.clock.now()
    taken = services.book.take_over(case.id, case.fence, actor=actor, reason=text, now=now)
    if not _is_draining(services, taken):
        log.warning("case=%s node=%s drains no more: its next run goes on", case.id, case.node)
        return False
    if taken.held_by:
        taken = let_go_on(services, taken, actor=actor, reason=text)
    _stop_drain(services, taken, text)
    give_up(services, taken, CaseEnd.ABORTED, text, actor=actor)
    return True


def _stop_drain(services: Services, case: Case, text: str) -> None:
    """A drain that nobody goes on with has not been dispatched for good: it did not end well."""
    drain = drain_step(services, case)
    if drain is not None and drain.status is StepStatus.DISPATCHED:
        said = f"stopped ({text}): {drain.detail.get('text', '')}"
        detail = {"text": said, "blocked": []}
        steps.finish(acting(services), case, drain.name, StepStatus.FAILED, detail)


def _recovered(services: Services, judgement: Judgement) -> Iterator[tuple[Case, str]]:
    for case in services.book.cases(open_only=True):
        if not _is_draining(services, case):
            continue
        text = why_recovered(case, judgement.verdict(case.node))
        if text:
            yield case, text


def _is_draining(services: Services, case: Case) -> bool:
    """Whether nothing but a drain was begun, no person holds the case, and none has ended it."""
    if case.state is not NodeState.QUARANTINED or is_ending(case):
        return False
    if case.held_by and not is_ours(case):
        return False
    drain = drain_step(services, case)
    return drain is not None and drain.status is StepStatus.DISPATCHED


def escalate_held(services: Services, case: Case, *, actor: str) -> None:
    """Nobody came: the node stays out, and its case ends with people."""
    text = f"on hold for {services.policy.drain.hold_s / 3600:g} h, and nobody came"
    now = services.clock.now()
    let_go_on(services, case, actor=actor, reason=text)
    taken = services.book.take_over(case.id, case.fence, actor=actor, reason=text, now=now)
    _stop_drain(services, taken, text)
    escalate(services, taken, actor=actor, reason=text)
