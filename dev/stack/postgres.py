"""A private Postgres: its own cluster, on a free loopback port, gone with its process.

It is built for speed, not for safekeeping: nothing is synced to disk.
"""

from __future__ import annotations

import itertools
import os
import secrets
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import psycopg
from psycopg import sql

from dev.stack.folders import Home, make_home
from dev.stack.ports import LOOPBACK, free_port
from dev.stack.processes import Child, Command, Processes, StackError
from dev.stack.scoped import Scoped

USER = "breakfix"
START_TIMEOUT_S = 60.0
SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_connections": "200",
    "shared_buffers": "64MB",
    "jit": "off",
    "log_min_messages": "warning",
    "timezone": "UTC",
}


def program(name: str) -> str:
    """Find one of Postgres's server programs; raises StackError when it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: p.parts[4])
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        raise StackError(f"{name} is missing. To do: run `make setup`, or install postgresql")
    return path


class PrivatePostgres(Scoped):
    """A context manager; `url(name)` is a SQLAlchemy URL, `dsn(name)` the same for libpq."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self._folder = folder
        self._processes = processes
        self._password = secrets.token_hex(16)
        self._names = itertools.count(1)
        self._home: Home | None = None
        self._child: Child | None = None
        self.port = free_port()

    def url(self, database: str = "postgres") -> str:
        """Give the SQLAlchemy URL of a database (driver psycopg 3)."""
        return self.dsn(database).replace("postgresql://", "postgresql+psycopg://", 1)

    def dsn(self, database: str = "postgres") -> str:
        """Give the libpq URI of a database."""
        return f"postgresql://{USER}:{self._password}@{LOOPBACK}:{self.port}/{database}"

    def create_database(self, name: str | None = None, *, template: str = "template1") -> str:
        """Create a database and return its name; without a name it gets a fresh one."""
        name = name or f"db_{next(self._names)}"
        with psycopg.connect(self.dsn(), autocommit=True, connect_timeout=10) as connection:
            connection.execute(
                sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                    sql.Identifier(name), sql.Identifier(template)
                )
            )
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database and whoever is connected to it."""
        with psycopg.connect(self.dsn(), autocommit=True, connect_timeout=10) as connection:
            connection.execute(
                sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
            )

    def start(self) -> Self:
        """Make the cluster and start the server; raises StackError."""
        self._home = make_home(self._folder, users=("postgres",))
        self._initdb(self._home)
        data = self._home.path / "data"
        self._child = self._processes.start(
            _command(
                self._home, "postgres", [program("postgres"), "-D", str(data), *self._options()]
            )
        )
        self._processes.wait(
            self._answers, what="Postgres", timeout_s=START_TIMEOUT_S, child=self._child
        )
        return self

    def _initdb(self, home: Home) -> None:
        secret = home.path / "password"
        secret.write_text(self._password)
        secret.chmod(0o600)
        home.hand_over(secret)
        argv = [program("initdb"), "-D", str(home.path / "data"), "--username", USER]
        argv += ["--pwfile", str(secret), "--auth", "scram-sha-256", "--no-sync"]
        argv += ["--encoding", "UTF8", "--locale", "C.UTF-8", "--no-instructions"]
        self._processes.run(_command(home, "initdb", argv), timeout_s=START_TIMEOUT_S)

    def _options(self) -> list[str]:
        pairs = {
            **SETTINGS,
            "listen_addresses": LOOPBACK,
            "port": str(self.port),
            "unix_socket_directories": "",
        }
        return [part for key, value in pairs.items() for part in ("-c", f"{key}={value}")]

    def _answers(self) -> bool:
        try:
            psycopg.connect(self.dsn(), connect_timeout=2).close()
        except psycopg.OperationalError:
            return False
        return True

    def stop(self) -> None:
        """Stop the server and delete its data."""
        if self._child is not None:
            self._processes.end(self._child)
        if self._home is not None:
            self._home.remove()


def _command(home: Home, name: str, argv: Sequence[str]) -> Command:
    # SIGINT is Postgres's fast shutdown: it does not wait for clients
    return Command(
        name,
        argv,
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C.UTF-8"},
        cwd=home.path,
        user=home.user,
        death_signal="QUIT",
        stop_signal=signal.SIGINT,
    )
