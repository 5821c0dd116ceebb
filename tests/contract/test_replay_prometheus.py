"""Traces through a real Prometheus: what is written is what is there, and nothing stays behind."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from breakfix.cli.app import app
from breakfix.errors import MetricsError, SettingsError
from breakfix.model import Action, FailureClass
from breakfix.policy import Policy, parse_policy
from breakfix.ports import Held
from breakfix.replay.direct import Queries, compare, replay_directly
from breakfix.replay.expand import expand
from breakfix.replay.load import Source, load_file, make_trace
from breakfix.replay.outcome import OURS
from breakfix.replay.promql import Evaluator, parse
from breakfix.replay.promql.vectors import Store
from breakfix.replay.remote_write import WrittenSeries
from breakfix.replay.run import replay, replay_all
from breakfix.replay.server import ReplayPrometheus
from breakfix.replay.stage import Stage
from breakfix.wiring import default_policy_text

TRACES = """
name: off-the-bus
about: One GPU falls off the bus and vanishes a minute later.
kind: hardware
seed: 7
length: 12m
warmup: 12m
fleet: [{prefix: gpu-a-, count: 4, racks: 4, gpus: 2}]
telemetry: {metrics: [basic, xid, xid_count, remap]}
xids: [{nodes: gpu-a-003, gpus: 1, code: 79, at: 5m}]
gaps: [{nodes: gpu-a-003, gpus: 1, from: 6m}]
truth: [{node: gpu-a-003, gpu: 1, failure_class: gpu_off_bus, from: 5m}]
expect: {speak: [xid_last, xid_count], silent: [ecc_dbe], incidents: []}
---
name: application-errors
about: A workload that faults again and again.
kind: never_alone
length: 8m
warmup: 12m
fleet: [{prefix: gpu-a-, count: 4, gpus: 2}]
telemetry: {metrics: [basic, xid, remap]}
xids: [{nodes: gpu-a-002, gpus: 0, code: 31, at: 3m, count: 3}]
expect: {disruptive: never}
"""


@pytest.fixture(scope="module")
def policy() -> Policy:
    return parse_policy(default_policy_text())


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with Stage() as made:
        yield made


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Source]:
    path = tmp_path_factory.mktemp("traces") / "two.trace.yaml"
    path.write_text(TRACES)
    return list(load_file(path))


def test_a_fault_is_found_and_noise_is_left_alone(stage, sources, policy):
    fault, noise = (replay(stage.load(s), policy) for s in sources)
    calls = [c for c in fault.calls[OURS] if c.is_disruptive]
    assert {(c.node, c.failure_class, c.action) for c in calls} == {
        ("gpu-a-003", FailureClass.GPU_OFF_BUS, Action.REBOOT_NODE)
    }
    assert min(c.at for c in calls) == 360
    assert {"xid_last", "xid_count"} <= fault.spoke
    assert [c for c in noise.calls[OURS] if c.is_disruptive] == []
    # `up` of a target names no node of this fleet, only an address; nothing else is odd
    odd = {w.split(":")[0] for w in (*fault.warnings, *noise.warnings)}
    assert odd <= {"gpus_all_gone", "exporter_down", "exporter_slow"}


def test_the_same_trace_later_in_time_gets_the_same_verdicts(stage, sources, policy):
    first, again = (replay(stage.load(sources[0]), policy) for _ in range(2))
    assert first == again


def test_samples_may_come_for_any_time_and_in_any_order():
    with ReplayPrometheus() as server:
        for start in (1_700_000_000, 1_760_000_000, 1_600_000_000, 1_759_999_000):
            times = (start + 15 * np.arange(300)) * 1000
            values = np.arange(300.0)
            values[200] = np.nan
            assert (
                server.write([WrittenSeries({"__name__": "x", "a": 'b"\n'}, times, values)]) == 300
            )
            form = {"query": "x", "time": str(start + 15 * 100)}
            answer = httpx.post(f"{server.url}/api/v1/query", data=form, timeout=10).json()
            assert [r["value"][1] for r in answer["data"]["result"]] == ["100"]
            assert answer["data"]["result"][0]["metric"]["a"] == 'b"\n'
        bad = WrittenSeries({"__name__": "x"}, times - 40 * 365 * 86_400_000, values)
        with pytest.raises(MetricsError, match="did not take"):
            server.write([bad])


def test_no_process_and_no_folder_stays_behind():
    server = ReplayPrometheus().start()
    pid, folder = server._process.pid, Path(server._folder)
    assert folder.exists()
    server.stop()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_a_missing_prometheus_is_named(monkeypatch):
    monkeypatch.setenv("BREAKFIX_PROMETHEUS_BIN", "no-such-program")
    with pytest.raises(SettingsError, match="no-such-program"):
        ReplayPrometheus().start()


def test_a_recorded_trace_is_replayed_at_its_own_time(stage, policy, tmp_path):
    start = datetime(2024, 5, 1, 12, tzinfo=UTC)
    lines = []
    for i in range(-60, 21):
        at = start.timestamp() + 30 * i
        labels = 'gpu="0",UUID="GPU-1",Hostname="gpu-1",instance="gpu-1:9400"'
        code = 79 if i >= 4 else 0
        lines += [
            f"DCGM_FI_DEV_GPU_TEMP{{{labels}}} 60 {at}",
            f"DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{{labels}}} {1000 * i + 1e6} {at}",
            f'DCGM_FI_DEV_XID_ERRORS{{{labels},err_code="{code}"}} {code} {at}',
        ]
    (tmp_path / "real.om").write_text("\n".join(lines) + "\n# EOF\n")
    document = {
        "name": "recorded", "about": "from a real server", "kind": "hardware", "length": "6m",
        "fleet": [{"names": ["gpu-1"], "gpus": 1}], "telemetry": {"exporters": []},
        "series_file": "real.om", "recorded_start": start,
        "truth": [{"node": "gpu-1", "failure_class": "gpu_off_bus", "from": "2m"}],
    }  # fmt: skip
    done = replay(stage.load(Source(make_trace(document), tmp_path)), policy)
    found = [(c.at, c.failure_class) for c in done.calls[OURS] if c.is_disruptive]
    # an XID has to stand for a minute: one lying scrape condemns nobody
    assert found == [(t, FailureClass.GPU_OFF_BUS) for t in (240.0, 360.0)]


@pytest.mark.slow
def test_processes_give_the_same_as_one(sources, policy):
    told: list[str] = []
    both = replay_all(sources, policy, jobs=2, progress=lambda r: told.append(r.trace.name))
    assert both == replay_all(sources, policy)
    assert sorted(told) == ["application-errors", "off-the-bus"]


def test_the_command_prints_numbers_and_leaves_by_the_floors(tmp_path, monkeypatch):
    path = tmp_path / "two.trace.yaml"
    path.write_text(TRACES)
    page = tmp_path / "decisions.md"
    monkeypatch.delenv("BREAKFIX_POLICY", raising=False)
    run = CliRunner().invoke(
        app, ["replay", str(path), "-o", "json", "--write", str(page), "--require", "recall=0.9"]
    )
    assert run.exit_code == 0, run.output
    made = json.loads(run.stdout)
    assert made["scores"][OURS]["recall"]["value"] == 1
    assert made["scores"][OURS]["expectations"]["value"] == 1
    assert made["floors"][0]["is_kept"]
    assert "# Decisions" in page.read_text()
    missed = CliRunner().invoke(app, ["replay", str(path), "--require", "precision=1.1"])
    assert missed.exit_code == 5
    assert "MISSED: precision" in missed.stdout


# ------------------------------------------------------------------ direct replays

NOISE = """
name: a-noisy-hour
about: Everything that noise touches, in one hour.
kind: noise
every: 60s
length: 1h
warmup: 1h
fleet: [{prefix: gpu-a-, count: 6, racks: 3, gpus: 2}]
telemetry:
  metrics: [basic, xid, xid_count, xid_total, remap, pcie, ecc, nvlink, health]
  infiniband: 1
xids:
  - {nodes: gpu-a-001, gpus: 0, code: 31, at: 7m}
  - {nodes: gpu-a-002, gpus: 1, code: 94, at: 9m}
gaps:
  - {nodes: gpu-a-003, from: 12m, to: 17m}
  - {nodes: gpu-a-004, gpus: 0, metrics: [DCGM_FI_DEV_ECC_DBE_VOL_TOTAL], effect: sentinel,
     from: 20m, to: 22m}
  - {nodes: gpu-a-005, exporters: [node, dcgm], from: 30m, to: 41m}
health:
  - {nodes: gpu-a-001, gpus: 1, watch: NVLINK, code: DCGM_FR_NVLINK_DOWN, from: 26m, to: 27m}
series:
  - metric: DCGM_FI_DEV_GPU_TEMP
    nodes: gpu-a-002
    how: plus
    steps: [{at: 5m, value: 30}, {at: 25m, value: 0}]
nodes:
  - {nodes: gpu-a-005, at: 30m, conditions: {Ready: Unknown}}
  - {nodes: gpu-a-005, at: 41m, booted: true}
  - {nodes: gpu-a-005, at: 42m, conditions: {Ready: "True"}}
  - {nodes: gpu-a-006, at: 15m, allocatable: 0}
  - {nodes: gpu-a-006, at: 16m, allocatable: 2}
restarts: [{nodes: gpu-a-005, at: 41m}]
"""

LOST = """
name: lost-fields
about: One GPU loses the field that spoke, then the fleet loses another; they come back.
kind: outage
every: 60s
length: 2h
warmup: 1h
fleet: [{prefix: gpu-a-, count: 4, racks: 4, gpus: 2}]
telemetry: {metrics: [basic, xid, remap, ecc]}
series:
  - metric: DCGM_FI_DEV_ROW_REMAP_FAILURE
    nodes: gpu-a-001
    gpus: 0
    steps: [{at: 5m, value: 1}, {at: 30m, value: 0}]
  - {metric: DCGM_FI_DEV_ECC_DBE_VOL_TOTAL, nodes: gpu-a-002, gpus: 1, steps: [{at: 6m, value: 1}]}
xids:
  - {nodes: gpu-a-003, gpus: 0, code: 63, at: 7m}
gaps:
  - {nodes: gpu-a-001, gpus: 0, metrics: [DCGM_FI_DEV_ROW_REMAP_FAILURE], from: 10m, to: 20m}
  - nodes: gpu-a-001
    gpus: 0
    metrics: [DCGM_FI_DEV_ROW_REMAP_FAILURE]
    effect: nan
    from: 22m
    to: 40m
  - {metrics: [DCGM_FI_DEV_ECC_DBE_VOL_TOTAL], from: 12m}
  - nodes: gpu-a-003
    gpus: 0
    metrics: [DCGM_FI_DEV_XID_ERRORS]
    effect: sentinel
    from: 15m
    to: 50m
"""


def only(text: str, folder: Path) -> Source:
    path = folder / "one.trace.yaml"
    path.write_text(text)
    return next(load_file(path))


@pytest.mark.slow
def test_what_spoke_and_is_no_longer_reported_is_not_cleared(stage, tmp_path, policy):
    lost = only(LOST, tmp_path)
    real = replay(stage.load(lost), policy)
    assert compare(replay_directly(lost, policy), real) == []
    told: dict[str, dict[float, FailureClass | None]] = {}
    for call in real.calls[OURS]:
        told.setdefault(call.node, {})[call.at / 60] = call.failure_class
    blind = FailureClass.TELEMETRY_LOST
    assert told["gpu-a-001"][8] is FailureClass.ROW_REMAP_FAILED
    assert {told["gpu-a-001"].get(m) for m in range(12, 20, 2)} == {blind}
    assert told["gpu-a-001"].get(22) is FailureClass.ROW_REMAP_FAILED
    assert {told["gpu-a-001"].get(m) for m in range(24, 40, 2)} == {blind}  # repaired meanwhile
    assert told["gpu-a-001"].get(42) is None
    assert told["gpu-a-002"].get(10) is FailureClass.ECC_UNCORRECTABLE
    assert {told["gpu-a-002"].get(m) for m in range(16, 70, 2)} == {blind}  # in the whole fleet


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return only(NOISE, tmp_path_factory.mktemp("noise"))


@pytest.mark.slow
def test_direct_verdicts_are_those_of_a_real_prometheus(stage, noise, policy):
    real = replay(stage.load(noise), policy)
    direct = replay_directly(noise, policy)
    assert compare(direct, real) == []
    assert {c.node for c in real.calls[OURS]} >= {
        "gpu-a-001",
        "gpu-a-002",
        "gpu-a-003",
        "gpu-a-005",
    }


@pytest.mark.slow
def test_every_query_of_the_policy_means_the_same_in_both(stage, noise, policy):
    scene = stage.load(noise)
    store = Store()
    for series in expand(noise.trace, scene.origin):
        store.add(series.labels, series.times, series.values)
    instants = [scene.instant(t) for t in noise.trace.sweeps]
    millis = np.array([round(t.timestamp() * 1000) for t in instants], np.int64)
    rules = Queries(policy, most=2)
    held: dict[tuple[tuple[str, str], ...], float] = {}
    for query in rules.queries(policy):
        vector = Evaluator(store).vector(parse(query), millis)
        for place, at in enumerate(instants):
            real = {_key(s.labels): s.value for s in scene.metrics.query(query, at=at).samples}
            if isinstance(query, Held):
                text = scene.metrics.query(str(query), at=at).samples
                assert real == {_key(s.labels): s.value for s in text}, (query, at)
                held.update(real)
            ours = {_key(e.labels): float(e.values[place]) for e in vector if e.there[place]}
            assert ours == pytest.approx(real, rel=1e-9, abs=1e-6, nan_ok=True), (query, at)
    assert held  # or nothing was compared


def _key(labels):
    return tuple(sorted(labels.items()))
