"""Rounds of measurements, and the floors that they must keep."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.measure import Run

#: GPUs of the floors: they promise nothing about a smaller run.
FULL_SCALE = 80_000


@dataclass(frozen=True, slots=True)
class Floor:
    """One promise: `measured` must be at most (or, with `at_least`, at least) `limit`."""

    what: str
    measured: float
    limit: float
    unit: str = "x"
    at_least: bool = False

    @property
    def is_met(self) -> bool:
        return self.measured >= self.limit if self.at_least else self.measured <= self.limit


@dataclass(slots=True)
class Results:
    """Everything that one `make bench` measured."""

    gpus: int
    series: int = 0
    samples: int = 0
    fill_s: float = 0.0
    queries: int = 0
    sweeps: dict[str, list[Run]] = field(default_factory=dict)
    every_signal: dict[str, list[Run]] = field(default_factory=dict)
    every_signal_count: int = 0
    kubernetes: dict[str, list[Run]] = field(default_factory=dict)
    kubernetes_mib: float = 0.0
    decide: dict[tuple[int, str], Run] = field(default_factory=dict)  # (nodes, which) -> run
    command: dict[str, list[Run]] = field(default_factory=dict)
    acting: list[Run] = field(default_factory=list)
    drain: list[Run] = field(default_factory=list)

    def floors(self) -> list[Floor]:
        """All of them; ratios of the fastest rounds, which the machine disturbed least."""
        product, dropped, naive = (self.sweeps[w] for w in ("product", "dropped", "snapshots"))
        official, ours = self.kubernetes["official"], self.kubernetes["product"]
        return [
            Floor(
                "wall time of a sweep, over its queries with the bodies dropped",
                wall(product) / wall(dropped),
                1.3,
            ),
            Floor(
                "client CPU of a sweep, over the server's",
                cpu(product) / server_cpu(product),
                0.25,
            ),
            Floor(
                "peak memory of a sweep's process",
                max(r.rss_mib for r in product) * 1.048576,
                300,
                " MB",
            ),
            Floor(
                "wall time of snapshots with a row loop, over a sweep's",
                wall(naive) / wall(product),
                5,
                at_least=True,
            ),
            Floor(
                "client CPU of snapshots with a row loop, over a sweep's",
                cpu(naive) / cpu(product),
                20,
                at_least=True,
            ),
            *(
                Floor(f"cost of a verdict at 80,000 GPUs, over that at 1,000: {which}", ratio, 2)
                for which, ratio in self.growth().items()
            ),
            Floor(
                "CPU of the official client's typed list of nodes, over the adapter's",
                cpu(official) / cpu(ours),
                15,
                at_least=True,
            ),
            *self.acting_floors(),
            *(
                Floor(
                    f"wall time of draining {run.told['evicted']} pods, over what the rate allows",
                    run.wall_s / (run.told["evicted"] / run.told["per_s"]),
                    1.1,
                )
                for run in self.drain
            ),
        ]

    def acting_floors(self) -> list[Floor]:
        """The rate of the fastest round; ten times that of NVSentinel is promised."""
        return [
            Floor(
                f"nodes quarantined a second, {run.told['quarantined']} in one sweep",
                run.told["quarantined"] / run.wall_s,
                25,
                "/s",
                at_least=True,
            )
            for run in sorted(self.acting, key=lambda run: run.wall_s)[:1]
        ]

    def growth(self) -> dict[str, float]:
        """CPU of one verdict in the largest fleet over that in the smallest, by kind of fleet."""
        sizes = sorted({nodes for nodes, _ in self.decide})
        kinds = dict.fromkeys(which for _, which in self.decide)
        least, most = sizes[0], sizes[-1]
        return {
            which: (self.decide[most, which].cpu_s / most)
            / (self.decide[least, which].cpu_s / least)
            for which in kinds
        }


def wall(runs: Sequence[Run]) -> float:
    return min(r.wall_s for r in runs)


def cpu(runs: Sequence[Run]) -> float:
    return min(r.cpu_s for r in runs)


def server_cpu(runs: Sequence[Run]) -> float:
    return min(r.server_cpu_s for r in runs)


def spread(values: Sequence[float]) -> str:
    """The smallest and the middle one, as the tables have them."""
    return f"{min(values):.3g} / {statistics.median(values):.3g}"
