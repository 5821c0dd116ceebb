"""An event loop whose clock jumps to whatever is next: days of timers in no time, in one order.

Only for what waits by timers: a thread's result would come after time that never was.
"""

from __future__ import annotations

import asyncio
import selectors
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class _Jumping(selectors.DefaultSelector):
    """Waits for nothing: what it would have waited passes at once."""

    passed_s = 0.0

    def select(self, timeout=None):
        if timeout is None:
            raise AssertionError("everybody waits, and no timer is set: nobody would ever go on")
        self.passed_s += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """`time()` begins at 0, `now()` at START."""

    def __init__(self):
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self):
        return self._jumping.passed_s

    def now(self):
        return START + timedelta(seconds=self.time())


def run(main):
    """What the coroutine `main(loop)` returns; whatever it left running is cancelled."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main(runner.get_loop()))
