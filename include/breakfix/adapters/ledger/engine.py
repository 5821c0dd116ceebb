"""The connection to Postgres: time limits, our errors, and retries where they do no harm."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection, Engine, create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import (
    ArgumentError,
    DBAPIError,
    InterfaceError,
    OperationalError,
    SQLAlchemyError,
)
from sqlalchemy.exc import TimeoutError as PoolTimeout

from breakfix.errors import LedgerError
from breakfix.resilience.retry import retried

T = TypeVar("T")

#: SQLSTATEs after which the same transaction may well succeed: nothing of it was committed.
_TRANSIENT = frozenset(
    {
        "23505",  # unique_violation: another one was first; read again and see it
        "40001",  # serialization_failure
        "40P01",  # deadlock_detected
        "53300",  # too_many_connections
        "55P03",  # lock_not_available: lock_timeout
        "57014",  # query_canceled: statement_timeout
        "57P01",  # admin_shutdown
        "57P02",  # crash_shutdown
        "57P03",  # cannot_connect_now
    }
)
_MISSING = frozenset({"3F000", "42P01", "42703"})  # schema, table, column: not migrated


class CommitUnclear(LedgerError):
    """The connection broke while committing: recorded or not, so never repeated blindly."""


def parse_url(url: str) -> URL:
    """A `postgres://` or `postgresql://` URL for psycopg 3. Raises LedgerError on anything else."""
    try:
        parsed = make_url(url)
    except ArgumentError as e:
        msg = "the ledger's URL cannot be read; write postgresql://user:password@host/database"
        raise LedgerError(msg) from e
    if parsed.drivername not in {"postgres", "postgresql", "postgresql+psycopg"}:
        msg = f"the ledger needs a postgresql:// URL, not {parsed.drivername}://"
        raise LedgerError(msg)
    return parsed.set(drivername="postgresql+psycopg")


def make_engine(
    url: str,
    *,
    connect_timeout_s: float = 5.0,
    statement_timeout_s: float = 15.0,
    lock_timeout_s: float = 5.0,
) -> Engine:
    """An engine whose every wait ends: connecting, each statement, each lock, a silent peer.

    Connections are not tried out before use: one that was lost fails at its first statement, with
    nothing committed, and `Database` repeats the whole on another.
    """
    options = {
        "statement_timeout": int(statement_timeout_s * 1000),
        "lock_timeout": int(lock_timeout_s * 1000),
        "idle_in_transaction_session_timeout": 60_000,
        "timezone": "UTC",
        "search_path": "pg_catalog",  # our names are all qualified; nobody can slip one in between
    }
    return create_engine(
        parse_url(url),
        pool_recycle=1800,
        pool_size=15,  # as many as ever; opening one costs more than most transactions
        max_overflow=0,
        pool_timeout=connect_timeout_s + lock_timeout_s,
        connect_args={
            "application_name": "breakfix",
            "connect_timeout": max(2, round(connect_timeout_s)),  # libpq rounds 1 up to 2
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": int(statement_timeout_s * 2000),
            "options": " ".join(f"-c {k}={v}" for k, v in options.items()),
            "prepare_threshold": None,  # a pooler in between may change the server under us
        },
    )


def as_ledger_error(error: SQLAlchemyError, *, committing: bool = False) -> LedgerError:
    """Our name for a library's error, with its first line, which has no values in it."""
    state = _sqlstate(error)
    lost = _is_lost(error, state)
    if committing and lost:
        msg = "the ledger's connection broke while committing: read what is recorded, then go on"
        return CommitUnclear(msg, is_transient=True)
    if state in _MISSING:
        return LedgerError("the ledger's tables are missing or old: run its migrations")
    first_line = str(getattr(error, "orig", None) or error).strip().split("\n", 1)[0]
    transient = lost or state in _TRANSIENT or (state or "").startswith("08")
    transient = transient or isinstance(error, PoolTimeout)
    return LedgerError(f"the ledger failed: {first_line[:300]}", is_transient=transient)


def _is_lost(error: SQLAlchemyError, state: str | None) -> bool:
    """The connection is gone, or never came to be: the server itself said nothing."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return state is None and isinstance(error, OperationalError | InterfaceError)


def _sqlstate(error: SQLAlchemyError) -> str | None:
    state = getattr(getattr(error, "orig", None), "sqlstate", None)
    return state if isinstance(state, str) else None


def _is_repeatable(error: BaseException) -> bool:
    return (
        isinstance(error, LedgerError)
        and error.is_transient
        and not isinstance(error, CommitUnclear)
    )


class Database:
    """Runs whole transactions; repeats one only while nothing of it can have been committed."""

    def __init__(self, engine: Engine, *, attempts: int = 4) -> None:
        self._engine = engine
        self._reading = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._attempts = attempts

    def run(self, work: Callable[[Connection], T]) -> T:
        """`work` in one READ COMMITTED transaction. Raises LedgerError and what `work` raises."""
        return self._retried(lambda: self._once(work))

    def _retried(self, once: Callable[[], T]) -> T:
        return retried(
            once,
            on=_is_repeatable,
            is_idempotent=True,  # nothing of it was committed: _is_repeatable sees to that
            deadline_s=20.0,
            attempts=self._attempts,
            first_s=0.05,
            longest_s=1.0,
        )

    def read(self, work: Callable[[Connection], T]) -> T:
        """`work`, which is one SELECT: without the two round trips that make it a transaction."""
        return self._retried(lambda: self._read_once(work))

    def run_once(self, work: Callable[[Connection], T], *, timeout_s: float) -> T:
        """`work` in one transaction that is never repeated, each statement within `timeout_s`: for
        what is done without when the ledger is slow. Raises LedgerError.
        """

        def bounded(connection: Connection) -> T:
            ms = int(timeout_s * 1000)
            connection.exec_driver_sql(
                f"SET LOCAL statement_timeout = {ms}; SET LOCAL lock_timeout = {ms}"
            )
            return work(connection)

        return self._once(bounded)

    def run_snapshot(self, work: Callable[[Connection], T]) -> T:
        """`work` on one unchanging view of the database, reading only."""

        def isolated(connection: Connection) -> T:
            connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            return work(connection)

        return self.run(isolated)

    def _once(self, work: Callable[[Connection], T]) -> T:
        committing = False
        try:
            with self._engine.connect() as connection, connection.begin() as transaction:
                result = work(connection)
                committing = True
                transaction.commit()
                return result
        except SQLAlchemyError as e:
            raise as_ledger_error(e, committing=committing) from e

    def _read_once(self, work: Callable[[Connection], T]) -> T:
        try:
            with self._reading.connect() as connection:
                return work(connection)
        except SQLAlchemyError as e:
            raise as_ledger_error(e) from e

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()
