"""`change`: what is advised of the changes under way, and a person's word on it."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer

from breakfix.cli.actor import actor
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.cohorts import ChangeAdvice
from breakfix.errors import SettingsError
from breakfix.flow.change_canary import accept_change
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger, build_services

app = typer.Typer(help="Changes under way: drivers, kernels, rollouts.", no_args_is_help=True)

Scope = Annotated[str, typer.Argument(help="The change, as `change list` names it.")]


@app.command("list")
def list_changes(
    *,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Those that are over, too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List the changes and what is advised of each, oldest first."""
    advices = build_ledger(load_settings()).advices(open_only=not all_)
    if output is Format.JSON:
        print_json([advice_json(a) for a in advices])
        return
    print_table(
        "changes",
        ("change", "advice", "nodes", "first seen", "last seen", "over", "why"),
        (
            (
                a.scope,
                a.advice,
                len(a.nodes),
                f"{a.first_seen:%m-%d %H:%M}",
                f"{a.last_seen:%m-%d %H:%M}",
                f"{a.closed_at:%m-%d %H:%M}" if a.closed_at else "",
                a.reason,
            )
            for a in advices
        ),
    )


def advice_json(advice: ChangeAdvice) -> dict[str, Any]:
    """An advice as plain values, its nodes in order."""
    value: dict[str, Any] = msgspec.to_builtins(advice)
    value["nodes"] = sorted(advice.nodes)
    return value


@app.command("show")
def show(scope: Scope, output: Output = Format.TABLE) -> None:
    """Show one change: its nodes, and the checks of the last look."""
    advice = _known(scope)
    if output is Format.JSON:
        print_json(advice_json(advice))
        return
    say(f"{advice.scope}: {advice.advice}: {advice.reason}")
    say(f"  nodes: {', '.join(sorted(advice.nodes))}")
    print_table(
        f"last look, {advice.last_seen:%F %T} UTC",
        ("check", "canary", "stable", "limit", "requests", "p", "outcome", "note"),
        (
            [c.get(k) for k in ("name", "canary", "stable", "limit")]
            + [c.get(k) for k in ("requests", "p_value", "outcome", "note")]
            for c in advice.detail.get("checks", ())
        ),
    )


def _known(scope: str) -> ChangeAdvice:
    found = [a for a in build_ledger(load_settings()).advices(open_only=False) if a.scope == scope]
    if not found:
        raise SettingsError(f"no change {scope!r}; see `breakfix change list --all`")
    return found[-1]


@app.command("accept")
def accept(
    scope: Scope,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the audit log.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Accept what a change does: its nodes are repaired again, until another check fails."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    advice = accept_change(services, scope, actor=actor(), reason=reason)
    if output is Format.JSON:
        print_json(advice_json(advice))
        return
    say(f"{advice.scope}: {advice.reason}; repairs in its scope go on")
