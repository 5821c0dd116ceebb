"""A private Airflow: four components, each supervised on its own, on free loopback ports.

`airflow standalone` is not used: a TERM to its parent orphans its children. Here any one component
can be killed and started again while the others go on, as the kill tests do.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import httpx

from dev.stack.ports import LOOPBACK, free_ports
from dev.stack.processes import Child, Command, Processes, StackError
from dev.stack.scoped import Scoped

ROOT = Path(__file__).resolve().parents[2]
COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
POOLS = {"breakfix_drain": 8, "breakfix_repair": 8, "breakfix_validate": 8}
# Roles of the simple auth manager: VIEWER reads, USER works on DAGs, OP also pools and assets.
ROLES = {"admin": "ADMIN", "oncall": "USER", "second": "USER", "viewer": "VIEWER", "breakfix": "OP"}
PREPARE_TIMEOUT_S = 120.0
START_TIMEOUT_S = 180.0
REQUEST_TIMEOUT_S = 30.0
EXECUTION_TIMEOUT_S = 90.0

TUNING = {
    "CORE__EXECUTOR": "LocalExecutor",
    "CORE__PARALLELISM": "8",
    "CORE__LOAD_EXAMPLES": "False",
    "DATABASE__CHECK_MIGRATIONS": "False",  # the API server starts while the tables are made
    "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
    "API__WORKERS": "1",
    "DAG_PROCESSOR__REFRESH_INTERVAL": "5",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "10",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "SCHEDULER__TRIGGER_TIMEOUT_CHECK_INTERVAL": "5",
    # A task whose process was killed is noticed after that; until then a sweep has no successor.
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "90",
    # So is one that was lost on its way to an executor that died.
    "SCHEDULER__TASK_QUEUED_TIMEOUT": "120",
    "SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "30",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "60",
    # A finished task holds its slot until the next heartbeat when its end of file is missed, and a
    # parked task that is answered before that is failed by the scheduler: hence a short one.
    "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    "LOGGING__LOGGING_LEVEL": "INFO",
    "USAGE_DATA_COLLECTION__ENABLED": "False",
}


@dataclass(frozen=True, slots=True)
class AirflowConfig:
    """What differs between one private Airflow and another."""

    home: Path
    database_url: str
    dags: Path = ROOT / "dags"
    plugins: Path = ROOT / "plugins"
    pools: Mapping[str, int] = field(default_factory=lambda: dict(POOLS))


class PrivateAirflow(Scoped):
    """A context manager; `client("oncall")` is the public API as that user."""

    def __init__(self, config: AirflowConfig, processes: Processes) -> None:
        self.config = config
        self.passwords = {user: secrets.token_urlsafe(12) for user in ROLES}
        self.extra_env: dict[str, str] = {}  # for the tasks, on top of Airflow's own settings
        self._processes = processes
        self._children: dict[str, Child] = {}
        self._started: dict[str, datetime] = {}
        self.port, self._worker_log_port, self._trigger_log_port = free_ports(3)
        self._jwt_secret = secrets.token_hex(48)

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def env(self) -> dict[str, str]:
        """The environment in which the components, and `airflow` by hand, run."""
        home = self.config.home
        airflow = {
            **TUNING,
            "CORE__DAGS_FOLDER": str(self.config.dags),
            "CORE__PLUGINS_FOLDER": str(self.config.plugins),
            "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{u}:{r}" for u, r in ROLES.items()),
            "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(home / "passwords.json"),
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "DATABASE__SQL_ALCHEMY_CONN": self.config.database_url,
            # left out, it becomes asyncpg, which is not installed; psycopg 3 does both
            "DATABASE__SQL_ALCHEMY_CONN_ASYNC": self.config.database_url,
            "API__HOST": LOOPBACK,
            "API__PORT": str(self.port),
            "API__BASE_URL": self.url,
            "API_AUTH__JWT_SECRET": self._jwt_secret,
            "LOGGING__WORKER_LOG_SERVER_PORT": str(self._worker_log_port),
            "LOGGING__TRIGGER_LOG_SERVER_PORT": str(self._trigger_log_port),
        }
        return {
            **_inherited(),
            "AIRFLOW_HOME": str(home),
            "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', os.defpath)}",
            "PYTHONPATH": f"{ROOT / 'include'}:{ROOT}",
            "PYTHONUNBUFFERED": "1",
            **{f"AIRFLOW__{key}": value for key, value in airflow.items()},
            **self.extra_env,
        }

    def start(self) -> Self:
        """Make the tables, start the components, wait until all are healthy; raises StackError."""
        shutil.rmtree(self.config.home, ignore_errors=True)
        self.config.home.mkdir(parents=True)
        passwords = self.config.home / "passwords.json"
        passwords.touch(mode=0o600)
        passwords.write_text(json.dumps(self.passwords))
        self.start_component("api-server")  # its imports take longest, and need no tables
        self._prepare()
        for name in COMPONENTS[1:]:
            self.start_component(name)
        self.wait_healthy()
        return self

    def _prepare(self) -> None:
        argv = [sys.executable, "-m", "dev.stack.prepare_airflow"]
        argv += [f"{name}={slots}" for name, slots in self.config.pools.items()]
        command = Command("airflow-prepare", argv, env=self.env, cwd=ROOT)
        self._processes.run(command, timeout_s=PREPARE_TIMEOUT_S)

    def start_component(self, name: str) -> None:
        """Start one component that is not running."""
        self._started[name] = datetime.now(UTC)
        argv = [str(Path(sys.executable).parent / "airflow"), name]
        argv += ["--skip-serve-logs"] * (name in {"scheduler", "triggerer"})
        self._children[name] = self._processes.start(
            Command(f"airflow-{name}", argv, env=self.env, cwd=ROOT)
        )

    def kill_component(self, name: str) -> None:
        """Kill one component and all processes of its group, without a warning."""
        self._processes.end(self._children.pop(name), at_once=True)

    def restart_component(self, name: str) -> None:
        """Kill one component, start it again and wait until all are healthy."""
        self.kill_component(name)
        self.start_component(name)
        self.wait_healthy()

    def ended_components(self) -> list[str]:
        """Name the components that have ended on their own."""
        return [name for name, child in self._children.items() if not child.is_running]

    def pid(self, name: str) -> int:
        """Process id, and process group id, of one running component."""
        return self._children[name].process.pid

    def health(self) -> dict[str, dict[str, str | None]]:
        """Health by component as Airflow reports it; empty while the API does not answer."""
        try:
            answer = httpx.get(f"{self.url}/api/v2/monitor/health", timeout=REQUEST_TIMEOUT_S)
        except httpx.TransportError:
            return {}
        return dict(answer.json()) if answer.is_success else {}

    def wait_healthy(self, timeout_s: float = START_TIMEOUT_S) -> None:
        """Wait until every component is healthy; raises StackError with the reason."""
        self._processes.wait(self._is_healthy, what="a healthy Airflow", timeout_s=timeout_s)

    def _is_healthy(self) -> bool:
        for name in self.ended_components():
            child = self._children[name]
            code = child.process.returncode
            raise StackError(f"Airflow's {name} ended with {code}:\n{child.tail()}")
        health = self.health()
        return self._serves_tasks() and all(
            self._has_beaten(health, name) for name in COMPONENTS[1:]
        )

    def _serves_tasks(self) -> bool:
        """Tell whether tasks could run. The first request makes the server build the tasks' API,
        for seconds in which it answers nobody: better now than in the first task.
        """
        try:
            url = f"{self.url}/execution/health"
            return httpx.get(url, timeout=EXECUTION_TIMEOUT_S).is_success
        except httpx.TransportError:
            return False

    def _has_beaten(self, health: dict[str, dict[str, str | None]], name: str) -> bool:
        """Tell whether the process that we started last, not the one before it, is healthy."""
        key = name.replace("-", "_")
        beat = health.get(key, {}).get(f"latest_{key}_heartbeat")
        is_ours = beat is not None and datetime.fromisoformat(beat) > self._started[name]
        return is_ours and health[key]["status"] == "healthy"

    def token(self, user: str) -> str:
        """Log in as one of the users and return the bearer token."""
        answer = httpx.post(
            f"{self.url}/auth/token",
            json={"username": user, "password": self.passwords[user]},
            timeout=REQUEST_TIMEOUT_S,
        )
        return str(answer.raise_for_status().json()["access_token"])

    def client(self, user: str = "admin") -> httpx.Client:
        """Return an HTTP client for the public API, logged in as one of the users."""
        return httpx.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.token(user)}"},
            timeout=REQUEST_TIMEOUT_S,
        )

    def stop(self) -> None:
        """Stop all components; their logs stay."""
        self._processes.end(*self._children.values())
        self._children.clear()


def _inherited() -> dict[str, str]:
    """Our environment without another Airflow's or another Breakfix's settings."""
    foreign = ("AIRFLOW", "BREAKFIX", "PYTHONPATH", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
