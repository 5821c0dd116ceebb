"""The cache: times to live, room, figures, and one load for all who ask."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from breakfix.resilience.cache import Cache, CacheFigures

THREADS = 16


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_entry_lives_its_own_time_or_the_default() -> None:
    clock = Clock()
    cache: Cache[str, int] = Cache(size=8, ttl_s=10.0, clock=clock)
    cache.set("short", 1, ttl_s=5.0)
    cache.set("usual", 2)
    clock.now = 7.0
    assert (cache.get("short"), cache.get("usual")) == (None, 2)
    clock.now = 10.0
    assert cache.get("usual") is None


def test_the_least_used_goes_first() -> None:
    cache: Cache[str, int] = Cache(size=2, ttl_s=10.0)
    cache.set("a", 1)
    cache.set("b", 2)
    assert cache.get("a") == 1
    cache.set("c", 3)
    assert (cache.get("a"), cache.get("b"), cache.get("c")) == (1, None, 3)
    assert cache.figures == CacheFigures(hits=3, misses=1, evictions=1, size=2)


def test_a_sweep_throws_out_what_is_old_and_says_how_much() -> None:
    clock = Clock()
    cache: Cache[str, int] = Cache(size=8, ttl_s=10.0, clock=clock)
    cache.set("a", 1)
    cache.set("b", 2, ttl_s=99.0)
    clock.now = 20.0
    assert cache.expire() == 1
    assert cache.figures.size == 1
    assert cache.figures.evictions == 0


def test_an_error_of_the_loader_goes_to_the_caller_and_is_not_remembered() -> None:
    cache: Cache[str, int] = Cache(size=2, ttl_s=10.0)
    with pytest.raises(LookupError):
        cache.load("a", lambda: {}["a"])
    assert cache.load("a", lambda: 5) == 5
    assert cache.load("a", lambda: pytest.fail("is there")) == 5


def test_many_threads_load_a_key_once_and_all_get_it() -> None:
    cache: Cache[str, object] = Cache(size=4, ttl_s=60.0)
    calls: Counter[str] = Counter()
    everybody = threading.Barrier(THREADS)
    all_asked = threading.Event()

    def loader() -> object:
        calls["load"] += 1
        assert all_asked.wait(30)
        return object()

    def ask(_: int) -> object:
        if everybody.wait(30) == 0:
            all_asked.set()
        return cache.load("topology", loader)

    with ThreadPoolExecutor(THREADS) as pool:
        got = set(pool.map(ask, range(THREADS)))
    assert len(got) == 1
    assert calls["load"] == 1
    assert cache.figures.hits + cache.figures.misses == THREADS


def test_what_is_deleted_while_it_loads_is_not_remembered() -> None:
    cache: Cache[str, int] = Cache(size=4, ttl_s=60.0)

    def loader() -> int:
        cache.delete("a")
        return 1

    assert cache.load("a", loader) == 1
    assert cache.get("a") is None


def test_sixteen_threads_at_once_never_break_it() -> None:
    cache: Cache[int, int] = Cache(size=32, ttl_s=60.0)

    def work(seed: int) -> int:
        wrong = 0
        for i in range(2000):
            key = (seed * 7919 + i * 31) % 64
            wrong += cache.load(key, lambda key=key: key * key) != key * key
            if i % 13 == 0:
                cache.delete(key)
            if i % 101 == 0:
                cache.expire()
        return wrong

    with ThreadPoolExecutor(THREADS) as pool:
        assert sum(pool.map(work, range(THREADS))) == 0
    figures = cache.figures
    assert figures.size <= 32
    assert figures.hits + figures.misses == THREADS * 2000
