"""`reconcile`: find where ledger, cluster and runs disagree, and mend it."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.cli.actor import actor
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.flow.reconcile import ReconcileReport
from breakfix.flow.reconcile import reconcile as find_and_mend
from breakfix.settings import load_settings
from breakfix.wiring import build_services


def reconcile(
    *,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what disagrees, and what would be done.")
    ] = False,
    output: Output = Format.TABLE,
) -> None:
    """Find drift between ledger and cluster, and mend it as the DAG reconcile_cases does.

    Runs of cases are not looked at from here: that DAG starts those that are missing.
    """
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    report = find_and_mend(services, None, is_dry_run=dry_run, actor=actor())
    if output is Format.JSON:
        print_json({"is_dry_run": dry_run, **_json(report)})
        return
    what = "would be done" if dry_run else "is done"
    print_table(
        "drift",
        ("kind", "node", "case", "found", what),
        ((d.kind, d.node, d.case_id, d.found, d.remedy) for d in report.drift),
    )
    for note in report.notes:
        say(note)


def _json(report: ReconcileReport) -> dict[str, object]:
    return {
        "drift": report.drift,
        "ended": report.ended,
        "escalated": report.escalated,
        "cleaned": report.cleaned,
        "notes": report.notes,
    }
