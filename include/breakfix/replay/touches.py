"""What happens to which node of a trace, and when: everything else is quiet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from breakfix.replay.baseline import HEALTH, XID_COUNT, XID_LAST, XID_TOTAL
from breakfix.replay.fleet import Fleet, select
from breakfix.replay.trace import Gap, NodeChange, Series, Trace

_XIDS = (XID_LAST, XID_COUNT, XID_TOTAL)
_OF_EXPORTER = {"dcgm": ("DCGM_*",), "node": ("node_*",), "ksm": ("kube_*",)}
KUBERNETES = "kubernetes"  # beside the metrics: what the API server's objects tell


@dataclass(frozen=True, slots=True)
class Touch:
    """Something that happens on a node; `what`: patterns of the metrics that show it."""

    start: float
    end: float
    what: tuple[str, ...]
    is_timed: bool = False  # what it means depends on how long ago it was


def touches_of(trace: Trace, fleet: Fleet) -> Mapping[str, tuple[Touch, ...]]:
    """Node -> everything that the trace says of it in particular."""
    found: dict[str, list[Touch]] = defaultdict(list)
    for nodes, touch in _all(trace):
        for name in select(nodes, fleet.members):
            found[name].append(touch)
    for pod in trace.pods:
        for node in {pod.node, *(c.node or "" for c in pod.changes)} - {""}:
            touch = Touch(-math.inf, math.inf, (KUBERNETES, "kube_pod_*"), is_timed=True)
            found[node].append(touch)
    for event in trace.events:
        if event.node:
            found[event.node].append(Touch(event.at, math.inf, (KUBERNETES,), is_timed=True))
    return {name: tuple(touches) for name, touches in found.items()}


def _all(trace: Trace) -> Iterable[tuple[Sequence[str], Touch]]:
    for series in trace.series:
        yield series.nodes, _of_series(series)
    for xid in trace.xids:
        last = xid.at + (xid.count - 1) * xid.every
        yield xid.nodes, Touch(xid.at, last + 400.0, _XIDS)
    for restart in trace.restarts:
        yield restart.nodes, Touch(restart.at, restart.at, _XIDS)
    for health in trace.health:
        end = math.inf if health.end is None else health.end
        yield health.nodes, Touch(health.start, end, (HEALTH,))
    for gap in trace.gaps:
        yield gap.nodes, _of_gap(gap)
    for change in trace.nodes:
        yield change.nodes, _of_change(change)


def _of_series(series: Series) -> Touch:
    """Until a last step that leaves the baseline as it was; else it is a state that lasts."""
    if series.values or not series.steps:
        return Touch(-math.inf, math.inf, (series.metric,))
    last = series.steps[-1]
    nothing = {"plus": 0.0, "times": 1.0}.get(series.how)
    is_over = last.value == nothing and last.rate == 0 and last.noise == 0
    return Touch(series.steps[0].at, last.at if is_over else math.inf, (series.metric,))


def _of_gap(gap: Gap) -> Touch:
    what = gap.metrics or (*(p for e in gap.exporters for p in _OF_EXPORTER[e]), "up")
    return Touch(gap.start, math.inf if gap.end is None else gap.end, what)


def _of_change(change: NodeChange) -> Touch:
    what = [KUBERNETES, "kube_*"]
    if change.booted:
        what += ["node_boot_time_seconds", *_XIDS]
    if change.driver or change.host_label or change.deleted or change.created:
        what.append("DCGM_*")
    if change.kernel:
        what.append("node_uname_info")
    return Touch(change.at, change.at, tuple(what), is_timed=True)


def is_touched(metrics: Iterable[str], touches: Iterable[Touch]) -> bool:
    """Whether any of these metrics is among what the touches show."""
    patterns = {p for t in touches for p in t.what}
    return any(fnmatchcase(metric, p) for metric in metrics for p in patterns)
