"""`make bench`: fills a private Prometheus, measures every way in turn, writes docs/speed.md.

BENCH_SCALE is the number of nodes (10000), BENCH_ROUNDS how often each case runs (5). Exits 1 when
a floor is missed; a smaller run than the full one only says what it measured and writes nothing.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.cases import (
    measure_acting,
    measure_command,
    measure_decide,
    measure_drain,
    measure_every_signal,
    measure_fill,
    measure_kubernetes,
    measure_sweeps,
)
from benchmarks.fleet import GPUS_PER_NODE, fleet_now
from benchmarks.measure import ROOT
from benchmarks.report import render
from benchmarks.results import FULL_SCALE, Results
from benchmarks.sweep_case import Target
from dev.stack.processes import Processes
from dev.stack.prometheus import PrivatePrometheus

DOCUMENT = ROOT / "docs/speed.md"


def measure(nodes: int, rounds: int, folder: Path) -> Results:
    """Everything, on servers that are gone afterwards. Raises what goes wrong."""
    fleet = fleet_now(nodes)
    results = Results(gpus=nodes * GPUS_PER_NODE)
    with (
        Processes(folder / "logs") as processes,
        PrivatePrometheus(folder / "prometheus", processes, remote_write=True) as server,
    ):
        target = Target(server.url, server.pid, fleet, folder / "queries.json")
        measure_fill(results, target)
        measure_sweeps(results, target, rounds)
        measure_every_signal(results, target, rounds)
        measure_command(results, target, processes, folder, rounds)
        measure_kubernetes(results, nodes, processes, rounds)
        measure_acting(results, nodes, processes, folder, min(rounds, 2))
        measure_drain(results, processes, folder)
    measure_decide(results, nodes)
    return results


def main() -> int:
    nodes = int(os.environ.get("BENCH_SCALE", FULL_SCALE // GPUS_PER_NODE))
    rounds = int(os.environ.get("BENCH_ROUNDS", "5"))
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="breakfix-bench-") as folder:
        results = measure(nodes, rounds, Path(folder))
    text = render(results, rounds, took_s=time.monotonic() - start)
    if results.gpus < FULL_SCALE:
        print(text)
        return 0
    DOCUMENT.write_text(text, encoding="utf-8")
    missed = [f for f in results.floors() if not f.is_met]
    for floor in missed:
        print(f"missed: {floor.what}: {floor.measured:.3g}{floor.unit}, limit {floor.limit:g}")
    print(f"wrote {DOCUMENT.relative_to(ROOT)}")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
