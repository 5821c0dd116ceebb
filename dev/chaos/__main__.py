"""`python -m dev.chaos`: the stack under random kills; exit 1 when a rule was broken."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from breakfix.errors import BreakfixError
from dev.chaos.report import page, table
from dev.chaos.run import Run
from dev.stack.airflow import ROOT
from dev.stack.interrupts import ending_signals_interrupt
from dev.stack.processes import StackError
from dev.stack.stack import Stack, StackConfig
from simfleet.client import ControlError

FLEET = Path(__file__).with_name("fleet.yaml")
POLICY = Path(__file__).with_name("policy.yaml")
SWEEP_S = 15.0
INTERRUPTED = 130


def stack_config(folder: Path) -> StackConfig:
    """The demo's stack with a fleet of its own."""
    return StackConfig(
        folder,
        fleet_arguments=("--config", str(FLEET)),
        policy=POLICY,
        scrape_interval="2s",
        env={
            "BREAKFIX_CLUSTER_NAME": "chaos",
            "BREAKFIX_SWEEP_INTERVAL": f"{SWEEP_S:.0f}",
            "BREAKFIX_RECONCILE_INTERVAL": "45",
        },
    )


def main(argv: Sequence[str] | None = None) -> int:
    """0 when every rule held, 1 when one did not, 130 when interrupted."""
    parser = argparse.ArgumentParser(prog="python -m dev.chaos", description=__doc__)
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--settle", type=float, default=600.0, help="seconds, at most, after that")
    parser.add_argument("--folder", type=Path, default=ROOT / ".breakfix" / "chaos")
    parser.add_argument("--write", type=Path, help="publish the numbers there, as Markdown")
    chosen = parser.parse_args(argv)
    folder = chosen.folder.resolve()
    shutil.rmtree(folder, ignore_errors=True)
    console = Console()
    with ending_signals_interrupt():
        try:
            with Stack(stack_config(folder), say=console.print) as stack:
                run = Run(
                    stack,
                    chosen.seed,
                    chosen.minutes * 60,
                    lambda line: console.print(Text(line), soft_wrap=True),
                )
                result = run.go(chosen.settle)
        except KeyboardInterrupt:
            console.print("interrupted; everything that was started has ended")
            return INTERRUPTED
        except (StackError, BreakfixError, ControlError) as error:
            console.print(Text(f"chaos: {error}", style="red"))
            return 1
    for trouble in result.troubles[:10]:
        console.print(Text(trouble, style="yellow"))
    console.print(table(result, SWEEP_S))
    if chosen.write:
        command = f"python -m dev.chaos --minutes {chosen.minutes:g} --seed {chosen.seed}"
        chosen.write.write_text(page(result, SWEEP_S, command), encoding="utf-8")
    return 0 if result.is_good else 1


if __name__ == "__main__":
    sys.exit(main())
