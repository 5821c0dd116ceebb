"""The nodes of a trace and how each changes over time: what labels and the API server say of it."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from breakfix.replay.trace import (
    ConditionChange,
    Group,
    NodeChange,
    TaintChange,
    Trace,
    group_names,
)


@dataclass(frozen=True, slots=True)
class Member:
    """One node as the trace begins."""

    name: str
    group: Group
    rack: str
    index: int  # in the fleet

    @property
    def ip(self) -> str:
        """An address of its own in 10.0.0.0/8."""
        return f"10.{self.index >> 16 & 255}.{self.index >> 8 & 255}.{self.index & 255}"


@dataclass(frozen=True, slots=True)
class NodeNow:
    """One node from `at` until the next change; times in seconds since the first sweep."""

    at: float
    driver: str
    kernel: str
    kubelet: str
    allocatable: int
    capacity: int
    booted_at: float
    boots: int
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    conditions: Mapping[str, ConditionChange]
    taints: tuple[TaintChange, ...] = ()
    is_unschedulable: bool = False
    is_there: bool = True
    version: int = 1
    host_label: str = ""

    @property
    def exported(self) -> tuple[str, str]:
        """What its GPUs' series show: (driver, how the host label is spelled; "": as ever)."""
        return self.driver, self.host_label


@dataclass(frozen=True, slots=True)
class Fleet:
    """All nodes with their histories."""

    members: tuple[Member, ...]
    histories: Mapping[str, tuple[NodeNow, ...]] = field(repr=False)

    def at(self, name: str, time: float) -> NodeNow:
        """The node as it is at that time."""
        history = self.histories[name]
        found = history[0]
        for state in history[1:]:
            if state.at > time:
                break
            found = state
        return found


def build_fleet(trace: Trace) -> Fleet:
    """The trace's nodes and every state they go through."""
    members = tuple(_members(trace))
    changes: dict[str, list[NodeChange]] = {m.name: [] for m in members}
    for change in sorted(trace.nodes, key=lambda c: c.at):
        for name in select(change.nodes, members):
            changes[name].append(change)
    return Fleet(members, {m.name: _history(m, changes[m.name]) for m in members})


def _members(trace: Trace) -> Iterable[Member]:
    index = 0
    for group in trace.fleet:
        names = group_names(group)
        for place, name in enumerate(names):
            index += 1
            rack = group.rack or f"{group.pool}-r"
            if group.racks > 1 or not group.rack:
                rack += str(place * group.racks // len(names) + 1)
            yield Member(name, group, rack, index)


def select(wanted: Sequence[str], members: Iterable[Member]) -> list[str]:
    """The nodes that names, patterns, `rack=`, `pool=`, `sku=`, `fabric=`, `driver=` select."""
    return [m.name for m in members if not wanted or any(_matches(m, w) for w in wanted)]


def _matches(member: Member, wanted: str) -> bool:
    key, is_scope, value = wanted.partition("=")
    if not is_scope:
        return fnmatchcase(member.name, wanted)
    if key == "rack":
        return fnmatchcase(member.rack, value)
    return fnmatchcase(str(getattr(member.group, key, "")), value)


def _history(member: Member, changes: Sequence[NodeChange]) -> tuple[NodeNow, ...]:
    states = [_first(member, is_there=not any(c.created for c in changes))]
    for change in changes:
        states.append(_changed(states[-1], change))
    return tuple(states)


def _first(member: Member, *, is_there: bool) -> NodeNow:
    group = member.group
    ready = {"Ready": ConditionChange(status="True", reason="KubeletReady", since=-group.ready_age)}
    others = {
        kind: ConditionChange(status=_word(status), since=-group.ready_age)
        for kind, status in group.conditions.items()
    }
    gpus = group.gpus if group.is_gpu else 0
    return NodeNow(
        at=float("-inf"),
        driver=group.driver if group.is_gpu else "",
        kernel=group.kernel,
        kubelet=group.kubelet,
        allocatable=gpus,
        capacity=gpus,
        booted_at=-group.boot_age,
        boots=1,
        labels=_labels(member),
        annotations=dict(group.annotations),
        conditions={**ready, **others},
        is_there=is_there,
    )


def _word(status: str) -> str:
    return {"true": "True", "false": "False"}.get(str(status).lower(), "Unknown")


def _labels(member: Member) -> dict[str, str]:
    group = member.group
    labels = {
        "kubernetes.io/hostname": member.name,
        "breakfix.dev/pool": group.pool,
        "topology.kubernetes.io/rack": member.rack,
    }
    if group.is_gpu:
        labels |= {
            "nvidia.com/gpu.present": "true",
            "nvidia.com/gpu.product": group.sku,
            "nvidia.com/gpu.count": str(group.gpus),
        }
        if group.fabric:
            labels["nvidia.com/gpu.clique"] = group.fabric
    return {**labels, **group.labels}


def _changed(now: NodeNow, change: NodeChange) -> NodeNow:
    conditions = dict(now.conditions)
    for kind, condition in change.conditions.items():
        since = change.at if condition.since is None else condition.since
        conditions[kind] = condition.model_copy(update={"since": since})
    is_there = (now.is_there or change.created) and not change.deleted
    return replace(
        now,
        at=change.at,
        driver=change.driver or now.driver,
        kernel=change.kernel or now.kernel,
        kubelet=change.kubelet or now.kubelet,
        allocatable=now.allocatable if change.allocatable is None else change.allocatable,
        capacity=now.capacity if change.capacity is None else change.capacity,
        booted_at=change.at if change.booted else now.booted_at,
        boots=now.boots + change.booted,
        labels=_merged(now.labels, change.labels),
        annotations=_merged(now.annotations, change.annotations),
        conditions=conditions,
        taints=now.taints if change.taints is None else change.taints,
        is_unschedulable=(
            now.is_unschedulable if change.is_unschedulable is None else change.is_unschedulable
        ),
        is_there=is_there,
        version=now.version + 1,
        host_label=change.host_label or now.host_label,
    )


def _merged(old: Mapping[str, str], new: Mapping[str, str | None]) -> Mapping[str, str]:
    merged = {**old, **new}
    return {k: v for k, v in merged.items() if v is not None}


def gpu_uuid(seed: int, node: str, index: int) -> str:
    """The UUID of a GPU, always the same for one seed."""
    made = hashlib.sha256(f"{seed}/{node}/{index}".encode()).digest()[:16]
    return f"GPU-{uuid.UUID(bytes=made)}"


def exporter_pod(node: str) -> tuple[str, str]:
    """(namespace, name) of the node's dcgm-exporter pod."""
    return "gpu-operator", f"nvidia-dcgm-exporter-{hashlib.sha256(node.encode()).hexdigest()[:5]}"
