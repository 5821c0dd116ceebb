"""The ledger in both its forms, and two hands on one Postgres."""

from __future__ import annotations

import pytest

from breakfix.adapters.ledger import PostgresLedger, migrate
from tests.fakes_ledger import FakeLedger


@pytest.fixture(scope="session")
def ledger_template(private_postgres):
    """Name of a migrated database: copying it is faster than migrating for every test."""
    name = private_postgres.create_database("ledger_template")
    migrate(private_postgres.url(name))
    return name


@pytest.fixture
def ledger_url(private_postgres, ledger_template):
    name = private_postgres.create_database(template=ledger_template)
    yield private_postgres.url(name)
    private_postgres.drop_database(name)


@pytest.fixture
def open_ledger(ledger_url):
    """Open one more ledger on the test's database: `open_ledger(cluster="test")`."""
    opened = []

    def open_one(cluster="test", **options):
        opened.append(PostgresLedger(ledger_url, cluster, **options))
        return opened[-1]

    yield open_one
    for ledger in opened:
        ledger.close()


@pytest.fixture(params=["fake", "postgres"])
def ledger(request):
    if request.param == "fake":
        return FakeLedger("test")
    return request.getfixturevalue("open_ledger")()
