"""Wakes questions that were settled elsewhere: answered in the ledger, or of a case that went on.

A parked task would otherwise wait for its own timeout, and people would see a question that nobody
asks any more. The service user's Reject only ends the wait: it is no approver, and the ledger's
decision, which came first, stands.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from breakfix.errors import BreakfixError
from breakfix.model import Case, Decision, Purpose
from breakfix.ports import Ledger
from breakfix_airflow.api import AirflowApi, path_of
from breakfix_airflow.approvals import REJECT
from breakfix_airflow.runs import NODE_CASE

log = logging.getLogger(__name__)

_PURPOSES = {
    **{f"approve_{purpose}": purpose for purpose in Purpose},
    **{f"approve_{purpose}_second": purpose for purpose in Purpose},
}
#: Airflow 3.3.2 fails a parked task that is resumed before the scheduler has seen it park; the next
#: sweep wakes what is younger.
_SETTLED_S = 6.0


class AirflowWaker:
    """`ports.Waker` over Airflow's public API: for answers that came by another way."""

    def __init__(self, api: AirflowApi) -> None:
        self._api = api

    def wake(self, case: Case, purpose: Purpose) -> None:
        """End the wait of the case's run, if it is parked at that question. Raises AirflowError,
        SettingsError.
        """
        for task_id, about in _PURPOSES.items():
            if about is purpose and self._is_parked(case.run_id, task_id):
                _wake(self._api, case.run_id, task_id)

    def _is_parked(self, run_id: str, task_id: str) -> bool:
        path = path_of("dags", NODE_CASE, "dagRuns", run_id, "taskInstances", task_id)
        detail = self._api.get(f"{path}/-1/hitlDetails")
        if detail is None or detail["response_received"]:
            return False
        if detail["task_instance"]["state"] != "awaiting_input":
            return False
        asked_at = datetime.fromisoformat(detail["created_at"])
        return (datetime.now(UTC) - asked_at).total_seconds() >= _SETTLED_S


def wake_settled(api: AirflowApi, ledger: Ledger) -> list[str]:
    """Wake each parked question that the ledger has no open question for; their run ids.

    Trouble with one is logged: it is looked at again the next time. Raises AirflowError,
    SettingsError when the parked questions cannot be listed.
    """
    parked = api.get_all(
        path_of("dags", NODE_CASE, "dagRuns", "~", "hitlDetails"),
        "hitl_details",
        {"response_received": False, "state": "awaiting_input"},
    )
    woken: list[str] = []
    for detail in parked:
        task = detail["task_instance"]
        run_id, task_id = str(task["dag_run_id"]), str(task["task_id"])
        try:
            if not is_open(ledger, run_id, _PURPOSES[task_id]):
                _wake(api, run_id, task_id)
                woken.append(run_id)
        except BreakfixError as e:
            log.warning("run %s is not woken: %s", run_id, e)
    return woken


def is_open(ledger: Ledger, run_id: str, purpose: Purpose) -> bool:
    """Whether the ledger still waits for an answer to that run's question."""
    case_id, _, fence = run_id.rpartition(".")
    case: Case = ledger.case(case_id)
    if not case.is_open or str(case.fence) != fence:
        return False
    return any(
        a.purpose is purpose and a.fence == case.fence and a.decision is Decision.PENDING
        for a in ledger.approvals(case_id)
    )


def _wake(api: AirflowApi, run_id: str, task_id: str) -> None:
    path = path_of("dags", NODE_CASE, "dagRuns", run_id, "taskInstances", task_id)
    # 404 and 409: somebody cleared or answered it meanwhile, which wakes it as well
    api.send("PATCH", f"{path}/-1/hitlDetails", {"chosen_options": [REJECT], "params_input": {}})
