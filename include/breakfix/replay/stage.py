"""Traces on stage: written into the private Prometheus, and looked at as a sweep looks."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Self

from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.decide import judge
from breakfix.model import Judgement, NodeRecord, Observation, OpenFinding
from breakfix.observe import observe
from breakfix.policy import Policy
from breakfix.ports import Metrics
from breakfix.replay.caching import CachingMetrics
from breakfix.replay.expand import expand
from breakfix.replay.fleet import build_fleet
from breakfix.replay.load import Source
from breakfix.replay.server import ReplayPrometheus
from breakfix.replay.trace import Trace
from breakfix.replay.world import World

FIRST = datetime(2026, 1, 5, tzinfo=UTC)  # where the first trace of a server begins
GPU_NODES = "nvidia.com/gpu.present=true"
QUERY_TIMEOUT_S = 120.0
#: Between two traces, so that no window reaches from one into the one before.
_APART = timedelta(days=8)
_MOST_SAMPLES = 20_000_000  # of one server: then a fresh one, whose index is small again


@dataclass(frozen=True, slots=True)
class Scene:
    """One trace that the server holds."""

    trace: Trace
    origin: datetime  # the first sweep
    world: World
    metrics: Metrics

    def instant(self, time: float) -> datetime:
        """`time` seconds after the first sweep."""
        return self.origin + timedelta(seconds=time)

    def observe(
        self,
        policy: Policy,
        time: float,
        open_findings: Mapping[str, tuple[OpenFinding, ...]] | None = None,
    ) -> Observation:
        """What the real observe sees at that time of the trace."""
        return observe(
            self.metrics,
            self.world.at(time),
            policy,
            at=self.instant(time),
            gpu_node_selector=GPU_NODES,
            open_findings=open_findings,
        )

    def judge(
        self, policy: Policy, time: float, records: Mapping[str, NodeRecord] | None = None
    ) -> tuple[Observation, Judgement]:
        """What the real decide makes of it."""
        records = records or {}
        open_findings = {n: r.open_findings for n, r in records.items() if r.open_findings}
        seen = self.observe(policy, time, open_findings)
        return seen, judge(seen, policy, records, seen.at)


class Stage:
    """A context manager around the private Prometheus; `load` puts traces into it, one after
    another. A server that holds much is replaced, so only the last scene may be looked at.
    """

    def __init__(self) -> None:
        self._server: ReplayPrometheus | None = None
        self._client: PrometheusMetrics | None = None
        self._free = FIRST
        self._samples = 0

    def load(self, source: Source) -> Scene:
        """Write the trace's samples. Raises SettingsError, MetricsError."""
        trace = source.trace
        if self._server is None or trace.recorded_start or self._samples > _MOST_SAMPLES:
            self._renew()
        if self._server is None or self._client is None:
            raise RuntimeError("a stage is used as a context manager")
        origin = trace.recorded_start or _whole_hour(self._free + timedelta(seconds=trace.warmup))
        self._samples += self._server.write(expand(trace, origin, source.folder))
        self._free = origin + timedelta(seconds=trace.length) + _APART
        if trace.recorded_start:
            self._samples = _MOST_SAMPLES + 1  # the next trace gets a server of its own
        world = World(trace, build_fleet(trace), origin)
        return Scene(trace, origin, world, CachingMetrics(self._client))

    def _renew(self) -> None:
        self.close()
        self._server = ReplayPrometheus().start()
        self._client = PrometheusMetrics(self._server.url, timeout_s=QUERY_TIMEOUT_S)
        self._free, self._samples = FIRST, 0

    def close(self) -> None:
        """End the server; nothing is left of it."""
        if self._client is not None:
            self._client.close()
        if self._server is not None:
            self._server.stop()
        self._server = self._client = None

    def __enter__(self) -> Self:
        self._renew()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _whole_hour(time: datetime) -> datetime:
    """Rounded up: the steps of PromQL's subqueries then fall alike in every replay."""
    hour = 3600.0
    return datetime.fromtimestamp(math.ceil(time.timestamp() / hour) * hour, UTC)
