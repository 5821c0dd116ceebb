"""Questions to people in the life of a case: asked once, settled by policy, heeded before the act
they allow.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

from breakfix.errors import Refused
from breakfix.flow import questions
from breakfix.flow.answering import record_answers, tell_progress, void
from breakfix.flow.confirmations import note_confirmation
from breakfix.flow.proof import proof_at_this_fence, proved_at
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, stage_of
from breakfix.flow.tiers import kept_tier, recounted, tier_of
from breakfix.model import (
    Answer,
    Approval,
    Case,
    Decision,
    NodeState,
    Purpose,
    RefusalReason,
    Tier,
)


def ask_before_repair(services: Services, case: Case) -> Go:
    """On when nobody need be asked or somebody said yes; else to the question."""
    case = recounted(services, case)
    tier = tier_of(services, case, Purpose.REPAIR)
    if tier is Tier.AUTOMATIC:
        return Go(_after_yes(case), "policy asks nobody before this repair")
    until = services.clock.now() + timedelta(seconds=services.policy.timing.approval_repair_s)
    approval = _question(services, case, Purpose.REPAIR, until, tier)
    if approval.decision is Decision.ALLOWED:
        return Go(_after_yes(case), f"approved by {approval.approver}")
    if approval.decision is Decision.PENDING:
        return _ask(services, case, approval)
    return Go(Stage.ESCALATE, f"approval {approval.decision}")


def _after_yes(case: Case) -> Stage:
    """To the drain; a node that was repaired before is drained."""
    return Stage.DRAIN if case.state is NodeState.QUARANTINED else stage_of(case.action)


def ask_before_return(services: Services, case: Case) -> Go:
    """The validation passed: ask before the return, where policy wants that.

    Nobody who said no is asked again, and no question outlives the validation that it rests on.
    """
    if refused_return(services, case):
        return Go(Stage.ESCALATE, "a person refused the return since the last repair")
    tier = tier_of(services, case, Purpose.RETURN)
    if tier is Tier.AUTOMATIC:
        return Go(Stage.RETURN_NODE, "validated; policy asks nobody before the return")
    until = _return_answerable_until(services, case)
    if until <= services.clock.now():
        return Go(Stage.SETTLE_RUN, "the validation is too old to ask about: it is done again")
    note_confirmation(services, case)
    approval = _question(services, case, Purpose.RETURN, until, tier)
    if approval.decision is Decision.PENDING:
        return _ask(services, case, approval)
    return _after_answer(services, case, approval)


def _return_answerable_until(services: Services, case: Case) -> datetime:
    """A yes that came later would be thrown away with the old evidence, so it is not invited."""
    timing, now = services.policy.timing, services.clock.now()
    proved = proved_at(proof_at_this_fence(services, case)) or now
    return min(
        now + timedelta(seconds=timing.approval_return_s),
        proved + timedelta(seconds=timing.evidence_max_age_s),
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
    services: Services,
    case_id: str,
    fence: int,
    purpose: Purpose,
    answers: Sequence[Answer],
    *,
    is_second: bool = False,
) -> Go:
    """Turn what people answered into the approval of record, and go where it leads.

    The first yes of two leads to the question once more, for another person; `is_second` is that
    question's own settling, after which the next run goes on asking.
    """
    services = services.refreshed()
    case = services.book.case(case_id)
    if case.fence != fence or not case.is_open:
        why = "the case has ended or changed hands"
        void(services, case, answers, why)
        return Go(Stage.SETTLE_RUN, why)
    answered = record_answers(services, case, purpose, answers, is_final=True)
    approval = answered.approval
    if approval.decision is not Decision.PENDING:
        return _after_answer(services, case, approval)
    tell_progress(services, case, answered)
    if is_second:
        return Go(Stage.SETTLE_RUN, "one yes is still wanted: the next run asks again")
    return _ask(services, case, approval, is_second=True)


def require_approved_repair(services: Services, case: Case, *, is_begun: bool) -> None:
    """Raise Refused (NOT_APPROVED) unless this very plan was approved, whatever task leads here.

    `is_begun`: the drain that was approved has begun, in time; a long drain does not undo the yes.
    What began without one, under a policy that wanted none, wants one from a stricter policy as
    long as the repair itself is not under way.
    """
    is_under_way = is_begun and case.state is NodeState.REPAIRING
    tier = kept_tier(case) if is_under_way else tier_of(services, case, Purpose.REPAIR)
    if tier is Tier.AUTOMATIC:
        return
    now = services.clock.now()
    for approval in _standing_yeses(services, case, Purpose.REPAIR):
        if is_begun or (now <= approval.expires_at and _suffices(approval, tier)):
            return
    raise Refused(RefusalReason.NOT_APPROVED, "the repair was not approved, or too long ago")


def require_approved_return(services: Services, case: Case) -> None:
    """Raise Refused (NOT_APPROVED) unless the return was approved at this fence, and in time."""
    tier = tier_of(services, case, Purpose.RETURN)
    if tier is Tier.AUTOMATIC:
        return
    now = services.clock.now()
    for approval in _standing_yeses(services, case, Purpose.RETURN):
        if now <= approval.expires_at and _suffices(approval, tier):
            return
    raise Refused(RefusalReason.NOT_APPROVED, "the return was not approved, or too long ago")


def _standing_yeses(services: Services, case: Case, purpose: Purpose) -> Iterator[Approval]:
    """The newest first, back to the last no: about the plan of a repair, or the return at this
    fence. A yes that is older than a no, to whichever question, stands no more.
    """
    for approval in reversed(services.book.approvals(case.id)):
        is_same_plan = approval.plan_hash == case.plan_hash
        is_here = approval.fence == case.fence if purpose is Purpose.RETURN else is_same_plan
        if approval.purpose is not purpose or not is_here:
            continue
        if approval.decision is Decision.REFUSED:
            return
        if approval.decision is Decision.ALLOWED:
            yield approval


def _suffices(approval: Approval, tier: Tier) -> bool:
    """Whether as many people said yes as are wanted now."""
    return approval.needed >= tier.people


def _question(
    services: Services, case: Case, purpose: Purpose, until: datetime, tier: Tier
) -> Approval:
    """The newest answer of record for this plan, at whatever fence it was given, or a new question.

    An approved repair stays approved when the case changes hands, until the approval expires: it is
    bound to the plan, not to the run. A question about a return is asked afresh each time the node
    was validated afresh.
    """
    if purpose is Purpose.REPAIR:
        for approval in reversed(services.book.approvals(case.id)):
            is_same = approval.purpose is purpose and approval.plan_hash == case.plan_hash
            if is_same and _stands(approval, services, tier):
                return approval
    return services.book.ask(
        case.id,
        case.fence,
        purpose,
        plan_hash=case.plan_hash,
        expires_at=until,
        now=services.clock.now(),
        needed=tier.people,
    )


def _stands(approval: Approval, services: Services, tier: Tier) -> bool:
    """A no stands for ever, a yes until it expires or more people are wanted."""
    if approval.decision is Decision.ALLOWED:
        return services.clock.now() <= approval.expires_at and _suffices(approval, tier)
    return approval.decision is Decision.REFUSED


_QUESTIONS = {
    (Purpose.REPAIR, False): Stage.APPROVE_REPAIR,
    (Purpose.REPAIR, True): Stage.APPROVE_REPAIR_SECOND,
    (Purpose.RETURN, False): Stage.APPROVE_RETURN,
    (Purpose.RETURN, True): Stage.APPROVE_RETURN_SECOND,
}


def _ask(services: Services, case: Case, approval: Approval, *, is_second: bool = False) -> Go:
    wanted = "another approver" if is_second else "an approver"
    return Go(
        _QUESTIONS[approval.purpose, is_second],
        f"{approval.purpose}: waiting for {wanted}",
        questions.wording(services.book, case, approval),
    )


def _after_answer(services: Services, case: Case, approval: Approval) -> Go:
    said = f"{approval.decision} by {approval.approver or 'nobody'}: {approval.note}"
    if approval.purpose is Purpose.REPAIR:
        to = _after_yes(case) if approval.decision is Decision.ALLOWED else Stage.ESCALATE
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
