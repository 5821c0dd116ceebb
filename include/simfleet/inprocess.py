"""A whole fleet in a thread of the caller's process: `with SimFleet(config) as fleet:`."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from simfleet.client import write_private
from simfleet.faults import FaultOptions
from simfleet.fleet import FleetConfig
from simfleet.kube import ADMIN_TOKEN
from simfleet.prometheus import prometheus_config
from simfleet.runtime import Ports, Simulation
from simfleet.scenario import Scenario

T = TypeVar("T")
START_TIMEOUT_S = 120.0  # a thousand nodes schedule some 3,000 pods before they answer
CALL_TIMEOUT_S = 30.0


class SimFleet:
    """A running fleet. Attributes: `url` (HTTP: API, metrics, control), `tls_url`, `sim`.

    Everything in `sim` belongs to the background loop: reach it through `call`.
    """

    def __init__(
        self, config: FleetConfig | Scenario, *, tls: bool = False, hold: bool = False
    ) -> None:
        scenario = config if isinstance(config, Scenario) else Scenario(fleet=config)
        self.sim = Simulation(scenario, Ports(tls=0 if tls else None))
        self.url = self.tls_url = ""
        self._hold = hold
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="simfleet", daemon=True)
        self._started: Future[None] = Future()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(START_TIMEOUT_S)
        self.url, self.tls_url = self.sim.url, self.sim.tls_url
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self.sim.stop(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the fleet's own thread and give back what it returns."""

        async def on_loop() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(CALL_TIMEOUT_S)

    def break_node(self, node: str, fault: str, **options: Any) -> list[str]:
        """Start a fault; options as in `FaultOptions`. Returns the nodes it hits."""
        made = FaultOptions.model_validate(options)
        return self.call(lambda: self.sim.fleet.break_node(node, fault, made))

    def heal(self, node: str, fault: str | None = None) -> int:
        """End faults of a node for good; returns how many."""
        return self.call(lambda: self.sim.fleet.heal(node, fault))

    def status(self, node: str) -> dict[str, Any]:
        """The truth about a node."""
        return self.call(lambda: self.sim.fleet.node_status(node))

    def events(self, *, node: str | None = None, what: str | None = None) -> list[dict[str, Any]]:
        """What really happened, oldest first."""
        truth = self.sim.world.truth
        found = self.call(lambda: truth.since(node=node, what=what))
        return [event.as_dict() for event in found]

    def start_timeline(self) -> None:
        """Begin the scenario's timeline that was on hold."""
        self.call(self.sim.player.start)

    def kubeconfig(self, path: Path, token: str = ADMIN_TOKEN) -> Path:
        """Write a kubeconfig for the running API."""
        write_private(path, self.sim.kubeconfig_text(token))
        return path

    def prometheus_config(self, path: Path, scrape_interval: str = "1s") -> Path:
        """Write a prometheus.yml that scrapes this fleet."""
        path.write_text(prometheus_config(self.url, scrape_interval), encoding="utf-8")
        return path

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(self.sim.start(hold=self._hold))
        task.add_done_callback(self._report_start)
        self._loop.run_forever()

    def _report_start(self, task: asyncio.Task[None]) -> None:
        if error := task.exception():
            self._started.set_exception(error)
        else:
            self._started.set_result(None)
