"""Questions to people in the life of a case: asked once, settled by policy, heeded before the act
they allow.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from breakfix.approve import settle
from breakfix.errors import LedgerError, Refused
from breakfix.flow import questions
from breakfix.flow.proof import proof_at_this_fence
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage
from breakfix.model import Action, Answer, Approval, Case, Decision, Purpose, RefusalReason
from breakfix.plan.planning import asks_before_repair


def ask_before_repair(services: Services, case: Case) -> Go:
    """On to the drain when nobody need be asked or somebody said yes; else to the question."""
    if not _asks_before_repair(services, case):
        return Go(Stage.DRAIN, "policy asks nobody before this repair")
    until = services.clock.now() + timedelta(seconds=services.policy.timing.approval_repair_s)
    approval = _question(services, case, Purpose.REPAIR, until)
    if approval.decision is Decision.ALLOWED:
        return Go(Stage.DRAIN, f"approved by {approval.approver}")
    if approval.decision is Decision.PENDING:
        return _ask(services, case, approval)
    return Go(Stage.ESCALATE, f"approval {approval.decision}")


def ask_before_return(services: Services, case: Case) -> Go:
    """The validation passed: ask before the return, where policy wants that.

    Nobody who said no is asked again, and no question outlives the validation that it rests on.
    """
    if refused_return(services, case):
        return Go(Stage.ESCALATE, "a person refused the return since the last repair")
    if not _asks_before_return(services):
        return Go(Stage.RETURN_NODE, "validated; policy asks nobody before the return")
    until = _return_answerable_until(services, case)
    if until <= services.clock.now():
        return Go(Stage.SETTLE_RUN, "the validation is too old to ask about: it is done again")
    approval = _question(services, case, Purpose.RETURN, until)
    if approval.decision is Decision.PENDING:
        return _ask(services, case, approval)
    return _after_answer(services, case, approval)


def _return_answerable_until(services: Services, case: Case) -> datetime:
    """A yes that came later would be thrown away with the old evidence, so it is not invited."""
    timing, now = services.policy.timing, services.clock.now()
    proof = proof_at_this_fence(services, case)
    proved_at = proof.ended_at if proof is not None and proof.ended_at is not None else now
    return min(
        now + timedelta(seconds=timing.approval_return_s),
        proved_at + timedelta(seconds=timing.evidence_max_age_s),
    )


def refused_return(services: Services, case: Case) -> bool:
    """Whether a person refused the return of this case since its last repair, at any fence."""
    return last_refused_return(services, case) is not None


def last_refused_return(services: Services, case: Case) -> Approval | None:
    """The newest refusal of this case's return that was asked about after its last repair."""
    for approval in reversed(services.book.approvals(case.id)):
        is_no = approval.purpose is Purpose.RETURN and approval.decision is Decision.REFUSED
        if is_no and (case.repaired_at is None or approval.asked_at >= case.repaired_at):
            return approval
    return None


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


def require_approved_repair(services: Services, case: Case, *, is_begun: bool) -> None:
    """Raise Refused (NOT_APPROVED) unless this very plan was approved, whatever task leads here.

    `is_begun`: the drain that was approved has begun, in time; a long drain does not undo the yes.
    """
    was_asked = bool(case.detail.get("needs_approval", True))
    if not (was_asked if is_begun else _asks_before_repair(services, case)):
        return
    now = services.clock.now()
    for approval in services.book.approvals(case.id):
        is_this = approval.purpose is Purpose.REPAIR and approval.plan_hash == case.plan_hash
        is_yes = is_this and approval.decision is Decision.ALLOWED
        if is_yes and (is_begun or now <= approval.expires_at):
            return
    raise Refused(RefusalReason.NOT_APPROVED, "the repair was not approved, or too long ago")


def require_approved_return(services: Services, case: Case) -> None:
    """Raise Refused (NOT_APPROVED) unless the return was approved at this fence, and in time."""
    if not _asks_before_return(services):
        return
    now = services.clock.now()
    for approval in services.book.approvals(case.id):
        is_this = approval.purpose is Purpose.RETURN and approval.fence == case.fence
        if is_this and approval.decision is Decision.ALLOWED and now <= approval.expires_at:
            return
    raise Refused(RefusalReason.NOT_APPROVED, "the return was not approved, or too long ago")


def _asks_before_repair(services: Services, case: Case) -> bool:
    """The stricter of two policies: that of the admission, and that in force now."""
    if case.detail.get("needs_approval", True):
        return True
    if case.action is Action.DRAIN_ONLY:
        return False
    return asks_before_repair(case.failure_class, services.policy)


def _asks_before_return(services: Services) -> bool:
    return "return" in services.policy.approvals.ask_before


def _question(services: Services, case: Case, purpose: Purpose, until: datetime) -> Approval:
    """The newest answer of record for this plan, at whatever fence it was given, or a new question.

    An approved repair stays approved when the case changes hands, until the approval expires: it is
    bound to the plan, not to the run. A question about a return is asked afresh each time the node
    was validated afresh.
    """
    if purpose is Purpose.REPAIR:
        for approval in reversed(services.book.approvals(case.id)):
            is_same = approval.purpose is purpose and approval.plan_hash == case.plan_hash
            if is_same and _stands(approval, services):
                return approval
    return services.book.ask(
        case.id,
        case.fence,
        purpose,
        plan_hash=case.plan_hash,
        expires_at=until,
        now=services.clock.now(),
    )


def _stands(approval: Approval, services: Services) -> bool:
    """A no stands for ever, a yes until it expires."""
    if approval.decision is Decision.ALLOWED:
        return services.clock.now() <= approval.expires_at
    return approval.decision is Decision.REFUSED


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
