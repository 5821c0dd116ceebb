"""A private Prometheus on a free loopback port, with the configuration it is given."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Self

import httpx

from dev.stack.folders import Home, make_home
from dev.stack.ports import LOOPBACK, free_port
from dev.stack.processes import Child, Command, Processes, StackError
from dev.stack.scoped import Scoped

START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 5.0


class PrivatePrometheus(Scoped):
    """A context manager; `url` answers the HTTP API once it is entered."""

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        config: str = "",
        *,
        remote_write: bool = False,
        rules: Sequence[Path] = (),
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._config = config
        self._remote_write = remote_write
        self._rules = rules
        self._home: Home | None = None
        self._child: Child | None = None
        self._command: Command | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process id, for its CPU time and memory; raises StackError before start."""
        if self._child is None:
            raise StackError("Prometheus is not started")
        return self._child.process.pid

    def start(self) -> Self:
        """Start the server and wait until it answers queries; raises StackError."""
        program = shutil.which("prometheus")
        if program is None:
            raise StackError("prometheus is missing. To do: run `make setup`, or install it")
        self._home = make_home(self._folder, users=("prometheus",))
        self._command = Command(
            "prometheus",
            [program, *self._arguments(self._write_config(self._home), self._home)],
            env={"PATH": os.environ.get("PATH", os.defpath)},
            cwd=self._home.path,
            user=self._home.user,
        )
        self._launch()
        return self

    def restart(self) -> None:
        """Kill the server without a warning, and start it again on what it had written."""
        if self._child is not None:
            self._processes.end(self._child, at_once=True)
        self._launch()

    def _launch(self) -> None:
        if self._command is None:
            raise StackError("Prometheus is not started")
        self._child = self._processes.start(self._command)
        self._processes.wait(
            self._is_ready, what="Prometheus", timeout_s=START_TIMEOUT_S, child=self._child
        )

    def _write_config(self, home: Home) -> Path:
        path = home.path / "prometheus.yml"
        copies = [Path(shutil.copy(rule, home.path)) for rule in self._rules]
        listed = "".join(f"  - {copy}\n" for copy in copies)
        path.write_text(self._config + (f"rule_files:\n{listed}" if listed else ""))
        home.hand_over(path, *copies)
        return path

    def _arguments(self, config: Path, home: Home) -> list[str]:
        arguments = [
            f"--config.file={config}",
            f"--storage.tsdb.path={home.path / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self.port}",
            "--log.level=warn",
        ]
        return arguments + ["--web.enable-remote-write-receiver"] * self._remote_write

    def _is_ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/-/ready", timeout=REQUEST_TIMEOUT_S).is_success
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        """Stop the server and delete its data."""
        if self._child is not None:
            self._processes.end(self._child)
        if self._home is not None:
            self._home.remove()
