"""The answers of people to a question, read at their source through Airflow's public API.

XCom is never read: any user of the DAG may write it. What counts is

- the answer to the required action, which Airflow stores with the identity that it authenticated;
  or
- that a person marked the question's task success, when the audit log shows exactly one identity
  that touched the task since it was asked, and that the marking was theirs. Refused attempts
  stand in the log under the same names as those that worked, so two identities in it prove
  nothing about either.

Whether somebody who answered may approve is not judged here but by the policy, in
`breakfix.approve`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from breakfix.errors import AirflowError
from breakfix.model import Answer
from breakfix_airflow.api import AirflowApi, path_of

APPROVE = "Approve"
REJECT = "Reject"

REQUIRED_ACTION = "airflow_required_action"
MARKED_SUCCESS = "airflow_mark_success"
MARKED_FAILED = "airflow_mark_failed"

#: What Airflow itself writes about a task; everything else in the log is somebody's doing.
SYSTEM_EVENTS = frozenset(
    {
        *("removed", "scheduled", "queued", "running", "success", "restarting", "failed"),
        *("up_for_retry", "up_for_reschedule", "upstream_failed", "skipped", "deferred"),
        *("awaiting_input", "state mismatch", "fail task", "skip task", "heartbeat timeout"),
        *("stuck in queued reschedule", "stuck in queued tries exceeded"),
    }
)
UNFINISHED = frozenset(
    {"running", "queued", "scheduled", "awaiting_input", "deferred", "restarting"}
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What was found. `note` says why there is no answer.

    `is_lost`: the question ended without an answer and by nobody's hand (a killed worker, a
    scheduler's race), so that its silence says nothing.
    """

    answers: tuple[Answer, ...] = ()
    note: str = ""
    is_lost: bool = False


@dataclass(frozen=True, slots=True)
class Touch:
    """Somebody's entry about the question in Airflow's audit log."""

    at: datetime
    event: str
    who: str
    new_state: str
    is_rejection: bool


class QuestionReader:
    """Reads what became of one question."""

    def __init__(self, api: AirflowApi) -> None:
        self._api = api

    def read(self, dag_id: str, run_id: str, task_id: str) -> Reading:
        """The answers to the question's current try. Raises AirflowError, SettingsError."""
        instance = path_of("dags", dag_id, "dagRuns", run_id, "taskInstances", task_id)
        detail = self._api.get(f"{instance}/-1/hitlDetails")
        task = detail["task_instance"] if detail else self._api.get(instance)
        state = str((task or {}).get("state"))
        if state in UNFINISHED:
            raise AirflowError(f"{task_id} is still {state}: nothing to settle", is_transient=True)
        if detail is not None and detail["response_received"]:
            return _responded(detail)
        if detail is None:
            return Reading(note=f"{task_id} was never asked ({state})", is_lost=state == "failed")
        asked_at = _time(detail["created_at"])
        touches = self._touches(dag_id, run_id, task_id, asked_at)
        return _marked(state, touches)

    def _touches(self, dag_id: str, run_id: str, task_id: str, since: datetime) -> list[Touch]:
        params = {
            "dag_id": dag_id,
            "run_id": run_id,
            "task_id": task_id,
            "after": since.isoformat(),
            "order_by": "event_log_id",
        }
        found = self._api.get_all("/eventLogs", "event_logs", params)
        return [_touch(e) for e in found if e["event"] not in SYSTEM_EVENTS]


def _responded(detail: dict[str, Any]) -> Reading:
    """An answer to the required action; one without a person is the timeout's default."""
    user = detail["responded_by_user"]
    if not user or not user.get("id"):
        return Reading(note="nobody answered in time")
    return Reading(
        (
            Answer(
                approver=str(user["id"]),
                is_yes=detail["chosen_options"] == [APPROVE],
                channel=REQUIRED_ACTION,
                at=_time(detail["responded_at"]),
            ),
        )
    )


def _marked(state: str, touches: Sequence[Touch]) -> Reading:
    """A question that ended without an answer to it: somebody set its state, or something broke."""
    who = sorted({t.who for t in touches})
    marks = [t for t in touches if t.event == "patch_task_instance" and t.new_state]
    if state not in {"success", "failed"}:
        return Reading(note=f"the question was {state}")
    if not marks:
        note = f"the question became {state}, and Airflow's log names nobody who did it"
        return Reading(note=note, is_lost=state == "failed" and not touches)
    if len(who) > 1:
        return Reading(note=f"marked {state}, but several touched the question: {', '.join(who)}")
    if state != marks[-1].new_state or any(t.is_rejection for t in touches):
        return Reading(note=f"{who[0]} left contradicting marks on the question")
    is_yes = state == "success"
    channel = MARKED_SUCCESS if is_yes else MARKED_FAILED
    return Reading((Answer(approver=who[0], is_yes=is_yes, channel=channel, at=marks[-1].at),))


def _touch(entry: dict[str, Any]) -> Touch:
    """An entry of the log; its `extra` is the request's body, written by whoever sent it."""
    try:
        extra = json.loads(entry.get("extra") or "{}")
    except ValueError:
        extra = {}
    if not isinstance(extra, dict):
        extra = {}
    chosen = extra.get("chosen_options")
    return Touch(
        at=_time(entry["when"]),
        event=str(entry["event"]),
        who=str(entry.get("owner") or "anonymous"),
        new_state=str(extra.get("new_state") or ""),
        is_rejection=chosen is not None and chosen != [APPROVE],
    )


def _time(text: str) -> datetime:
    at = datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise AirflowError(f"Airflow sent a time without a zone: {text}")
    return at
