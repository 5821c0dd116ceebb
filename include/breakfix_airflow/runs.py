"""The runs that work on cases: `node_case`, one run for each case and fence."""

from __future__ import annotations

from breakfix.errors import AirflowError, Refused
from breakfix.model import Case, RefusalReason
from breakfix_airflow.api import AirflowApi, path_of

NODE_CASE = "node_case"

_CREATED = 200
_EXISTS = 409


class AirflowCaseRuns:
    """`ports.CaseRuns` over Airflow's public API."""

    def __init__(self, api: AirflowApi) -> None:
        self._api = api

    def start(self, case: Case) -> bool:
        """Trigger the run of the case at its fence; False when that run exists already.

        Raises Refused while `node_case` is paused: pausing it is a halt, and a run started then
        would act the moment somebody unpauses it.
        """
        if self.is_paused():
            raise Refused(
                RefusalReason.HALTED,
                f"DAG {NODE_CASE} is paused, which counts as halt: case {case.id} is not started",
            )
        body = {
            "dag_run_id": case.run_id,
            "logical_date": None,
            "conf": {"case_id": case.id, "fence": case.fence},
            "note": f"{case.node}: {case.failure_class}, {case.action}",
        }
        path = path_of("dags", NODE_CASE, "dagRuns")
        status = self._api.send("POST", path, body, is_repeatable=True)  # its id is in it
        if status == _EXISTS:
            return False
        if status != _CREATED:
            raise AirflowError(
                f"Airflow has no DAG {NODE_CASE}: is it deployed and without errors?"
            )
        return True

    def live(self) -> frozenset[str]:
        """Run ids that are queued or running, those started by hand included."""
        found = self._api.get_all(
            path_of("dags", NODE_CASE, "dagRuns"), "dag_runs", {"state": ["queued", "running"]}
        )
        return frozenset(str(run["dag_run_id"]) for run in found)

    def is_paused(self) -> bool:
        """Whether somebody paused `node_case`. Raises AirflowError when there is no such DAG."""
        dag = self._api.get(path_of("dags", NODE_CASE))
        if dag is None:
            raise AirflowError(
                f"Airflow has no DAG {NODE_CASE}: is it deployed and without errors?"
            )
        return bool(dag["is_paused"])
