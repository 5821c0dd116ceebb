"""Simulated time: real time multiplied by a speed."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta


class Clock:
    """A clock that starts at the real time and runs `speed` times as fast.

    Everything that lasts (a reboot, a grace period, a test pod) is given in simulated seconds;
    only the clock knows how long that takes. With speed 1 it is the wall clock, so that what
    Prometheus scrapes and what the API says agree.
    """

    def __init__(self, speed: float = 1.0) -> None:
        if speed <= 0:
            raise ValueError(f"clock speed must be above 0, not {speed}")
        self.speed = speed
        self._wall_start = datetime.now(UTC)
        self._monotonic_start = time.monotonic()

    def elapsed_s(self) -> float:
        """Simulated seconds since the clock was made."""
        return (time.monotonic() - self._monotonic_start) * self.speed

    def now(self) -> datetime:
        """The simulated time, aware, UTC."""
        return self._wall_start + timedelta(seconds=self.elapsed_s())

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
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
