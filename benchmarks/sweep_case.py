"""One way to get from Prometheus to verdicts, once, in this process."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from benchmarks.fleet import Fleet
from benchmarks.measure import Run, run_case, tell, timed
from benchmarks.rules import default_policy, ten_signals
from benchmarks.ways import Setup

WAYS = ("product", "dropped", "snapshots")


@dataclass(frozen=True, slots=True)
class Target:
    """The server that is asked, and what it has been filled with."""

    url: str
    pid: int
    fleet: Fleet
    queries: Path  # what a sweep asks, written by `record`
    every_signal: bool = False

    def arguments(self) -> Sequence[str]:
        """For a case in a process of its own."""
        return [
            *(f"--url={self.url}", f"--pid={self.pid}", f"--at={self.fleet.at.isoformat()}"),
            *(f"--nodes={self.fleet.size}", f"--queries={self.queries}"),
            *(["--every-signal"] * self.every_signal),
        ]

    def with_every_signal(self) -> Target:
        """The same server, asked for all signals of the default policy."""
        queries = self.queries.with_name("every-query.json")
        return replace(self, queries=queries, every_signal=True)

    def run(self, way: str) -> Run:
        """One of WAYS, in a fresh process."""
        return run_case("benchmarks.sweep_case", [way, *self.arguments()])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("way", choices=[*WAYS, "record"])
    parser.add_argument("--url", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--at", type=datetime.fromisoformat, required=True)
    parser.add_argument("--nodes", type=int, required=True)
    parser.add_argument("--queries", type=Path, required=True)
    parser.add_argument("--every-signal", action="store_true")
    given = parser.parse_args()
    way = importlib.import_module(
        f"benchmarks.ways.{'product' if given.way == 'record' else given.way}"
    )
    setup = Setup(
        url=given.url,
        fleet=Fleet(given.nodes, given.at),
        policy=default_policy() if given.every_signal else ten_signals(),
        queries=given.queries,
    )
    if given.way == "record":
        _, cost = timed(lambda: way.record(setup), server_pid=given.pid)
        tell(cost)
        return
    result, cost = timed(way.prepare(setup), server_pid=given.pid)
    tell(cost, **way.told(result))


if __name__ == "__main__":
    main()
