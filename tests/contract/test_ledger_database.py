"""The database behind the ledger: its tables, its id, several clusters in it."""

from __future__ import annotations

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from breakfix.adapters.ledger import PostgresLedger, migrate
from breakfix.adapters.ledger.engine import make_engine, parse_url
from breakfix.adapters.ledger.schema import config
from breakfix.adapters.ledger.tables import SCHEMA, metadata
from breakfix.errors import LedgerError
from breakfix.model import Case, HaltLevel, Label
from tests.contract.ledger_builders import NOW, admit, an_intent, connect, limits, together
from tests.contract.test_ledger_sweeps import bad, sweep


def test_clusters_share_a_database_and_nothing_else(open_ledger):
    east, west = open_ledger("east"), open_ledger("west")
    case = admit(east, "n1")
    admit(west, "n1")
    assert isinstance(west.admit(an_intent("n2"), limits(rack=2), requester="s", now=NOW), Case)
    with pytest.raises(LedgerError, match="no case"):
        west.case(case.id)
    east.set_halt(HaltLevel.ALL, actor="a", reason="r", now=NOW)
    assert west.halt_level() is HaltLevel.NONE
    assert [c.id for c in east.cases()] == [case.id]
    assert (east.verify_audit()[0], west.verify_audit()[0]) == (2, 2)
    assert east.id == west.id


def test_the_id_is_made_once_and_survives_another_migration(ledger_url, open_ledger):
    before = open_ledger().id
    migrate(ledger_url)
    assert open_ledger().id == before
    assert len(before) == 36


def test_review_items_of_a_former_version_are_listed_and_can_be_answered(postgres_url):
    engine = make_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
        command.upgrade(config(connection), "0001")
        connection.exec_driver_sql(
            "INSERT INTO breakfix.reviews (cluster, node, topic, at, reason, detail, last_seen)"
            " VALUES ('test', 'n1', 'gsp', now(), 'why', '{\"confidence\":0.5}', now())"
        )
    engine.dispose()
    migrate(postgres_url)
    ledger = PostgresLedger(postgres_url, "test")
    (item,) = ledger.reviews()
    assert (item.topic, item.times_seen, item.is_waiting) == ("gsp", 1, True)
    said = {"actor": "ann", "note": "", "failure_class": None, "until": None}
    item = ledger.answer_review(item.id, Label.REAL, now=NOW, **said)
    assert (item.answer.marks, item.is_waiting) == ((), False)
    ledger.close()


def test_every_sweep_keeps_the_policy_that_it_judged_by(ledger_url, open_ledger):
    sweep(open_ledger(), bad("n1"))
    with connect(ledger_url) as database:
        rows = database.execute("SELECT policy_version, policy_hash FROM breakfix.sweeps")
        assert rows.fetchall() == [("1", "policy-1")]
    entry = open_ledger().audit_entries()[0]
    assert (entry.event, entry.detail["policy"]) == ("sweep.changed", "policy-1")
    assert open_ledger().reviews()[0].detail["policy"] == {"version": "1", "hash": "policy-1"}


def test_the_migrations_make_the_tables_that_the_code_speaks_of(ledger_url):
    engine = make_engine(ledger_url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "include_schemas": True,
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "schema" or name == SCHEMA,
                "include_object": lambda _o, name, kind, *_: (
                    kind not in {"index", "foreign_key_constraint"} and name != "schema_version"
                ),
                "version_table_schema": SCHEMA,
                "version_table": "schema_version",
            },
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_four_migrators_at_once_make_one_ledger(postgres_url):
    assert together([lambda: migrate(postgres_url)] * 4) == [None] * 4
    ledger = PostgresLedger(postgres_url, "test")
    assert ledger.verify_audit() == (0, "")
    ledger.close()


def test_a_database_without_tables_says_what_to_do(postgres_url):
    ledger = PostgresLedger(postgres_url, "test")
    with pytest.raises(LedgerError, match="run its migrations") as caught:
        ledger.cases()
    assert not caught.value.is_transient
    ledger.close()


@pytest.mark.parametrize(
    "url", ["postgres://u:p@h:5/d", "postgresql://u:p@h:5/d", "postgresql+psycopg://u:p@h:5/d"]
)
def test_every_spelling_of_a_postgres_url_means_psycopg(url):
    parsed = parse_url(url)
    assert parsed.render_as_string(hide_password=False) == "postgresql+psycopg://u:p@h:5/d"


@pytest.mark.parametrize("url", ["sqlite://", "mysql://h/d", "", "not a url"])
def test_any_other_url_is_refused(url):
    with pytest.raises(LedgerError, match="postgresql://"):
        PostgresLedger(url, "test")
