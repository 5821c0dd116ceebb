"""A private Prometheus for replays: loopback only, a free port, data that is thrown away."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from breakfix.errors import MetricsError, SettingsError
from breakfix.replay.remote_write import WrittenSeries, write

PROGRAM = "BREAKFIX_PROMETHEUS_BIN"
_LOOPBACK = "127.0.0.1"
_START_S, _STOP_S, _POLL_S = 60.0, 10.0, 0.05
_ATTEMPTS = 3  # another program may take the free port before the server does
# Samples may come for any time: into one head that is never cut, late ones included.
_CONFIG = "storage: {tsdb: {out_of_order_time_window: 3650d}}\n"
_FLAGS = (
    "--web.enable-remote-write-receiver",
    "--storage.tsdb.min-block-duration=3650d",
    "--storage.tsdb.max-block-duration=3650d",
    "--storage.tsdb.retention.time=36500d",
    "--query.max-samples=500000000",
    "--log.level=error",
)
#: Much garbage for little data: its collection takes a third of the time if it is not put off.
_ENVIRONMENT = {"GOGC": "400"}


class ReplayPrometheus:
    """A context manager around one server process; `url` answers once it is entered.

    The program is that of BREAKFIX_PROMETHEUS_BIN, else `prometheus` on the PATH.
    """

    def __init__(self) -> None:
        self._folder = ""
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()
        self.url = ""

    def start(self) -> Self:
        """Start, and wait until it answers. Raises SettingsError, MetricsError."""
        program = find_program()
        self._folder = tempfile.mkdtemp(prefix="breakfix-replay-")
        for attempt in range(_ATTEMPTS):
            self._launch(program, _free_port())
            if self._wait():
                return self
            self._end()
            if attempt + 1 == _ATTEMPTS:
                break
        said = self._log()
        self.stop()
        raise MetricsError(f"the private Prometheus did not start: {said}")

    def write(self, series: Iterable[WrittenSeries]) -> int:
        """Write samples, at any time between 1971 and 2109; how many. Raises MetricsError."""
        return write(self.url, series, self._client)

    def stop(self) -> None:
        """End the process and delete its data."""
        self._end()
        self._client.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""

    def _launch(self, program: str, port: int) -> None:
        folder = Path(self._folder)
        (folder / "prometheus.yml").write_text(_CONFIG)
        self.url = f"http://{_LOOPBACK}:{port}"
        command = [
            *_death_signal(),
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={_LOOPBACK}:{port}",
            *_FLAGS,
        ]
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own arguments
                command,
                cwd=folder,
                env={**os.environ, **_ENVIRONMENT},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def _wait(self) -> bool:
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            if self._process is None or self._process.poll() is not None:
                return False
            try:
                if self._client.get(f"{self.url}/-/ready", timeout=5.0).is_success:
                    return True
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(_POLL_S)
        return False

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None or process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_S)

    def _log(self) -> str:
        log = Path(self._folder) / "log"
        return log.read_text(errors="replace")[-500:].strip() if log.exists() else "no log"

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def find_program() -> str:
    """The prometheus program. Raises SettingsError when there is none."""
    named = os.environ.get(PROGRAM, "")
    program = shutil.which(named or "prometheus")
    if program is None:
        what = f"{PROGRAM}={named} is no program" if named else "there is no prometheus on the PATH"
        raise SettingsError(f"{what}: install Prometheus, or name its program in {PROGRAM}")
    return program


def _death_signal() -> list[str]:
    """Where util-linux is there, the kernel ends the server when we die without ending it."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "TERM"] if program else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((_LOOPBACK, 0))
        return int(probe.getsockname()[1])
