"""How commands print: a table for people, JSON for programs, complaints on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from enum import IntEnum, StrEnum
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text


class Format(StrEnum):
    """How a command prints."""

    TABLE = "table"
    JSON = "json"


class ExitCode(IntEnum):
    """What the shell is told; documented in docs/cli.md."""

    OK = 0
    FAILED = 1
    USAGE = 2
    REFUSED = 3
    UNREACHABLE = 4
    UNSOUND = 5


Output = Annotated[
    Format, typer.Option("-o", "--output", help="A table for people, or JSON for programs.")
]


def complain(message: str, code: ExitCode) -> int:
    """One line on stderr; returns the exit code for the caller to leave with."""
    line = " ".join(message.split())
    Console(stderr=True, soft_wrap=True).print(Text("breakfix: " + line, style="red"))
    return int(code)


def print_json(value: object) -> None:
    """Stable, indented JSON; enums, dataclasses and datetimes are plain values in it."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """A table whose cells are data: nothing in them is read as markup."""
    console = Console()
    table = Table(title=title, title_justify="left", header_style="bold", expand=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    count = 0
    for row in rows:
        table.add_row(*(Text(_cell(c), style=_STYLES.get(_cell(c), "")) for c in row))
        count += 1
    console.print(table if count else Text(f"{title}: nothing"))


def sparkline(values: Sequence[float]) -> str:
    """Values as a row of bars from the lowest to the highest of them; level ones are low bars."""
    low, high = min(values), max(values)
    width = (high - low) or 1.0
    return "".join(_BARS[int((v - low) / width * (len(_BARS) - 1))] for v in values)


def say(text: str) -> None:
    """A line for people."""
    Console(soft_wrap=True).print(Text(text))


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}"
    return str(value)


_BARS = "▁▂▃▄▅▆▇█"

_STYLES = {
    "healthy": "green",
    "suspect": "yellow",
    "quarantined": "red",
    "repairing": "magenta",
    "validating": "cyan",
    "returning": "blue",
    "escalated": "bold red",
    "refuse": "red",
    "evict": "yellow",
}
