"""`metrics`: what Prometheus is told of the product itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from breakfix.cli.output import Format, Output, print_json
from breakfix.errors import SettingsError
from breakfix.flow.exposition import exposition, samples
from breakfix.settings import load_settings
from breakfix.wiring import build_services


def metrics(
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Where to, as a whole; else stdout.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Print the metrics in Prometheus' text format, or put them into a textfile collector's folder.

    Run it every minute, e.g. by cron: what it says is as old as the file. With `-o json` a list.
    """
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    if output is Format.JSON and file is None:
        print_json([{"name": n, "labels": x, "value": v} for n, x, v in samples(services)])
        return
    text = exposition(services)
    if file is None:
        sys.stdout.write(text)
        return
    part = file.with_name(f".{file.name}.{os.getpid()}")  # a collector never reads half of it
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(file)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise SettingsError(f"cannot write {file}: {e.strerror}") from e
