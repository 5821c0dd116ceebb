"""How the stages of a case speak to whoever runs them: go on there, or wait for that.

A stage is a function `(services, case_id, fence) -> Go | Wait`. It is idempotent: run again, at any
time, by anybody who holds the fence, it looks at the ledger and the world first and does only what
is still to do. After a Wait the same stage is run again, whether what was waited for came or the
deadline did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from breakfix.model import REPAIRS, RUNGS, Action


class Stage(StrEnum):
    """The stages of a case, in the order of the road; task ids of the DAG are the same words."""

    BEGIN = "begin"
    APPROVE_REPAIR = "approve_repair"  # a question; no function of ours
    SETTLE_REPAIR = "settle_repair"
    APPROVE_REPAIR_SECOND = "approve_repair_second"  # a question, to another person
    SETTLE_REPAIR_SECOND = "settle_repair_second"
    DRAIN = "drain"
    RESTART_DEVICE_PLUGIN = "restart_device_plugin"
    RESET_GPU = "reset_gpu"
    REBOOT_NODE = "reboot_node"
    POWER_CYCLE = "power_cycle"
    REPLACE_NODE = "replace_node"
    OPEN_VENDOR_CASE = "open_vendor_case"
    CHECK_GPUS = "check_gpus"
    CHECK_OPERATOR = "check_operator"
    RUN_DIAG = "run_diag"
    RUN_BANDWIDTH = "run_bandwidth"
    CHECK_SIGNALS = "check_signals"
    APPROVE_RETURN = "approve_return"  # a question
    SETTLE_RETURN = "settle_return"
    APPROVE_RETURN_SECOND = "approve_return_second"  # a question, to another person
    SETTLE_RETURN_SECOND = "settle_return_second"
    RETURN_NODE = "return_node"
    NEXT_RUNG = "next_rung"  # the repair did not help: the ladder goes on, or the case ends
    ESCALATE = "escalate"
    SETTLE_RUN = "settle_run"


#: The stages that repair, lowest rung first.
REPAIR_STAGES: tuple[Stage, ...] = tuple(Stage(a.value) for a in RUNGS if a in REPAIRS)


def stage_of(action: Action) -> Stage:
    """The stage that does this repair; what is no repair is for people."""
    return Stage(action.value) if action in REPAIRS else Stage.ESCALATE


@dataclass(frozen=True, slots=True)
class Go:
    """The stage is over; `to` is where the case goes next. `note` is for the log of the run."""

    to: Stage
    note: str = ""
    detail: Mapping[str, Any] | None = None  # e.g. the text of a question


class WaitKind(StrEnum):
    """What a case can wait for; each is answered from one shared look at the cluster."""

    PODS_GONE = "pods_gone"  # nothing left to drain, or something to do about it
    PODS_READY = "pods_ready"  # so many pods of a controller, off the node
    BOOTED = "booted"  # another boot id, and Ready
    POD_FINISHED = "pod_finished"
    GPUS_BACK = "gpus_back"
    TIME = "time"  # not before `not_before`


@dataclass(frozen=True, slots=True)
class Wait:
    """Come back when it is so, or at the deadline: then the same stage decides what that means."""

    kind: WaitKind
    case_id: str
    node: str
    deadline: datetime
    not_before: datetime | None = None
    pod: str = ""  # namespace/name
    boot_id: str = ""
    gpus: int = 0
    since: datetime | None = None  # since when the pods of order `turn` have had their time
    turn: int = 0
    tolerant: tuple[str, ...] = ()  # controllers whose pods are not evicted any more
    ready_elsewhere: Mapping[str, int] = field(default_factory=dict)  # by the controller's uid

    def to_json(self) -> dict[str, Any]:
        """Plain values only, for a trigger's keyword arguments."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Wait:
        return msgspec.convert(value, cls)
