"""Signals that the API server's own objects tell: GPU counts, conditions, events, pods."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from breakfix.errors import ClusterError
from breakfix.model import Coverage, Event, Node, Pod, Reading, SignalKind, boot_time
from breakfix.observe import pods as pods_seen
from breakfix.observe.conditions import read_conditions
from breakfix.observe.expected import gpus_short, gpus_unlike_peers
from breakfix.observe.facts import Facts
from breakfix.observe.labels import printable
from breakfix.observe.node_events import count_events
from breakfix.observe.threshold import is_beyond
from breakfix.policy import KUBERNETES, Policy, SignalRule
from breakfix.ports import Cluster

Values = Mapping[tuple[str, str], float]  # (node, key) -> value

_OF_PODS: Mapping[str, Callable[[pods_seen.PodsOf], Values]] = {
    "pods_evicted": pods_seen.evicted,
    "pods_failing_fast": pods_seen.failing_fast,
    "pods_crash_looping": pods_seen.crash_looping,
    "pods_stuck": pods_seen.stuck,
}


@dataclass(frozen=True, slots=True)
class KubernetesView:
    """The judged nodes, all pods, and what was said of nodes, at one instant."""

    at: datetime
    nodes: Mapping[str, Node]
    pods: tuple[Pod, ...] = ()
    events: Sequence[Event] = ()
    events_error: str = ""  # why the events could not be read
    floors: Mapping[str, datetime] = field(default_factory=dict)  # what came before is settled


def view_of(
    cluster: Cluster,
    nodes: Mapping[str, Node],
    policy: Policy,
    *,
    at: datetime,
    floors: Mapping[str, datetime],
    facts: Facts,
) -> KubernetesView:
    """Reads pods, and events when a rule asks for them. Raises ClusterError when the pods cannot be
    listed; events that cannot are an error of their signals only.
    """
    events: Sequence[Event] = ()
    error = ""
    if any(r.query.startswith(f"{KUBERNETES}event:") for r in policy.signals):
        try:
            events = cluster.node_events()
        except ClusterError as e:
            error = f"events could not be listed: {printable(str(e))}"
    since = {name: _floor(facts.get(name, {}), floors.get(name)) for name in nodes}
    known = {name: floor for name, floor in since.items() if floor is not None and floor <= at}
    return KubernetesView(at, nodes, tuple(cluster.pods()), events, error, known)


def _floor(facts: Mapping[str, str], floor: datetime | None) -> datetime | None:
    return max((t for t in (floor, boot_time(facts)) if t is not None), default=None)


def read_kubernetes(
    rule: SignalRule, view: KubernetesView, policy: Policy
) -> tuple[list[Reading], Coverage]:
    """Readings beyond the threshold, and which nodes have what the signal looks at."""
    values, seen, error = _values(rule, view, policy)
    readings = [
        Reading(rule.name, node, "", value, key=printable(key))
        for (node, key), value in values.items()
        if node in seen and value >= 0 and is_beyond(rule, value)
    ]
    age = 0.0 if seen else None
    return readings, Coverage(rule.name, seen, len(view.nodes), age, error)


def _values(
    rule: SignalRule, view: KubernetesView, policy: Policy
) -> tuple[Values, frozenset[str], str]:
    """(values by node and key, the nodes that can be judged by it, an error)."""
    what, _, rest = rule.query.removeprefix(KUBERNETES).partition(":")
    everyone = frozenset(view.nodes)
    match what:
        case "gpus_short" | "gpus_unlike_peers":
            count = gpus_short if what == "gpus_short" else gpus_unlike_peers
            found = count(view.nodes.values(), policy)
            return {(node, ""): v for node, v in found.items()}, frozenset(found), ""
        case "condition":
            return *read_conditions(rest, view.nodes.values(), view.at), ""
        case "event":
            if view.events_error:
                return {}, frozenset(), view.events_error
            counts = count_events(
                rest, view.events, at=view.at, window_s=rule.window_s, floors=view.floors
            )
            return counts, everyone, ""
    floors = view.floors if rule.kind is SignalKind.EVENT else {}
    seen = pods_seen.PodsOf(view.pods, view.at, rule.window_s, floors)
    if what == "daemon_pods_down":
        return pods_seen.daemon_pods_down(seen, rest), everyone, ""
    return _OF_PODS[what](seen), everyone, ""
