"""One poll for everything that waits: requests do not grow with the number of cases."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from breakfix.flow.stages import Wait

log = logging.getLogger(__name__)

OVER = "over"
DEADLINE = "deadline"

#: A poll that takes longer is left alone and told as failed, so that deadlines are still kept.
POLL_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one poll says: for each wait whether it is over, and when to look again."""

    is_over: Sequence[bool]
    again_in_s: float


class Clockwork(Protocol):
    """Time as the batcher needs it; tests have their own."""

    def now(self) -> datetime: ...

    async def sleep(self, seconds: float) -> None: ...


class LoopTime:
    """The real one."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Batcher:
    """Collects the waits of one event loop and polls for all of them at once, while there are any.

    A poll that fails is logged and repeated at the next interval; a waiter that is cancelled
    leaves; a wait's deadline is kept even when no poll succeeds.
    """

    def __init__(
        self,
        look: Callable[[Sequence[Wait]], Awaitable[Look]],
        *,
        time: Clockwork | None = None,
        retry_in_s: float = 10.0,
        poll_timeout_s: float = POLL_TIMEOUT_S,
    ) -> None:
        self._look = look
        self._time = time or LoopTime()
        self._retry_in_s = retry_in_s
        self._poll_timeout_s = poll_timeout_s
        self._waiting: dict[asyncio.Future[str], Wait] = {}
        self._poller: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[Look] | None = None

    async def until_over(self, wait: Wait) -> str:
        """OVER when what is waited for has come, DEADLINE when its time is up."""
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[future] = wait
        if self._poller is None or self._poller.done():
            self._poller = asyncio.create_task(self._poll(), name="breakfix-poll")
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def _poll(self) -> None:
        while self._waiting:
            asked = dict(self._waiting)
            again_in_s = self._retry_in_s
            look = await self._ask(tuple(asked.values()))
            if look is not None:
                again_in_s = look.again_in_s
                self._tell(asked, look.is_over)
            self._tell_deadlines()
            if self._waiting:
                await self._time.sleep(again_in_s)

    async def _ask(self, waits: Sequence[Wait]) -> Look | None:
        """One look; None when it failed, or when one has not come back in time."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look(waits))
            is_ours = True
        else:
            is_ours = False  # asked for another list of waits: its answer is of no use
        done, _ = await asyncio.wait({self._looking}, timeout=self._poll_timeout_s)
        if not done:
            log.warning("poll of %d waits is not back yet; asked again later", len(waits))
            return None
        looking, self._looking = self._looking, None
        try:
            look = looking.result()
        except Exception:
            log.warning("poll of %d waits failed; asked again later", len(waits), exc_info=True)
            return None
        return look if is_ours else None

    def _tell(self, asked: Mapping[asyncio.Future[str], Wait], is_over: Sequence[bool]) -> None:
        for future, over in zip(asked, is_over, strict=True):
            if over:
                self._end(future, OVER)

    def _tell_deadlines(self) -> None:
        now = self._time.now()
        for future, wait in tuple(self._waiting.items()):
            if now >= wait.deadline:
                self._end(future, DEADLINE)

    def _end(self, future: asyncio.Future[str], reason: str) -> None:
        self._waiting.pop(future, None)
        if not future.done():
            future.set_result(reason)
