"""The stages of a case, in the order of the road; each idempotent, each guarded, each saying where
to go next.

`run_stage` is what a DAG task calls: it reads the case, lets the stage work, and turns a
guardrail's refusal into the case's next step. What a stage did is in the ledger before anybody
hears of it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta

from breakfix.act.quarantine import clear_marks, quarantine, release, set_state_label
from breakfix.approve import settle
from breakfix.errors import LedgerError, NotFound, Refused, StaleFence
from breakfix.flow import questions, validation
from breakfix.flow.draining import drain_node
from breakfix.flow.guarding import RECOVERY, acting, disruption
from breakfix.flow.repairs import run_repair
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import (
    Action,
    Answer,
    Approval,
    Case,
    CaseEnd,
    Decision,
    NodeState,
    Purpose,
    RefusalReason,
    StepStatus,
)

log = logging.getLogger(__name__)

ACTOR = "node_case"

#: Refusals that mean: a person or another owner has taken the node; the case is theirs now.
_TAKEN_BACK = frozenset(
    {RefusalReason.OVERRIDDEN, RefusalReason.EXCLUDED, RefusalReason.OTHER_OWNER}
)
#: Refusals that may pass: the case waits for that, up to its deadline.
_MAY_PASS = frozenset(
    {
        RefusalReason.TELEMETRY,
        RefusalReason.COMMON_CAUSE,
        RefusalReason.NOT_CORROBORATED,
        RefusalReason.SCOPE_FULL,
        RefusalReason.FLEET_SHARE,
        RefusalReason.HEADROOM,
        RefusalReason.BUDGET,
    }
)

#: Refusals that stop the run and leave the case to whoever lifts them.
_NOT_NOW = frozenset(
    {
        RefusalReason.HALTED,
        RefusalReason.HELD,
        RefusalReason.UNOWNED_CLUSTER,
        RefusalReason.STALE_FENCE,
    }
)

StageFunction = Callable[[Services, Case], Go | Wait]


def run_stage(services: Services, stage: Stage, case_id: str, fence: int) -> Go | Wait:
    """One stage of one case at one fence. Raises SourceError when something outside cannot be
    reached.

    A case that ended, changed hands or is held goes nowhere: the run settles.
    """
    case = services.book.case(case_id)
    if case.fence != fence:
        return Go(Stage.SETTLE_RUN, f"fence {fence} is old: the case is at {case.fence}")
    if not case.is_open:
        return Go(Stage.SETTLE_RUN, f"the case has ended: {case.end}")
    if case.held_by:
        return Go(Stage.SETTLE_RUN, f"the case is held by {case.held_by}")
    try:
        result = STAGES[stage](services, case)
    except StaleFence as e:
        return Go(Stage.SETTLE_RUN, str(e))
    except Refused as e:
        result = _refused(services, case, stage, e)
    except NotFound as e:
        result = _node_gone(services, case, str(e))
    log.info("case=%s node=%s stage=%s -> %s", case.id, case.node, stage, result)
    return result


# --------------------------------------------------------------------------- begin


def begin(services: Services, case: Case) -> Go | Wait:
    """Find out where the world is, and go there; a quarantine that was cut short is completed."""
    match case.state:
        case NodeState.QUARANTINED:
            put_in_quarantine(services, case)
            return _ask_before_repair(services, case)
        case NodeState.REPAIRING:
            return Go(_repair_stage(case), "resuming the repair")
        case NodeState.VALIDATING:
            return Go(Stage.CHECK_GPUS, "resuming with the validation")
        case _:
            return Go(Stage.SETTLE_RUN, f"nothing to do in state {case.state}")


def put_in_quarantine(services: Services, case: Case, *, is_fresh: bool = False) -> None:
    """Cordon, taint and label the node; no write when that is so already. Raises Refused.

    `is_fresh`: the node was judged just now, so that its reason need not be asked again.
    """
    expected = disruption(services, case, is_reason_fresh=is_fresh)
    quarantine(acting(services), case, expected)


def _ask_before_repair(services: Services, case: Case) -> Go:
    if not case.detail.get("needs_approval", True):
        return Go(Stage.DRAIN, "policy asks nobody before this repair")
    approval = _question(services, case, Purpose.REPAIR, services.policy.timing.approval_repair_s)
    if approval.decision is Decision.ALLOWED:
        return Go(Stage.DRAIN, f"approved by {approval.approver}")
    if approval.decision is Decision.PENDING:
        return _ask(services, case, approval)
    return Go(Stage.ESCALATE, f"approval {approval.decision}")


def _question(services: Services, case: Case, purpose: Purpose, wait_s: float) -> Approval:
    """The newest answer of record for this plan, at whatever fence it was given, or a new question.

    An approved repair stays approved when the case changes hands: it is bound to the plan, not to
    the run. A question about a return is asked afresh each time the node was validated afresh.
    """
    now = services.clock.now()
    if purpose is Purpose.REPAIR:
        for approval in reversed(services.book.approvals(case.id)):
            is_same = approval.purpose is purpose and approval.plan_hash == case.plan_hash
            if is_same and approval.decision in {Decision.ALLOWED, Decision.REFUSED}:
                return approval
    return services.book.ask(
        case.id,
        case.fence,
        purpose,
        plan_hash=case.plan_hash,
        expires_at=now + timedelta(seconds=wait_s),
        now=now,
    )


def _ask(services: Services, case: Case, approval: Approval) -> Go:
    is_repair = approval.purpose is Purpose.REPAIR
    steps = () if is_repair else tuple(services.book.steps(case.id))
    return Go(
        Stage.APPROVE_REPAIR if is_repair else Stage.APPROVE_RETURN,
        f"{approval.purpose}: waiting for an approver",
        {
            "subject": questions.subject(case, approval.purpose),
            "body": questions.body(case, approval.purpose, approval.expires_at, steps),
            "asked_at": approval.asked_at.isoformat(),
            "expires_at": approval.expires_at.isoformat(),
        },
    )


# --------------------------------------------------------------------------- answers


def settle_question(
    services: Services, case_id: str, fence: int, purpose: Purpose, answers: Sequence[Answer]
) -> Go:
    """Turn what people answered into the approval of record, and go where it leads."""
    case = services.book.case(case_id)
    if case.fence != fence or not case.is_open:
        return Go(Stage.SETTLE_RUN, "the case has ended or changed hands")
    now = services.clock.now()
    asked = _open_question(services, case, purpose)
    outcome = settle(
        asked, answers, services.policy, requester=case.requester, now=now, is_final=True
    )
    approval = services.book.decide(
        case.id,
        fence,
        purpose,
        outcome.decision,
        approver=outcome.approver,
        channel=outcome.channel,
        note=outcome.note,
        plan_hash=case.plan_hash,
        now=now,
    )
    return _after_answer(services, case, approval)


def _open_question(services: Services, case: Case, purpose: Purpose) -> Approval:
    for approval in reversed(services.book.approvals(case.id)):
        if approval.purpose is purpose and approval.fence == case.fence:
            return approval
    raise LedgerError(f"case {case.id} was never asked about its {purpose}")


def _after_answer(services: Services, case: Case, approval: Approval) -> Go:
    said = f"{approval.decision} by {approval.approver or 'nobody'}: {approval.note}"
    if approval.purpose is Purpose.REPAIR:
        to = Stage.DRAIN if approval.decision is Decision.ALLOWED else Stage.ESCALATE
        return Go(to, said)
    match approval.decision:
        case Decision.ALLOWED:
            return Go(Stage.RETURN_NODE, said)
        case Decision.REFUSED:
            return Go(Stage.ESCALATE, said)
        case _:
            services.notifier.tell(
                "return unanswered", f"{case.node} stays out; it is asked again", case_id=case.id
            )
            return Go(Stage.SETTLE_RUN, said + "; the node stays out and is asked about again")


# --------------------------------------------------------------------------- drain, repair,
# validate


def _after_drain(case: Case) -> Go:
    match case.action:
        case Action.HOLD_FOR_HARDWARE:
            return Go(Stage.ESCALATE, "drained; held for hardware")
        case Action.DRAIN_ONLY:
            return Go(Stage.SETTLE_RUN, "drained; out until the case is aborted")
        case _:
            return Go(_repair_stage(case), "drained")


def drain_stage(services: Services, case: Case) -> Go | Wait:
    """Evict until nothing is left, within the deadline."""
    outcome = drain_node(services, case)
    if isinstance(outcome, Wait):
        return outcome
    return _after_drain(case) if outcome else Go(Stage.ESCALATE, "drain overdue")


_REPAIR_STAGES: Mapping[Action, Stage] = {
    Action.RESTART_DEVICE_PLUGIN: Stage.RESTART_DEVICE_PLUGIN,
    Action.RESET_GPU: Stage.RESET_GPU,
    Action.REBOOT_NODE: Stage.REBOOT_NODE,
}


def _repair_stage(case: Case) -> Stage:
    return _REPAIR_STAGES.get(case.action, Stage.ESCALATE)


def repair_stage(services: Services, case: Case) -> Go | Wait:
    """Dispatch the repair once, wait for its effect, and only then call it done."""
    if case.state is NodeState.VALIDATING:
        return Go(Stage.CHECK_GPUS, "repaired already")
    return run_repair(services, case)


def ask_return(services: Services, case: Case) -> Go:
    """The validation passed: ask before the return, where policy wants that."""
    if "return" not in services.policy.approvals.ask_before:
        return Go(Stage.RETURN_NODE, "validated; policy asks nobody before the return")
    approval = _question(services, case, Purpose.RETURN, services.policy.timing.approval_return_s)
    if approval.decision is Decision.PENDING:
        return _ask(services, case, approval)
    return _after_answer(services, case, approval)


def diag_stage(services: Services, case: Case) -> Go | Wait:
    """The last check; when it passes, the question of the return."""
    outcome = validation.run_diag(services, case)
    return ask_return(services, case) if outcome is None else outcome


# --------------------------------------------------------------------------- return, escalate


def return_node(services: Services, case: Case) -> Go | Wait:
    """Back in service, under watch. Only what we cordoned is uncordoned."""
    if case.state is NodeState.RETURNING:
        return Go(Stage.SETTLE_RUN, "returned already")
    _require_approved_return(services, case)
    release(acting(services), case, RECOVERY, NodeState.RETURNING)
    now = services.clock.now()
    until = now + timedelta(seconds=services.policy.timing.watch_s)
    services.book.move(
        case.id,
        case.fence,
        NodeState.RETURNING,
        actor=ACTOR,
        reason="validated and released",
        now=now,
        deadline=until,
    )
    return Go(Stage.SETTLE_RUN, f"in service, watched until {until:%H:%M:%S} UTC")


def _require_approved_return(services: Services, case: Case) -> None:
    if "return" not in services.policy.approvals.ask_before:
        return
    for approval in services.book.approvals(case.id):
        is_this = approval.purpose is Purpose.RETURN and approval.fence == case.fence
        if is_this and approval.decision is Decision.ALLOWED:
            return
    raise Refused(RefusalReason.NOT_APPROVED, "the return was not approved")


def escalate(services: Services, case: Case) -> Go | Wait:
    """A person or hardware is needed: the node stays out, and everybody is told why."""
    now, reason = services.clock.now(), why_escalated(services, case)
    try:
        set_state_label(acting(services), case, NodeState.ESCALATED)
    except Refused as e:
        if e.reason in _NOT_NOW:
            raise
        log.warning("case=%s node=%s escalates unlabelled: %s", case.id, case.node, e)
    services.book.end_case(
        case.id, case.fence, CaseEnd.ESCALATED, actor=ACTOR, reason=reason, now=now
    )
    services.notifier.tell(f"{case.node} escalated", reason, case_id=case.id)
    return Go(Stage.SETTLE_RUN, reason)


def why_escalated(services: Services, case: Case) -> str:
    """The reason, from the records: the last question that was not a yes, or the last step that
    failed.
    """
    for approval in reversed(services.book.approvals(case.id)):
        if approval.fence == case.fence and approval.decision in {
            Decision.REFUSED,
            Decision.EXPIRED,
        }:
            who = approval.approver or "nobody"
            return f"{approval.purpose} {approval.decision} by {who}"
    for step in reversed(services.book.steps(case.id)):
        if step.status in {StepStatus.FAILED, StepStatus.UNKNOWN}:
            return f"{step.name} {step.status}: {step.detail.get('text', '')}"
    if case.action is Action.HOLD_FOR_HARDWARE:
        return f"{case.failure_class}, attempt {case.attempt}: held for hardware"
    return f"{case.failure_class}: no further automatic step"


# --------------------------------------------------------------------------- refused


def _refused(services: Services, case: Case, stage: Stage, refusal: Refused) -> Go | Wait:
    now = services.clock.now()
    if refusal.reason in _TAKEN_BACK:
        return _given_up(services, case, CaseEnd.OVERRIDDEN, str(refusal))
    if refusal.reason is RefusalReason.REASON_GONE:
        return _given_up(services, case, CaseEnd.ABORTED, str(refusal))
    if refusal.reason is RefusalReason.NODE_CHANGED:
        return _node_changed(services, case, str(refusal))
    if refusal.reason in _MAY_PASS:
        return _wait_or_escalate(services, case, stage, str(refusal), now)
    if refusal.reason in {RefusalReason.POD_REFUSED, RefusalReason.PROTECTED}:
        return Go(Stage.ESCALATE, str(refusal))
    return Go(Stage.SETTLE_RUN, f"{refusal.reason}: {refusal}")


def _wait_or_escalate(
    services: Services, case: Case, stage: Stage, text: str, now: datetime
) -> Go | Wait:
    """A hold that may pass ends at the drain's deadline, counted from when it was first met."""
    name = f"hold.{stage}.{case.fence}"
    until = now + timedelta(seconds=services.policy.drain.timeout_s)
    step, _ = services.book.begin_step(
        case.id,
        case.fence,
        name,
        detail={"text": text, "deadline": until.isoformat()},
        now=now,
    )
    deadline = datetime.fromisoformat(str(step.detail["deadline"]))
    if now >= deadline:
        services.book.finish_step(
            case.id, case.fence, name, StepStatus.FAILED, detail={"text": text}, now=now
        )
        return Go(Stage.ESCALATE, text)
    again = now + timedelta(seconds=services.policy.drain.poll_s)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=again)


def _given_up(services: Services, case: Case, end: CaseEnd, text: str) -> Go:
    """Take our marks off, leave what others did, and end the case."""
    now = services.clock.now()
    if end is CaseEnd.OVERRIDDEN:
        clear_marks(services.cluster, case)
    else:
        _let_go(services, case)
    services.book.end_case(case.id, case.fence, end, actor=ACTOR, reason=text, now=now)
    services.notifier.tell(f"case of {case.node} ended: {end}", text, case_id=case.id)
    return Go(Stage.SETTLE_RUN, text)


def _let_go(services: Services, case: Case) -> None:
    """Give the node back as it was before us, and take every mark off."""
    try:
        release(acting(services), case, RECOVERY, NodeState.HEALTHY)
    except Refused as e:
        if e.reason in _NOT_NOW:
            raise
        log.info("case=%s node=%s is not ours to release: %s", case.id, case.node, e)
    clear_marks(services.cluster, case)


def _node_changed(services: Services, case: Case, text: str) -> Go:
    """Gone, another machine of that name, or the same one after a boot that was not ours."""
    try:
        node = services.cluster.node(case.node)
    except NotFound:
        return _node_gone(services, case, text)
    if node.uid != case.node_uid:
        return _node_gone(services, case, text)
    if case.state is NodeState.QUARANTINED:
        return _given_up(services, case, CaseEnd.ABORTED, text)
    return Go(Stage.ESCALATE, text)


def _node_gone(services: Services, case: Case, text: str) -> Go:
    now = services.clock.now()
    services.book.end_case(
        case.id, case.fence, CaseEnd.NODE_GONE, actor=ACTOR, reason=text, now=now
    )
    services.notifier.tell(f"{case.node} is gone", text, case_id=case.id)
    return Go(Stage.SETTLE_RUN, text)


def abort_case(services: Services, case_id: str, *, actor: str, reason: str) -> str:
    """A person ends a case: a node not yet under repair is released, any other stays out,
    escalated.

    Returns a sentence on what became of the node.
    """
    now = services.clock.now()
    case = services.book.case(case_id)
    if not case.is_open:
        return f"case {case.id} had ended already: {case.end}"
    taken = services.book.take_over(
        case.id, case.fence, actor=actor, reason=reason or "aborted", now=now
    )
    if taken.state in {NodeState.REPAIRING, NodeState.VALIDATING}:
        set_state_label(acting(services), taken, NodeState.ESCALATED)
        services.book.end_case(
            taken.id, taken.fence, CaseEnd.ESCALATED, actor=actor, reason=reason, now=now
        )
        return f"case {case.id} ended; {case.node} was under repair and stays out: look at it first"
    _let_go(services, taken)
    services.book.end_case(
        taken.id, taken.fence, CaseEnd.ABORTED, actor=actor, reason=reason, now=now
    )
    return f"case {case.id} aborted; what it had put on {case.node} is taken off"


STAGES: Mapping[Stage, StageFunction] = {
    Stage.BEGIN: begin,
    Stage.DRAIN: drain_stage,
    Stage.RESTART_DEVICE_PLUGIN: repair_stage,
    Stage.RESET_GPU: repair_stage,
    Stage.REBOOT_NODE: repair_stage,
    Stage.CHECK_GPUS: validation.check_gpus,
    Stage.CHECK_SIGNALS: validation.check_signals,
    Stage.RUN_DIAG: diag_stage,
    Stage.RETURN_NODE: return_node,
    Stage.ESCALATE: escalate,
}
