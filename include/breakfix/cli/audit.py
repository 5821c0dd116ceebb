"""`audit`: is the record whole, and give it to me."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from breakfix.cli.output import ExitCode, Format, Output, complain, print_json, say
from breakfix.errors import SettingsError
from breakfix.ports import Ledger
from breakfix.record import audit_lines
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger

app = typer.Typer(help="The audit log: append-only and hash-chained.", no_args_is_help=True)


@app.command("verify")
def verify(output: Output = Format.TABLE) -> None:
    """Check the whole chain; exit 5 when an entry was changed, removed or slipped in."""
    ledger = build_ledger(load_settings())
    count, problem = ledger.verify_audit()
    if output is Format.JSON:
        print_json({"entries": count, "is_sound": not problem, "problem": problem})
    elif not problem:
        say(f"audit log is sound: {count} entries, none changed, missing or reordered")
    if problem:
        raise typer.Exit(complain(f"audit log is NOT sound: {problem}", ExitCode.UNSOUND))


@app.command("export")
def export(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Where to; stdout if not given.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Write the audit log as JSON lines, oldest first; `-o` is about what is said of a file."""
    ledger = build_ledger(load_settings())
    if file is None:
        _write(sys.stdout, ledger)
        return
    try:
        with file.open("w", encoding="utf-8") as out:
            count = _write(out, ledger)
    except OSError as e:
        raise SettingsError(f"cannot write {file}: {e.strerror}") from e
    if output is Format.JSON:
        print_json({"entries": count, "file": str(file)})
        return
    say(f"{count} entries written to {file}")


def _write(out: TextIO, ledger: Ledger) -> int:
    count = 0
    for line in audit_lines(ledger):
        out.write(line + "\n")
        count += 1
    return count
