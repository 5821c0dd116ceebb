"""The sweep over the fleet: what is broken, what may be done, and who is taken out."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, get_current_context, task

from breakfix.model import FailureClass
from breakfix_airflow.intervals import interval

MANUAL = """
### One sweep over the fleet

Observes all GPU nodes, judges them, plans within the limits, and takes out the nodes that policy
lets automation take out: ledger first, then cordon, taint and label, then one `node_case` run for
each.

**The road**

`assess` >> one of

- `nothing`: no node needs anything;
- `recommend`: something is wrong, and policy or a guardrail keeps automation from acting; its log
  lists each node with the action and the reason it is not done. The same is in `breakfix plan`
  and `breakfix review list`;
- `start_cases`: nodes were quarantined; starts the run of each case.

A sweep that sees another mixture of drivers, kernels or images within a SKU and pool starts
`change_canary`, once for each mixture; it also compares nodes under watch with their peers.

**When**: every BREAKFIX_SWEEP_INTERVAL seconds (120 unless set), one at a time, without catching
up. By hand, or on an alert, at any time.

**Params**

- `dry_run`: judge and plan; admit and change nothing. Needs no ledger.
- `node` alone: what the sweep says of that node; changes nothing.
- `node` with `failure_class`: open a case for it now, through the same guardrails.

**While `node_case` is paused** nothing is admitted: pausing it counts as halt.

**When it is red**

- `assess`: Prometheus, Kubernetes or the ledger could not be read, or a setting is wrong: the
  log's last line says which. Nothing was decided on what could not be read. The next sweep tries
  again by itself.
- *owned by another ledger*: this Airflow points at a database that does not own the cluster. Do
  not force it.
- `start_cases`: some runs could not be started. Their nodes are quarantined and their cases open;
  `reconcile_cases` starts them.

**Clear and retry** are safe: a node with an open case is never admitted twice, and a run that
exists is not started again.
"""

INTERVAL = interval("BREAKFIX_SWEEP_INTERVAL", default_s=120)

PARAMS = {
    "dry_run": Param(
        False,
        type="boolean",
        title="Dry run",
        description="Judge and plan; change nothing",
    ),
    "node": Param(
        None,
        type=["null", "string"],
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        title="Node",
        description="Only this node; without a failure class it is only looked at",
    ),
    "failure_class": Param(
        None,
        type=["null", "string"],
        enum=[None, *(str(c) for c in FailureClass)],
        title="Failure class",
        description="With a node: open a case of this class for it",
    ),
}

with DAG(
    "fleet_sweep",
    description="Observes, judges and plans; quarantines what policy admits; starts the cases",
    doc_md=MANUAL,
    schedule=INTERVAL,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=max(timedelta(minutes=10), 3 * INTERVAL),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=10)},
    params=PARAMS,
    tags=["breakfix"],
) as dag:

    @task(execution_timeout=timedelta(minutes=5))
    def assess() -> dict[str, Any]:
        """Observe, judge, plan, record, admit and quarantine; returns a summary."""
        from breakfix_airflow.identity import requester
        from breakfix_airflow.services import final_errors
        from breakfix_airflow.sweeps import sweep_fleet

        context = get_current_context()
        params = context["params"]
        wish = params["failure_class"]
        with final_errors():
            return sweep_fleet(
                is_dry_run=bool(params["dry_run"]),
                node=params["node"] or "",
                failure_class=FailureClass(wish) if wish else None,
                requester=requester(context),
                started_at=context["dag_run"].start_date,
            )

    @task.branch
    def what_next(summary: dict[str, Any]) -> str:
        """Choose between nothing, recommend and start_cases."""
        from breakfix_airflow.sweeps import branch_of

        return branch_of(summary)

    @task
    def recommend(summary: dict[str, Any]) -> None:
        """List in the log what is not done, and why."""
        from breakfix_airflow.sweeps import tell_recommendations

        tell_recommendations(summary)

    @task(retries=3, execution_timeout=timedelta(minutes=5))
    def start_cases(summary: dict[str, Any]) -> list[str]:
        """Start the run of each admitted case; returns the runs that are new."""
        from breakfix_airflow import sweeps
        from breakfix_airflow.services import final_errors

        with final_errors():
            return sweeps.start_cases(summary["cases"])

    summary: Any = assess()  # an XComArg, which stands for the dict in the calls below
    what_next(summary) >> [
        EmptyOperator(task_id="nothing", doc_md="No node needs anything."),
        recommend(summary),
        start_cases(summary),
    ]
