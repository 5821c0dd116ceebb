"""Whoever changes the record is found out."""

from __future__ import annotations

import hashlib
import json
import re

import psycopg
import pytest

from breakfix import record
from breakfix.adapters.ledger import audit
from breakfix.model import Decision
from tests.contract.ledger_builders import (
    NOW,
    admit,
    ask,
    connect,
    decide,
    later,
    to_validating,
)


@pytest.fixture
def chain(open_ledger):
    ledger = open_ledger()
    for i in range(9):
        ledger.audit("test.event", f"s{i}", actor="a", detail={"i": i}, now=later(i))
    return ledger


@pytest.fixture
def intruder(ledger_url):
    """A superuser who has switched the guard off."""
    with connect(ledger_url) as connection:
        connection.execute("ALTER TABLE breakfix.audit DISABLE TRIGGER USER")
        yield connection


@pytest.mark.parametrize(
    ("statements", "said"),
    [
        pytest.param(
            ["UPDATE breakfix.audit SET actor='x' WHERE seq=4"], "entry 4 .* changed", id="actor"
        ),
        pytest.param(
            ["UPDATE breakfix.audit SET at=at + interval '1us' WHERE seq=4"],
            "entry 4 .* changed",
            id="time",
        ),
        pytest.param(
            ["UPDATE breakfix.audit SET detail=' '||detail WHERE seq=4"],
            "entry 4 .* changed",
            id="a blank",
        ),
        pytest.param(
            ["DELETE FROM breakfix.audit WHERE seq=4"], "entry 4 is missing", id="one deleted"
        ),
        pytest.param(
            ["DELETE FROM breakfix.audit WHERE seq=1"], "entry 1 is missing", id="first deleted"
        ),
        pytest.param(
            ["DELETE FROM breakfix.audit WHERE seq>6"], "cut off.* 9.* 6", id="end cut off"
        ),
        pytest.param(["DELETE FROM breakfix.audit"], "cut off.* 9.* 0", id="all deleted"),
        pytest.param(
            [
                "UPDATE breakfix.audit SET seq=-1 WHERE seq=4",
                "UPDATE breakfix.audit SET seq=4 WHERE seq=5",
                "UPDATE breakfix.audit SET seq=5 WHERE seq=-1",
            ],
            "entry 4",
            id="two swapped",
        ),
        pytest.param(
            [
                """INSERT INTO breakfix.audit
                   SELECT cluster, 10, at, actor, event, subject, detail, hash, hash
                   FROM breakfix.audit WHERE seq = 9"""
            ],
            "entry 10",
            id="one appended",
        ),
        pytest.param(
            [
                "DELETE FROM breakfix.audit WHERE seq=4",
                "UPDATE breakfix.audit SET seq=seq-1 WHERE seq=5",
                "UPDATE breakfix.audit SET seq=seq-1 WHERE seq=6",
                "UPDATE breakfix.audit SET seq=seq-1 WHERE seq=7",
                "UPDATE breakfix.audit SET seq=seq-1 WHERE seq=8",
                "UPDATE breakfix.audit SET seq=seq-1 WHERE seq=9",
            ],
            "entry 4 does not follow",
            id="closed the gap",
        ),
        pytest.param(["DELETE FROM breakfix.audit_heads"], "head is lost", id="head deleted"),
        pytest.param(
            ["UPDATE breakfix.audit_heads SET seq=8"], "not the chain's head", id="head set back"
        ),
    ],
)
def test_tampering_is_found(chain, intruder, statements, said):
    assert chain.verify_audit() == (9, "")
    for statement in statements:
        intruder.execute(statement)
    good, fault = chain.verify_audit()
    assert good <= 9
    assert re.search(said, fault), fault


def test_a_tail_cut_with_its_head_is_found_by_who_remembers_the_head(chain, intruder):
    known = chain.head()
    intruder.execute("DELETE FROM breakfix.audit WHERE seq>6")
    intruder.execute(
        "UPDATE breakfix.audit_heads h SET seq=6,"
        " hash=(SELECT hash FROM breakfix.audit WHERE seq=6)"
    )
    assert chain.verify_audit() == (6, "")
    assert "older copy" in record.verify(chain, known).fault
    for i in range(5):
        chain.audit("test.other", "s", actor="a", detail={"other": i}, now=later(i))
    assert chain.verify_audit() == (11, "")
    assert "another history" in record.fault_since(chain, known)


def test_the_known_head_of_an_honest_ledger_is_found_again(chain):
    known = chain.head()
    chain.audit("test.more", "s", actor="a", detail={}, now=NOW)
    assert record.verify(chain, known).is_whole
    assert record.fault_since(chain, (0, "0" * 64)) == ""


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE breakfix.audit SET actor='x'",
        "DELETE FROM breakfix.audit",
        "TRUNCATE breakfix.audit",
    ],
)
def test_the_database_itself_refuses_to_change_the_audit(chain, ledger_url, statement):
    with connect(ledger_url) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement)
    assert chain.verify_audit() == (9, "")


def test_exported_lines_prove_themselves(open_ledger):
    ledger = open_ledger()
    case = to_validating(ledger, admit(ledger, "n1"))
    ledger.audit("e", case.id, actor="ann", detail={"ü": [1.5, None]}, now=later(30))
    previous = "0" * 64
    lines = list(record.audit_lines(ledger))
    assert len(lines) == 4
    for line in lines:
        entry = json.loads(line)
        sealed = entry.pop("hash")
        assert entry["previous_hash"] == previous
        body = json.dumps(entry, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        assert hashlib.sha256(body.encode()).hexdigest() == sealed
        previous = sealed


def test_the_audit_is_read_by_pages_without_holding_it_all(open_ledger, monkeypatch):
    monkeypatch.setattr(audit, "_PAGE", 7)
    monkeypatch.setattr(record, "_PAGE", 7)
    ledger = open_ledger()
    for i in range(30):
        ledger.audit("e", "s", actor="a", detail={"i": i}, now=NOW)
    assert ledger.verify_audit() == (30, "")
    assert len(list(record.audit_lines(ledger))) == 30
    assert len(list(record.audit_lines(ledger, after=20))) == 10


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE breakfix.approval_answers SET approver='bob'",
        "UPDATE breakfix.approval_answers SET objection=''",
        "DELETE FROM breakfix.approval_answers",
        "TRUNCATE breakfix.approval_answers",
    ],
)
def test_the_database_itself_refuses_to_change_an_answer(open_ledger, ledger_url, statement):
    ledger = open_ledger()
    case = admit(ledger, "n1")
    ask(ledger, case)
    decide(ledger, case, Decision.ALLOWED)
    with connect(ledger_url) as connection, pytest.raises(psycopg.Error, match="append-only"):
        connection.execute(statement)


def test_an_answer_written_as_another_role_names_the_one_that_is_connected(open_ledger, ledger_url):
    ledger = open_ledger()
    case = admit(ledger, "n1")
    ask(ledger, case)
    forged = (
        "INSERT INTO breakfix.approval_answers (approval_id, cluster, case_id, purpose, asked_at,"
        " approver, is_yes, channel, at, plan_hash, note, objection, role)"
        " SELECT id, cluster, case_id, purpose, asked_at, 'ann', true, 'cli', asked_at, '', '',"
        " '', 'ann_own' FROM breakfix.approvals"
    )
    with connect(ledger_url) as connection:
        connection.execute(forged)
    assert {g.role for g in ledger.answers(case.id)} == {ledger.role}
