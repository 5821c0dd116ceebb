"""What a node's hardware looks like to the kubelet."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from simfleet.kube.store import Obj


@dataclass(slots=True)
class Execution:
    """What a pod's command will do: how long it takes, how it ends, what it prints.

    `duration_s` is simulated seconds. `on_finish` is called when it ends, before anybody
    learns of it: a reboot happens there.
    """

    duration_s: float
    exit_code: int
    log: str
    on_finish: Callable[[], None] | None = None


class Machine(Protocol):
    """One node's hardware."""

    boot_id: str

    def is_up(self) -> bool:
        """Whether a kubelet can run: False while rebooting or dead."""

    def allocatable_gpus(self) -> int:
        """What the device plugin advertises now."""

    def plugin_restarted(self) -> None:
        """The device plugin's pod on this node has (re)started."""

    def init_blocked(self, pod: Obj) -> str:
        """The pod's init container that does not complete now; empty when all do."""

    def run(self, pod: Obj) -> Execution | None:
        """What a pod with a command does; None for a service that runs on."""


@dataclass(slots=True)
class PlainMachine:
    """A machine that is always up and on which every command succeeds."""

    gpus: int
    boot_id: str

    def is_up(self) -> bool:
        """Always."""
        return True

    def allocatable_gpus(self) -> int:
        """What the node had from the start."""
        return self.gpus

    def plugin_restarted(self) -> None:
        """Nothing to do."""

    def init_blocked(self, pod: Obj) -> str:
        """Nothing holds a pod up."""
        return ""

    def run(self, pod: Obj) -> Execution | None:
        """Commands that shall end do so after a second; others are services."""
        if pod["spec"].get("restartPolicy") == "Always":
            return None
        return Execution(1.0, 0, "done\n")
