"""Fixtures that all tests share. What only one kind of test needs lives beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from dev.stack.airflow import AirflowConfig, PrivateAirflow
from dev.stack.postgres import PrivatePostgres
from dev.stack.processes import Processes
from dev.stack.prometheus import PrivatePrometheus

# A busy machine is slow; how slow says nothing about the code.
settings.register_profile("project", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("project")


@pytest.fixture(scope="session")
def private_processes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """Child processes of the whole test session; none is left when it ends."""
    with Processes(tmp_path_factory.mktemp("servers")) as processes:
        yield processes


@pytest.fixture(scope="session")
def private_postgres(
    tmp_path_factory: pytest.TempPathFactory, private_processes: Processes
) -> Iterator[PrivatePostgres]:
    """One Postgres for the session. Tests want `postgres_url`, a database of their own in it."""
    with PrivatePostgres(tmp_path_factory.mktemp("pg") / "postgres", private_processes) as server:
        yield server


@pytest.fixture
def postgres_url(private_postgres: PrivatePostgres) -> Iterator[str]:
    """SQLAlchemy URL of a fresh, empty database, dropped after the test."""
    name = private_postgres.create_database()
    yield private_postgres.url(name)
    private_postgres.drop_database(name)


@pytest.fixture
def start_prometheus(
    tmp_path: Path, private_processes: Processes
) -> Iterator[Callable[..., PrivatePrometheus]]:
    """Start a Prometheus: `start_prometheus(config, remote_write=True, rules=[path]).url`."""
    with ExitStack() as servers:

        def start(config: str = "", **options: object) -> PrivatePrometheus:
            folder = tmp_path / "prometheus"
            return servers.enter_context(
                PrivatePrometheus(folder, private_processes, config, **options)  # type: ignore[arg-type]
            )

        yield start


@pytest.fixture(scope="session")
def start_airflow(
    tmp_path_factory: pytest.TempPathFactory,
    private_processes: Processes,
    private_postgres: PrivatePostgres,
) -> Iterator[Callable[..., PrivateAirflow]]:
    """Start a whole Airflow, twelve seconds each: `start_airflow(dags=folder, env={...})`.

    Mark tests that use it `slow` and `timeout(300)`, and share one in a session fixture.
    """
    with ExitStack() as servers:

        def start(*, env: dict[str, str] | None = None, **options: Path) -> PrivateAirflow:
            database = private_postgres.url(private_postgres.create_database())
            home = tmp_path_factory.mktemp("airflow") / "home"
            airflow = PrivateAirflow(AirflowConfig(home, database, **options), private_processes)
            airflow.extra_env.update(env or {})
            return servers.enter_context(airflow)

        yield start
