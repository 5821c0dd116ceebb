"""`breaker`: the storms that hold disruption, and a person's word that one is over."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.cli.actor import actor
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.errors import SettingsError
from breakfix.flow.brakes import reset_breaker
from breakfix.flow.limits_report import limits_report
from breakfix.model import Scope, ScopeKind
from breakfix.settings import load_settings
from breakfix.wiring import build_services

app = typer.Typer(help="The breaker: holds new disruption in a storm.", no_args_is_help=True)


@app.command("show")
def show(
    *,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Scopes that were not struck.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """Each scope's breaker: how many distinct nodes were struck, and whether it is open."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    rows = [r for r in limits_report(services)["breakers"] if all_ or r["struck"] or r["is_open"]]
    if output is Format.JSON:
        print_json(rows)
        return
    print_table(
        "breakers",
        ("scope", "state", "struck", "at most", "opened", "closes", "why", "who"),
        (
            (
                r["scope"],
                "open" if r["is_open"] else "closed",
                r["struck"],
                r["most"],
                f"{r['opened_at']:%m-%d %H:%M}" if r["opened_at"] else "",
                f"{r['closes_at']:%m-%d %H:%M}" if r["closes_at"] else "",
                r["reason"],
                ", ".join(r["who"][:8]),
            )
            for r in rows
        ),
    )


@app.command("reset")
def reset(
    scope: Annotated[str, typer.Argument(help="As `breaker show` names it: fleet, rack=r7, ...")],
    reason: Annotated[str, typer.Option("--reason", "-r")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Close a breaker now. What struck until now does not count again; what comes, does."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    made = reset_breaker(services, parse_scope(scope), actor=actor(), reason=reason)
    if output is Format.JSON:
        print_json({"scope": str(made.scope), "is_open": made.is_open, "by": made.reset_by})
        return
    say(f"breaker of {made.scope}: closed by {made.reset_by}")


def parse_scope(text: str) -> Scope:
    """`fleet`, `rack=r7`; `rack=` is that of nodes without one. Raises SettingsError."""
    kind, _, value = text.partition("=")
    try:
        return Scope(ScopeKind(kind), value)
    except ValueError:
        kinds = ", ".join(ScopeKind)
        raise SettingsError(f"{text!r} is no scope; write e.g. rack=r7 ({kinds})") from None
