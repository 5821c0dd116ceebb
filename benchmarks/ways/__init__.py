"""From Prometheus to verdicts: the product's way, and those that it is compared with.

Each module has `prepare(Setup)`, which returns what is timed, and `told(result)` for its summary.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.fleet import Fleet
from breakfix.policy import Policy


@dataclass(frozen=True, slots=True)
class Setup:
    """What a way is given."""

    url: str
    fleet: Fleet
    policy: Policy
    queries: Path  # what a sweep asks, batch after batch
