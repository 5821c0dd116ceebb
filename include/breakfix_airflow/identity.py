"""Who is behind a run, as Airflow authenticated them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow.sdk import DAG


def run_id(context: Mapping[str, Any]) -> str:
    """The id of the run this task belongs to."""
    return str(context["run_id"])


def dag_of(context: Mapping[str, Any]) -> DAG:
    """The DAG of the running task."""
    dag: DAG = context["dag"]
    return dag


def requester(context: Mapping[str, Any]) -> str:
    """The user who triggered the run; the DAG's own id where a schedule did.

    The name is not decorated: whoever asked for a disruption is compared with whoever approves it.
    """
    run = context["dag_run"]
    return run.triggering_user_name or str(run.dag_id)
