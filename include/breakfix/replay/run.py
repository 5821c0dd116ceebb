"""Replaying: for each trace and sweep the real observe against a real Prometheus, then the real
decide; and the two plain automations on what was seen.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field, replace
from datetime import datetime
from multiprocessing import util

from breakfix.model import DISRUPTIVE, Judgement, NodeRecord, Observation, Verdict
from breakfix.policy import Policy
from breakfix.replay.baselines import (
    FATAL_EVENTS,
    THRESHOLDS,
    Accused,
    by_fatal_events,
    by_thresholds,
)
from breakfix.replay.load import Source
from breakfix.replay.outcome import OURS, Call, Replayed
from breakfix.replay.stage import Scene, Stage
from breakfix.replay.trace import Trace

Progress = Callable[[Replayed], None]


def replay_all(
    sources: Sequence[Source], policy: Policy, *, jobs: int = 1, progress: Progress = lambda _: None
) -> tuple[Replayed, ...]:
    """Every trace, in the order given; `jobs` processes, each with a Prometheus of its own.

    Raises SettingsError, MetricsError: nothing is scored then.
    """
    if jobs <= 1 or len(sources) <= 1:
        with Stage() as stage:
            return tuple(_told(replay(stage.load(s), policy), progress) for s in sources)
    return in_processes(
        _replay_here, sources, policy, jobs=jobs, progress=progress, prepare=_open_stage
    )


def _told(done: Replayed, progress: Progress) -> Replayed:
    progress(done)
    return done


def replay(scene: Scene, policy: Policy) -> Replayed:
    """One trace, sweep by sweep. No node is ever taken out: the verdicts are a recommender's."""
    began = time.monotonic()
    notes = Notes(scene.trace.name)
    records: Mapping[str, NodeRecord] = {}
    for at in scene.trace.sweeps:
        seen, judged = scene.judge(policy, at, records)
        records = remember(records, judged)
        notes.add(at, seen, judged)
        notes.accuse(THRESHOLDS, at, by_thresholds(seen, policy))
        notes.accuse(FATAL_EVENTS, at, by_fatal_events(scene.metrics, seen, policy, at=seen.at))
    return notes.replayed_of(scene.trace, time.monotonic() - began)


def remember(records: Mapping[str, NodeRecord], judgement: Judgement) -> Mapping[str, NodeRecord]:
    """What the ledger would keep of each node after this sweep."""
    return {v.node: _record(records.get(v.node), v, judgement.at) for v in judgement.verdicts}


def _record(before: NodeRecord | None, verdict: Verdict, at: datetime) -> NodeRecord:
    if before is None or before.state is not verdict.state:
        before = NodeRecord(verdict.node, verdict.state, since=at)
    if before.open_findings == verdict.open_findings:
        return before
    return replace(before, open_findings=verdict.open_findings)


@dataclass(slots=True)
class Notes:
    """What is written down while a trace is replayed."""

    name: str
    calls: dict[str, list[Call]] = field(
        default_factory=lambda: {OURS: [], THRESHOLDS: [], FATAL_EVENTS: []}
    )
    incidents: set[str] = field(default_factory=set)
    spoke: set[str] = field(default_factory=set)
    warnings: dict[str, None] = field(default_factory=dict)

    def add(self, at: float, seen: Observation, judged: Judgement) -> None:
        """The verdicts about which there is anything to say."""
        self.calls[OURS] += [
            call_of(self.name, at, v)
            for v in judged.verdicts
            if v.findings or v.failure_class is not None
        ]
        self.incidents |= {i.scope for i in judged.incidents}
        self.spoke |= {r.signal for r in seen.readings}
        errors = [f"{n}: {c.error}" for n, c in seen.coverage.items() if c.error]
        self.warnings |= dict.fromkeys([*seen.warnings, *errors])

    def accuse(self, who: str, at: float, accused: Accused) -> None:
        """A plain automation's nodes: it is always sure."""
        self.calls[who] += [
            Call(self.name, at, node, why, 1.0, is_disruptive=True)
            for node, why in sorted(accused.items())
        ]

    def replayed_of(self, trace: Trace, seconds: float) -> Replayed:
        """Everything noted of that trace."""
        calls = {who: tuple(said) for who, said in self.calls.items()}
        return Replayed(
            trace,
            calls,
            frozenset(self.incidents),
            frozenset(self.spoke),
            tuple(self.warnings),
            seconds,
        )


def call_of(trace: str, at: float, verdict: Verdict) -> Call:
    """One verdict as a call."""
    return Call(
        trace,
        at,
        verdict.node,
        verdict.failure_class,
        verdict.confidence,
        is_disruptive=verdict.recommended_action in DISRUPTIVE,
        action=verdict.recommended_action,
        state=verdict.state,
        refusal=verdict.refusal,
        reason=verdict.reason,
        signals=tuple(sorted({f.signal for f in verdict.findings})),
    )


# --------------------------------------------------------------------------- several processes

_stage: Stage | None = None  # of this worker process


def in_processes(
    work: Callable[[Source, Policy], Replayed],
    sources: Sequence[Source],
    policy: Policy,
    *,
    jobs: int,
    progress: Progress,
    prepare: Callable[[], None] | None = None,
) -> tuple[Replayed, ...]:
    """`work` on each trace, by so many processes, each `prepare`d once; in the order given."""
    context = multiprocessing.get_context("spawn")
    done: dict[str, Replayed] = {}
    with ProcessPoolExecutor(min(jobs, len(sources)), context, initializer=prepare) as pool:
        futures = [pool.submit(work, s, policy) for s in _largest_first(sources)]
        try:
            for future in as_completed(futures):
                result = future.result()
                done[result.trace.name] = _told(result, progress)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return tuple(done[s.trace.name] for s in sources)


def _largest_first(sources: Iterable[Source]) -> Iterator[Source]:
    """So that no process is left alone with a large one at the end."""
    yield from sorted(sources, key=lambda s: -len(s.trace.sweeps) * (len(s.trace.node_names) + 20))


def _open_stage() -> None:
    global _stage  # noqa: PLW0603 - a worker process has one stage for its life
    _stage = Stage().__enter__()
    util.Finalize(None, _stage.close, exitpriority=10)  # workers leave without atexit


def _replay_here(source: Source, policy: Policy) -> Replayed:
    if _stage is None:
        raise RuntimeError("this process has no stage")
    return replay(_stage.load(source), policy)
