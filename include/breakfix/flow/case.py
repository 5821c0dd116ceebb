"""The stages of a case, in the order of the road; each idempotent, each guarded, each saying where
to go next.

`run_stage` is what a DAG task calls: it reads the case, lets the stage work, and turns a
guardrail's refusal into the case's next step. What a stage did is in the ledger before anybody
hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

from breakfix.act.quarantine import quarantine, release, was_released
from breakfix.errors import NotFound, Refused
from breakfix.flow import load_checks, validation
from breakfix.flow.answers import (
    ask_before_repair,
    ask_before_return,
    refused_return,
    require_approved_repair,
    require_approved_return,
    settle_question,
)
from breakfix.flow.climbing import next_rung
from breakfix.flow.drain_endings import drain_overdue
from breakfix.flow.draining import Overdue, drain_node, drain_step
from breakfix.flow.endings import (
    ACTOR,
    abort_case,
    complete_ending,
    escalate,
    hold_passed,
    is_ending,
    is_gone,
    node_gone,
    refused,
)
from breakfix.flow.giving_way import give_way
from breakfix.flow.guarding import RECOVERY, SideBySide, acting, disruption
from breakfix.flow.proof import doubt_about_return
from breakfix.flow.repairs import is_new_rung, run_repair
from breakfix.flow.replaced import check_replaced
from breakfix.flow.services import Services
from breakfix.flow.stages import REPAIR_STAGES, Go, Stage, Wait, stage_of
from breakfix.model import Action, Case, NodeState
from breakfix.plan.limits import QUARANTINE_GUARDS

__all__ = ["abort_case", "escalate", "put_in_quarantine", "run_stage", "settle_question"]

log = logging.getLogger(__name__)

StageFunction = Callable[[Services, Case], Go | Wait]


def run_stage(services: Services, stage: Stage, case_id: str, fence: int) -> Go | Wait:
    """One stage of one case at one fence. Raises SourceError when something outside cannot be
    reached.

    A case that ended, changed hands or is held goes nowhere: the run settles.
    """
    services = services.refreshed()
    case = services.book.case(case_id)
    if case.fence != fence:
        return Go(Stage.SETTLE_RUN, f"fence {fence} is old: the case is at {case.fence}")
    if not case.is_open:
        return Go(Stage.SETTLE_RUN, f"the case has ended: {case.end}")
    if case.held_by:
        return Go(Stage.SETTLE_RUN, f"the case is held by {case.held_by}")
    try:
        result = _run(services, stage, case)
    except Refused as e:  # even the end that it led to may not be done now
        result = Go(Stage.SETTLE_RUN, f"{e.reason}: {e}")
    log.info("case=%s node=%s stage=%s -> %s", case.id, case.node, stage, result)
    return result


def _run(services: Services, stage: Stage, case: Case) -> Go | Wait:
    if is_ending(case):
        return complete_ending(services, case)
    allowed = _STATES.get(stage)
    if allowed is not None and case.state not in allowed:
        return Go(Stage.SETTLE_RUN, f"{stage} is not for a case that is {case.state}")
    try:
        given_way = give_way(services, case, actor=ACTOR) if stage in _BEFORE_WORK else None
        result = given_way or STAGES[stage](services, case)
    except Refused as e:
        now = services.book.case(case.id)  # the stage may have moved it before it was refused
        return refused(services, now if now.fence == case.fence else case, stage, e)
    except NotFound as e:
        if not is_gone(services, case):
            raise  # a pod, or the like: look again
        return node_gone(services, case, str(e))
    if isinstance(result, Go) and result.to is not Stage.SETTLE_RUN:
        hold_passed(services, case)
    return result


# --------------------------------------------------------------------------- begin


def begin(services: Services, case: Case) -> Go | Wait:
    """Find out where the world is, and go there; a quarantine that was cut short is completed."""
    match case.state:
        case NodeState.QUARANTINED:
            put_in_quarantine(services, case)
            return ask_before_repair(services, case)
        case NodeState.REPAIRING:
            return _resume_repair(services, case)
        case NodeState.VALIDATING if was_released(acting(services), case):
            return return_node(services, case)
        case NodeState.VALIDATING if refused_return(services, case):
            return Go(Stage.ESCALATE, "its return was refused")
        case NodeState.VALIDATING:
            return Go(Stage.CHECK_GPUS, "resuming with the validation")
        case _:
            return Go(Stage.SETTLE_RUN, f"nothing to do in state {case.state}")


def _resume_repair(services: Services, case: Case) -> Go:
    """A rung that nobody has begun is another plan: it wants its own yes."""
    if is_new_rung(services, case):
        return ask_before_repair(services, case)
    return Go(stage_of(case.action), "resuming the repair")


def put_in_quarantine(
    services: Services, case: Case, *, is_fresh: bool = False, beside: SideBySide | None = None
) -> None:
    """Cordon, taint and label the node; no write when that is so already. Raises Refused.

    `is_fresh`: the node was judged just now, so that its reason need not be asked again. `beside`:
    what it reads together with others that are taken out at the same time.
    """
    expected = disruption(
        services, case, is_reason_fresh=is_fresh, guards=QUARANTINE_GUARDS, beside=beside
    )
    if is_fresh:  # of that boot: one that came up since has not been judged
        expected = replace(expected, boot_id=case.boot_id)
    quarantine(acting(services, beside), case, expected)


# --------------------------------------------------------------------------- on the road


def drain_stage(services: Services, case: Case) -> Go | Wait:
    """Each pod by its ladder until nothing is left, within the deadline; then a look whether they
    are Ready elsewhere.
    """
    is_begun = drain_step(services, case) is not None
    require_approved_repair(services, case, is_begun=is_begun)
    outcome = drain_node(services, case)
    if isinstance(outcome, Wait):
        return outcome
    if isinstance(outcome, Overdue):
        return drain_overdue(services, case, outcome)
    drained = drain_step(services, case)
    unlike_before = check_replaced(services, case, drained) if drained is not None else None
    return _after_drain(case) if unlike_before is None else unlike_before


def _after_drain(case: Case) -> Go:
    match case.action:
        case Action.HOLD_FOR_HARDWARE:
            return Go(Stage.ESCALATE, "drained; held for hardware")
        case Action.DRAIN_ONLY:
            return Go(Stage.SETTLE_RUN, "drained; out until the case is aborted")
        case _:
            return Go(stage_of(case.action), "drained")


def repair_stage(stage: Stage) -> StageFunction:
    """Dispatch the repair once, wait for its effect, and only then call it done."""

    def run(services: Services, case: Case) -> Go | Wait:
        if case.state is NodeState.VALIDATING:
            return Go(Stage.CHECK_GPUS, "repaired already")
        if stage is not stage_of(case.action):
            return Go(Stage.SETTLE_RUN, f"the case is to {case.action}, nothing else")
        is_begun = not is_new_rung(services, case)
        require_approved_repair(services, case, is_begun=is_begun)
        return run_repair(services, case)

    return run


def signals_stage(services: Services, case: Case) -> Go | Wait:
    """The last check; when it passes, the question of the return."""
    outcome = validation.check_signals(services, case)
    return ask_before_return(services, case) if outcome is None else outcome


# --------------------------------------------------------------------------- return


def return_node(services: Services, case: Case) -> Go | Wait:
    """Back in service, under watch. Only what we cordoned is uncordoned.

    The answer may have taken hours: the node is looked at once more, unless it was let go already.
    """
    if case.state is NodeState.RETURNING:
        return Go(Stage.SETTLE_RUN, "returned already")
    if not was_released(acting(services), case):
        require_approved_return(services, case)
        doubt = doubt_about_return(services, case)
        if doubt:
            return Go(Stage.SETTLE_RUN, f"{doubt}: it stays out, and the next run validates again")
    return put_back(services, case, actor=ACTOR, reason="validated and released")


def put_back(services: Services, case: Case, *, actor: str, reason: str) -> Go:
    """Release the node into its watch. Who calls this has asked whether it may go back."""
    release(acting(services), case, RECOVERY, NodeState.RETURNING)
    now = services.clock.now()
    until = now + timedelta(seconds=services.policy.timing.watch_s)
    services.book.move(
        case.id,
        case.fence,
        NodeState.RETURNING,
        actor=actor,
        reason=reason,
        now=now,
        deadline=until,
    )
    return Go(Stage.SETTLE_RUN, f"in service, watched until {until:%H:%M:%S} UTC")


_REPAIRABLE = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})
_UNDER_CHECK = frozenset({NodeState.VALIDATING})

#: The states in which a stage may work, whoever sent the case there; the others take any.
_STATES: Mapping[Stage, frozenset[NodeState]] = {
    Stage.DRAIN: frozenset({NodeState.QUARANTINED}),
    **dict.fromkeys(REPAIR_STAGES, _REPAIRABLE),
    Stage.CHECK_GPUS: _UNDER_CHECK,
    Stage.CHECK_OPERATOR: _UNDER_CHECK,
    Stage.RUN_DIAG: _UNDER_CHECK,
    Stage.RUN_BANDWIDTH: _UNDER_CHECK,
    Stage.CHECK_SIGNALS: _UNDER_CHECK,
    Stage.NEXT_RUNG: frozenset({NodeState.REPAIRING, NodeState.VALIDATING}),
    Stage.RETURN_NODE: frozenset({NodeState.VALIDATING, NodeState.RETURNING}),
}

#: Before these nothing but the quarantine was done: the last moment to leave it at that.
_BEFORE_WORK = frozenset({Stage.BEGIN, Stage.DRAIN})

STAGES: Mapping[Stage, StageFunction] = {
    Stage.BEGIN: begin,
    Stage.DRAIN: drain_stage,
    **{stage: repair_stage(stage) for stage in REPAIR_STAGES},
    Stage.CHECK_GPUS: validation.check_gpus,
    Stage.CHECK_OPERATOR: validation.check_operator,
    Stage.RUN_DIAG: load_checks.run_diag,
    Stage.RUN_BANDWIDTH: load_checks.run_bandwidth,
    Stage.CHECK_SIGNALS: signals_stage,
    Stage.NEXT_RUNG: next_rung,
    Stage.RETURN_NODE: return_node,
    Stage.ESCALATE: escalate,
}
