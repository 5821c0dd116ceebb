"""Fills a Prometheus with a fleet, in a process of its own: the memory goes with it."""

from __future__ import annotations

import sys
from datetime import datetime

from benchmarks.fleet import Fleet
from benchmarks.measure import tell, timed
from benchmarks.remote_write import write


def main() -> None:
    url, nodes, at = sys.argv[1:]
    fleet = Fleet(int(nodes), datetime.fromisoformat(at))

    def work() -> tuple[int, int]:
        sent = [(len(s.labels), write(url, s, fleet.times_ms)) for s in fleet.series()]
        return sum(n for n, _ in sent), sum(n for _, n in sent)

    (series, samples), cost = timed(work)
    tell(cost, series=series, samples=samples)


if __name__ == "__main__":
    main()
