"""What the pods of a node tell of it, beside what the same workloads do elsewhere.

A workload that fails everywhere says nothing of a node. One that lives elsewhere and dies here
does, a little: many different ones do more.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from breakfix.model import Pod

FAST_S = 60.0  # a container that ends within a minute has done no work (ours)
_REFUSED = frozenset({"UnexpectedAdmissionError"})  # the kubelet could not give it its devices
_MOSTLY = (
    0.5  # of a DaemonSet's other pods must be ready, else it is the DaemonSet's trouble (ours)
)
_ONE_NODE = 2

Workload = tuple[str, str, str]  # namespace, kind and name of the controller
Values = Mapping[tuple[str, str], float]  # (node, key) -> value


@dataclass(frozen=True, slots=True)
class PodsOf:
    """All pods, at one instant, with the window of the rule that asks."""

    pods: tuple[Pod, ...]
    at: datetime
    window_s: float
    floors: Mapping[str, datetime]

    def is_recent(self, pod: Pod, when: datetime | None) -> bool:
        """Within the window, and after the node's floor."""
        if when is None or not 0 <= (self.at - when).total_seconds() <= self.window_s:
            return False
        floor = self.floors.get(pod.node)
        return floor is None or when > floor

    def lasts(self, when: datetime | None) -> bool:
        """For the whole window at least."""
        return when is not None and (self.at - when).total_seconds() >= self.window_s


def evicted(seen: PodsOf) -> Values:
    """Pods that the kubelet evicted."""
    counts: dict[tuple[str, str], float] = defaultdict(float)
    for pod in seen.pods:
        if pod.node and pod.reason == "Evicted" and seen.is_recent(pod, _ended(pod)):
            counts[pod.node, ""] += 1
    return counts


def failing_fast(seen: PodsOf) -> Values:
    """Different workloads whose GPU pods fail here at once, and live on other nodes."""
    return _workloads(seen, lambda p: p.gpus > 0 and _fails_fast(seen, p))


def crash_looping(seen: PodsOf) -> Values:
    """Different workloads whose pods crash again and again here, and live on other nodes."""
    return _workloads(seen, lambda p: p.waiting == "CrashLoopBackOff")


def stuck(seen: PodsOf) -> Values:
    """Different workloads whose pods do not get started here, and live on other nodes."""
    return _workloads(seen, lambda p: _is_stuck(p) and seen.lasts(p.changed_at or p.created_at))


def daemon_pods_down(seen: PodsOf, names: str) -> Values:
    """DaemonSets whose pod here has not been ready for the window, while most others are; the
    value is for how many seconds.
    """
    wanted = re.compile(names)
    sets: dict[Workload, list[Pod]] = defaultdict(list)
    for pod in seen.pods:
        workload = _workload(pod)
        if pod.node and workload and workload[1] == "DaemonSet" and wanted.search(workload[2]):
            sets[workload].append(pod)
    values: dict[tuple[str, str], float] = {}
    for (_, _, name), pods in sets.items():
        ready = [p for p in pods if p.is_ready]
        if len(ready) < _ONE_NODE or len(ready) / len(pods) < _MOSTLY:
            continue
        here = {p.node for p in ready}
        for pod in pods:
            since = pod.changed_at or pod.created_at
            if pod.node not in here and since is not None and seen.lasts(since):
                values[pod.node, name] = (seen.at - since).total_seconds()
    return values


def waiting_reasons(pods: Iterable[Pod]) -> Mapping[str, int]:
    """Why the scheduler finds no node for GPU pods -> how many of them wait for that."""
    counts: dict[str, int] = defaultdict(int)
    for pod in pods:
        if pod.gpus and not pod.node and not pod.is_finished and pod.unschedulable:
            for reason in _reasons(pod.unschedulable):
                counts[reason] += 1
    return dict(sorted(counts.items()))


_AVAILABLE = re.compile(r"^\s*\d+/\d+ nodes are available:?\s*")
_COUNTED = re.compile(r"^\d+ (?=\S)")
_LONGEST = 120  # a reason is shown to people


def _reasons(message: str) -> frozenset[str]:
    """The reasons in the scheduler's sentence, without the counts of nodes and what it says of
    preemption.
    """
    text = _AVAILABLE.sub("", message).split(" preemption:")[0].strip().rstrip(".")
    parts = re.split(r",\s+(?=\d+ )", text)
    found = (_COUNTED.sub("", p.strip()) for p in parts)
    return frozenset("".join(c if c.isprintable() else "?" for c in p[:_LONGEST]) for p in found)


def _workloads(seen: PodsOf, is_bad: Callable[[Pod], bool]) -> Values:
    """Node -> workloads with a bad pod there, of those that live on at least as many other nodes
    as they are bad on.
    """
    bad: dict[Workload, set[str]] = defaultdict(set)
    good: dict[Workload, set[str]] = defaultdict(set)
    for pod in seen.pods:
        workload = _workload(pod)
        if not workload or not pod.node:
            continue
        if is_bad(pod):
            bad[workload].add(pod.node)
        elif pod.is_ready or pod.phase == "Succeeded":
            good[workload].add(pod.node)
    counts: dict[tuple[str, str], float] = defaultdict(float)
    for workload, nodes in bad.items():
        if len(good[workload] - nodes) >= len(nodes):
            for node in nodes:
                counts[node, ""] += 1
    return counts


def _workload(pod: Pod) -> Workload | None:
    owner = pod.controller
    return (pod.namespace, owner.kind, owner.name) if owner else None


def _fails_fast(seen: PodsOf, pod: Pod) -> bool:
    if pod.phase == "Failed" and pod.reason in _REFUSED:
        return seen.is_recent(pod, _ended(pod))
    is_short = pod.run_s is not None and pod.run_s <= FAST_S
    return is_short and pod.exit_code != 0 and seen.is_recent(pod, pod.ended_at)


def _is_stuck(pod: Pod) -> bool:
    return pod.phase == "Pending" and not pod.is_terminating and pod.waiting != "CrashLoopBackOff"


def _ended(pod: Pod) -> datetime | None:
    return pod.ended_at or pod.changed_at or pod.created_at
