"""The learning report: how right verdicts were, and which classes earned or lost their mode."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

MANUAL = """
### What was right, what was wrong, and what policy should change

Reads the ledger's last 30 days: cases and how they ended, review items, and what people said of
both (`breakfix review answer`, `breakfix case label`). It makes one report:

- per failure class and per signal: how many, precision with its exact interval, overrides, false
  quarantines, what people did where policy only recommends, and the time to return;
- how well the stated confidence fits what came true;
- nodes whose trouble comes back;
- proposals: which class may graduate, which must be demoted, which weight is not what came true.

**It changes nothing.** A proposal is text: `breakfix report` prints it as an overlay for a person
to look at and paste.

**When**: once a day, without catching up; by hand at any time. The day's first report is kept in
the ledger and the audit log, and people are told of it once; any later one that day is made and
not kept.

**When it is red**: the ledger could not be read, or a setting or the policy is wrong: the log says
which. Nothing waits for this report. Clear it, or wait for tomorrow's.
"""

with DAG(
    "learning_report",
    description="Says how right the verdicts were and proposes what policy should change",
    doc_md=MANUAL,
    schedule=timedelta(days=1),
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    default_args={"retries": 2, "retry_delay": timedelta(minutes=5)},
    tags=["breakfix"],
) as dag:

    @task(execution_timeout=timedelta(minutes=10))
    def report() -> dict[str, Any]:
        """Make the day's report, keep it, tell people once; returns its counts and proposals."""
        from breakfix_airflow.learning import learning_report
        from breakfix_airflow.services import final_errors

        with final_errors():
            return learning_report()

    report()
