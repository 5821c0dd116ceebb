"""The bodies of `fleet_sweep` and `reconcile_cases`: small dicts in XCom, no more."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from breakfix.errors import BreakfixError, NotFound, Refused
from breakfix.model import Action, Case, FailureClass, NodeState, Refusal
from breakfix.ports import CaseRuns, Ledger
from breakfix_airflow.api import AirflowApi
from breakfix_airflow.changes import start_when_changed
from breakfix_airflow.runs import AirflowCaseRuns
from breakfix_airflow.services import services
from breakfix_airflow.waking import wake_settled

if TYPE_CHECKING:
    from breakfix.flow.assessment import Assessment
    from breakfix.flow.services import Services

log = logging.getLogger(__name__)

TOP = 20  # refusals that travel in XCom; all of them are in the ledger
SWEEP = "fleet_sweep"


def sweep_fleet(
    *,
    is_dry_run: bool,
    node: str,
    failure_class: FailureClass | None,
    requester: str,
    started_at: datetime | None,
) -> dict[str, Any]:
    """One sweep; the summary that the branch and the next task read.

    A dry run, a look at one node and a sweep while `node_case` is paused judge and plan, and
    change nothing.
    """
    if is_dry_run or (node and failure_class is None):
        return _look(services(needs_ledger=False), node, "dry run")
    built = services()
    if runs_of(built).is_paused():
        return _look(built, node, "node_case is paused, which counts as halt")
    if node and failure_class is not None:
        return _one_by_hand(built, node, failure_class, requester)
    return _sweep(built, requester, started_at)


def runs_of(built: Services) -> AirflowCaseRuns:
    """The runs of `node_case`. Raises SettingsError without a service user."""
    return AirflowCaseRuns(AirflowApi.from_settings(built.settings, built.circuits))


def _look(built: Services, node: str, why: str) -> dict[str, Any]:
    from breakfix.flow.assessment import assess

    return _summary(assess(built), (), node=node, note=f"nothing admitted: {why}")


def _sweep(built: Services, requester: str, started_at: datetime | None) -> dict[str, Any]:
    from breakfix.flow.sweep import sweep

    result = sweep(built, actor=requester)
    cases = {c.run_id: c for c in result.cases}
    cases |= {c.run_id: c for c in _left_behind(built, requester, started_at)}
    note = "; ".join(w for w in result.assessment.observation.warnings if "policy overlay" in w)
    summary = _summary(
        result.assessment, tuple(cases.values()), refusals=result.refusals, note=note
    )
    summary["sweep_id"] = result.sweep_id
    summary["counts"]["watches_ended"] = len(result.ended)
    api = AirflowApi.from_settings(built.settings, built.circuits)
    start_when_changed(built, api, result.assessment.observation)
    summary["woken"] = heed_answers(built, api)
    return summary


def heed_answers(built: Services, api: AirflowApi) -> list[str]:
    """Runs woken because somebody answered elsewhere. The sweep is not failed by it: what is missed
    is seen by the next one.
    """
    from breakfix.flow.confirmations import heed_annotations

    try:
        heed_annotations(built)
        return wake_settled(api, built.book)
    except BreakfixError as e:
        log.warning("no question is woken now: %s", e)
        return []


def _left_behind(built: Services, requester: str, started_at: datetime | None) -> list[Case]:
    """Cases that an earlier try of this sweep opened and did not come to hand on."""
    if started_at is None:
        return []
    return [
        c
        for c in built.book.cases(open_only=True)
        if c.requester == requester
        and c.opened_at >= started_at
        and c.state is NodeState.QUARANTINED
    ]


def _one_by_hand(
    built: Services, node: str, failure_class: FailureClass, requester: str
) -> dict[str, Any]:
    """A sweep over one node whose failure class a person names."""
    from breakfix.flow.by_hand import open_by_hand

    try:
        outcome = open_by_hand(
            built, node, failure_class, requester=requester, reason="asked for by hand"
        )
    except (Refused, NotFound) as e:
        return _facts((), [f"{node}: {e}"], {"refusals": 1}, note=f"refused: {e}")
    if isinstance(outcome, Refusal):
        return _facts((), [_line(outcome)], {"refusals": 1})
    return _facts((outcome,), [], {"cases": 1})


def _summary(
    assessment: Assessment,
    cases: Sequence[Case],
    *,
    refusals: Sequence[Refusal] | None = None,
    node: str = "",
    note: str = "",
) -> dict[str, Any]:
    plan, judgement = assessment.plan, assessment.judgement
    said_no = plan.refusals if refusals is None else refusals
    intents = [i for i in plan.intents if not node or i.node == node]
    said_no = [r for r in said_no if not node or r.node == node]
    lines = [
        f"{i.node}: {i.action} for {i.failure_class} ({i.confidence:.2f}),"
        f" {i.impact.gpus_stopped} GPUs stop: {i.reason}"
        for i in intents
    ]
    lines += [_line(r) for r in said_no]
    counts = {
        "cases": len(cases),
        "intents": len(intents),
        "refusals": len(said_no),
        "incidents": len(plan.incidents),
        **{
            f"state_{s}": n for s, n in sorted(Counter(v.state for v in judgement.verdicts).items())
        },
    }
    if node and (verdict := judgement.verdict(node)) is not None:
        note = f"{verdict.state}: {verdict.reason}. {note}"
    return _facts(cases, lines, counts, note=note)


def _facts(
    cases: Sequence[Case], lines: Sequence[str], counts: Mapping[str, int], *, note: str = ""
) -> dict[str, Any]:
    return {
        "sweep_id": "",
        "cases": [{"case_id": c.id, "fence": c.fence, "node": c.node} for c in cases],
        "counts": dict(counts),
        "recommendations": list(lines[:TOP]),
        "note": note,
    }


def _line(refusal: Refusal) -> str:
    what = refusal.action if refusal.action is not Action.NONE else "nothing"
    cost = f"; {refusal.impact.gpus_stopped} GPUs would stop" if refusal.impact else ""
    return f"{refusal.node}: {what}, {refusal.reason}: {refusal.text}{cost}"


def branch_of(summary: Mapping[str, Any]) -> str:
    """Which way the sweep goes on."""
    if summary["cases"]:
        return "start_cases"
    return "recommend" if summary["recommendations"] else "nothing"


def start_cases(listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Start the run of each listed case; the ids of the runs that are new."""
    built = services()
    return start_listed(built.book, runs_of(built), listed)


def start_listed(ledger: Ledger, runs: CaseRuns, listed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Start what the ledger, not the list, says of each case: one that is open, at that fence.

    One that cannot be started does not keep the others from it; the first error comes at the end.
    """
    started: list[str] = []
    errors: list[BreakfixError] = []
    for entry in listed:
        try:
            case = ledger.case(str(entry["case_id"]))
            if case.is_open and case.fence == entry["fence"] and runs.start(case):
                started.append(case.run_id)
        except BreakfixError as e:
            log.warning("case %s is not started: %s", entry["case_id"], e)
            errors.append(e)
    if errors:
        raise errors[0]
    return started


def reconcile_cases() -> dict[str, Any]:
    """One look for drift between ledger, cluster and runs; what was done about it."""
    from breakfix.flow.confirmations import heed_annotations
    from breakfix.flow.reconcile import reconcile

    built = services()
    api = AirflowApi.from_settings(built.settings, built.circuits)
    report = reconcile(built, AirflowCaseRuns(api))
    heed_annotations(built)
    return {
        "woken": wake_settled(api, built.book),
        "drift": dict(Counter(d.kind.value for d in report.drift)),
        "started": list(report.started),
        "ended": list(report.ended),
        "escalated": list(report.escalated),
        "cleaned": list(report.cleaned),
        "notes": list(report.notes),
    }


def tell_recommendations(summary: Mapping[str, Any]) -> None:
    """What is recommended and not done, a line a node, into the task's log."""
    total = summary["counts"].get("intents", 0) + summary["counts"].get("refusals", 0)
    for line in summary["recommendations"]:
        log.info("%s", line)
    hidden = total - len(summary["recommendations"])
    if hidden > 0:
        log.info("and %d more: see `breakfix plan`", hidden)
    if summary["note"]:
        log.info("%s", summary["note"])
