"""The simulated fleet as a process: its Kubernetes API, its exporters and the list of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx

from dev.stack.ports import LOOPBACK, free_port
from dev.stack.processes import Child, Command, Processes
from dev.stack.scoped import Scoped

ROOT = Path(__file__).resolve().parents[2]
FLEET_PROGRAM = (sys.executable, "-c", "from simfleet.cli import main; main()")
START_TIMEOUT_S = 60.0
REQUEST_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class FleetConfig:
    """How to start `simfleet serve`; `arguments` are passed on (scenario, seed, speed)."""

    folder: Path
    arguments: Sequence[str] = ()
    program: Sequence[str] = FLEET_PROGRAM


class SimulatedFleet(Scoped):
    """A context manager; `url` and `kubeconfig` are known before it starts."""

    def __init__(self, config: FleetConfig, processes: Processes) -> None:
        self._config = config
        self._processes = processes
        self._child: Child | None = None
        self.port = free_port()
        self.kubeconfig = config.folder / "kubeconfig"

    @property
    def url(self) -> str:
        return f"http://{LOOPBACK}:{self.port}"

    def start(self) -> Self:
        """Start the fleet; wait until it answers and has a kubeconfig. Raises StackError."""
        self._config.folder.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        argv = [*self._config.program, "serve", "--port", str(self.port)]
        argv += ["--kubeconfig", str(self.kubeconfig), *self._config.arguments]
        env = {**os.environ, "PYTHONPATH": str(ROOT / "include"), "PYTHONUNBUFFERED": "1"}
        self._child = self._processes.start(Command("simfleet", argv, env=env, cwd=ROOT))
        self._processes.wait(
            self._is_ready, what="the simulated fleet", timeout_s=START_TIMEOUT_S, child=self._child
        )
        return self

    def _is_ready(self) -> bool:
        try:
            answers = httpx.get(f"{self.url}/version", timeout=REQUEST_TIMEOUT_S).is_success
        except httpx.TransportError:
            return False
        return answers and self.kubeconfig.exists()

    def stop(self) -> None:
        """Stop the fleet; what it was is forgotten."""
        if self._child is not None:
            self._processes.end(self._child)
