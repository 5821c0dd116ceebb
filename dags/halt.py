"""The kill switch for whoever has Airflow's page open and no shell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, Param, get_current_context, task

from breakfix.model import HaltLevel

MANUAL = """
### Stop automation, or let it go on

Trigger it with a level and a reason. It writes the ledger's kill switch, which is read before
every single side effect, and audits it with your name as Airflow authenticated you.

- `disruption`: nothing more is taken out, drained or repaired; recoveries go on;
- `all`: nothing at all is done;
- `none`: automation goes on.

Only a run that a named user triggered may say less than what is set, within ten minutes, and not
once it was cleared: such a run does its work again under its first name, whoever cleared it.

The task's result is the level that was, the one that is set, and the one that is in force: the
stricter of the ledger and the cluster's ConfigMap `breakfix-halt`, which this DAG never changes.

**Faster, and without a worker**: pause `node_case`. That counts as halt: nothing is admitted and
no run of a case is started. What a case's task is doing just then goes on to its end; the kill
switch is asked before each of its effects.

**With Airflow down**: `breakfix halt`, or the ConfigMap with kubectl.

**When it is red**: the switch was not set. The ledger or a setting is wrong: the log says which.
Without a ledger nothing is done to any node either.
"""

PARAMS = {
    "level": Param(
        HaltLevel.DISRUPTION.value,
        type="string",
        enum=[str(level) for level in HaltLevel],
        title="Level",
        description="disruption holds what takes nodes out, all holds everything, none goes on",
    ),
    "reason": Param(
        "",
        type="string",
        maxLength=500,
        title="Reason",
        description="For the audit log and for whoever finds the fleet halted",
    ),
}

with DAG(
    "halt",
    description="The kill switch: halts automation, or lets it go on",
    doc_md=MANUAL,
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,  # nothing runs it but a person, who then means it
    dagrun_timeout=timedelta(minutes=10),
    default_args={"retries": 5, "retry_delay": timedelta(seconds=5)},
    params=PARAMS,
    tags=["breakfix"],
) as dag:

    @task(execution_timeout=timedelta(minutes=2), priority_weight=1000)
    def set_level() -> dict[str, Any]:
        """Write the kill switch under the name of whoever triggered this run."""
        from breakfix_airflow.halting import set_level as write
        from breakfix_airflow.services import final_errors

        with final_errors():
            return write(get_current_context())

    set_level()
