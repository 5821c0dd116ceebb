"""One machine in a world whose clock the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from simfleet.hardware import NodeSpec
from simfleet.kube.machines import Execution
from simfleet.machine import SimMachine
from simfleet.skus import SKUS
from simfleet.world import World


@dataclass
class HandClock:
    at: float = 1_700_000_000.0

    def __call__(self) -> float:
        return self.at


@dataclass
class Bench:
    """A machine on the bench: break it, run commands on it, let time pass."""

    clock: HandClock
    world: World
    machine: SimMachine

    def later(self, seconds: float) -> None:
        end = self.clock.at + seconds
        while self.clock.at < end:
            self.clock.at = min(end, self.clock.at + 0.5)
            self.world.agenda.run_due()

    def run(self, *argv: str, env: dict[str, str] | None = None) -> Execution:
        """Run a one-shot pod to its end and let a reboot that it asked for end too."""
        execution = self.machine.run(one_shot(*argv, env=env))
        assert execution is not None
        self.later(execution.duration_s)
        if execution.on_finish:
            execution.on_finish()
        self.later(self.world.takes("reboot") + 1 if self.machine.rebooting else 0)
        return execution


def one_shot(*argv: str, env: dict[str, str] | None = None) -> dict[str, Any]:
    container = {
        "name": "main",
        "command": list(argv),
        "env": [{"name": k, "value": v} for k, v in (env or {}).items()],
    }
    return {
        "metadata": {"name": "p", "uid": "u-1", "labels": {}},
        "spec": {"restartPolicy": "Never", "containers": [container]},
    }


def make_bench(*, gpus: int = 8, sku: str = "h100", speed: float = 60.0) -> Bench:
    clock = HandClock()
    world = World(now=clock, speed=speed, seed=7)
    spec = NodeSpec("node-1", "rack-1", "pool-1", "zone-a", SKUS[sku], gpus)
    return Bench(clock, world, SimMachine(spec, world))
