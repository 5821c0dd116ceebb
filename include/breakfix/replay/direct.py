"""Base-rate noise straight into decide: a trace becomes Observations without a Prometheus.

Only nodes to which something happens are looked at, and only while it can still be seen: every
other node and instant is that of a quiet node, which is looked at once per kind of node and must
say nothing. What the looked-at nodes show is what the real `observe` reads from their own expanded
series, its queries being evaluated by `promql`; the verdicts are the real `judge`'s over the whole
fleet. `breakfix replay --compare-direct` holds the result against a real Prometheus.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property, partial

import numpy as np

from breakfix.decide import judge
from breakfix.errors import MetricsError
from breakfix.model import (
    Coverage,
    FailureClass,
    Judgement,
    Node,
    NodeRecord,
    Observation,
    OpenFinding,
)
from breakfix.observe import observe
from breakfix.observe.promql import coverage_query, fact_query, reporting_query, signal_query
from breakfix.observe.unreported import is_missed, is_over
from breakfix.policy import Policy, SignalRule
from breakfix.replay.baselines import FATAL_EVENTS, THRESHOLDS, by_fatal_events, by_thresholds
from breakfix.replay.direct_metrics import DirectMetrics
from breakfix.replay.expand import Expansion
from breakfix.replay.fleet import Fleet, Member
from breakfix.replay.load import Source
from breakfix.replay.outcome import Call, Replayed
from breakfix.replay.promql import metrics_of, parse, reach_s
from breakfix.replay.promql.vectors import Store
from breakfix.replay.run import Notes, Progress, in_processes, remember
from breakfix.replay.stage import FIRST, GPU_NODES
from breakfix.replay.touches import KUBERNETES, Touch, is_touched, touches_of
from breakfix.replay.trace import Trace
from breakfix.replay.world import World

_PEERS = 5  # quiet nodes beside one that is compared with its peers
_LIKE = 2  # quiet nodes of its kind beside any: so many agree on what is usual
_FEW = 8  # quiet nodes in the small fleet that is judged first
_QUIET_LOOKS = 12  # instants at which a quiet node is looked at
_TIMED_S = 2400.0  # so long the age of a change may matter: boot grace, holds, NotReady


@dataclass(frozen=True, slots=True)
class Sight:
    """One node at one instant, as far as it is touched."""

    seen: Observation
    unlike: frozenset[str]  # signals that it reports and quiet nodes do not, or the other way
    fatal: FailureClass | None = None


def replay_directly(source: Source, policy: Policy, *, is_whole: bool = True) -> Replayed:
    """One trace. Not `is_whole`: only the sweeps in which something changes are in the result,
    which is all that scores of episodes need.

    Raises MetricsError when a quiet node says something, or a query is beyond `promql`.
    """
    began = time.monotonic()
    trace = source.trace
    if trace.series_file:
        raise MetricsError(f"{trace.name}: a recorded trace cannot be judged directly")
    hours = math.ceil(trace.warmup / 3600)
    notes = _Direct(trace, policy, FIRST + timedelta(hours=hours)).run(is_whole=is_whole)
    return notes.replayed_of(trace, time.monotonic() - began)


def replay_all_directly(
    sources: Sequence[Source],
    policy: Policy,
    *,
    jobs: int = 1,
    is_whole: bool = False,
    progress: Progress = lambda _: None,
) -> tuple[Replayed, ...]:
    """Every trace, in the order given, by so many processes. Raises MetricsError."""
    work = partial(replay_directly, is_whole=is_whole)
    if jobs > 1 and len(sources) > 1:
        return in_processes(work, sources, policy, jobs=jobs, progress=progress)
    replayed = []
    for source in sources:
        replayed.append(work(source, policy))
        progress(replayed[-1])
    return tuple(replayed)


class _Direct:
    """One trace on its way to verdicts."""

    def __init__(self, trace: Trace, policy: Policy, origin: datetime) -> None:
        self.trace, self.policy, self.origin = trace, policy, origin
        self.expansion = Expansion(trace, origin)
        self.fleet = self.expansion.fleet
        self.touches = touches_of(trace, self.fleet)
        self.judged = [m for m in self.fleet.members if m.group.is_gpu]
        self.sweeps = np.array(trace.sweeps)
        self.millis = np.rint((origin.timestamp() + self.sweeps) * 1000).astype(np.int64)
        most = max((m.group.gpus for m in self.judged), default=0)
        self.rules = Queries(policy, most)

    # ------------------------------------------------------------------ the whole fleet

    def run(self, *, is_whole: bool) -> Notes:
        """Every sweep in which anything changed, judged; the others say what the last one said."""
        notes = Notes(self.trace.name)
        looks = {n: self._looks(n, touched) for n, touched in sorted(self.touches.items())}
        records: Mapping[str, NodeRecord] = {}
        held: dict[str, Sight] = {}
        last: dict[str, list[Call]] = {}
        for number, at in enumerate(self.trace.sweeps):
            fresh = {n: look[number] for n, look in looks.items() if number in look}
            for name, sight in fresh.items():
                if sight is None:
                    held.pop(name, None)
                else:
                    held[name] = sight
            if number == 0 or fresh or self._is_any_over(records, number):
                seen, judged = self._judge(at, held, records)
                records = {**records, **remember(records, judged)}
                before = {who: len(calls) for who, calls in notes.calls.items()}
                notes.add(at, seen, judged)
                notes.accuse(THRESHOLDS, at, by_thresholds(seen, self.policy))
                fatal = {n: s.fatal for n, s in held.items() if s.fatal is not None}
                notes.accuse(FATAL_EVENTS, at, fatal)
                last = {who: calls[before[who] :] for who, calls in notes.calls.items()}
            elif is_whole:
                for who, calls in last.items():
                    notes.calls[who] += [replace(c, at=at) for c in calls]
        return notes

    def _judge(
        self, at: float, held: Mapping[str, Sight], records: Mapping[str, NodeRecord]
    ) -> tuple[Observation, Judgement]:
        """The verdicts about the whole fleet.

        Quiet nodes count only where nodes are compared, in a common cause. So first a small fleet
        is judged, and the whole one when so many of it are in trouble that there may be one.
        """
        quiet = [m.name for m in self.judged if m.name not in held]
        few = frozenset(held) | set(quiet[: max(_FEW, 2 * len(held))])
        seen = self._whole(at, held, few, records)
        judged = judge(seen, self.policy, records, seen.at)
        troubled = sum(v.failure_class is not None for v in judged.verdicts)
        if troubled < self.policy.common_cause.min_nodes and not judged.incidents:
            return seen, judged
        seen = self._whole(at, held, frozenset(m.name for m in self.judged), records)
        return seen, judge(seen, self.policy, records, seen.at)

    def _is_any_over(self, records: Mapping[str, NodeRecord], number: int) -> bool:
        """Whether an event that is missed counts no more, which it did at the sweep before."""
        last, now = (self._instant(self.trace.sweeps[n]) for n in (number - 1, number))
        return any(
            is_over(f, self._rules[f.signal], now) and not is_over(f, self._rules[f.signal], last)
            for record in records.values()
            for f in record.open_findings
        )

    def _unreported(
        self, at: float, held: Mapping[str, Sight], records: Mapping[str, NodeRecord]
    ) -> Mapping[str, tuple[OpenFinding, ...]]:
        """Of what the last sweep left open, what the node does not report."""
        now = self._instant(at)
        found = {}
        for name, sight in held.items():
            record = records.get(name)
            silent = {(f.signal, f.gpu) for f in sight.seen.unreported.get(name, ())}
            missed = tuple(
                replace(f, missed_at=f.missed_at or now)
                for f in (record.open_findings if record is not None else ())
                if (f.signal, f.gpu) in silent and not is_over(f, self._rules[f.signal], now)
            )
            if missed:
                found[name] = missed
        return found

    def _instant(self, at: float) -> datetime:
        return self.origin + timedelta(seconds=at)

    @cached_property
    def _rules(self) -> Mapping[str, SignalRule]:
        return {r.name: r for r in self.policy.signals}

    def _whole(
        self,
        at: float,
        held: Mapping[str, Sight],
        names: frozenset[str],
        records: Mapping[str, NodeRecord],
    ) -> Observation:
        """These nodes: looked-at ones as they were seen, all others as the quiet one."""
        nodes = {n: node for n, node in self._still.items() if n in names}
        facts = {n: self._quiet_facts[n] for n in names}
        for name, sight in held.items():
            nodes.pop(name, None)
            nodes |= {n.name: n for n in sight.seen.nodes if n.name == name}
            facts[name] = {**facts.get(name, {}), **sight.seen.facts.get(name, {})}
        unlike = {s for sight in held.values() for s in sight.unlike}
        coverage = {
            s: self._cover(s, held if s in unlike else {}, names) for s in self._quiet_coverage
        }
        readings = [r for n, s in held.items() for r in s.seen.readings if r.node == n]
        everyone = tuple(nodes[name] for name in sorted(nodes))
        return Observation(
            at=self._instant(at),
            nodes=everyone,
            gpu_nodes=names & nodes.keys(),
            unreported=self._unreported(at, held, records),
            readings=tuple(sorted(readings, key=lambda r: (r.node, r.signal, r.gpu, r.key))),
            coverage=coverage,
            facts=facts,
        )

    def _cover(self, signal: str, held: Mapping[str, Sight], names: frozenset[str]) -> Coverage:
        quiet = self._quiet_coverage[signal]
        unlike = {n for n, s in held.items() if signal in s.unlike}
        seen = (quiet.nodes_seen & names) ^ unlike
        return Coverage(signal, seen, len(names), 0.0 if seen else None)

    # ------------------------------------------------------------------ quiet nodes

    @cached_property
    def _still(self) -> Mapping[str, Node]:
        world = World(self._without_changes, self._calm.fleet, self.origin)
        return {n.name: n for n in world.at(0.0).nodes()}

    @cached_property
    def _without_changes(self) -> Trace:
        parts = ("series", "xids", "health", "restarts", "gaps", "nodes", "pods", "events")
        return self.trace.model_copy(update=dict.fromkeys(parts, ()))

    @cached_property
    def _calm(self) -> Expansion:
        return Expansion(self._without_changes, self.origin)

    @cached_property
    def _quiet_sights(self) -> Mapping[object, Observation]:
        """One node of each kind, looked at throughout: it must say nothing.

        Raises MetricsError where it does: then nothing here would be true.
        """
        kinds = {_kind(m): m for m in reversed(self.judged)}
        return {kind: self._quiet_sight(member) for kind, member in kinds.items()}

    def _quiet_sight(self, member: Member) -> Observation:
        peers = [m for m in self.judged if m.group.sku == member.group.sku][:_PEERS]
        among = list({m.name: m for m in (member, *peers)}.values())
        store = Store()
        for one in among:
            for series in self._calm.of_node(one):
                store.add(series.labels, series.times, series.values)
        every = max(1, len(self.sweeps) // _QUIET_LOOKS)
        metrics = DirectMetrics(store, self.millis[::every])
        world = World(self._without_changes, _only(self._calm.fleet, among), self.origin)
        seen: Observation | None = None
        for at in self.sweeps[::every]:
            seen = self._observe(metrics, world, float(at), self.policy)
            if seen.readings:
                first = seen.readings[0]
                raise MetricsError(f"{self.trace.name}: a quiet node says {first.signal}")
        if seen is None:
            raise MetricsError(f"{self.trace.name} has no sweep")
        return seen

    @cached_property
    def _quiet_facts(self) -> Mapping[str, Mapping[str, str]]:
        facts = {}
        for member in self.judged:
            seen = self._quiet_sights[_kind(member)]
            facts[member.name] = next(iter(seen.facts.values()), {})
        return facts

    @cached_property
    def _quiet_coverage(self) -> Mapping[str, Coverage]:
        expected = len(self.judged)
        coverage = {}
        for signal in self._quiet_signals():
            seen = frozenset(
                m.name
                for m in self.judged
                if self._quiet_sights[_kind(m)].coverage[signal].nodes_seen
            )
            coverage[signal] = Coverage(signal, seen, expected, 0.0 if seen else None)
        return coverage

    def _quiet_signals(self) -> Sequence[str]:
        return [s.name for s in self.policy.signals]

    # ------------------------------------------------------------------ touched nodes

    def _looks(self, name: str, touches: Sequence[Touch]) -> Mapping[int, Sight | None]:
        """Number of the sweep -> what is new of the node then; None: it is quiet again."""
        member = self.expansion.member(name)
        if not member.group.is_gpu:
            return {}
        policy = self.rules.touched(touches)
        where = self._where(policy, touches)
        if not where.any():
            return {}
        among = self._among(member, policy, touches)
        store = Store()
        wanted = self.rules.metrics(policy)
        for one in (member, *among[1 + _LIKE :]):
            for series in self.expansion.of_node(one, wanted):
                store.add(series.labels, series.times, series.values)
        metrics = DirectMetrics(store, self.millis[where])
        changed = self._changed(metrics, policy, touches, where)
        begins = where & ~np.concatenate([[False], where[:-1]])
        ends = ~where & np.concatenate([[False], where[:-1]])
        changed |= begins | (where & self._timed(touches))
        world = World(self.trace, _only(self.fleet, among), self.origin)
        looks: dict[int, Sight | None] = {int(n): None for n in np.flatnonzero(ends)}
        spoke: set[OpenFinding] = set()
        for number in np.flatnonzero(changed & where):
            at = float(self.sweeps[number])
            seen = self._observe(metrics, world, at, policy, {name: spoke})
            spoke |= {OpenFinding(r.signal, r.gpu) for r in seen.readings if r.node == name}
            fatal = by_fatal_events(metrics, seen, self.policy, at=seen.at).get(name)
            looks[int(number)] = Sight(seen, self._unlike(name, seen), fatal)
        return looks

    def _unlike(self, name: str, seen: Observation) -> frozenset[str]:
        quiet = self._quiet_coverage
        return frozenset(
            s
            for s, cover in seen.coverage.items()
            if (name in cover.nodes_seen) != (name in quiet[s].nodes_seen)
        )

    def _changed(
        self, metrics: DirectMetrics, policy: Policy, touches: Sequence[Touch], where: np.ndarray
    ) -> np.ndarray:
        """The sweeps at which some query answers otherwise than before, while it sees a touch."""
        changed = np.zeros(len(self.sweeps), np.bool_)
        for what, queries in self.rules.by_reader(policy):
            own = [t for t in touches if is_touched(what, [t])]
            here = self._visible(own, self.rules.reach_of(queries))
            differs = np.zeros(len(self.sweeps), np.bool_)
            differs[where] = metrics.changes(queries)
            first = here & ~np.concatenate([[False], here[:-1]])
            after = ~here & np.concatenate([[False], here[:-1]])
            changed |= (differs & here) | first | after
        return changed

    def _where(self, policy: Policy, touches: Sequence[Touch]) -> np.ndarray:
        """The sweeps at which any touch can still be seen."""
        where = self._timed(touches)
        for what, queries in self.rules.by_reader(policy):
            own = [t for t in touches if is_touched(what, [t])]
            where |= self._visible(own, self.rules.reach_of(queries))
        return where

    def _visible(self, touches: Sequence[Touch], reach_s: float) -> np.ndarray:
        where = np.zeros(len(self.sweeps), np.bool_)
        for touch in touches:
            end = touch.end + reach_s + 2 * self.trace.every
            where |= (self.sweeps >= touch.start) & (self.sweeps <= end)
        return where

    def _timed(self, touches: Sequence[Touch]) -> np.ndarray:
        timed = np.zeros(len(self.sweeps), np.bool_)
        for touch in touches:
            if touch.is_timed:
                end = touch.end + _TIMED_S
                timed |= (self.sweeps >= touch.start) & (self.sweeps <= end)
        return timed

    def _among(self, member: Member, policy: Policy, touches: Sequence[Touch]) -> Sequence[Member]:
        """The node, quiet ones of its kind, and more where it is compared with its peers."""
        quiet = [
            m
            for m in self.judged
            if m.name not in self.touches
            and (m.group.sku, m.group.pool, m.group.gpus)
            == (member.group.sku, member.group.pool, member.group.gpus)
        ]
        compared = any(
            rule.peers and is_touched(self.rules.of_signal(rule.name), touches)
            for rule in policy.signals
        )
        return [member, *quiet[: _LIKE + _PEERS * compared]]

    def _observe(
        self,
        metrics: DirectMetrics,
        world: World,
        at: float,
        policy: Policy,
        spoke: Mapping[str, Collection[OpenFinding]] | None = None,
    ) -> Observation:
        return observe(
            metrics,
            world.at(at),
            policy,
            at=self._instant(at),
            gpu_node_selector=GPU_NODES,
            open_findings=spoke,
        )


class Queries:
    """The policy's queries, and which metrics each of them reads."""

    def __init__(self, policy: Policy, most: int) -> None:
        self._policy = policy
        stale_s = policy.timing.stale_sample_s
        self._of_signal: dict[str, tuple[str, ...]] = {
            r.name: ()
            if r.is_kubernetes
            else (
                signal_query(r, policy.names, most_gpus=most),
                coverage_query(r, policy.names, stale_s=stale_s),
                *([reporting_query(r, policy.names)] if is_missed(r) and r.per == "gpu" else []),
            )
            for r in policy.signals
        }
        self._of_fact = {n: fact_query(f, policy.names) for n, f in policy.facts.items()}

    def of_signal(self, name: str) -> frozenset[str]:
        """The metrics of a signal; that of the API server's objects for those of Kubernetes."""
        queries = self._of_signal[name]
        found = frozenset().union(*(metrics_of(parse(q)) for q in queries))
        return found or frozenset({KUBERNETES})

    def touched(self, touches: Sequence[Touch]) -> Policy:
        """The policy with only the signals and facts that show these touches."""
        signals = [s for s in self._policy.signals if is_touched(self.of_signal(s.name), touches)]
        facts = {
            n: f
            for n, f in self._policy.facts.items()
            if is_touched(metrics_of(parse(self._of_fact[n])), touches)
        }
        return self._policy.model_copy(update={"signals": tuple(signals), "facts": facts})

    def queries(self, policy: Policy) -> list[str]:
        """All of a policy's queries."""
        asked = [q for s in policy.signals for q in self._of_signal[s.name]]
        return list(dict.fromkeys([*asked, *(self._of_fact[n] for n in policy.facts)]))

    def metrics(self, policy: Policy) -> frozenset[str]:
        """All metrics that a policy reads, and those of the plain automations."""
        found = frozenset().union(*(metrics_of(parse(q)) for q in self.queries(policy)))
        return found | _OF_BASELINES

    def by_reader(self, policy: Policy) -> list[tuple[frozenset[str], list[str]]]:
        """(metrics, queries) of each signal and fact that asks Prometheus."""
        asked: list[tuple[str, ...]] = [self._of_signal[s.name] for s in policy.signals]
        asked += [(self._of_fact[n],) for n in policy.facts]
        return [
            (frozenset(m for q in queries for m in metrics_of(parse(q))), list(queries))
            for queries in asked
            if queries
        ]

    def reach_of(self, queries: Sequence[str]) -> float:
        """How long after its end something can still be seen, in seconds."""
        return max(reach_s(parse(q)) for q in queries)


_OF_BASELINES = frozenset(
    {"DCGM_FI_DEV_XID_ERRORS", "DCGM_EXP_XID_ERRORS_COUNT", "DCGM_EXP_GPU_HEALTH_STATUS"}
)


def _kind(member: Member) -> object:
    """Nodes of one kind show the same while nothing happens to them."""
    group = member.group
    conditions = tuple(sorted(group.conditions.items()))
    labels = tuple(sorted((k, v) for k, v in group.labels.items()))
    return (
        group.sku, group.gpus, group.driver, group.kernel, group.kubelet, group.pool, conditions,
        labels, min(group.boot_age, 86_400.0),
    )  # fmt: skip


def _only(fleet: Fleet, among: Sequence[Member]) -> Fleet:
    names = {m.name for m in among}
    return Fleet(tuple(among), {n: h for n, h in fleet.histories.items() if n in names})


def compare(ours: Replayed, theirs: Replayed) -> Sequence[str]:
    """Where two replays of one trace differ: verdict by verdict, in words. Empty: identical."""
    lines = []
    for who in ours.calls:
        left, right = _verdicts(ours, who), _verdicts(theirs, who)
        for key in sorted(left.keys() | right.keys()):
            if left.get(key) != right.get(key):
                at, node = key
                lines.append(f"{who}, {node} at {at:.0f} s: {left.get(key)} / {right.get(key)}")
    return lines


def _verdicts(replayed: Replayed, who: str) -> Mapping[tuple[float, str], object]:
    return {
        (c.at, c.node): (
            str(c.state), str(c.failure_class), round(c.confidence, 9), str(c.action),
            str(c.refusal), c.signals,
        )
        for c in replayed.calls[who]
    }  # fmt: skip
