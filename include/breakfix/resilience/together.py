"""One call for all who ask at the same time, none of them told what was found before it asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Round(Generic[T]):
    """Those who will be told by one call that has not begun."""

    answer: Future[T] = field(default_factory=Future)
    members: int = 0
    is_full: threading.Event = field(default_factory=threading.Event)


class Together(Generic[T]):
    """Callers that come while a call is under way share the next one. Thread-safe.

    No cache: an answer is given only to those who asked before its call began, so it is never
    older than what each of them would have found alone. Of many that ask at once, one calls; an
    error is everybody's who shared the call. A dear call waits for others up to `gather_s` seconds,
    or until `size` of them are there.
    """

    def __init__(self, *, size: int = 1, gather_s: float = 0.0) -> None:
        self._size = size
        self._gather_s = gather_s
        self._lock = threading.Lock()  # of `_next`
        self._calling = threading.Lock()  # held by the one that calls
        self._next: _Round[T] | None = None
        self.calls = 0

    def __call__(self, call: Callable[[], T]) -> T:
        """What `call` returns now, be it called here or by another that asks for the same."""
        with self._lock:
            round_, is_first = self._next or _Round[T](), self._next is None
            self._next = round_
            round_.members += 1
            if round_.members >= self._size:
                round_.is_full.set()
        return self._lead(round_, call) if is_first else round_.answer.result()

    def _lead(self, mine: _Round[T], call: Callable[[], T]) -> T:
        mine.is_full.wait(self._gather_s)
        with self._calling:
            with self._lock:
                self._next = None  # who comes from now on waits for the next call
            self.calls += 1
            try:
                result = call()
            except BaseException as e:
                mine.answer.set_exception(e)
                raise
            mine.answer.set_result(result)
            return result
