"""Killed processes, lost connections, restarts: nothing is half done."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from breakfix.adapters.ledger import PostgresLedger, audit
from breakfix.errors import LedgerError, Refused
from breakfix.model import Case, NodeState, Scope, ScopeKind
from tests.contract.ledger_builders import (
    NOW,
    admit,
    an_intent,
    connect,
    events,
    later,
    limits,
    to_validating,
)

DIES = """
import os, signal, sys
from breakfix.adapters.ledger import PostgresLedger, audit
from tests.contract.ledger_builders import *

def die(*args, **kwargs):
    real(*args, **kwargs)
    print("written, not committed", flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

real, audit.append = audit.append, die
ledger = PostgresLedger(sys.argv[1], "test")
{call}
"""


@pytest.mark.parametrize(
    "call",
    [
        pytest.param('admit(ledger, "n2")', id="admission"),
        pytest.param(
            'ledger.end_case(sys.argv[2], 1, "aborted", actor="a", reason="r", now=NOW)', id="end"
        ),
        pytest.param('ledger.begin_step(sys.argv[2], 1, "s", detail={}, now=NOW)', id="step"),
    ],
)
def test_a_process_killed_in_mid_transaction_leaves_nothing_half_done(
    open_ledger, ledger_url, call
):
    ledger = open_ledger()
    case = admit(ledger, "n1")
    before = (ledger.cases(), ledger.steps(case.id), ledger.head())
    child = subprocess.run(
        [sys.executable, "-c", DIES.replace("{call}", call), ledger_url, case.id],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(["include", "."])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert child.returncode == -signal.SIGKILL, child.stderr
    assert "written, not committed" in child.stdout
    assert (ledger.cases(), ledger.steps(case.id), ledger.head()) == before
    # the dead process holds no lock
    assert isinstance(ledger.admit(an_intent("n2"), limits(rack=2), requester="s", now=NOW), Case)
    assert ledger.verify_audit()[1] == ""


def test_a_lost_connection_is_mended_without_the_caller_seeing_it(open_ledger, ledger_url):
    ledger = open_ledger()
    case = admit(ledger, "n1")
    with connect(ledger_url) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE application_name='breakfix' AND datname=current_database()"
        )
    ledger.begin_step(case.id, 1, "drain", detail={}, now=later(1))
    assert len(ledger.steps(case.id)) == 1


def test_a_connection_lost_in_mid_transaction_is_repeated_once_and_whole(
    open_ledger, ledger_url, monkeypatch
):
    ledger, real, cut = open_ledger(), audit.append, []

    def append_and_cut(connection, *args, **kwargs):
        real(connection, *args, **kwargs)
        if not cut:
            cut.append(True)
            pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
            with connect(ledger_url) as other:
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))
            connection.exec_driver_sql("SELECT 1")

    monkeypatch.setattr(audit, "append", append_and_cut)
    case = admit(ledger, "n1")
    assert cut
    assert [c.id for c in ledger.cases()] == [case.id]
    assert events(ledger) == ["case.admitted"]


def test_a_connection_lost_while_committing_is_not_repeated(open_ledger, ledger_url, monkeypatch):
    ledger, real, calls = open_ledger(), audit.append, []

    def append_then_cut_at_commit(connection, *args, **kwargs):
        real(connection, *args, **kwargs)
        calls.append(1)
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        with connect(ledger_url) as other:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

    monkeypatch.setattr(audit, "append", append_then_cut_at_commit)
    with pytest.raises(LedgerError, match="while committing") as caught:
        ledger.audit("e", "s", actor="a", detail={}, now=NOW)
    assert caught.value.is_transient
    assert len(calls) == 1
    assert events(ledger) == []


def test_a_lock_that_is_never_given_ends_as_a_transient_error(open_ledger, ledger_url):
    ledger = open_ledger(lock_timeout_s=0.2)
    case = admit(ledger, "n1")
    with connect(ledger_url) as other, other.transaction():
        other.execute("SELECT * FROM breakfix.cases FOR UPDATE")
        with pytest.raises(LedgerError, match="lock timeout") as caught:
            ledger.take_over(case.id, 1, actor="a", reason="r", now=NOW)
    assert caught.value.is_transient
    assert ledger.take_over(case.id, 1, actor="a", reason="r", now=NOW).fence == 2


def test_a_server_that_is_not_there_is_a_transient_error(private_postgres):
    ledger = PostgresLedger("postgresql://u:secret@127.0.0.1:1/d", "test", connect_timeout_s=2)
    with pytest.raises(LedgerError) as caught:
        ledger.cases()
    assert caught.value.is_transient
    assert "secret" not in str(caught.value)
    ledger.close()


def test_what_was_stored_is_there_after_a_restart_of_the_program(open_ledger):
    one = open_ledger()
    case = to_validating(one, admit(one, "n1"), repaired_at=later(9))
    one.close()
    two = open_ledger()
    assert two.case(case.id) == case
    assert two.id == one.id
    no = two.admit(an_intent("n2"), limits(rack=1), requester="s", now=later(99))
    assert no.scope == Scope(ScopeKind.RACK, "r1")


def test_a_naive_time_is_refused_before_anything_is_written(open_ledger):
    ledger = open_ledger()
    with pytest.raises(LedgerError, match="time zone"):
        ledger.admit(an_intent("n1"), [], requester="s", now=NOW.replace(tzinfo=None))
    assert ledger.cases() == ()


def test_an_error_inside_leaves_the_pool_usable(open_ledger):
    ledger = open_ledger()
    case = admit(ledger, "n1")
    for _ in range(40):
        with pytest.raises(Refused):
            ledger.take_over(case.id, 9, actor="a", reason="r", now=NOW)
    assert ledger.case(case.id).state is NodeState.QUARANTINED
