"""Who is behind a run, as Airflow authenticated them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def requester(context: Mapping[str, Any]) -> str:
    """The user who triggered the run; the DAG's own id where a schedule did.

    The name is not decorated: whoever asked for a disruption is compared with whoever approves it.
    """
    run = context["dag_run"]
    return run.triggering_user_name or str(run.dag_id)
