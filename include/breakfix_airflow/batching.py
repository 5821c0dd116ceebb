"""One look for everything that waits: requests do not grow with the number of cases.

Every waiting trigger asks, is told, and asks again; `resilience.batching` gathers what they ask for
the length of a poll and looks once. So there is at most one look a poll, whoever comes and goes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from breakfix.flow.stages import Wait
from breakfix.resilience.batching import Batch

log = logging.getLogger(__name__)

OVER = "over"
DEADLINE = "deadline"

#: A look that takes longer is told as failed, and asked again.
LOOK_TIMEOUT_S = 120.0
#: The first look comes after so long, and the next one after one that failed.
RETRY_IN_S = 10.0
_FIRST_IN_S = 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """What one look says: for each wait whether it is over, and when to look again."""

    is_over: Sequence[bool]
    again_in_s: float


class Batcher:
    """Looks for all waits of one event loop at once, while there are any.

    A look that fails is logged once and repeated at the next poll; a waiter that is cancelled
    leaves; a wait's deadline is kept to the second even when no look succeeds.
    """

    def __init__(
        self,
        look: Callable[[Sequence[Wait]], Awaitable[Look]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        retry_in_s: float = RETRY_IN_S,
        look_timeout_s: float = LOOK_TIMEOUT_S,
    ) -> None:
        self._look = look
        self._now = now
        self._retry_in_s = retry_in_s
        self._again_in_s = _FIRST_IN_S
        self._batch: Batch[Wait, bool] = Batch(
            self._ask, wait_s=lambda: self._again_in_s, timeout_s=look_timeout_s
        )

    async def until_over(self, wait: Wait) -> str:
        """OVER when what is waited for has come, DEADLINE when its time is up."""
        while (left_s := (wait.deadline - self._now()).total_seconds()) > 0:
            try:
                if await asyncio.wait_for(self._batch.ask(wait), left_s):
                    return OVER
            except TimeoutError:  # ours: the batch has its own word for that
                continue
            except Exception as e:  # noqa: BLE001 told once for all, in _ask; asked again
                log.debug("case=%s is asked for again: %s", wait.case_id, e)
        return DEADLINE

    async def _ask(self, waits: Sequence[Wait]) -> Sequence[bool]:
        self._again_in_s = self._retry_in_s
        try:
            look = await self._look(waits)
        except Exception:
            log.warning("a look for %d waits failed; repeated later", len(waits), exc_info=True)
            raise
        self._again_in_s = look.again_in_s
        return look.is_over
