"""`halt` and `resume`: the kill switch."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.act.guard import HALT_CONFIG_MAP, halt_level
from breakfix.adapters.clock import SystemClock
from breakfix.cli.actor import actor
from breakfix.cli.output import ExitCode, Format, Output, complain, print_json, say
from breakfix.errors import ClusterError
from breakfix.model import HaltLevel
from breakfix.ports import Ledger
from breakfix.settings import Settings, load_settings
from breakfix.wiring import build_cluster, build_ledger


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
    settings = load_settings()
    ledger = build_ledger(settings)
    before = ledger.halt_level()
    ledger.set_halt(level, actor=actor(), reason=reason, now=SystemClock().now())
    in_force = _in_force(settings, ledger)
    if output is Format.JSON:
        print_json({"before": before, "level": level, "in_force": in_force})
        return
    say(f"halt level: {before} -> {level}")
    if in_force not in {None, level}:
        say(f"still halted by ConfigMap {settings.namespace}/{HALT_CONFIG_MAP}: {in_force}")


def _in_force(settings: Settings, ledger: Ledger) -> HaltLevel | None:
    """The stricter of ledger and cluster; None where no cluster can be asked from here."""
    if not settings.kubeconfig:
        return None
    try:
        return halt_level(build_cluster(settings), ledger, settings.namespace)
    except ClusterError as e:
        complain(f"the cluster's own halt could not be read: {e}", ExitCode.UNREACHABLE)
        return None
