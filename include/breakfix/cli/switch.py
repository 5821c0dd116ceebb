"""`halt` and `resume`: the kill switch."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.adapters.clock import SystemClock
from breakfix.cli.actor import actor
from breakfix.cli.output import Format, Output, print_json, say
from breakfix.model import HaltLevel
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger


def halt(
    level: Annotated[
        HaltLevel, typer.Option(help="`disruption` lets recovery go on; `all` stops that too.")
    ] = HaltLevel.DISRUPTION,
    reason: Annotated[str, typer.Option("--reason", "-r")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Stop automation at once: checked before every single side effect."""
    _set(level, reason, output)


def resume(
    reason: Annotated[str, typer.Option("--reason", "-r")] = "", output: Output = Format.TABLE
) -> None:
    """Lift the halt; cases go on with the next reconciliation."""
    _set(HaltLevel.NONE, reason, output)


def _set(level: HaltLevel, reason: str, output: Format) -> None:
    ledger = build_ledger(load_settings())
    before = ledger.halt_level()
    ledger.set_halt(level, actor=actor(), reason=reason, now=SystemClock().now())
    if output is Format.JSON:
        print_json({"before": before, "level": level})
        return
    say(f"halt level: {before} -> {level}")
