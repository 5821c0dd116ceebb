"""`reconcile`: find what disagrees and mend it; `undo`: take back what nothing else was done to."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from breakfix.adapters.clock import SystemClock
from breakfix.cli.actor import actor
from breakfix.cli.output import ExitCode, Format, Output, print_json, print_table, say
from breakfix.durations import parse_duration
from breakfix.errors import SettingsError
from breakfix.flow.reconcile import ReconcileReport
from breakfix.flow.reconcile import reconcile as find_and_mend
from breakfix.flow.taking_back import Undoing, undoable
from breakfix.flow.taking_back import undo as take_back
from breakfix.model import HaltLevel
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


def undo(
    *,
    since: Annotated[str, typer.Option("--since", help="2h, or a time like 2026-01-31T12:00:00Z.")],
    yes: Annotated[
        bool, typer.Option("--yes", help="Do it; without it this is a preview.")
    ] = False,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Kept in the audit log.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Give back the nodes taken out since then that nothing else was done to yet.

    Only our own cordons, taints and marks are lifted. Nodes that are being drained or repaired are
    listed, and left to their cases. Exit 3 when a node that was to be given back was not.
    """
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    start = moment(since, SystemClock().now())
    before = undoable(services, start)
    found = take_back(services, start, actor=actor(), reason=reason) if yes else before
    if output is Format.JSON:
        print_json({"since": start, "is_preview": not yes, "cases": found})
    else:
        _print_undone(found, start, is_preview=not yes)
        if services.book.halt_level() is HaltLevel.NONE:
            say("automation is not halted: what is still faulty may be taken out again")
    given_back = {u.case_id for u in found if u.is_undone}
    if yes and any(u.is_undone and u.case_id not in given_back for u in before):
        raise typer.Exit(ExitCode.REFUSED)


def moment(text: str, now: datetime) -> datetime:
    """A duration before `now` (2h), or a time with its zone. Raises SettingsError."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        try:
            return now - timedelta(seconds=parse_duration(text))
        except ValueError as e:
            wanted = "a duration like 2h, or a time like 2026-01-31T12:00:00Z"
            raise SettingsError(f"--since {text!r} is not {wanted}") from e
    if at.tzinfo is None:
        raise SettingsError(f"--since {text!r} has no time zone: write {text}Z for UTC")
    return at.astimezone(UTC)


def _print_undone(found: Sequence[Undoing], since: datetime, *, is_preview: bool) -> None:
    done = "would be lifted" if is_preview else "lifted"
    print_table(
        f"taken out since {since:%Y-%m-%d %H:%M:%S} UTC",
        ("node", "case", done, "what, or why not"),
        ((u.node, u.case_id, "yes" if u.is_undone else "no", u.text) for u in found),
    )
    if is_preview and any(u.is_undone for u in found):
        say("this is a preview: `--yes -r WHY` does it")
