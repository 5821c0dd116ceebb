"""The task that lets a ladder go on: it starts the case's next run, which asks for the new rung."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Context

from breakfix.errors import AirflowError, Refused, SettingsError
from breakfix.flow.stages import Go, Stage
from breakfix_airflow.api import AirflowApi
from breakfix_airflow.operators import StageOperator, case_of
from breakfix_airflow.runs import AirflowCaseRuns
from breakfix_airflow.services import services


class NextRungOperator(StageOperator):
    """The stage `next_rung`; where the case climbed, its next run is started at once."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(stage=Stage.NEXT_RUNG, **kwargs)

    def go(self, context: Context, result: Go) -> None:
        """As every stage; a run that cannot be started now is started by reconcile_cases."""
        super().go(context, result)
        case_id, fence = case_of(context)
        built = services()
        case = built.book.case(case_id)
        if not case.is_open or case.fence != fence + 1:
            return
        try:
            AirflowCaseRuns(AirflowApi.from_settings(built.settings)).start(case)
        except (AirflowError, Refused, SettingsError) as e:
            self.log.warning("run %s is left to reconcile_cases: %s", case.run_id, e)
