"""Time in the simulation: the wall clock for dates, a faster one for durations."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime


class Clock:
    """Dates are real; what lasts (a reboot, a grace period) passes `speed` times faster.

    Dates stay real because others (Prometheus, whoever reads the API) compare them with their
    own clock. Durations are given in simulated seconds everywhere; only the clock knows how
    long they take.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"clock speed must be above 0, not {speed}")
        self.speed = speed
        self._started = time.monotonic()

    def now(self) -> datetime:
        """The date, aware, UTC."""
        return datetime.now(UTC)

    def elapsed_s(self) -> float:
        """Simulated seconds since the clock was made."""
        return (time.monotonic() - self._started) * self.speed

    def since_s(self, when: datetime) -> float:
        """Simulated seconds since a date."""
        return (self.now() - when).total_seconds() * self.speed

    def real_s(self, sim_seconds: float) -> float:
        """How many real seconds `sim_seconds` take."""
        return max(0.0, sim_seconds) / self.speed

    async def sleep(self, sim_seconds: float) -> None:
        """Sleep for a number of simulated seconds."""
        await asyncio.sleep(self.real_s(sim_seconds))


def rfc3339(when: datetime) -> str:
    """`2026-01-02T03:04:05Z`: how the API writes times (whole seconds)."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def rfc3339_micro(when: datetime) -> str:
    """`2026-01-02T03:04:05.123456Z`: how the API writes times of leases and events."""
    return when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_time(text: str) -> datetime:
    """Read a time the API wrote. Raises ValueError on anything else."""
    return datetime.fromisoformat(text)
