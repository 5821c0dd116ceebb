"""Changes under way, each compared with the rest of the fleet: proceed, continue or roll back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import DAG, Param, get_current_context, task

from breakfix_airflow.intervals import interval

MANUAL = """
### Compares what is new with what is stable

Finds the changes that only part of the fleet has: a driver, kernel or other fact that spreads over
the nodes of one SKU and pool, and rollouts on GPU nodes of which two revisions run. Each cohort is
compared with the rest: requests (errors, successes, p99), business metrics of the policy, and
nodes with findings. The answer is one of

- *proceed*: every check passed, on enough evidence;
- *roll back*: an absolute limit was exceeded, or a relative one significantly;
- *continue*: not enough was seen, or not surely enough; the reason says what is missing. Past the
  policy's deadline people are told to decide.

**It never rolls anything back.** A change that is to be rolled back holds repairs in its scope: its
nodes are one incident, `change_induced`, until a later look says proceed or the change is gone.
Seeing less does not lift that.

**The road**: `compare` >> one of `nothing` (no change is under way), `go_on`, `roll_back`, whose
logs list each change with its reason. The checks are in the ledger, people are told when the advice
changes, and both advice and its end are in the audit.

**When**: every BREAKFIX_CANARY_INTERVAL seconds (3600 unless set), one at a time; at once when a
sweep sees another mixture of drivers or kernels; by hand at any time.

**Params**

- `dry_run`: compare and tell; write nothing. Needs no ledger.
- `scope`: only changes whose name contains this, e.g. `driver_version`.
- `canary` and `stable`: compare these two instead, in the words of `breakfix canary`; the ledger
  keeps nothing of it. `minutes`: how far to look back.

**When it is red**

- `compare`: Prometheus, Kubernetes or the ledger could not be read, or a setting or selector is
  wrong: the log's last line says which. Advice that stands, stands; the next look tries again.

**Clear and retry** are safe: advice is renewed, not repeated.
"""

INTERVAL = interval("BREAKFIX_CANARY_INTERVAL", default_s=3600)

SELECTOR = 'node labels (a=b), pods:NAMESPACE/a=b, or label matchers (a="b")'

PARAMS = {
    "dry_run": Param(
        False, type="boolean", title="Dry run", description="Compare and tell; write nothing"
    ),
    "scope": Param(
        None,
        type=["null", "string"],
        maxLength=200,
        title="Scope",
        description="Only changes whose name contains this",
    ),
    "canary": Param(
        None,
        type=["null", "string"],
        maxLength=1000,
        title="Canary",
        description=f"By hand: {SELECTOR}",
    ),
    "stable": Param(
        None,
        type=["null", "string"],
        maxLength=1000,
        title="Stable",
        description=f"By hand: {SELECTOR}",
    ),
    "minutes": Param(
        None,
        type=["null", "number"],
        minimum=1,
        maximum=1440,
        title="Minutes",
        description="By hand: how far to look back; the policy's window without",
    ),
}

with DAG(
    "change_canary",
    description="Compares each change with the rest of the fleet; advises, and holds repairs",
    doc_md=MANUAL,
    schedule=INTERVAL,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=timedelta(minutes=30),
    default_args={"retries": 1, "retry_delay": timedelta(seconds=30)},
    params=PARAMS,
    tags=["breakfix"],
) as dag:

    @task(execution_timeout=timedelta(minutes=10))
    def compare() -> dict[str, Any]:
        """Find the changes, compare their cohorts, record and tell the advice."""
        from breakfix_airflow.changes import compare_changes
        from breakfix_airflow.identity import requester
        from breakfix_airflow.services import final_errors

        context = get_current_context()
        params = context["params"]
        with final_errors():
            return compare_changes(
                is_dry_run=bool(params["dry_run"]),
                scope=params["scope"] or "",
                canary=params["canary"] or "",
                stable=params["stable"] or "",
                minutes=params["minutes"],
                requester=requester(context),
            )

    @task.branch
    def what_next(summary: dict[str, Any]) -> str:
        """Choose between nothing, go_on and roll_back."""
        from breakfix_airflow.changes import branch_of

        return branch_of(summary)

    @task
    def go_on(summary: dict[str, Any]) -> None:
        """List in the log each change that may proceed or is looked at further."""
        from breakfix_airflow.changes import tell

        tell(summary)

    @task
    def roll_back(summary: dict[str, Any]) -> None:
        """List in the log each change, those first that people should roll back."""
        from breakfix_airflow.changes import tell

        tell(summary)

    summary: Any = compare()  # an XComArg, which stands for the dict in the calls below
    what_next(summary) >> [
        EmptyOperator(task_id="nothing", doc_md="No change is under way."),
        go_on(summary),
        roll_back(summary),
    ]
