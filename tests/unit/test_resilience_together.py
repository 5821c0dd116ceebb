"""One call for all who ask at once: fewer calls, and nobody is told anything old."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from breakfix.resilience.together import Together

THREADS = 16


def test_alone_everybody_makes_a_call_of_its_own():
    together, numbers = Together(), itertools.count()
    assert [together(lambda: next(numbers)) for _ in range(3)] == [0, 1, 2]


def test_those_that_come_while_a_call_is_under_way_share_the_next_one():
    together, numbers = Together(size=THREADS), itertools.count()
    is_under_way, may_end = threading.Event(), threading.Event()

    def first():
        is_under_way.set()
        assert may_end.wait(10)
        return next(numbers)

    with ThreadPoolExecutor(THREADS + 1) as pool:
        one = pool.submit(together, first)
        assert is_under_way.wait(10)
        others = [pool.submit(together, lambda: next(numbers)) for _ in range(THREADS)]
        while together._next is None:  # the first of the others opens the next round
            threading.Event().wait(0)
        assert together._next.is_full.wait(10)
        may_end.set()
        assert one.result(10) == 0
        assert {o.result(10) for o in others} == {1}
    assert together.calls == 2


def test_a_dear_call_waits_until_all_are_there():
    together, numbers = Together(size=THREADS, gather_s=60.0), itertools.count()
    gate = threading.Barrier(THREADS, timeout=10)

    def ask(_):
        gate.wait()
        return together(lambda: next(numbers))

    with ThreadPoolExecutor(THREADS) as pool:
        assert set(pool.map(ask, range(THREADS))) == {0}
    assert together.calls == 1


def test_a_dear_call_does_not_wait_for_ever_for_those_that_never_come():
    assert Together(size=2, gather_s=0.01)(lambda: 7) == 7


def test_nobody_is_told_what_was_found_before_it_asked():
    together, clock, gate = Together(), itertools.count(), threading.Barrier(THREADS, timeout=10)

    def ask(_):
        gate.wait()
        for _ in range(50):
            asked = next(clock)
            assert together(lambda: next(clock)) > asked

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(THREADS)))
    assert together.calls <= THREADS * 50


def test_an_error_is_everybodys_who_shared_the_call_and_nobody_elses():
    together = Together(size=THREADS, gather_s=60.0)
    gate = threading.Barrier(THREADS, timeout=10)

    def fail():
        raise ValueError("away")

    def ask(_):
        gate.wait()
        with pytest.raises(ValueError, match="away"):
            together(fail)

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(ask, range(THREADS)))
    assert Together()(lambda: 7) == 7
    assert together.calls == 1
