"""The reconciler: nothing is lost, nothing stays half done."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.sdk import DAG, task

from breakfix_airflow.intervals import interval

MANUAL = """
### Finds drift between the ledger, the cluster and the runs, and mends it

- an open case without a live run gets its run; when that one had ended before the case did, the
  next one, at the next fence, so that whatever still runs with the old one is refused;
- a case whose node is gone, or has come back as another machine, ends;
- a case whose node a person has taken over (uncordoned, our taint removed) ends, and nothing is
  fought over;
- our marks on a node without a case are taken off; a node that they keep out of service and that
  no case accounts for becomes an escalated case, so that somebody owns it;
- a pod of ours whose case has ended is deleted before it acts; a node's label follows the ledger,
  and so do the slots of the limits;
- a case that too many runs did not finish escalates;
- a question that has been answered in the ledger, or whose case has ended, is withdrawn. Airflow
  shows the service user's Reject on it, which is no answer of anybody.

It never drains, repairs or returns a node itself.

**When**: every BREAKFIX_RECONCILE_INTERVAL seconds (600 unless set); by hand after an outage, to
resume at once.

**What it would do** now: `breakfix reconcile --dry-run`, a line for each disagreement.

**What it did** is the result of task `reconcile` (XCom): drift by kind, runs started, cases ended
and escalated, nodes cleaned, and notes on what it left alone, with the reason. All of it is in the
audit log, too.

**When it is red**: the ledger, Kubernetes or Airflow's API could not be read, or a setting is
wrong: the log says which. Nothing is mended on half a look. Clear it, or wait for the next one.
While `node_case` is paused, runs are not started and the notes say so.
"""

INTERVAL = interval("BREAKFIX_RECONCILE_INTERVAL", default_s=600)

with DAG(
    "reconcile_cases",
    description="Resumes, closes or escalates cases that nothing works on",
    doc_md=MANUAL,
    schedule=INTERVAL,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=max(timedelta(minutes=10), 3 * INTERVAL),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=20)},
    tags=["breakfix"],
) as dag:

    @task(execution_timeout=timedelta(minutes=5))
    def reconcile() -> dict[str, Any]:
        """Look once at all open cases and all marked nodes; returns what was mended."""
        from breakfix_airflow.services import final_errors
        from breakfix_airflow.sweeps import reconcile_cases

        with final_errors():
            return reconcile_cases()

    reconcile()
