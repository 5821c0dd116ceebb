"""`canary`: compare two cohorts now, or until there is an answer. Changes nothing."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.cohorts import Advice, CanaryReport, Check
from breakfix.errors import SettingsError
from breakfix.flow.canary import check_selected
from breakfix.flow.services import Services
from breakfix.observe.canary import find_cohort
from breakfix.settings import load_settings
from breakfix.wiring import build_services

#: What the shell is told; a pipeline branches on it. 2 is wrong usage, as everywhere.
EXIT = {Advice.PROCEED: 0, Advice.ROLL_BACK: 1, Advice.CONTINUE: 3}
MAX_MINUTES = 24 * 60

Canary = Annotated[
    str,
    typer.Option(
        help='What is new: node labels (a=b), pods:NAMESPACE/a=b, or label matchers (a="b").'
    ),
]
Stable = Annotated[str, typer.Option(help="What it is compared with, in the same words.")]
Minutes = Annotated[
    float | None, typer.Option(help="How far to look back; default: the policy's window.")
]
Watch = Annotated[
    bool,
    typer.Option(
        help="Look again every window until it says proceed or roll back, up to the deadline."
    ),
]


def canary(
    canary: Canary,
    stable: Stable,
    minutes: Minutes = None,
    watch: Watch = False,  # noqa: FBT002 - an option of the command line
    output: Output = Format.TABLE,
) -> None:
    """Say whether a canary may proceed. Exit code: 0 proceed, 1 roll back, 3 continue, 2 usage."""
    if minutes is not None and not 1 <= minutes <= MAX_MINUTES:
        raise SettingsError(f"--minutes {minutes:g}: between 1 and {MAX_MINUTES}")
    for text in (canary, stable):  # wrong usage is told before anything is connected
        find_cohort(text, nodes=(), pods=())
    services = build_services(load_settings(), needs_ledger=False)
    window_s = services.policy.canary.window_s if minutes is None else minutes * 60
    report = _ask(services, canary, stable, window_s, until_answered=watch, output=output)
    raise typer.Exit(EXIT[report.advice])


def _ask(
    services: Services,
    canary: str,
    stable: str,
    window_s: float,
    *,
    until_answered: bool,
    output: Format,
) -> CanaryReport:
    """Ends with an answer, or at the policy's deadline; one look unless `until_answered`."""
    started = services.clock.monotonic()
    while True:
        waited_s = services.clock.monotonic() - started
        report = check_selected(services, canary, stable, window_s=window_s, waited_s=waited_s)
        _print(report, output)
        if report.advice is not Advice.CONTINUE or report.is_overdue or not until_answered:
            return report
        services.clock.sleep(window_s)


def _print(report: CanaryReport, output: Format) -> None:
    if output is Format.JSON:
        print_json(report)
        return
    print_table(
        f"{report.canary} ({_size(report.canary_size)}) against {report.stable}"
        f" ({_size(report.stable_size)}), {report.window_s / 60:g} min until {report.at:%F %T} UTC",
        ("check", "canary", "stable", "limit", "requests", "of stable", "p", "outcome", "note"),
        (_row(c) for c in report.checks),
    )
    for warning in report.warnings:
        say(f"warning: {warning}")
    say(f"{report.advice}: {report.reason}")


def _row(check: Check) -> tuple[object, ...]:
    numbers = (check.canary, check.stable, check.limit)
    return (
        check.name,
        *("" if n is None else f"{n:.4g}" for n in numbers),
        *("" if n is None else f"{n:.0f}" for n in (check.requests, check.stable_requests)),
        "" if check.p_value is None else f"{check.p_value:.2g}",
        check.outcome,
        check.note,
    )


def _size(size: int | None) -> str:
    return "by label matchers" if size is None else str(size)
