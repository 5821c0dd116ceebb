"""The whole stack, started side by side: fleet, Prometheus, Postgres, the ledger, Airflow."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from dev.stack.airflow import ROOT, AirflowConfig, PrivateAirflow
from dev.stack.fleet import FLEET_PROGRAM, FleetConfig, SimulatedFleet
from dev.stack.interrupts import ending_signals_wait
from dev.stack.postgres import PrivatePostgres
from dev.stack.processes import Command, Processes, Stopping
from dev.stack.prometheus import PrivatePrometheus
from dev.stack.scoped import Scoped
from simfleet.prometheus import prometheus_config

BREAKFIX = (sys.executable, "-c", "from breakfix.cli import main; main()")
MIGRATE_TIMEOUT_S = 60.0
SUPERVISE_S = 1.0
LEDGER = "breakfix"
SERVICE_USER = "breakfix"


@dataclass(frozen=True, slots=True)
class StackConfig:
    """What one stack is made of; `env` is added to what Airflow's tasks see."""

    folder: Path
    fleet_arguments: Sequence[str] = ()
    fleet_program: Sequence[str] = FLEET_PROGRAM
    policy: Path | None = None
    scrape_interval: str = "5s"
    rules: Sequence[Path] = ()
    dags: Path = ROOT / "dags"
    plugins: Path = ROOT / "plugins"
    migrate: Sequence[str] = (*BREAKFIX, "ledger", "migrate")
    env: Mapping[str, str] = field(default_factory=dict)


def _silent(_: str) -> None:
    """Tell nobody."""


class Stack(Scoped):
    """A context manager. Everything is up when it is entered; nothing is left when it is exited.

    Enter it in the main thread inside `ending_signals_interrupt`, and an ending signal ends it in
    order at any moment.
    """

    def __init__(self, config: StackConfig, say: Callable[[str], None] = _silent) -> None:
        self.config = config
        self._say = say
        shutil.rmtree(config.folder / "logs", ignore_errors=True)
        self.processes = Processes(config.folder / "logs")
        self.fleet = SimulatedFleet(
            FleetConfig(config.folder / "simfleet", config.fleet_arguments, config.fleet_program),
            self.processes,
        )
        self.prometheus = PrivatePrometheus(
            config.folder / "prometheus",
            self.processes,
            prometheus_config(self.fleet.url, config.scrape_interval),
            rules=config.rules,
        )
        self.postgres = PrivatePostgres(config.folder / "postgres", self.processes)
        self.airflow = PrivateAirflow(self._airflow_config(), self.processes)
        self.airflow.extra_env.update(self.env)

    def _airflow_config(self) -> AirflowConfig:
        return AirflowConfig(
            home=self.config.folder / "airflow",
            database_url=self.postgres.url("airflow"),
            dags=self.config.dags,
            plugins=self.config.plugins,
        )

    @property
    def env(self) -> dict[str, str]:
        """`BREAKFIX_*` for the command line and for Airflow's tasks."""
        settings = {
            "BREAKFIX_PROMETHEUS_URL": self.prometheus.url,
            "BREAKFIX_KUBECONFIG": str(self.fleet.kubeconfig),
            "BREAKFIX_DATABASE_URL": self.postgres.url(LEDGER),
            "BREAKFIX_AIRFLOW_URL": self.airflow.url,
            "BREAKFIX_AIRFLOW_USER": SERVICE_USER,
            "BREAKFIX_AIRFLOW_PASSWORD": self.airflow.passwords[SERVICE_USER],
        }
        if self.config.policy is not None:
            settings["BREAKFIX_POLICY"] = str(self.config.policy)
        return {**settings, **self.config.env}

    def start(self) -> Self:
        """Start everything side by side; raises the StackError of the first part that failed."""
        with ThreadPoolExecutor(max_workers=3, thread_name_prefix="start") as pool:
            try:
                parts = [pool.submit(self._start_telemetry), pool.submit(self._start_rest, pool)]
                _raise_first(parts)
            except BaseException:
                self.stop()  # before the pool waits for threads that wait for a server
                raise
        return self

    def _start_telemetry(self) -> None:
        self._timed("simulated fleet", self.fleet.start)
        self._timed("Prometheus", self.prometheus.start)

    def _start_rest(self, pool: ThreadPoolExecutor) -> None:
        self._timed("Postgres", self.postgres.start)
        for name in (LEDGER, "airflow"):
            self.postgres.create_database(name)
        ledger = pool.submit(self._timed, "ledger", self._migrate)
        self._timed("Airflow", self.airflow.start)
        ledger.result()

    def _migrate(self) -> None:
        command = Command("ledger-migrate", self.config.migrate, env=self.airflow.env, cwd=ROOT)
        self.processes.run(command, timeout_s=MIGRATE_TIMEOUT_S)

    def _timed(self, name: str, start: Callable[[], object]) -> None:
        begun = time.monotonic()
        start()
        self._say(f"{name} is up ({time.monotonic() - begun:.1f} s)")

    def supervise(self) -> None:
        """Start ended components of Airflow again, until interrupted; each start is told."""
        while not self.processes.stopping.wait(SUPERVISE_S):
            for name in self.airflow.ended_components():
                self._say(f"Airflow's {name} has ended; starting it again")
                self.airflow.start_component(name)

    def stop(self) -> None:
        """End everything; not interrupted by a second signal."""
        with ending_signals_wait():
            self.processes.stopping.set()
            self.airflow.stop()  # before its database: its components wait long for a lost one
            self.processes.stop()
            self.prometheus.stop()
            self.postgres.stop()


def _raise_first(parts: Sequence[Future[None]]) -> None:
    """Wait for all, or for the first failure; a part that only gave way to it is not the reason."""
    done, _ = wait(parts, return_when=FIRST_EXCEPTION)
    errors = [error for part in done if (error := part.exception()) is not None]
    for error in sorted(errors, key=lambda e: isinstance(e, Stopping)):
        raise error
