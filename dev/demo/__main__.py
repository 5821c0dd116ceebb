"""`python -m dev.demo`: the main job, end to end, on this machine; exit 1 when the story went
otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from breakfix.errors import BreakfixError
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster, build_ledger
from dev.demo.approver import Approver
from dev.demo.story import REJECTED, STORY, Facts
from dev.demo.watch import Watcher
from dev.stack.airflow import ROOT
from dev.stack.interrupts import ending_signals_interrupt
from dev.stack.processes import StackError
from dev.stack.stack import Stack, StackConfig
from simfleet.client import ControlClient, ControlError

POLICY = Path(__file__).with_name("policy.yaml")
INTERRUPTED = 130
LOOK_S = 1.0
#: Cases of the story: nodes that must have had one before the end may be the end.
WITH_CASE = frozenset({"r01-n02", "r02-n02", "r03-n01", "r03-n03", REJECTED, "r05-n02"})


def stack_config(folder: Path) -> StackConfig:
    """The demo's stack: its scenario held until everything is up, 15 s sweeps, its own policy
    overlay.
    """
    scenario = resources.files("simfleet").joinpath("scenarios/demo.yaml")
    return StackConfig(
        folder,
        fleet_arguments=("--config", str(scenario), "--hold"),
        policy=POLICY,
        scrape_interval="2s",
        env={
            "BREAKFIX_CLUSTER_NAME": "demo",
            "BREAKFIX_SWEEP_INTERVAL": "15",
            "BREAKFIX_RECONCILE_INTERVAL": "60",
        },
    )


def play(stack: Stack, console: Console, *, limit_s: float) -> Facts:
    """Start the timeline, answer approvals, and watch until every case has ended or time is up."""
    os.environ.update(stack.env)
    settings = load_settings()
    watcher = Watcher(
        build_ledger(settings), build_cluster(settings), ControlClient(stack.fleet.url)
    )
    watcher.look()
    password = stack.airflow.passwords["oncall"]
    approver = Approver(stack.airflow.url, "oncall", password, rejects=frozenset({REJECTED}))
    approver.start()
    watcher.control.post("/sim/scenario/start", {})
    begun = time.monotonic()
    try:
        with Live(console=console, auto_refresh=False, transient=not console.is_terminal) as live:
            while (elapsed := time.monotonic() - begun) < limit_s:
                watcher.look()
                if console.is_terminal:
                    live.update(watcher.table(elapsed, len(approver.said)), refresh=True)
                else:
                    for line in watcher.changes():
                        console.print(Text(f"{elapsed:4.0f} s  {line}"), soft_wrap=True)
                if _is_over(watcher):
                    break
                time.sleep(LOOK_S)
    finally:
        approver.stopping.set()
    for trouble in approver.troubles[:5]:
        console.print(Text(f"approver: {trouble}", style="yellow"))
    console.print(f"the story took {time.monotonic() - begun:.0f} s")
    return watcher.facts()


def _is_over(watcher: Watcher) -> bool:
    had = {c.node for c in watcher.cases}
    return had >= WITH_CASE and not any(c.is_open for c in watcher.cases)


def report(facts: Facts, console: Console) -> bool:
    """Print what came of each line of the story; True when all of it is as it must be."""
    table = Table(title="what was expected", title_justify="left", header_style="bold")
    for column in ("", "nodes", "story", "what is wrong"):
        table.add_column(column, overflow="fold")
    is_good = True
    for line in STORY:
        problem = line.check(facts)
        is_good = is_good and not problem
        mark = Text("no", style="bold red") if problem else Text("yes", style="green")
        table.add_row(mark, line.nodes, line.story, Text(problem, style="red"))
    console.print(table)
    console.print(f"{len(facts.audit)} audit entries, {len(facts.cases)} cases")
    return is_good


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo; 0 when the story came out right, 1 when it did not, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m dev.demo", description=__doc__)
    parser.add_argument("--folder", type=Path, default=ROOT / ".breakfix" / "demo")
    parser.add_argument("--limit", type=float, default=600.0, help="give up after so many seconds")
    chosen = parser.parse_args(argv)
    folder = chosen.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    console = Console()
    console.print(Text(f"policy overlay of the demo ({POLICY.name}):", style="bold"))
    console.print(Text(POLICY.read_text(encoding="utf-8").rstrip(), style="dim"))
    with ending_signals_interrupt():
        try:
            with Stack(stack_config(folder), say=console.print) as stack:
                console.print(
                    f"Airflow {stack.airflow.url} (oncall / {stack.airflow.passwords['oncall']}), "
                    f"Prometheus {stack.prometheus.url}"
                )
                facts = play(stack, console, limit_s=chosen.limit)
                is_good = report(facts, console)
        except KeyboardInterrupt:
            console.print("interrupted; everything that was started has ended")
            return INTERRUPTED
        except (StackError, BreakfixError, ControlError) as error:
            console.print(Text(f"demo: {error}", style="red"))
            return 1
    console.print(Text("as expected" if is_good else "NOT as expected", style="bold"))
    return 0 if is_good else 1


if __name__ == "__main__":
    sys.exit(main())
