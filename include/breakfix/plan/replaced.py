"""Whether what ran on a drained node runs elsewhere now: controller by controller. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from breakfix.model import Owner, Pod


class Gap(StrEnum):
    """Why a controller has fewer Ready pods elsewhere than it had."""

    FAILING = "failing"  # a successor is on another node, and is not Ready there
    PENDING = "pending"  # a successor finds no node
    MISSING = "missing"  # there is no successor: scaled down, rolled out anew, or not made again


@dataclass(frozen=True, slots=True)
class Controller:
    """Whose pods ran on the node: `ready` of them anywhere, before the drain."""

    uid: str
    kind: str
    namespace: str
    name: str
    ready: int
    was_whole: bool  # none of its pods was unready

    def to_json(self) -> dict[str, Any]:
        return {
            "uid": self.uid,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "ready": self.ready,
            "was_whole": self.was_whole,
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Controller:
        return cls(
            str(value["uid"]),
            str(value["kind"]),
            str(value["namespace"]),
            str(value["name"]),
            int(value["ready"]),
            bool(value["was_whole"]),
        )

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True)
class Shortfall:
    """A controller whose pods are not all Ready elsewhere."""

    controller: Controller
    gap: Gap
    text: str


def controllers_on(pods: Iterable[Pod], leaving: frozenset[str]) -> tuple[Controller, ...]:
    """The controllers of the pods that will leave (their uids), with what they have everywhere.

    Pods that are finished, or that were not Ready, leave nothing to be replaced.
    """
    of: dict[str, list[Pod]] = defaultdict(list)
    owners: dict[str, tuple[str, Owner]] = {}
    moved: set[str] = set()
    for pod in pods:
        owner = pod.controller
        if owner is None or owner.kind in ("DaemonSet", "Node") or pod.is_finished:
            continue
        of[owner.uid].append(pod)
        owners[owner.uid] = (pod.namespace, owner)
        if pod.uid in leaving and pod.is_ready and not pod.is_terminating:
            moved.add(owner.uid)
    return tuple(_controller(uid, *owners[uid], of[uid]) for uid in sorted(moved))


def _controller(uid: str, namespace: str, owner: Owner, pods: Sequence[Pod]) -> Controller:
    alive = [p for p in pods if not p.is_terminating]
    ready = sum(p.is_ready for p in alive)
    return Controller(uid, owner.kind, namespace, owner.name, ready, ready == len(alive))


def shortfalls(
    controllers: Iterable[Controller], pods: Iterable[Pod], node: str
) -> tuple[Shortfall, ...]:
    """Controllers with fewer pods Ready, or finished well, off the node than they had in all."""
    of: dict[str, list[Pod]] = defaultdict(list)
    for pod in pods:
        owner = pod.controller
        if owner is not None and pod.node != node and not pod.is_terminating:
            of[owner.uid].append(pod)
    found = (_shortfall(c, of[c.uid]) for c in controllers)
    return tuple(s for s in found if s is not None)


def are_ready_elsewhere(wanted: Mapping[str, int], pods: Iterable[Pod], node: str) -> bool:
    """Whether each controller (by its uid) has so many pods Ready, or finished well, off the
    node.
    """
    good: dict[str, int] = defaultdict(int)
    for pod in pods:
        owner = pod.controller
        if owner is not None and owner.uid in wanted and pod.node != node:
            good[owner.uid] += _is_good(pod)
    return all(good[uid] >= n for uid, n in wanted.items())


def _is_good(pod: Pod) -> bool:
    return not pod.is_terminating and (pod.is_ready or pod.phase == "Succeeded")


def _shortfall(controller: Controller, pods: Sequence[Pod]) -> Shortfall | None:
    good = sum(_is_good(p) for p in pods)
    if good >= controller.ready:
        return None
    text = f"{controller}: {good} of {controller.ready} Ready elsewhere"
    unready = [p for p in pods if not p.is_ready and not p.is_finished]
    bound = next((p for p in unready if p.node), None)
    if bound is not None:
        why = f" ({bound.waiting})" if bound.waiting else ""
        return Shortfall(
            controller, Gap.FAILING, f"{text}; {bound.name} is not Ready on {bound.node}{why}"
        )
    if unready:
        why = f": {unready[0].unschedulable}" if unready[0].unschedulable else ""
        return Shortfall(controller, Gap.PENDING, f"{text}; {unready[0].name} finds no node{why}")
    return Shortfall(controller, Gap.MISSING, f"{text}; no successor is there")
