"""The first task of `node_case`: a case's own beginning, or a case that a person opens by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow.sdk import Context
from airflow.sdk.exceptions import AirflowFailException

from breakfix.errors import NotFound, Refused
from breakfix.flow.stages import Go, Stage
from breakfix.model import Case, FailureClass, Intent, Refusal, RefusalReason, Tier
from breakfix_airflow.api import AirflowApi
from breakfix_airflow.identity import requester
from breakfix_airflow.operators import StageOperator
from breakfix_airflow.runs import AirflowCaseRuns
from breakfix_airflow.services import final_errors, services

if TYPE_CHECKING:
    from breakfix.flow.services import Services

REASON = "asked for by hand"


class BeginOperator(StageOperator):
    """With a case id the stage `begin`; without, opens a case and starts its run, or tells.

    The run that was started by hand never works on a node itself: it ends when the case's run is
    there.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(stage=Stage.BEGIN, **kwargs)

    def execute(self, context: Context) -> None:
        params = context["params"]
        if params["case_id"]:
            super().execute(context)
            return
        if not params["node"]:
            raise AirflowFailException(
                "give node (and failure_class) to open a case; case_id and fence are for the runs "
                "that fleet_sweep and reconcile_cases start"
            )
        wish = FailureClass(params["failure_class"] or FailureClass.MANUAL)
        with final_errors():
            if params["dry_run"]:
                note = tell(services(needs_ledger=False), str(params["node"]), wish)
            else:
                note = open_case(services(), str(params["node"]), wish, context)
        self.log.info("%s", note)
        self.go(context, Go(Stage.SETTLE_RUN, note=note.splitlines()[0]))


def open_case(
    built: Services, node: str, failure_class: FailureClass, context: Mapping[str, Any]
) -> str:
    """Open the case and start its run; says what became of it. A refusal is no failure."""
    from breakfix.flow.by_hand import open_by_hand

    if context["dag_run"].clear_number:  # who asks is compared with who approves
        return "refused: this run was cleared, and nobody is named who did it: trigger a new one"
    who = requester(context)
    runs = AirflowCaseRuns(AirflowApi.from_settings(built.settings, built.circuits))
    if runs.is_paused():
        return "refused: node_case is paused, which counts as halt"
    try:
        outcome = open_by_hand(built, node, failure_class, requester=who, reason=REASON)
    except (Refused, NotFound) as e:
        return f"refused: {e}"
    if isinstance(outcome, Refusal):
        mine = _opened_before(built, outcome, who, context)
        if mine is None:
            return f"refused: {outcome.reason}: {outcome.text}"
        outcome = mine
    is_new = runs.start(outcome)
    return f"case {outcome.id}: run {outcome.run_id} {'started' if is_new else 'was there already'}"


def _opened_before(
    built: Services, refusal: Refusal, who: str, context: Mapping[str, Any]
) -> Case | None:
    """The case that an earlier try of this very task opened without coming to start its run."""
    started = context["dag_run"].start_date
    if refusal.reason is not RefusalReason.CASE_OPEN or started is None:
        return None
    cases = built.book.cases(open_only=True, node=refusal.node)
    return next((c for c in cases if c.requester == who and c.opened_at >= started), None)


def tell(built: Services, node: str, failure_class: FailureClass) -> str:
    """What a case would do to the node and to each pod on it. Changes nothing."""
    from breakfix.flow.by_hand import intent_by_hand, pods_of
    from breakfix.flow.looking import look

    try:
        wish = intent_by_hand(built, look(built), node, failure_class, reason=REASON)
    except (Refused, NotFound) as e:
        return f"would be refused: {e}"
    lines = [
        _intent(wish)
        if isinstance(wish, Intent)
        else f"would be refused: {wish.reason}: {wish.text}"
    ]
    lines += [
        f"  {pod.climbs or pod.action:7} {pod.namespace}/{pod.name}: {pod.reason}"
        for pod in pods_of(built.cluster, built.policy, [node])[node]
    ]
    return "\n".join(lines)


_ASKS = {
    Tier.AUTOMATIC: "without asking",
    Tier.ONE: "after one person's yes",
    Tier.TWO: "after two people's yes",
}


def _intent(wish: Intent) -> str:
    asks = _ASKS[wish.tier]
    impact = wish.impact
    return (
        f"would {wish.action} {wish.node} for {wish.failure_class} {asks}: "
        f"{impact.pods_evicted} pods and {impact.gpus_stopped} GPUs stop, "
        f"{impact.gpus_free_after} stay free"
        + "".join(f"; stops as a whole: {gang}" for gang in impact.gangs)
    )
