"""The local servers start on loopback and leave nothing behind, however they are ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import psycopg
import pytest

from dev.stack import __main__ as commands
from dev.stack import state
from dev.stack.postgres import PrivatePostgres
from dev.stack.processes import Child, Command, Processes, StackError, Stopping, marked
from dev.stack.prometheus import PrivatePrometheus

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 90.0  # a busy machine needs it; a quiet one is done in two seconds
pytestmark = pytest.mark.timeout(300)

STUBBORN = "trap '' TERM INT; echo up; while :; do sleep 0.1; done"
RUNAWAY = f'setsid sh -c "{STUBBORN}" & echo up; wait'


def until(condition: Callable[[], bool], deadline_s: float = DEADLINE_S) -> None:
    deadline = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def shell(script: str, folder: Path) -> Command:
    return Command("child", ["sh", "-c", script], env={"PATH": os.environ["PATH"]}, cwd=folder)


def started(processes: Processes, script: str, folder: Path) -> Child:
    child = processes.start(shell(script, folder))
    until(lambda: "up" in child.tail())
    return child


@pytest.mark.parametrize(
    "script",
    [
        pytest.param("echo up; sleep 60", id="a child that ends when asked"),
        pytest.param("sleep 60 & echo up; wait", id="a child with a child"),
        pytest.param(RUNAWAY, id="a grandchild that has left the group and ignores signals"),
    ],
)
def test_nothing_is_left_after_a_stop(tmp_path: Path, script: str) -> None:
    with Processes(tmp_path) as processes:
        started(processes, script, tmp_path)
        assert marked(processes.mark)
    assert not marked(processes.mark)


def test_a_child_that_ignores_its_stop_signal_is_killed_at_the_deadline(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    child = started(processes, STUBBORN, tmp_path)
    processes.stop(deadline_s=0.2)
    assert child.process.returncode == -signal.SIGKILL
    assert not marked(processes.mark)


def test_the_reason_of_a_failed_run_is_told(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes, pytest.raises(StackError, match="no space left"):
        processes.run(shell("echo no space left >&2; exit 3", tmp_path), timeout_s=10)


def test_a_wait_ends_when_its_child_ends(tmp_path: Path) -> None:
    with Processes(tmp_path) as processes:
        child = processes.start(shell("echo bad config; exit 2", tmp_path))
        with pytest.raises(StackError, match="ended with 2:\nbad config"):
            processes.wait(lambda: False, what="never", timeout_s=30, child=child)


def test_nothing_is_started_after_a_stop(tmp_path: Path) -> None:
    processes = Processes(tmp_path)
    processes.stop()
    with pytest.raises(Stopping):
        processes.start(shell("sleep 60", tmp_path))


FLEET = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(b"[]")

value = dict(zip(sys.argv[2::2], sys.argv[3::2]))
Path(value["--kubeconfig"]).write_text("{}")
HTTPServer(("127.0.0.1", int(value["--port"])), Handler).serve_forever()
"""
STACK = """
import sys
from pathlib import Path
from dev.stack.interrupts import ending_signals_interrupt
from dev.stack.stack import Stack, StackConfig

folder = Path(sys.argv[1])
config = StackConfig(folder, fleet_program=(sys.executable, str(folder / "fleet.py")),
                     migrate=("sleep", "60"))
with ending_signals_interrupt():
    stack = Stack(config, say=lambda line: print(line, flush=True))
    print("mark", stack.processes.mark, flush=True)
    with stack:
        print("ready", flush=True)
"""


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        pytest.param("mark", signal.SIGINT, id="Ctrl-C at once"),
        pytest.param("Prometheus is up", signal.SIGINT, id="Ctrl-C while Postgres starts"),
        pytest.param("Postgres is up", signal.SIGINT, id="Ctrl-C while Airflow starts"),
        pytest.param("Postgres is up", signal.SIGTERM, id="TERM while Airflow starts"),
        pytest.param("Postgres is up", signal.SIGKILL, id="killed while Airflow starts"),
    ],
)
def test_no_process_outlives_a_stack_that_is_ended_while_it_starts(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    (tmp_path / "fleet.py").write_text(FLEET)
    log = tmp_path / "out"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", STACK, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'include'}"},
            stdout=output,
            stderr=output,
        )
    try:
        until(lambda: moment in log.read_text() or process.poll() is not None)
        process.send_signal(number)
        process.wait(DEADLINE_S)
    finally:
        process.kill()
        process.wait(DEADLINE_S)
    text = log.read_text()
    assert moment in text, text
    mark = text.split()[1]
    until(lambda: not marked(mark))  # after a KILL it is the kernel that tells the children


def test_every_test_gets_an_empty_database_of_its_own(
    private_postgres: PrivatePostgres, postgres_url: str
) -> None:
    assert postgres_url.startswith("postgresql+psycopg://breakfix:")
    assert postgres_url != private_postgres.url(private_postgres.create_database())
    dsn = postgres_url.replace("+psycopg", "")
    with psycopg.connect(dsn, connect_timeout=5) as connection:
        count = "select count(*) from pg_tables where schemaname = 'public'"
        assert connection.execute(count).fetchone() == (0,)
        assert connection.execute("show listen_addresses").fetchone() == ("127.0.0.1",)


def test_postgres_refuses_a_wrong_password(postgres_url: str) -> None:
    dsn = postgres_url.replace("+psycopg", "").replace("breakfix:", "breakfix:not", 1)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(dsn, connect_timeout=5)


def test_prometheus_takes_rules_and_remote_writes(
    start_prometheus: Callable[..., PrivatePrometheus], tmp_path: Path
) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("groups: [{name: g, rules: [{record: one, expr: vector(1)}]}]")
    server = start_prometheus("global: {scrape_interval: 1s}\n", remote_write=True, rules=[rules])
    answer = httpx.get(f"{server.url}/api/v1/rules", timeout=5).json()
    assert answer["data"]["groups"][0]["rules"][0]["name"] == "one"
    written = httpx.post(f"{server.url}/api/v1/write", content=b"", timeout=5)
    assert "not enabled" not in written.text


def test_a_bad_prometheus_configuration_is_told(
    start_prometheus: Callable[..., PrivatePrometheus],
) -> None:
    with pytest.raises(StackError, match=r"prometheus ended with \d:\n(.|\n)*nonsense"):
        start_prometheus("nonsense: 1\n")


def test_a_stack_is_held_by_one_process_at_a_time(tmp_path: Path) -> None:
    with state.hold(tmp_path) as first, state.hold(tmp_path) as second:
        assert (first, second) == (True, False)
        assert state.is_up(tmp_path)
    assert not state.is_up(tmp_path)


def test_the_state_is_for_its_owner_alone(tmp_path: Path) -> None:
    written = state.State(1, "mark", "ready", env={"PASSWORD": "x"})
    state.write(tmp_path, written)
    assert state.read(tmp_path) == written
    assert (tmp_path / "state.json").stat().st_mode & 0o777 == 0o600


def test_down_without_a_stack_is_no_error(tmp_path: Path) -> None:
    assert commands.main(["--folder", str(tmp_path / "none"), "down"]) == 0


def test_up_tells_why_it_failed_and_leaves_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert commands.main(["--folder", str(tmp_path), "up", "--no-such-option"]) == 1
    assert capfd.readouterr().err.strip()
    assert not state.is_up(tmp_path)
    assert state.read(tmp_path) is None


def test_setup_says_what_is_missing_when_it_may_not_install(tmp_path: Path) -> None:
    for name in ("bash", "dirname", "mktemp", "rm"):
        (tmp_path / name).symlink_to(f"/usr/bin/{name}")
    (tmp_path / "id").write_text("#!/bin/sh\necho 1000\n")
    (tmp_path / "id").chmod(0o755)
    result = subprocess.run(
        ["/bin/bash", "dev/bootstrap.sh"],
        cwd=ROOT,
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert result.returncode == 1
    assert result.stderr.startswith("setup: missing: prometheus")
    assert "apt-get install prometheus" in result.stderr
    assert len(result.stderr.splitlines()) == 1
