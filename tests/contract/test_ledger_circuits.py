"""Circuits in memory and on Postgres: one writer wins, and nobody waits long for a breaker."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from breakfix.adapters.ledger import PostgresLedger
from breakfix.errors import LedgerError
from breakfix.resilience.breaker import Breaker, BreakerRule, Circuit, CircuitOpen, CircuitState
from breakfix.resilience.circuits import CircuitsInMemory, SharedCircuits

NOW = datetime(2026, 1, 1, tzinfo=UTC)
OPEN = Circuit(CircuitState.OPEN, 5, NOW + timedelta(seconds=30), NOW, "connection refused", 1)


@pytest.fixture(params=["memory", "postgres"])
def circuits(request):
    if request.param == "memory":
        return CircuitsInMemory()
    return request.getfixturevalue("open_ledger")().circuits


def test_what_nobody_saved_is_closed(circuits):
    assert circuits.load("kubernetes") == Circuit()
    assert dict(circuits.all()) == {}


def test_it_comes_back_as_it_was_saved(circuits):
    assert circuits.save("kubernetes", OPEN, over=0)
    assert circuits.load("kubernetes") == OPEN
    assert dict(circuits.all()) == {"kubernetes": OPEN}


def test_a_change_on_top_of_an_older_version_is_refused(circuits):
    circuits.save("kubernetes", OPEN, over=0)
    assert not circuits.save("kubernetes", replace(OPEN, failures=9, version=1), over=0)
    assert circuits.load("kubernetes") == OPEN
    assert circuits.save("kubernetes", Circuit(version=2), over=1)
    assert circuits.load("kubernetes") == Circuit(version=2)


def test_dependencies_do_not_share_a_circuit(circuits):
    circuits.save("kubernetes", OPEN, over=0)
    assert circuits.load("prometheus") == Circuit()


def test_of_sixteen_that_save_at_once_one_wins(circuits):
    gate = threading.Barrier(16, timeout=20)

    def save(i):
        gate.wait()
        return circuits.save("kubernetes", replace(OPEN, failures=i), over=0)

    with ThreadPoolExecutor(16) as pool:
        won = list(pool.map(save, range(16)))
    assert sum(won) == 1
    assert circuits.load("kubernetes").failures == won.index(True)


def test_clusters_of_one_database_do_not_share_a_circuit(open_ledger):
    open_ledger("one").circuits.save("kubernetes", OPEN, over=0)
    assert open_ledger("two").circuits.load("kubernetes") == Circuit()


class Down(Exception):
    """The dependency is not there."""


def test_failures_of_several_processes_open_it_for_all(open_ledger):
    def breaker():
        store = SharedCircuits(open_ledger().circuits)
        return Breaker("x", on=(Down,), store=store, now=lambda: NOW, rule=BreakerRule(failures=3))

    def fail():
        raise Down("away")

    for _ in range(3):
        with pytest.raises(Down):
            breaker().call(fail)
    with pytest.raises(CircuitOpen, match=r"x failed 3 times in a row.*00:00:30 UTC.*away"):
        breaker().call(lambda: pytest.fail("was asked"))


def test_a_ledger_that_is_down_is_a_ledger_error_and_not_asked_twice():
    ledger = PostgresLedger("postgresql://nobody@127.0.0.1:1/none")
    with pytest.raises(LedgerError):
        ledger.circuits.load("x")
    ledger.close()


def test_a_locked_circuit_is_given_up_within_its_timeout(open_ledger, ledger_url):
    import psycopg

    ledger = open_ledger()
    ledger.circuits.save("x", OPEN, over=0)
    dsn = ledger_url.replace("+psycopg", "")
    with psycopg.connect(dsn, connect_timeout=5) as other:
        other.execute("SELECT 1 FROM breakfix.circuits FOR UPDATE")
        with pytest.raises(LedgerError) as e:
            ledger.circuits.save("x", replace(OPEN, version=2), over=1)
    assert e.value.is_transient
