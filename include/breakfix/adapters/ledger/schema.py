"""Bring a database to the newest tables."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy import Connection, func, inspect, select
from sqlalchemy.exc import SQLAlchemyError

from breakfix.adapters.ledger.engine import as_ledger_error, make_engine
from breakfix.adapters.ledger.tables import SCHEMA
from breakfix.errors import LedgerError

_STATEMENT_TIMEOUT_S = 600.0  # an index on a big table takes its time
_LOCK_TIMEOUT_S = 60.0  # another one may be migrating


def migrate(url: str) -> None:
    """Make or upgrade the tables; may run again and at the same time. Raises LedgerError."""
    engine = make_engine(
        url, statement_timeout_s=_STATEMENT_TIMEOUT_S, lock_timeout_s=_LOCK_TIMEOUT_S
    )
    try:
        with engine.begin() as connection:
            _upgrade(connection)
    except SQLAlchemyError as e:
        raise as_ledger_error(e) from e
    except CommandError as e:
        msg = f"the ledger cannot be migrated by this version: {e}"
        raise LedgerError(msg) from e
    finally:
        engine.dispose()


def _upgrade(connection: Connection) -> None:
    """All in one transaction, one migrator at a time."""
    connection.execute(
        select(func.pg_advisory_xact_lock(func.hashtextextended("breakfix migration", 0)))
    )
    # CREATE SCHEMA IF NOT EXISTS wants a right that a prepared database need not give us.
    if SCHEMA not in inspect(connection).get_schema_names():
        connection.exec_driver_sql(f"CREATE SCHEMA {SCHEMA}")
    command.upgrade(config(connection), "head")


def config(connection: Connection) -> Config:
    """Alembic's configuration for our migrations on that connection."""
    made = Config()
    folder = str(Path(__file__).parent / "migrations")
    made.set_main_option("script_location", folder.replace("%", "%%"))
    made.set_main_option("path_separator", "os")
    made.attributes["connection"] = connection
    return made
