"""`validate`: the checks of a validation that only read, on any node."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.cli.output import ExitCode, Format, Output, print_json, print_table
from breakfix.flow.look_over import Gate, look_over
from breakfix.model import Outcome
from breakfix.settings import load_settings
from breakfix.wiring import build_services

_WORDS = {
    Outcome.FIXED: "passed",
    Outcome.NOT_FIXED: "failed",
    Outcome.CANNOT_TELL: "cannot tell",
    None: "not run",
}


def validate(
    node: Annotated[str, typer.Argument(help="The node to look at.")],
    output: Output = Format.TABLE,
) -> None:
    """Say whether a node shows what it must before it may return, as far as reading tells; exit 5
    when it does not. Starts nothing on it: no diagnostic, no bandwidth test.
    """
    services = build_services(load_settings(), needs_ledger=False)
    gates = look_over(services, node)
    is_passed = all(gate.is_passed for gate in gates)
    if output is Format.JSON:
        found = [{"check": g.name, "result": _WORDS[g.outcome], "text": g.text} for g in gates]
        print_json({"node": node, "is_passed": is_passed, "checks": found})
    else:
        print_table(node, ("check", "result", "what"), map(_row, gates))
    if not is_passed:
        raise typer.Exit(ExitCode.UNSOUND)


def _row(gate: Gate) -> tuple[str, str, str]:
    return gate.name, _WORDS[gate.outcome], gate.text
