"""Things worth remembering for a while: a time to live per entry, the least used go first."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

from cachetools import TLRUCache

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheFigures:
    """What a cache did since it was made."""

    hits: int
    misses: int
    evictions: int  # for want of room; entries that grew old are not counted
    size: int


@dataclass(frozen=True, slots=True)
class _Entry(Generic[V]):
    value: V
    ttl_s: float


class _Counted(TLRUCache[K, _Entry[V]]):
    """cachetools' cache, counting what it throws out for want of room."""

    evictions = 0

    def popitem(self) -> tuple[K, _Entry[V]]:
        self.evictions += 1
        return super().popitem()


class Cache(Generic[K, V]):
    """Thread-safe. `ttl_s` is the default time to live in seconds; `size` the most entries.

    Whoever loads a key loads it for everybody that asks meanwhile; an error goes to all of them,
    and is not remembered.
    """

    def __init__(
        self, *, size: int, ttl_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ttl_s = ttl_s
        self._lock = threading.RLock()
        self._loading: dict[K, Future[V]] = {}
        self._hits = 0
        self._misses = 0
        self._entries: _Counted[K, V] = _Counted(
            size, ttu=lambda _key, entry, now: now + entry.ttl_s, timer=clock
        )

    def get(self, key: K) -> V | None:
        """The value, or None when it is not there or too old."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                self._misses += 1
                return None
            self._hits += 1
            return entry.value

    def set(self, key: K, value: V, *, ttl_s: float | None = None) -> None:
        """Remember a value, for the default time or its own."""
        with self._lock:
            self._entries[key] = _Entry(value, self._ttl_s if ttl_s is None else ttl_s)

    def delete(self, key: K) -> None:
        """Forget a value; one that is being loaded now is not remembered either."""
        with self._lock:
            self._entries.pop(key, None)
            self._loading.pop(key, None)

    def expire(self) -> int:
        """Throw out what is too old; how many entries that were."""
        with self._lock:
            return len(self._entries.expire())

    def load(self, key: K, loader: Callable[[], V], *, ttl_s: float | None = None) -> V:
        """The value, from `loader` when it is not there: one call, however many ask at once."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is not None:
                self._hits += 1
                return entry.value
            self._misses += 1
            mine: Future[V] = Future()
            first = self._loading.setdefault(key, mine)
        if first is not mine:
            return first.result()
        return self._load(key, loader, mine, ttl_s)

    def _load(self, key: K, loader: Callable[[], V], mine: Future[V], ttl_s: float | None) -> V:
        try:
            value = loader()
        except BaseException as e:
            self._done(key, mine)
            mine.set_exception(e)
            raise
        with self._lock:
            if self._done(key, mine):
                self.set(key, value, ttl_s=ttl_s)
        mine.set_result(value)
        return value

    def _done(self, key: K, mine: Future[V]) -> bool:
        """Whether this load still counts: nobody deleted the key meanwhile."""
        with self._lock:
            if self._loading.get(key) is not mine:
                return False
            del self._loading[key]
            return True

    @property
    def figures(self) -> CacheFigures:
        with self._lock:
            return CacheFigures(
                self._hits, self._misses, self._entries.evictions, len(self._entries)
            )
