"""One call for all who ask at the same time, none of them told what was found before it asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Generic, TypeVar

T = TypeVar("T")


class Together(Generic[T]):
    """Callers that come while a call is under way share the next one. Thread-safe.

    No cache: an answer is given only to those who asked before its call began, so it is never
    older than what each of them would have found alone. Of many that ask at once, one calls; an
    error is everybody's who shared the call.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of `_next`
        self._calling = threading.Lock()  # held by the one that calls
        self._next: Future[T] | None = None
        self.calls = 0

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns now, be it called here or by another that asks for the same."""
        with self._lock:
            joined = self._next
            mine: Future[T] = joined or Future()
            self._next = mine
        return mine.result() if joined is not None else self._lead(mine, call)

    def _lead(self, mine: Future[T], call: Callable[[], T]) -> T:
        with self._calling:
            with self._lock:
                self._next = None  # who comes from now on waits for the next call
            self.calls += 1
            try:
                result = call()
            except BaseException as e:
                mine.set_exception(e)
                raise
            mine.set_result(result)
            return result
