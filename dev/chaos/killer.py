"""Kills and disturbs parts of the stack as the schedule says, and starts them again as a supervisor
would.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from pathlib import Path

from dev.chaos.schedule import Kill, Target
from dev.stack.processes import StackError
from dev.stack.stack import Stack
from simfleet.client import ControlClient, ControlError

PAUSE_S = 1.0  # a supervisor's: between a death and the next start
#: Two of three requests are hit: enough to break every act in its middle, now and then.
TROUBLES = (
    {"kind": "error", "path": "/api/v1/(nodes|namespaces|pods).*"},
    {"kind": "drop", "path": "/api/v1/.*"},
    {"kind": "latency", "path": "/api/v1/.*", "latency_s": 2.0},
)


class Killer(threading.Thread):
    """Kills one thing at a time; `counted` says how often each was hit."""

    def __init__(self, stack: Stack, control: ControlClient, seed: int) -> None:
        super().__init__(name="killer", daemon=True)
        self._stack, self._control = stack, control
        self._rng = random.Random(seed)  # noqa: S311 - see schedule
        self._due: list[Kill] = []
        self._wake = threading.Condition()
        self.counted: Counter[str] = Counter()
        self.troubles: list[str] = []
        self.stopping = threading.Event()

    def add(self, kill: Kill) -> None:
        """Have it done as soon as the one before it is over."""
        with self._wake:
            self._due.append(kill)
            self._wake.notify()

    def run(self) -> None:
        while not self.stopping.is_set():
            with self._wake:
                self._wake.wait_for(lambda: bool(self._due), timeout=1.0)
                kill = self._due.pop(0) if self._due else None
            if kill is None:
                continue
            try:
                self._do(kill)
            except (StackError, ControlError, OSError) as error:
                self.troubles.append(f"{kill.target}: {error}"[:300])

    def _do(self, kill: Kill) -> None:
        match kill.target:
            case Target.PROMETHEUS:
                self._stack.prometheus.restart()
            case Target.KUBERNETES:
                self._disturb(kill.lasts_s)
            case Target.TASK:
                if not self._kill_a_task():
                    return
            case component:
                self._stack.airflow.kill_component(component.value)
                self.stopping.wait(PAUSE_S)
                self._stack.airflow.start_component(component.value)
        self.counted[kill.target.value] += 1

    def _disturb(self, lasts_s: float) -> None:
        self._control.post("/sim/api-faults", dict(self._rng.choice(TROUBLES)))
        try:
            self.stopping.wait(lasts_s)
        finally:
            self._control.delete("/sim/api-faults")

    def _kill_a_task(self) -> bool:
        """One of the processes in which a task runs or is looked after, if there is any."""
        scheduler = self._stack.airflow.pid(Target.SCHEDULER.value)
        pids = [int(e.name) for e in Path("/proc").glob("[0-9]*") if _runs_a_task(e, scheduler)]
        if not pids:
            return False
        try:
            os.kill(self._rng.choice(sorted(pids)), signal.SIGKILL)
        except ProcessLookupError:
            return False
        return True


def _runs_a_task(entry: Path, scheduler: int) -> bool:
    """Of the scheduler's group, and by its title at work on a task."""
    try:
        group = int((entry / "stat").read_text().rpartition(")")[2].split()[2])
        said = (entry / "cmdline").read_bytes()
    except OSError:  # ended meanwhile
        return False
    return group == scheduler and b"airflow worker" in said and b"<idle>" not in said
