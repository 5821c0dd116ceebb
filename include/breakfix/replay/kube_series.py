"""kube-state-metrics over the nodes and pods of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np

from breakfix.replay.baseline import Plain
from breakfix.replay.fleet import Fleet, NodeNow
from breakfix.replay.pods import PodNow, pod_history
from breakfix.replay.trace import PodSpec, Trace
from breakfix.replay.values import GONE, HELD, MISSING, Floats, Track

_STATUSES = ("True", "False", "Unknown")
_PHASES = ("Pending", "Succeeded", "Failed", "Unknown", "Running")


def kube_series(
    trace: Trace, fleet: Fleet, times: Floats, origin_s: float
) -> Iterator[tuple[str, list[Plain]]]:
    """(node, its series), then the pods' with node ""."""
    for member in fleet.members:
        yield member.name, list(_of_node(fleet.histories[member.name], times, origin_s))
    for pod in trace.pods:
        history = pod_history(pod, trace)
        who = {"namespace": pod.namespace, "pod": pod.name}
        yield "", list(_of_pod(pod, history, who, times, origin_s))


def _of_node(history: Sequence[NodeNow], times: Floats, origin_s: float) -> Iterator[Plain]:
    places = np.searchsorted([s.at for s in history], times, side="right") - 1

    def line(metric: str, read: Callable[[NodeNow], float], **labels: str) -> Plain:
        values = np.array([read(s) for s in history], float)[places]
        return Plain(metric, labels, Track(values, np.zeros(len(times), np.uint8)))

    yield from _infos(history, places)
    yield line("kube_node_spec_unschedulable", lambda s: s.is_unschedulable)
    gpu = {"resource": "nvidia_com_gpu", "unit": "integer"}
    yield line("kube_node_status_capacity", lambda s: s.capacity, **gpu)
    yield line("kube_node_status_allocatable", lambda s: s.allocatable, **gpu)
    for kind in sorted({c for s in history for c in s.conditions}):
        for status in _STATUSES:
            yield line(
                "kube_node_status_condition",
                partial(_is_so, kind=kind, status=status),
                condition=kind,
                status=status.lower(),
            )
    yield line("kube_node_created", lambda _: origin_s - 7_776_000)


def _infos(history: Sequence[NodeNow], places: np.ndarray) -> Iterator[Plain]:
    words = [(s.kernel, s.kubelet) for s in history]
    for kernel, kubelet in dict.fromkeys(words):
        here = np.array([w == (kernel, kubelet) for w in words])[places]
        states = np.where(here, HELD, GONE).astype(np.uint8)
        about = {
            "kernel_version": kernel,
            "kubelet_version": kubelet,
            "container_runtime_version": "containerd://2.1.4",
            "os_image": "Ubuntu 24.04.3 LTS",
        }
        yield Plain("kube_node_info", about, Track(np.ones(len(places)), states))


def _of_pod(
    pod: PodSpec,
    history: Sequence[PodNow],
    who: dict[str, str],
    times: Floats,
    origin_s: float,
) -> Iterator[Plain]:
    places = np.searchsorted([s.at for s in history], times, side="right") - 1
    is_there = np.array([False, *(s.is_there for s in history)])[places + 1]
    was_there = np.maximum.accumulate(is_there)
    states = np.where(is_there, HELD, np.where(was_there, GONE, MISSING)).astype(np.uint8)

    def line(metric: str, read: Callable[[PodNow], float], **labels: str) -> Plain:
        values = np.array([*(read(s) for s in history), 0.0], float)[places]
        return Plain(metric, {**who, **labels}, Track(values, states.copy()))

    kind, _, name = pod.owner.partition("/")
    owner = {"created_by_kind": kind, "created_by_name": name}
    yield line("kube_pod_info", lambda _: 1.0, node=history[0].node, **owner)
    yield line("kube_pod_created", lambda _: origin_s + history[0].at)
    if pod.image:
        what = {"container": pod.container, "image": pod.image}
        yield line("kube_pod_container_info", lambda _: 1.0, **what)
    for phase in _PHASES:
        yield line("kube_pod_status_phase", partial(_is_in, phase=phase), phase=phase)
    for condition in ("true", "false"):
        yield line(
            "kube_pod_status_ready",
            partial(_is_ready, wanted=condition),
            condition=condition,
        )


def _is_so(now: NodeNow, *, kind: str, status: str) -> bool:
    return kind in now.conditions and now.conditions[kind].status == status


def _is_in(now: PodNow, *, phase: str) -> bool:
    return now.phase == phase


def _is_ready(now: PodNow, *, wanted: str) -> bool:
    return now.is_ready == (wanted == "true")
