"""A trace becomes samples: every series that Prometheus would have, one at a time, as arrays."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from breakfix.replay.baseline import XID_LAST, Moment, Plain, gpu_series, node_series
from breakfix.replay.changes import change, fail_watches, lose
from breakfix.replay.fleet import (
    Fleet,
    Member,
    NodeNow,
    build_fleet,
    exporter_pod,
    gpu_uuid,
    select,
)
from breakfix.replay.kube_series import kube_series
from breakfix.replay.recorded import read_openmetrics
from breakfix.replay.remote_write import Millis, WrittenSeries
from breakfix.replay.trace import Gap, Series, Trace
from breakfix.replay.values import GONE, HELD, MISSING, STALE_BITS, Floats, Track, constant
from breakfix.replay.xids import TEXTS, Said, xid_series

_BUSES = ("19", "3B", "4C", "5D", "9B", "BB", "CB", "DB")  # as lspci lists an HGX board
_JOBS = {"dcgm": "dcgm-exporter", "node": "node-exporter", "ksm": "kube-state-metrics"}
_PORTS = {"dcgm": 9400, "node": 9100, "ksm": 8080}
Epochs = Sequence[tuple[Mapping[str, str], np.ndarray | None]]  # labels, and where they hold


def expand(trace: Trace, origin: datetime, folder: Path = Path()) -> Iterator[WrittenSeries]:
    """All series of the trace, its first sweep being at `origin`.

    Raises SettingsError when its recorded file cannot be read. The memory it takes is that of one
    GPU's series, whatever the fleet's size.
    """
    if trace.series_file:
        yield from read_openmetrics(folder / trace.series_file)
    yield from Expansion(trace, origin).series()


@dataclass(slots=True)
class Target:
    """What is scraped at the same moments."""

    exporter: str
    node: str
    replica: int
    times: Floats
    millis: Millis
    labels: dict[str, str]


class Expansion:
    """One trace at one place in time."""

    def __init__(self, trace: Trace, origin: datetime) -> None:
        self.trace = trace
        self.fleet: Fleet = build_fleet(trace)
        self._origin_s = origin.timestamp()
        self._all = trace.telemetry
        members = self.fleet.members
        self._series = [(s, frozenset(select(s.nodes, members))) for s in trace.series]
        self._gaps = [(g, frozenset(select(g.nodes, members))) for g in trace.gaps]
        self._health = [(h, frozenset(select(h.nodes, members))) for h in trace.health]
        self._xids = [(x, frozenset(select(x.nodes, members))) for x in trace.xids]
        self._restarts = [(r, frozenset(select(r.nodes, members))) for r in trace.restarts]
        self._members = {m.name: m for m in members}
        self._only: frozenset[str] | None = None  # metrics; None: all
        self._shown = frozenset(select(trace.telemetry.only, members))

    def member(self, name: str) -> Member:
        """The node of that name."""
        return self._members[name]

    def of_node(
        self, member: Member, only: frozenset[str] | None = None
    ) -> Iterator[WrittenSeries]:
        """The series of one node's own exporters, and what kube-state-metrics says of it."""
        self._only = only
        for replica in range(self._all.replicas):
            if "dcgm" in self._all.exporters and member.group.is_gpu:
                yield from self._gpus(member, replica)
            if "node" in self._all.exporters:
                yield from self._node(member, replica)
            if "ksm" in self._all.exporters:
                yield from self._kube(replica, frozenset({member.name}))
        self._only = None

    def series(self) -> Iterator[WrittenSeries]:
        """Every series of every target."""
        exporters = self._all.exporters
        for replica in range(self._all.replicas):
            for member in self.fleet.members:
                if member.name not in self._shown:
                    continue
                if "dcgm" in exporters and member.group.is_gpu:
                    yield from self._gpus(member, replica)
                if "node" in exporters:
                    yield from self._node(member, replica)
            if "ksm" in exporters:
                yield from self._kube(replica)
            yield from self._others(replica)

    # ------------------------------------------------------------------ targets

    def _target(self, exporter: str, member: Member | None, replica: int) -> Target:
        node = member.name if member else ""
        times = self._times(f"{exporter}/{node}/{replica}")
        millis = np.rint((self._origin_s + times) * 1000).astype(np.int64)
        labels = {"job": _JOBS.get(exporter, exporter)}
        spell = self._all
        if spell.instance != "none":
            host = (member.ip if spell.instance == "ip" else node) if member else "ksm"
            labels["instance"] = f"{host}:{_PORTS.get(exporter, 8000)}"
        if spell.target_label != "none":
            labels[spell.target_label] = node or "infra-1"
        if spell.replicas > 1:
            labels[spell.replica_label] = f"prometheus-{replica}"
        return Target(exporter, node, replica, times, millis, labels)

    def _times(self, identity: str) -> Floats:
        trace = self.trace
        offset = 0.0
        if trace.spread_scrapes:
            share = zlib.crc32(f"{trace.seed}/{identity}".encode()) / 2**32
            offset = int(share * trace.every * 1000) / 1000
        first = -trace.warmup + offset
        size = max(0, int((trace.length - first) / trace.every + 1e-9) + 1)
        return np.asarray(first + trace.every * np.arange(size), np.float64)

    # ------------------------------------------------------------------ dcgm-exporter

    def _gpus(self, member: Member, replica: int) -> Iterator[WrittenSeries]:
        target = self._target("dcgm", member, replica)
        target.labels |= self._gpu_exporter_labels(member)
        yield from self._up(target)
        for gpu in range(member.group.gpus):
            plains = self._gpu_plains(member, gpu, target)
            shown = _by(self.fleet.histories[member.name], "exported", target.times)
            for mig in self._mig():
                epochs = [
                    ({**self._gpu_labels(member, gpu, *how), **target.labels, **mig}, where)
                    for how, where in shown
                ]
                yield from self._emit(plains, epochs, target)

    def _gpu_plains(self, member: Member, gpu: int, target: Target) -> list[Plain]:
        identity = f"{self.trace.seed}/{member.name}/{gpu}"
        moment = Moment(target.times, identity)
        plains = list(gpu_series(self.trace, moment, self._only))
        plains += xid_series(self._all.metrics, self._said(member.name, gpu), target.times)
        words = {
            "node": member.name,
            "gpu": str(gpu),
            "uuid": gpu_uuid(self.trace.seed, member.name, gpu),
        }
        failing = [h for h, nodes in self._health if _meant(h.gpus, nodes, member.name, gpu)]
        fail_watches(plains, failing, target.times)
        for series, nodes in self._series:
            if _per(series) == "gpu" and _meant(series.gpus, nodes, member.name, gpu):
                change(plains, series, moment, words)
        self._settle(plains, target, gpu)
        for plain in plains:
            if plain.metric == XID_LAST and not self._all.err_code:
                plain.value_label = ""
        return plains

    def _said(self, node: str, gpu: int) -> Said:
        events = [
            (xid.at + i * xid.every, xid.code)
            for xid, nodes in self._xids
            if _meant(xid.gpus, nodes, node, gpu)
            for i in range(xid.count)
        ]
        restarts = [r.at for r, nodes in self._restarts if node in nodes]
        restarts += _boots(self.fleet.histories[node])
        return Said(sorted(events), sorted(restarts))

    def _gpu_labels(self, member: Member, gpu: int, driver: str, host_label: str) -> dict[str, str]:
        spell = self._all
        labels = {
            "gpu": str(gpu),
            spell.gpu_label: gpu_uuid(self.trace.seed, member.name, gpu),
            "pci_bus_id": f"{gpu // 8:08X}:{_BUSES[gpu % 8]}:00.0",
            "device": f"nvidia{gpu}",
            "modelName": member.group.sku.replace("-", " "),
        }
        labels["DCGM_FI_DRIVER_VERSION"] = driver
        host = host_label or spell.host_label
        if host != "none":
            labels[host] = member.name
        if spell.workload != "none":
            prefix = "exported_" if spell.workload == "exported" else ""
            for key, value in (
                ("namespace", "team-a"),
                ("pod", f"train-{member.name}"),
                ("container", "trainer"),
            ):
                labels[prefix + key] = value
        return labels

    def _gpu_exporter_labels(self, member: Member) -> dict[str, str]:
        if not self._all.exporter_pod or self._all.workload == "plain":
            return {}
        namespace, pod = exporter_pod(member.name)
        return {"namespace": namespace, "pod": pod, "container": "nvidia-dcgm-exporter"}

    def _mig(self) -> list[dict[str, str]]:
        if not self._all.mig:
            return [{}]
        return [{"GPU_I_PROFILE": "1g.10gb", "GPU_I_ID": str(i + 1)} for i in range(self._all.mig)]

    # ------------------------------------------------------------------ node exporter

    def _node(self, member: Member, replica: int) -> Iterator[WrittenSeries]:
        target = self._target("node", member, replica)
        yield from self._up(target)
        history = self.fleet.histories[member.name]
        plains = list(
            node_series(self.trace, Moment(target.times, f"{self.trace.seed}/{member.name}"))
        )
        boot = constant(0.0, len(target.times))
        for booted_at, where in _by(history, "booted_at", target.times):
            boot.values[slice(None) if where is None else where] = self._origin_s + booted_at
        plains.append(Plain("node_boot_time_seconds", {}, boot))
        clock = Track(self._origin_s + target.times, np.zeros(len(target.times), np.uint8))
        plains.append(Plain("node_time_seconds", {}, clock))
        self._change_node(plains, member, target, prefix="node_")
        self._settle(plains, target)
        yield from self._emit(plains, [(target.labels, None)], target)
        names = [Plain("node_uname_info", {}, constant(1.0, len(target.times)))]
        self._settle(names, target)
        uname = {"nodename": member.name, "sysname": "Linux", "machine": "x86_64"}
        epochs = [
            ({**uname, **target.labels, "release": kernel}, where)
            for kernel, where in _by(history, "kernel", target.times)
        ]
        yield from self._emit(names, epochs, target)

    def _change_node(
        self, plains: list[Plain], member: Member, target: Target, *, prefix: str
    ) -> None:
        moment = Moment(target.times, f"{self.trace.seed}/{member.name}")
        for series, nodes in self._series:
            is_its = series.metric.startswith(prefix) and _per(series) == "node"
            if is_its and member.name in nodes:
                change(plains, series, moment, {"node": member.name})

    # ------------------------------------------------------------------ kube-state-metrics, others

    def _kube(self, replica: int, names: frozenset[str] | None = None) -> Iterator[WrittenSeries]:
        target = self._target("ksm", None, replica)
        is_hidden = self._all.target_label == "node"  # the target has a label of that name
        fleet = self.fleet
        if names is not None:
            fleet = Fleet(tuple(m for m in fleet.members if m.name in names), fleet.histories)
        for node, plains in kube_series(self.trace, fleet, target.times, self._origin_s):
            member = self._members.get(node)
            if member is not None:
                self._change_node(plains, member, target, prefix="kube_")
                for plain in plains:
                    plain.labels.setdefault("node", node)
            self._settle(plains, target, node=node)
            if is_hidden:
                for plain in plains:
                    if "node" in plain.labels:
                        plain.labels["exported_node"] = plain.labels.pop("node")
            yield from self._emit(plains, [(target.labels, None)], target)

    def _others(self, replica: int) -> Iterator[WrittenSeries]:
        """Series of no exporter we know: a workload's, or what a site records."""
        for series, nodes in self._series:
            how = _per(series)
            if how == "gpu" or (how == "node" and series.metric.startswith(("node_", "kube_"))):
                continue
            members = (
                [m for m in self.fleet.members if m.name in nodes] if how == "node" else [None]
            )
            for member in members:
                yield from self._other(series, member, replica)

    def _other(
        self, series: Series, member: Member | None, replica: int
    ) -> Iterator[WrittenSeries]:
        node = member.name if member else ""
        target = self._target("app", member, replica)
        plains: list[Plain] = []
        moment = Moment(target.times, f"{self.trace.seed}/{node}/{sorted(series.labels.items())}")
        change(plains, series, moment, {"node": node})
        gaps = [g for g, nodes in self._gaps if g.metrics and (not node or node in nodes)]
        lose(plains, gaps, target.times)
        own = {"node": node} if node and node not in plains[0].labels.values() else {}
        label = self._all.replica_label
        whose = {label: target.labels[label]} if label in target.labels else {}
        yield from self._emit(plains, [({**own, **whose}, None)], target)

    # ------------------------------------------------------------------ what all have in common

    def _up(self, target: Target) -> Iterator[WrittenSeries]:
        """What Prometheus itself says of the scrapes: 0 where they fail as a whole."""
        if self._only is not None and "up" not in self._only:
            return
        up = Plain("up", {}, constant(1.0, len(target.times)))
        whole = [
            g
            for g, nodes in self._gaps
            if not g.metrics and not g.gpus and _is_gap(g, target, target.node, nodes, None)
        ]
        for gap in whole:
            here = (target.times >= gap.start) & (
                target.times < (np.inf if gap.end is None else gap.end)
            )
            if gap.effect == "gone":
                up.track.values[here] = 0.0
            elif gap.effect == "silent":
                up.track.states[here] = MISSING
        yield from self._emit([up], [(target.labels, None)], target)

    def _settle(
        self, plains: list[Plain], target: Target, gpu: int | None = None, node: str = ""
    ) -> None:
        """Gaps, and the time during which the node does not exist."""
        name = node or target.node
        gaps = [g for g, nodes in self._gaps if _is_gap(g, target, name, nodes, gpu)]
        lose(plains, gaps, target.times)
        history = self.fleet.histories.get(name, ())
        if all(state.is_there for state in history):
            return
        for is_there, where in _by(history, "is_there", target.times):
            if not is_there:
                for plain in plains:
                    plain.track.states[slice(None) if where is None else where] = GONE

    def _emit(
        self, plains: Iterable[Plain], epochs: Epochs, target: Target
    ) -> Iterator[WrittenSeries]:
        for plain in plains:
            if self._only is not None and plain.metric not in self._only:
                continue
            for labels, where in epochs:
                named = {"__name__": plain.metric, **labels, **plain.labels, **plain.relabel}
                for label in plain.without:
                    named.pop(label, None)
                states = plain.track.states
                if where is not None:
                    states = np.where(where, states, GONE)
                track = Track(plain.track.values, states)
                yield from _written(named, track, target.millis, plain.value_label)


def _written(
    labels: Mapping[str, str], track: Track, millis: Millis, value_label: str
) -> Iterator[WrittenSeries]:
    """The series, or with `value_label` one for each value."""
    if not value_label:
        kept = _kept(track, millis, labels)
        if kept is not None:
            yield kept
        return
    for value in np.unique(track.values[track.states == HELD]):
        is_it = (track.values == value) | (track.states != HELD)
        states = np.where(is_it, track.states, GONE)
        named = {**labels, value_label: f"{value:g}"}
        if value_label == "err_code":
            named["err_msg"] = TEXTS.get(int(value), "Unknown Error")
        kept = _kept(Track(track.values, states), millis, named)
        if kept is not None:
            yield kept


def _kept(track: Track, millis: Millis, labels: Mapping[str, str]) -> WrittenSeries | None:
    """The samples, and a staleness marker where a scrape no longer has the series."""
    held = track.states == HELD
    if held.all():
        return WrittenSeries(labels, millis, track.values.astype(np.float64, copy=False))
    ends = np.zeros(len(held), bool)
    ends[1:] = (track.states[1:] == GONE) & held[:-1]
    values = track.values.astype(np.float64)  # a copy
    values.view(np.uint64)[ends] = STALE_BITS
    keep = held | ends
    return WrittenSeries(labels, millis[keep], values[keep]) if keep.any() else None


def _per(series: Series) -> str:
    return series.spread


def _meant(gpus: Sequence[int], nodes: frozenset[str], node: str, gpu: int) -> bool:
    return node in nodes and (not gpus or gpu in gpus)


def _is_gap(gap: Gap, target: Target, node: str, nodes: frozenset[str], gpu: int | None) -> bool:
    if target.exporter not in gap.exporters:
        return False
    if gap.replica is not None and gap.replica != target.replica:
        return False
    if node not in nodes and node != "":
        return False
    return not gap.gpus or (gpu is not None and gpu in gap.gpus)


def _boots(history: Sequence[NodeNow]) -> list[float]:
    return [now.at for before, now in pairwise(history) if now.boots > before.boots]


def _by(
    history: Sequence[NodeNow], attribute: str, times: Floats
) -> list[tuple[Any, np.ndarray | None]]:
    """(value, where in `times` it holds) of what changes with a node; None: it is always so."""
    values = [getattr(state, attribute) for state in history]
    if len(set(values)) == 1:
        return [(values[0], None)]
    places = np.searchsorted([s.at for s in history], times, side="right") - 1
    held: dict[Any, np.ndarray] = {}
    for number, value in enumerate(values):
        where = places == number
        held[value] = held[value] | where if value in held else where
    return list(held.items())
