"""`audit`: is the record whole, and give it to me."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated, TextIO

import typer

from breakfix.act.ownership import marked_head
from breakfix.cli.output import ExitCode, Format, Output, complain, print_json, say
from breakfix.errors import SettingsError
from breakfix.ports import Ledger
from breakfix.record import audit_lines
from breakfix.record import verify as audit_is_whole
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster, build_ledger

_HASH = re.compile(r"[0-9a-f]{8,64}")

app = typer.Typer(help="The audit log: append-only and hash-chained.", no_args_is_help=True)


@app.command("verify")
def verify(
    *,
    head: Annotated[
        str, typer.Option("--head", help="SEQ:HASH seen before; its first digits will do.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Check the whole chain; exit 5 when an entry was changed, removed or slipped in.

    With BREAKFIX_KUBECONFIG also against the head that the cluster remembers, with `--head` against
    one of a metric or a note: a tail that was cut off, or an older backup, is found too.
    """
    settings = load_settings()
    known = _head(head) if head else None
    if settings.kubeconfig and known is None:
        known = marked_head(build_cluster(settings), settings.namespace)
    check = audit_is_whole(build_ledger(settings), known)
    if output is Format.JSON:
        print_json(
            {
                "entries": check.entries,
                "is_sound": check.is_whole,
                "problem": check.fault,
                "is_compared_with_cluster": known is not None,
            }
        )
    elif check.is_whole:
        compared = "and goes on from the head that was seen before"
        end = (
            compared if known else "(not compared with the cluster: no BREAKFIX_KUBECONFIG or mark)"
        )
        say(f"audit log is sound: {check.entries} entries, none changed or missing, {end}")
    if not check.is_whole:
        raise typer.Exit(complain(f"audit log is NOT sound: {check.fault}", ExitCode.UNSOUND))


def _head(text: str) -> tuple[int, str]:
    seq, _, digest = text.partition(":")
    if not seq.isdigit() or not _HASH.fullmatch(digest):
        raise SettingsError(f"--head {text!r} is not SEQ:HASH, e.g. 1204:9f86d081884c")
    return int(seq), digest


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
