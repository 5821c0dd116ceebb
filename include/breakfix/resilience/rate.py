"""A token bucket for each target: a burst is allowed, a flood is not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta


def reserved(
    free_at: datetime | None, now: datetime, *, count: int, per_s: float
) -> tuple[float, datetime]:
    """The same limit as one moment that can be stored, for processes that share it.

    `free_at` is when the next place is free (None: at once). Returns how many seconds to wait for
    the first of `count` places, which follow one another every 1 / `per_s` seconds, and the new
    `free_at`.
    """
    first = now if free_at is None else max(now, free_at)
    return (first - now).total_seconds(), first + timedelta(seconds=count / per_s)


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimit:
    """`per_s` calls a second and target on average, `burst` at once. Thread-safe.

    Whoever comes gets a place in the queue at once and is told how long to wait for it: nobody
    polls, and nobody overtakes.
    """

    def __init__(
        self,
        per_s: float,
        *,
        burst: int = 1,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if per_s <= 0 or burst < 1:
            raise ValueError("a rate limit needs a rate above zero and a burst of at least one")
        self._per_s = per_s
        self._burst = float(burst)
        self._clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._buckets: dict[str, _Bucket] = {}

    def reserve(self, target: str = "") -> float:
        """Take the next place; how many seconds to wait for it."""
        with self._lock:
            now = self._clock()
            bucket = self._buckets.setdefault(target, _Bucket(self._burst, now))
            grown = bucket.tokens + max(0.0, now - bucket.at) * self._per_s
            bucket.tokens = min(self._burst, grown) - 1.0
            bucket.at = now
            return max(0.0, -bucket.tokens / self._per_s)

    def wait(self, target: str = "") -> float:
        """Take the next place and wait for it; how long that was, in seconds."""
        seconds = self.reserve(target)
        if seconds > 0:
            self._sleep(seconds)
        return seconds
