"""Stages that do what a script says, each call recorded. The real rules settle questions."""

from datetime import timedelta

from breakfix.approve import settle
from breakfix.errors import ClusterError
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Decision, Purpose

AFTER = {
    (Purpose.REPAIR, Decision.ALLOWED): Stage.DRAIN,
    (Purpose.RETURN, Decision.ALLOWED): Stage.RETURN_NODE,
    (Purpose.RETURN, Decision.EXPIRED): Stage.SETTLE_RUN,
}


def run_stage(services, stage, case_id, fence):
    from breakfix.wiring import QUESTIONS, calls_of, record_call, script_of, write_approval

    script = script_of(case_id)
    lines = script["stages"].get(stage, ["settle_run"])
    done = calls_of(case_id).count(stage)
    record_call(case_id, stage)
    word = lines[min(done, len(lines) - 1)]
    now = services.clock.now()
    if word == "break":
        raise ClusterError("the API server is away", is_transient=True)
    if word.startswith("wait"):
        return Wait(
            WaitKind.TIME,
            case_id,
            f"node-{case_id}",
            now + timedelta(seconds=120),
            not_before=now + timedelta(seconds=float(word.removeprefix("wait"))),
        )
    if word in QUESTIONS:
        expires_at = now + timedelta(seconds=script.get("expires_in_s", 300))
        write_approval(
            case_id,
            QUESTIONS[word],
            fence=fence,
            asked_at=now.isoformat(),
            expires_at=expires_at.isoformat(),
            decision="pending",
            needed=script.get("needed", 1),
        )
    return Go(Stage(word), "as scripted")


def settle_question(services, case_id, fence, purpose, answers, *, is_second=False):
    from breakfix.wiring import given_answers, keep_answer, record_call, write_approval

    record_call(case_id, f"settle_{purpose}" + ("_second" if is_second else ""))
    asked = next(a for a in services.book.approvals(case_id) if a.purpose is purpose)
    before = [answer for about, _, answer in given_answers(case_id) if about is purpose]
    outcome = settle(
        asked,
        [*before, *answers],
        services.policy,
        requester=services.book.case(case_id).requester,
        now=services.clock.now(),
        is_final=True,
    )
    for answer, objection in zip(answers, outcome.objections[len(before) :], strict=True):
        if not objection:
            keep_answer(case_id, purpose, asked.asked_at, answer)
    if outcome.decision is Decision.PENDING:
        to = Stage.SETTLE_RUN if is_second else Stage(f"approve_{purpose}_second")
        return Go(to, outcome.note)
    write_approval(
        case_id,
        purpose,
        decision=outcome.decision,
        approver=outcome.approver,
        channel=outcome.channel,
        note=outcome.note,
    )
    return Go(AFTER.get((purpose, outcome.decision), Stage.ESCALATE), str(outcome.decision))
