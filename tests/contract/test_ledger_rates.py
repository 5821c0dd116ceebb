"""A rate that all processes share, in every ledger."""

from __future__ import annotations

import threading

import pytest


def test_places_follow_one_another_whoever_takes_them(ledger):
    assert ledger.reserve("evictions", count=4, per_s=2.0) == pytest.approx(0.0, abs=0.05)
    assert ledger.reserve("evictions", count=1, per_s=2.0) == pytest.approx(2.0, abs=0.2)
    assert ledger.reserve("evictions", count=1, per_s=2.0) == pytest.approx(2.5, abs=0.2)


def test_targets_do_not_wait_for_one_another(ledger):
    ledger.reserve("evictions", count=100, per_s=1.0)
    assert ledger.reserve("patches", count=1, per_s=1.0) == pytest.approx(0.0, abs=0.05)


def test_two_processes_never_get_the_same_place(open_ledger):
    waits, lock = [], threading.Lock()

    def take(ledger):
        for _ in range(10):
            wait_s = ledger.reserve("evictions", count=1, per_s=0.5)
            with lock:
                waits.append(wait_s)

    threads = [threading.Thread(target=take, args=(open_ledger(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    gaps = [b - a for a, b in zip(sorted(waits), sorted(waits)[1:], strict=False)]
    assert len(waits) == 20
    assert all(gap > 1.0 for gap in gaps), "two places less than a second apart at one in two"


def test_clusters_do_not_share_a_rate(open_ledger):
    open_ledger("a").reserve("evictions", count=100, per_s=1.0)
    assert open_ledger("b").reserve("evictions", count=1, per_s=1.0) < 0.05
