"""Writes docs/reliability.md from tests/faults: `python -m dev.reliability [--check]`.

A fault test is named for what it shows: `test_f24_...` or `test_dry_run_...`. The first sentence of
its docstring says what happens, and a line `Lost: nothing; ...` what became of the work.
"""

from __future__ import annotations

import ast
import csv
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "reliability.md"
FAULTS = ROOT / "tests" / "faults"
TRACES = ROOT / "tests" / "traces" / "scenarios"

HEAD = """# What goes wrong, and what was lost

Written by `python -m dev.reliability` from the tests in `tests/faults`; change it there. Each row
is a test that does the damage and then looks at every node, case and record. The faults are those
that the tests and the users of other projects know, and some of ours; each says where it was seen.

Faults of the telemetry itself are recordings that are judged as they would be live:
[traces.md](traces.md) explains them, the last table lists them.

What no single test thinks of is looked for at random: `tests/fleet_machine` drives fleets through
faults, crashes, people's hands and other controllers, and asks its rules after each step;
`make mutate-guards` takes every guard away, one at a time, and shows which rule notices
([how](adr/0017-rules-that-do-not-ask-the-guards.md)).
"""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that must have a test."""

    id: str
    text: str
    seen_in: str


@dataclass(frozen=True, slots=True)
class FaultTest:
    """One test of tests/faults. `wrong` says what its docstring lacks."""

    name: str
    file: str
    happens: str
    lost: str
    wrong: str = ""


def catalogue(path: Path = FAULTS / "catalogue.csv") -> tuple[Fault, ...]:
    """The faults in the order of the page."""
    with path.open(encoding="utf-8", newline="") as file:
        return tuple(Fault(r["id"], r["fault"], r["seen in"]) for r in csv.DictReader(file))


def fault_tests(folder: Path = FAULTS) -> tuple[FaultTest, ...]:
    """All tests of the folder, by file and line; pytest is not asked, so nothing is imported."""
    found: list[FaultTest] = []
    for path in sorted(folder.glob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        found += [_read(node, path.name) for node in _functions(tree.body)]
    return tuple(found)


_TEST = ast.FunctionDef | ast.AsyncFunctionDef


def _functions(body: Iterable[ast.stmt]) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in body:
        if isinstance(node, ast.ClassDef):
            yield from _functions(node.body)
        elif isinstance(node, _TEST) and node.name.startswith("test_"):
            yield node


def _read(node: ast.FunctionDef | ast.AsyncFunctionDef, file: str) -> FaultTest:
    text = " ".join((ast.get_docstring(node) or "").split())
    told, _, kept = text.partition("Lost: ")
    happens = re.split(r"(?<=[.;])\s", told.strip(), maxsplit=1)[0]
    wrong = ""
    if not happens:
        wrong = "has no docstring: one sentence on what happens"
    elif not kept.startswith("nothing"):
        wrong = "has no line 'Lost: nothing; ...' on what became of the work"
    return FaultTest(node.name, file, happens, kept, wrong)


def tests_of(fault: Fault, tests: Sequence[FaultTest]) -> list[FaultTest]:
    """The tests whose name begins with the fault's id."""
    return [t for t in tests if re.match(rf"test_{fault.id}(_|$)", t.name)]


def missing(faults: Sequence[Fault], tests: Sequence[FaultTest]) -> list[str]:
    """Ids without any test."""
    return [f.id for f in faults if not tests_of(f, tests)]


def page() -> str:
    """The whole page."""
    faults, tests = catalogue(), fault_tests()
    parts = [HEAD, *_table(faults, tests), "", "## And", "", *_others(faults, tests), ""]
    return "\n".join([*parts, "## In the telemetry", "", *_traces(), ""])


def _table(faults: Sequence[Fault], tests: Sequence[FaultTest]) -> Iterator[str]:
    for fault in faults:
        yield f"## {_title(fault)}"
        yield ""
        yield f"{fault.text}. Seen in: {fault.seen_in}."
        yield ""
        yield from _rows(tests_of(fault, tests))
        yield ""


def _title(fault: Fault) -> str:
    return fault.id.upper() if fault.id[1:].isdigit() else fault.id.replace("_", " ").capitalize()


def _others(faults: Sequence[Fault], tests: Sequence[FaultTest]) -> Iterator[str]:
    listed = {t.name for f in faults for t in tests_of(f, tests)}
    yield from _rows([t for t in tests if t.name not in listed])


def _rows(tests: Sequence[FaultTest]) -> Iterator[str]:
    if not tests:
        yield "Not tested yet."
        return
    yield "| what happens | lost | test |"
    yield "|---|---|---|"
    for test in tests:
        happens = test.happens.rstrip(".;")
        where = f"[`{test.name}`](../tests/faults/{test.file})"
        yield f"| {_cell(happens)} | {_cell(test.lost.rstrip('.'))} | {where} |"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _traces() -> Iterator[str]:
    """Recordings that name a case, by id; the name of a recording says what happens."""
    pattern = re.compile(r'case="F(\d\d)".*?\ndef (\w+)\(', re.DOTALL)
    found: dict[str, list[str]] = {}
    for path in sorted(TRACES.glob("*.py")):
        for number, name in pattern.findall(path.read_text(encoding="utf-8")):
            found.setdefault(f"F{number}", []).append(f"`{name}`")
    yield "| id | recordings |"
    yield "|---|---|"
    for number, names in sorted(found.items()):
        yield f"| {number} | {', '.join(names)} |"


def main(arguments: list[str]) -> int:
    """Write the page, or with --check say whether it is stale."""
    text = page()
    if "--check" in arguments:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("docs/reliability.md is stale. To do: python -m dev.reliability", file=sys.stderr)
        return 1
    PAGE.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
