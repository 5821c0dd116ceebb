"""The last task of a run: is the run green or red."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import BaseOperator, Context
from airflow.sdk.exceptions import AirflowFailException

from breakfix.flow.stages import Stage
from breakfix_airflow.branching import word_of

_QUESTIONS = frozenset(
    {
        *(str(Stage.APPROVE_REPAIR), str(Stage.APPROVE_REPAIR_SECOND)),
        *(str(Stage.APPROVE_RETURN), str(Stage.APPROVE_RETURN_SECOND)),
    }
)
_BAD = frozenset({"failed", "upstream_failed"})


class SettleRunOperator(BaseOperator):
    """Fails the run when a stage failed or the road broke off; touches neither node nor ledger.

    A question's own state colours nothing: the task that settles it does.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(task_id=str(Stage.SETTLE_RUN), trigger_rule="all_done", **kwargs)

    def execute(self, context: Context) -> None:
        dag_id, run_id = str(context["dag"].dag_id), str(context["run_id"])
        found = context["ti"].get_task_states(dag_id=dag_id, run_ids=[run_id])
        states = {k: str(v) for k, v in found.get(run_id, {}).items()}
        went = {name: word_of(context, name) for name, s in states.items() if s == "success"}
        complaint = complain(states, went, self.task_id)
        if complaint:
            raise AirflowFailException(
                f"{complaint}. The case stays as the ledger has it; reconcile_cases resumes it"
            )


def complain(states: Mapping[str, str], went: Mapping[str, str], own_id: str) -> str:
    """What is wrong with a run, or an empty string.

    `states` by task id; `went` where each succeeded task sent the case, empty for one that left
    no word. Purely computational.
    """
    failed = sorted(name for name, s in states.items() if s == "failed" and name not in _QUESTIONS)
    if failed:
        return f"failed: {', '.join(failed)}"
    blocked = sorted(n for n, s in states.items() if s in _BAD and n not in _QUESTIONS)
    if blocked:
        return f"never ran: {', '.join(blocked)}"
    for name, to in sorted(went.items()):
        if name in _QUESTIONS or name == own_id:
            continue
        if not to:
            return f"{name} was marked success by hand, so nothing followed it"
        if to != own_id and to not in _QUESTIONS and states.get(to) == "skipped":
            return f"{name} sent the case to {to}, which was skipped"
    return ""
