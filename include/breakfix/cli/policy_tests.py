"""`policy test`: the rules against their test cases, through a real Prometheus."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from breakfix.cli.output import ExitCode, Format, Output, print_json
from breakfix.errors import SettingsError
from breakfix.model import Verdict
from breakfix.policy import Policy
from breakfix.rulebook.cases import Source, load_cases
from breakfix.rulebook.expected import check_signals
from breakfix.rulebook.files import CURRENT, policy_of
from breakfix.rulebook.running import Result, RuleTests


@dataclass(frozen=True, slots=True)
class _Run:
    policy: Policy
    results: Sequence[Result]
    seconds: float

    @property
    def failed(self) -> Sequence[Result]:
        return [r for r in self.results if not r.has_passed]


def run_tests(
    files: Annotated[list[Path], typer.Argument(help="Files of cases, or folders of them.")],
    policy: Annotated[
        str, typer.Option(help="What is tested: an overlay's file, `default`, or `current`.")
    ] = CURRENT,
    only: Annotated[str, typer.Option(help="Only cases whose name has this in it.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Test rules with small series in YAML: what is seen, and what must be made of it.

    Runs a private Prometheus, which must be on the PATH or named in BREAKFIX_PROMETHEUS_BIN.
    Exit 0: all cases pass, 1: one does not, 2: a file is not well formed, or names no signal.
    """
    sources = [s for s in load_cases(files) if only.lower() in s.case.name.lower()]
    if not sources:
        raise SettingsError(f"no case has {only!r} in its name")
    tested = policy_of(policy)
    check_signals(sources, tested)
    run = _run(sources, tested)
    if output is Format.JSON:
        print_json(_json(run))
    else:
        _print(run)
    if run.failed:
        raise typer.Exit(ExitCode.FAILED)


def _run(sources: Sequence[Source], policy: Policy) -> _Run:
    began = time.monotonic()
    with RuleTests(sources) as tests:
        results = tests.evaluate(policy)
    return _Run(policy, results, time.monotonic() - began)


def _print(run: _Run) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for result in run.failed:
        where = f"{result.source.file}:{result.source.line}"
        console.print(Text(f"FAILED {where}: {result.source.case.name}", style="bold red"))
        for problem in result.problems:
            console.print(Text(f"  {problem}"))
        for node, verdict in result.verdicts.items():
            console.print(Text(f"  judged: {node}: {_judged(verdict)}", style="dim"))
    passed = len(run.results) - len(run.failed)
    said = f"{len(run.results)} cases, {passed} passed, {len(run.failed)} failed"
    style = "red" if run.failed else "green"
    hash_ = run.policy.hash[:12]
    console.print(
        Text(f"{said} in {run.seconds:.1f} s, policy {run.policy.version} ({hash_})", style=style)
    )


def _judged(verdict: Verdict) -> str:
    spoke = [f"{f.signal}{f':{f.key}' if f.key else ''}={f.value:.4g}" for f in verdict.findings]
    return (
        f"{verdict.failure_class or 'no class'} at {verdict.confidence:.4g},"
        f" {verdict.recommended_action}"
        + (f", refused: {verdict.refusal}" if verdict.refusal else "")
        + f"; speaks: {', '.join(spoke) or 'nothing'}"
        + (f"; unknown: {', '.join(verdict.unknown)}" if verdict.unknown else "")
    )


def _json(run: _Run) -> dict[str, Any]:
    return {
        "policy": {"version": run.policy.version, "hash": run.policy.hash},
        "cases": [_case(r) for r in run.results],
        "passed": len(run.results) - len(run.failed),
        "failed": len(run.failed),
        "seconds": round(run.seconds, 3),
    }


def _case(result: Result) -> dict[str, Any]:
    return {
        "file": result.source.file,
        "line": result.source.line,
        "name": result.source.case.name,
        "has_passed": result.has_passed,
        "problems": result.problems,
        "verdicts": result.verdicts,
        "incidents": result.incidents,
    }
