"""How a case goes from stage to stage: exactly the task that is pointed to runs, however far it is.

Airflow's own branching skips only the direct children that are off the chosen way. A task further
down that has another upstream which succeeded would run all the same. So a stage skips all that
is downstream of it and is neither its target nor downstream of that; and a stage runs only when
one before it has pointed to it, which holds when somebody marks, clears or forces tasks, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

WENT = "went"  # XCom: where a stage went; a hint for the next task, never a permission


def off_the_way(dag: DAG, task_id: str, to: str) -> list[str]:
    """Tasks below `task_id` that are on no way from `to`. Raises AirflowFailException."""
    below = dag.get_task(task_id).get_flat_relative_ids(upstream=False)
    if to not in below:
        raise AirflowFailException(f"{task_id} cannot go to {to}: the DAG has no such way")
    kept = dag.get_task(to).get_flat_relative_ids(upstream=False) | {to}
    return sorted(below - kept)


def leave_word(context: Mapping[str, Any], to: str, note: str) -> None:
    """Tell the next task, and the person who reads the run, where this one went."""
    context["ti"].xcom_push(key=WENT, value={"to": to, "note": note})


def word_of(context: Mapping[str, Any], task_id: str) -> str:
    """Where that task of this run went; empty when it said nothing."""
    value = context["ti"].xcom_pull(task_ids=task_id, key=WENT, map_indexes=-1)
    return str(value.get("to", "")) if isinstance(value, dict) else ""


def skip_unless_sent(
    context: Mapping[str, Any], task: BaseOperator, *, ask_before: str = ""
) -> None:
    """Skip the running task unless one directly before it pointed to it.

    A task that settles a question is sent by whoever sent the question: `ask_before` is the
    question's id.
    """
    dag: DAG = context["dag"]
    target = ask_before or task.task_id
    before = dag.get_task(target).upstream_task_ids
    if before and not any(word_of(context, name) == target for name in sorted(before)):
        raise AirflowSkipException(f"no stage of this run went to {target}")
