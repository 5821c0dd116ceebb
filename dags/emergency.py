"""Limits lifted for a while, by two people whom Airflow has authenticated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from breakfix.brakes import Lift
from breakfix_airflow.emergencies import ACTIONS

MANUAL = """
### Lift named limits for a named time

Two people, each as Airflow authenticated them:

1. one triggers it with `action: start`, what to lift, for how many minutes, who is to approve it,
   and why;
2. the person named triggers it with `action: approve` within the time that policy gives
   (`limits.emergency.answer_within`). From then on it is in force.

A run that was cleared is refused: it would speak again in its first name, whoever cleared it.

It ends by itself. `action: end` ends it before, or withdraws the question; anybody may.

**What may be lifted** is in policy (`limits.emergency.may_lift`): windows, alerts, fleet, pool,
rack, sku, fabric, headroom, cooldown, breaker. A lifted fleet keeps a last limit of its own. Never
lifted: the kill switch, ownership, exclusions, protected nodes, other owners' hands, disruption
budgets, modes of failure classes, approvals.

The result says what is in force; so do `breakfix limits`, `breakfix plan` and `breakfix emergency
show`. Question, approval and end are in the audit log, and so is each admission under it.

**When it is red**: nothing was lifted or ended. The log says why: nobody is named, the approver is
not one by policy or is the requester, it is asked for too long, or another one is in force; or the
ledger could not be reached.
"""

PARAMS = {
    "action": Param("start", type="string", enum=list(ACTIONS), title="Action"),
    "lift": Param(
        [],
        type="array",
        items={"type": "string", "enum": [str(lift) for lift in Lift]},
        examples=[str(lift) for lift in Lift],
        title="Lift",
        description="start: the limits to lift",
    ),
    "minutes": Param(
        60, type="integer", minimum=1, title="Minutes", description="start: for how long"
    ),
    "approver": Param(
        "", type="string", maxLength=200, title="Approver", description="start: another person"
    ),
    "reason": Param("", type="string", maxLength=500, title="Reason"),
}

with DAG(
    "emergency",
    description="Lifts named limits for a named time, by two people",
    doc_md=MANUAL,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,  # nothing runs it but a person, who then means it
    dagrun_timeout=timedelta(minutes=10),
    default_args={"retries": 3, "retry_delay": timedelta(seconds=5)},
    params=PARAMS,
    tags=["breakfix"],
) as dag:

    @task(execution_timeout=timedelta(minutes=2))
    def carry_out() -> dict[str, Any]:
        """Start, approve or end, under the name of whoever triggered this run."""
        from breakfix_airflow.emergencies import carry_out as act
        from breakfix_airflow.services import final_errors

        with final_errors():
            return act(get_current_context())

    carry_out()
