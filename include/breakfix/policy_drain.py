"""The `drain` section of the policy: how pods leave a node, which ladder each climbs, and what
becomes of a drain that does not end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, model_validator

from breakfix.durations import Seconds
from breakfix.model import DrainRung, RungKind
from breakfix.policy_rule import Rule

_TAKES = frozenset({RungKind.EVICT, RungKind.DELETE})


class Rung(Rule):
    """One way to get a pod to leave, for so long; then the next rung."""

    do: RungKind
    for_s: Seconds = Field(
        0.0, alias="for", description="0: until the drain's own deadline, on the last rung only"
    )

    def plain(self) -> DrainRung:
        """The same as the model's word."""
        return DrainRung(self.do, self.for_s)


def _check_rungs(rungs: tuple[Rung, ...], what: str) -> None:
    endless = [r for r in rungs[:-1] if r.for_s == 0]
    if endless:
        msg = f"{what}: rung `{endless[0].do}` needs `for`, or no rung after it is ever reached"
        raise ValueError(msg)
    if len({r.do for r in rungs}) < len(rungs):
        msg = f"{what}: a rung is there twice"
        raise ValueError(msg)


class Ladder(Rule):
    """What is done with the pods of some namespaces or labels; an empty field matches all."""

    name: str = Field(min_length=1)
    namespaces: tuple[str, ...] = Field((), description="Names; `kube-*` means a beginning")
    labels: Mapping[str, str] = Field(default_factory=dict)
    skip: bool = Field(default=False, description="They stay on the node, as a DaemonSet's do")
    order: int = Field(0, description="Taken once all pods of lower orders have left")
    rungs: tuple[Rung, ...] = ()

    @model_validator(mode="after")
    def _is_a_ladder(self) -> Ladder:
        if self.skip == bool(self.rungs):
            msg = f"ladder {self.name}: either rungs or skip: true"
            raise ValueError(msg)
        _check_rungs(self.rungs, f"ladder {self.name}")
        return self

    def matches(self, namespace: str, labels: Mapping[str, str]) -> bool:
        """Whether a pod of that namespace and with those labels climbs this ladder."""
        if self.namespaces and not any(_is_like(namespace, n) for n in self.namespaces):
            return False
        return all(labels.get(k) == v for k, v in self.labels.items())

    @property
    def plain(self) -> tuple[DrainRung, ...]:
        return tuple(r.plain() for r in self.rungs)


def _is_like(name: str, wanted: str) -> bool:
    if wanted.endswith("*"):
        return name.startswith(wanted[:-1])
    return name == wanted


class Checkpoint(Rule):
    """How a pod is asked to save its work, and how it answers: by its own annotations.

    A container reads annotations through a downward API volume, which the kubelet keeps up to date.
    """

    annotation: str = Field("breakfix.dev/checkpoint", min_length=1)
    acknowledged: str = Field("breakfix.dev/checkpointed", min_length=1)
    label: str = Field("", description="Also set, to `requested`, for whoever watches labels")


class Replaced(Rule):
    """After a drain: the pods' successors must be Ready elsewhere."""

    within_s: Seconds = Field(600.0, alias="within", description="0: not looked at")
    otherwise: Literal["hold", "warn"] = Field(
        "hold", description="hold: the repair waits for a person when a successor fails elsewhere"
    )


class Drain(Rule):
    """How pods are moved off a node."""

    timeout_s: Seconds = Field(1800.0, alias="timeout")
    poll_s: Seconds = Field(5.0, alias="poll")
    evictions_per_s: float = Field(5.0, gt=0, description="In the whole cluster, by all drains")
    evictions_in_flight: int = Field(8, ge=1, le=64, description="Of one drain at a time")
    may_delete_disk_empty_dir: bool = False
    may_delete_unmanaged: bool = False
    may_delete: bool = Field(
        default=False, description="Whether a ladder may have the rung `delete`, past all budgets"
    )
    grace_s: int = Field(-1, ge=-1, description="-1: the pod's own")
    ladders: tuple[Ladder, ...] = Field((), description="The first that matches a pod is its own")
    rungs: tuple[Rung, ...] = Field(
        (Rung(do=RungKind.EVICT),), min_length=1, description="Of pods that no ladder names"
    )
    checkpoint: Checkpoint = Checkpoint()
    stuck_after_s: Seconds = Field(
        60.0, alias="stuck_after", description="Past the end of its grace a pod is stuck"
    )
    dead_node: Literal["wait", "leave"] = Field(
        "wait",
        description="leave: pods stuck on a node that is not Ready hold no repair, which ends them",
    )
    overdue: Literal["uncordon", "hold", "escalate"] = Field(
        "hold", description="What becomes of a node whose drain did not end in time"
    )
    hold_s: Seconds = Field(
        86400.0, alias="hold_for", description="A drain on hold escalates after that"
    )
    replaced: Replaced = Replaced()

    @model_validator(mode="after")
    def _ladders_fit(self) -> Drain:
        _check_rungs(self.rungs, "rungs")
        named = [(f"ladder {x.name}", x.rungs) for x in self.ladders]
        for what, rungs in [*named, ("rungs", self.rungs)]:
            if not self.may_delete and any(r.do is RungKind.DELETE for r in rungs):
                msg = f"{what}: the rung `delete` passes all budgets; it needs may_delete: true"
                raise ValueError(msg)
            if sum(r.for_s for r in rungs) > self.timeout_s:
                msg = f"{what}: its rungs together take longer than timeout ({self.timeout_s:g} s)"
                raise ValueError(msg)
        return self

    def ladder_of(self, namespace: str, labels: Mapping[str, str]) -> Ladder | None:
        """The first ladder that names such pods; None: the default rungs are theirs."""
        return next((x for x in self.ladders if x.matches(namespace, labels)), None)

    @property
    def default_rungs(self) -> tuple[DrainRung, ...]:
        return tuple(r.plain() for r in self.rungs)


def takes(rungs: tuple[DrainRung, ...]) -> bool:
    """Whether a ladder ever removes a pod itself; else it only waits for it to finish."""
    return any(r.do in _TAKES for r in rungs)
