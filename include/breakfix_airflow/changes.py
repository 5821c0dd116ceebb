"""The bodies of `change_canary`, and how a sweep starts it: small dicts in XCom, no more."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from breakfix.cohorts import Advice, CanaryReport
from breakfix.errors import BreakfixError, SettingsError
from breakfix.model import digest
from breakfix_airflow.api import AirflowApi, path_of
from breakfix_airflow.services import services

if TYPE_CHECKING:
    from breakfix.flow.services import Services
    from breakfix.model import Observation

log = logging.getLogger(__name__)

CHANGE_CANARY = "change_canary"
TOP = 20  # changes that travel in XCom; all of them are in the ledger
_CREATED, _EXISTS = 200, 409


def compare_changes(
    *, is_dry_run: bool, scope: str, canary: str, stable: str, minutes: float | None, requester: str
) -> dict[str, Any]:
    """Every change, or the two cohorts that a person names; the summary for branch and log."""
    if bool(canary) != bool(stable):
        raise SettingsError("give both canary and stable, or neither")
    if canary:
        return _by_hand(canary, stable, minutes)
    from breakfix.flow.change_canary import advise_on_changes

    built = services(needs_ledger=not is_dry_run)
    result = advise_on_changes(built, actor=requester, is_dry_run=is_dry_run, only=scope)
    lines = [
        _line(a.change.scope, a.advice, a.report) | {"is_new": a.is_new} for a in result.advised
    ]
    worst_first = sorted(lines, key=lambda c: c["advice"] != Advice.ROLL_BACK)
    return {"changes": worst_first[:TOP], "gone": list(result.gone), "notes": list(result.notes)}


def _by_hand(canary: str, stable: str, minutes: float | None) -> dict[str, Any]:
    """Advice to the person who asked; the ledger keeps none of it."""
    from breakfix.flow.canary import check_selected

    window_s = None if minutes is None else minutes * 60
    report = check_selected(services(needs_ledger=False), canary, stable, window_s=window_s)
    line = _line(f"{report.canary} against {report.stable}", report.advice, report)
    return {"changes": [line | {"is_new": True}], "gone": [], "notes": list(report.warnings)}


def _line(scope: str, advice: Advice, report: CanaryReport) -> dict[str, Any]:
    return {
        "scope": scope,
        "advice": advice.value,
        "reason": report.reason,
        "sizes": [report.canary_size, report.stable_size],
        "is_overdue": report.is_overdue,
    }


def branch_of(summary: Mapping[str, Any]) -> str:
    """Which way the run goes on."""
    if any(c["advice"] == Advice.ROLL_BACK for c in summary["changes"]):
        return "roll_back"
    return "go_on" if summary["changes"] else "nothing"


def tell(summary: Mapping[str, Any]) -> None:
    """A line a change, and what could not be looked at, into the task's log."""
    for change in summary["changes"]:
        news = " (new)" if change["is_new"] else ""
        log.info("%s: %s%s: %s", change["scope"], change["advice"], news, change["reason"])
    for scope in summary["gone"]:
        log.info("%s: over", scope)
    for note in summary["notes"]:
        log.warning("%s", note)


# --------------------------------------------------------------------------- what a sweep sees


def start_when_changed(built: Services, api: AirflowApi, observation: Observation) -> bool:
    """Start `change_canary` once for each new mixture of drivers and kernels that a sweep sees.

    The run's id is made of the mixture, so the same one is never started twice. A failure to start
    it is logged: the sweep has more urgent work, and the hourly run finds the change as well.
    """
    from breakfix.decide.canary import mixture

    mixed = mixture(observation, built.policy.canary.facts)
    if not mixed:
        return False
    run_id = f"seen.{digest(mixed)[:16]}"
    body: dict[str, Any] = {
        "dag_run_id": run_id,
        "logical_date": None,
        "conf": {},
        "note": f"a sweep saw {len(mixed)} values in part of the fleet"[:1000],
    }
    try:
        status = api.send("POST", path_of("dags", CHANGE_CANARY, "dagRuns"), body)
    except BreakfixError as e:
        log.warning("%s is not started: %s", CHANGE_CANARY, e)
        return False
    if status not in {_CREATED, _EXISTS}:
        log.warning("Airflow has no DAG %s: is it deployed and without errors?", CHANGE_CANARY)
    return status == _CREATED
