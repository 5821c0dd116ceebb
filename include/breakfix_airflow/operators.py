"""The operators of `node_case`: a stage, a question, and the settling of a question.

They carry no rule about nodes: a stage function of `breakfix.flow` decides, and is asked again
whenever it wanted to wait. So a task may be retried, cleared or run twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, Context
from airflow.sdk.bases.skipmixin import SkipMixin
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from breakfix.errors import Refused
from breakfix.flow.stages import Go, Stage, Wait
from breakfix.model import Answer, Approval, Decision, Purpose
from breakfix_airflow.api import AirflowApi
from breakfix_airflow.approvals import APPROVE, REJECT, QuestionReader, Reading
from breakfix_airflow.branching import leave_word, off_the_way, skip_unless_sent
from breakfix_airflow.services import final_errors, services

if TYPE_CHECKING:
    from breakfix.flow.services import Services

#: How long beyond its deadline a wait may last before Airflow gives the triggerer up and retries.
GRACE = timedelta(minutes=15)

#: The task of each question; the second one asks another person, where a tier wants two.
QUESTIONS = {
    (Purpose.REPAIR, False): Stage.APPROVE_REPAIR,
    (Purpose.REPAIR, True): Stage.APPROVE_REPAIR_SECOND,
    (Purpose.RETURN, False): Stage.APPROVE_RETURN,
    (Purpose.RETURN, True): Stage.APPROVE_RETURN_SECOND,
}


def case_of(context: Context) -> tuple[str, int]:
    """Case and fence of the run. Only the run named `<case>.<fence>` may act for them."""
    params = context["params"]
    case_id, fence = str(params["case_id"] or ""), int(params["fence"] or 0)
    run_id = str(context["run_id"])
    if run_id != f"{case_id}.{fence}":
        raise AirflowFailException(
            f"run {run_id} may not act for case {case_id!r} at fence {fence}: its run is named "
            f"{case_id}.{fence}. To resume a case let reconcile_cases do it"
        )
    return case_id, fence


class StageOperator(BaseOperator, SkipMixin):
    """Runs a stage of a case, waits without a worker while it wants to, goes where it says."""

    inherits_from_skipmixin = True
    ui_color = "#dbeafe"

    def __init__(self, *, stage: Stage, **kwargs: Any) -> None:
        super().__init__(task_id=str(stage), **kwargs)
        self.stage = stage

    def execute(self, context: Context) -> None:
        self.check_sent(context)
        case_id, fence = case_of(context)
        with final_errors():
            result = self.run_stage(context, services(), case_id, fence)
        if isinstance(result, Wait):
            self.wait_for(result)
        else:
            self.go(context, result)

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Run the same stage again: it looks at the world, not at the event."""
        self.log.info("%s again: %s", self.stage, (event or {}).get("reason", "no word"))
        self.execute(context)

    def check_sent(self, context: Context) -> None:
        """Skip this task unless the case was sent here."""
        skip_unless_sent(context, self)

    def run_stage(self, context: Context, built: Services, case_id: str, fence: int) -> Go | Wait:
        """The flow's word on where the case goes, or what it waits for."""
        del context
        from breakfix.flow.case import run_stage

        return run_stage(built, self.stage, case_id, fence)

    def wait_for(self, wait: Wait) -> None:
        """Give the worker back until the wait is over."""
        from breakfix_airflow.triggers import CaseTrigger

        left = max(wait.deadline - datetime.now(UTC), timedelta(0))
        self.log.info("waiting for %s until %s", wait.kind, wait.deadline.isoformat())
        self.defer(trigger=CaseTrigger(wait.to_json()), method_name="resume", timeout=left + GRACE)

    def go(self, context: Context, result: Go) -> None:
        """Leave word and skip every task that is off the way."""
        to = str(result.to)
        self.log.info("%s -> %s %s", self.stage, to, result.note)
        skipped = off_the_way(context["dag"], self.task_id, to)
        leave_word(context, to, result.note)
        self.skip(context["ti"], [context["dag"].get_task(name) for name in skipped])


class QuestionOperator(HITLOperator):
    """Asks people, by a required action, in the words and until the deadline that the ledger has.

    Never retried: a retry would wipe the answer. It lets everybody answer; who counts is settled
    by policy.
    """

    def __init__(self, *, purpose: Purpose, is_second: bool = False, **kwargs: Any) -> None:
        super().__init__(
            task_id=str(QUESTIONS[purpose, is_second]),
            subject=f"Approve the {purpose}?",
            options=[APPROVE, REJECT],
            defaults=[REJECT],
            retries=0,
            execution_timeout=None,  # it would become the time people have to answer
            **kwargs,
        )
        self.purpose = purpose

    def execute(self, context: Context) -> Any:
        skip_unless_sent(context, self)
        case_id, fence = case_of(context)
        with final_errors():
            built = services()
            question = open_question(built, case_id, fence, self.purpose)
            if question is None:
                raise AirflowSkipException("the ledger has no open question of this case")
            self._word(built, question)
        left = question.expires_at - built.clock.now()
        if left <= timedelta(0):
            raise AirflowSkipException("the question has expired")
        self.response_timeout = left
        return super().execute(context)

    def _word(self, built: Services, question: Approval) -> None:
        """The text comes from the ledger: what a task left in XCom anybody could have rewritten."""
        from breakfix.flow import questions

        words = questions.wording(built.book, built.book.case(question.case_id), question)
        self.subject, self.body = words["subject"], words["body"]


def open_question(built: Services, case_id: str, fence: int, purpose: Purpose) -> Approval | None:
    """The undecided question of that case, fence and purpose, or None."""
    found: Sequence[Approval] = built.book.approvals(case_id)
    pending = (
        a
        for a in found
        if a.fence == fence and a.purpose is purpose and a.decision is Decision.PENDING
    )
    return next(pending, None)


def as_people(answers: Sequence[Answer], service_user: str) -> list[Answer]:
    """The answers, the service user's under a name that no policy lists: its Reject only ends the
    wait for what the ledger has by then, and must take nobody's yes back.
    """
    return [
        replace(a, approver=f"service user {service_user}") if a.approver == service_user else a
        for a in answers
    ]


class SettleQuestionOperator(StageOperator):
    """Lets the flow settle the answers, read at their source, whatever became of the question."""

    def __init__(
        self, *, stage: Stage, purpose: Purpose, is_second: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(stage=stage, trigger_rule="all_done", **kwargs)
        self.purpose, self.is_second = purpose, is_second

    @property
    def question(self) -> str:
        """The task whose answer this one settles."""
        return str(QUESTIONS[self.purpose, self.is_second])

    def check_sent(self, context: Context) -> None:
        skip_unless_sent(context, self, ask_before=self.question)

    def run_stage(self, context: Context, built: Services, case_id: str, fence: int) -> Go | Wait:
        from breakfix.flow.case import settle_question

        reading = self.read(context, built)
        if reading.note:
            self.log.info("no answer: %s", reading.note)
        question = open_question(built, case_id, fence, self.purpose)
        if reading.is_lost and question is not None and built.clock.now() < question.expires_at:
            raise AirflowFailException(
                f"{reading.note}: the question was lost before anybody answered. reconcile_cases "
                "resumes the case, which asks again"
            )
        answers = as_people(reading.answers, built.settings.airflow_user)
        try:
            return settle_question(
                built, case_id, fence, self.purpose, answers, is_second=self.is_second
            )
        except Refused as e:
            return Go(Stage.SETTLE_RUN, note=f"{e.reason}: {e}")

    def read(self, context: Context, built: Services) -> Reading:
        """The answers to this run's question. Raises AirflowError, SettingsError."""
        reader = QuestionReader(AirflowApi.from_settings(built.settings, built.circuits))
        dag_id = str(context["dag"].dag_id)
        return reader.read(dag_id, str(context["run_id"]), self.question)
