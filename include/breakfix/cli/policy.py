"""`policy`: what the rules are, and whether they are well formed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.errors import SettingsError
from breakfix.policy import Policy, parse_policy
from breakfix.settings import load_settings
from breakfix.wiring import default_policy_text, load_policy

app = typer.Typer(help="The rules: signals, classes, limits, timings.", no_args_is_help=True)


@app.command("show")
def show(output: Output = Format.TABLE) -> None:
    """Show the policy in force: the default with the overlay of BREAKFIX_POLICY."""
    policy = load_policy(load_settings())
    if output is Format.JSON:
        data = policy.model_dump(mode="json", by_alias=True)
        print_json({"hash": policy.hash, **data})
        return
    _print_policy(policy)


def _print_policy(policy: Policy) -> None:
    say(f"policy {policy.version}, hash {policy.hash}")
    print_table(
        "signals",
        ("signal", "fires when", "window s", "mode", "weight", "group", "class", "source"),
        (
            (
                s.name,
                f"{s.op} {s.threshold:g}",
                s.window_s,
                s.mode,
                s.weight,
                s.group,
                s.failure_class,
                s.source,
            )
            for s in policy.signals
        ),
    )
    print_table(
        "classes",
        ("class", "mode", "ladder", "min. confidence", "diag level"),
        (
            (c, r.mode, " > ".join(r.ladder), r.min_confidence, r.diag_level)
            for c, r in policy.classes.items()
        ),
    )
    print_table(
        "limits: nodes out at a time",
        ("scope", "share", "nodes"),
        ((k, s.share, s.nodes) for k, s in policy.limits.out.items()),
    )


@app.command("check")
def check(
    overlay: Annotated[
        Path | None, typer.Argument(help="An overlay; default: BREAKFIX_POLICY.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Check an overlay against the default policy; exit 2 with a line per wrong value."""
    if overlay is None:
        policy = load_policy(load_settings())
    else:
        try:
            text = overlay.read_text(encoding="utf-8")
        except OSError as e:
            raise SettingsError(f"cannot read {overlay}: {e.strerror}") from e
        policy = parse_policy(default_policy_text(), text)
    if output is Format.JSON:
        print_json({"is_valid": True, "version": policy.version, "hash": policy.hash})
        return
    say(f"policy {policy.version} is valid: {len(policy.signals)} signals, hash {policy.hash}")
