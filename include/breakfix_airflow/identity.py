"""Who is behind a run, as Airflow authenticated them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def person(context: Mapping[str, Any]) -> str:
    """The user who triggered this run; empty where nobody did, or where it was cleared since.

    A run that was cleared does its work again under the name of its first trigger. Whoever cleared
    it may be somebody else, and no task is told who.
    """
    run = context["dag_run"]
    return "" if run.clear_number else str(run.triggering_user_name or "")


def requester(context: Mapping[str, Any]) -> str:
    """The user who triggered the run; the DAG's own id where a schedule did, or it was cleared.

    The name is not decorated: whoever asked for a disruption is compared with whoever approves it.
    """
    return person(context) or str(context["dag_run"].dag_id)
