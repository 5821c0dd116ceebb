"""Many single requests, one call: what comes within a moment is asked together."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from breakfix.errors import SourceError

Q = TypeVar("Q")
A = TypeVar("A")


class BatchError(SourceError):
    """The batch that carried this request gave it no answer."""


@dataclass(slots=True)
class _Asked(Generic[Q, A]):
    request: Q
    answer: asyncio.Future[A]


class Batch(Generic[Q, A]):
    """Gathers requests up to `size`, or for `wait_s` seconds after the first, and runs one call.

    So there is at most one call in `wait_s` seconds, or one for each `size` requests. `wait_s` may
    be a function that is asked anew for each batch; no `size`: only time makes a batch.

    `call` gets the requests in order and returns an answer for each; an Exception in place of an
    answer is that caller's alone. A call that fails as a whole, or returns too few, fails those it
    left without. A caller that is cancelled leaves the others alone. Of one event loop.
    """

    def __init__(
        self,
        call: Callable[[Sequence[Q]], Awaitable[Sequence[A | Exception]]],
        *,
        size: int | None = None,
        wait_s: float | Callable[[], float],
        timeout_s: float,
    ) -> None:
        self._call = call
        self._size = size
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._queue: list[_Asked[Q, A]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._running: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def ask(self, request: Q) -> A:
        """The answer to one request. Raises what the batch says of it, or BatchError."""
        if self._is_closed:
            raise BatchError("the batch is closed: nothing more is asked")
        loop = asyncio.get_running_loop()
        asked: _Asked[Q, A] = _Asked(request, loop.create_future())
        self._queue.append(asked)
        if self._size is not None and len(self._queue) >= self._size:
            self._flush()
        elif self._timer is None:
            wait_s = self._wait_s() if callable(self._wait_s) else self._wait_s
            self._timer = loop.call_later(wait_s, self._flush)
        return await asked.answer

    async def close(self) -> None:
        """Ask what is queued, wait for all calls; later requests are refused."""
        self._is_closed = True
        self._flush()
        if self._running:
            await asyncio.wait(self._running)

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        queue, self._queue = self._queue, []
        wanted = [asked for asked in queue if not asked.answer.done()]
        if wanted:
            task = asyncio.get_running_loop().create_task(self._run(wanted))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _run(self, wanted: Sequence[_Asked[Q, A]]) -> None:
        answers: Sequence[A | Exception] = ()
        missing: Exception = BatchError("the batch gave no answer to this request")
        try:
            call = self._call([asked.request for asked in wanted])
            answers = tuple(await asyncio.wait_for(call, self._timeout_s))
        except asyncio.CancelledError:
            missing = BatchError("the batch was cancelled", is_transient=True)
            raise
        except TimeoutError:
            missing = BatchError(
                f"the batch took longer than {self._timeout_s:g} s", is_transient=True
            )
        except Exception as e:  # noqa: BLE001 the batch's error is each caller's
            missing = e
        finally:
            for i, asked in enumerate(wanted):
                _tell(asked.answer, answers[i] if i < len(answers) else missing)


def _tell(answer: asyncio.Future[A], said: A | Exception) -> None:
    if answer.done():  # the caller left
        return
    if isinstance(said, Exception):
        answer.set_exception(said)
    else:
        answer.set_result(said)
