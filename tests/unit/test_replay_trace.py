"""A trace says what it says: strict keys, times, notation, nodes, and the series it becomes."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from breakfix.errors import ClusterError, SettingsError
from breakfix.ports import NodePatch
from breakfix.replay.expand import expand
from breakfix.replay.fleet import build_fleet
from breakfix.replay.load import load_paths, make_trace, parse_traces
from breakfix.replay.remote_write import WrittenSeries
from breakfix.replay.trace import Trace, parse_time
from breakfix.replay.values import GONE, HELD, MISSING, STALE_BITS, parse_notation
from breakfix.replay.world import World

ORIGIN = datetime(2026, 1, 5, tzinfo=UTC)
TEMP, LAST = "DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_XID_ERRORS"


def made(**parts: Any) -> Trace:
    whole = {
        "name": "t",
        "about": "a test",
        "kind": "noise",
        "warmup": "5m",
        "length": "10m",
        "spread_scrapes": False,
        "fleet": [{"prefix": "n-", "count": 2, "gpus": 2}],
        "telemetry": {"exporters": ["dcgm"], "metrics": ["basic", "xid"]},
    }
    return make_trace({**whole, **parts})


def named(trace: Trace, metric: str, **labels: str) -> list[WrittenSeries]:
    wanted = {"__name__": metric, **labels}
    return [s for s in expand(trace, ORIGIN) if wanted.items() <= s.labels.items()]


def one(series: Iterable[WrittenSeries]) -> WrittenSeries:
    (found,) = series
    return found


def points(series: WrittenSeries) -> dict[float, float | str]:
    """Seconds since the first sweep -> value, or "stale"."""
    is_stale = series.values.view(np.uint64) == STALE_BITS
    return {
        t / 1000 - ORIGIN.timestamp(): "stale" if gone else v
        for t, v, gone in zip(series.times, series.values.tolist(), is_stale, strict=True)
    }


@pytest.mark.parametrize(
    ("text", "values", "states"),
    [
        pytest.param("0x2 79x1", [0, 0, 0, 79, 79], [HELD] * 5, id="so many more of each"),
        pytest.param("1+2x2", [1, 3, 5], [HELD] * 3, id="growing"),
        pytest.param("5-1x2", [5, 4, 3], [HELD] * 3, id="falling"),
        pytest.param("1 _ _x2 2", [1, 0, 0, 0, 2], [HELD, *[MISSING] * 3, HELD], id="gaps"),
        pytest.param("-1e3 stale", [-1000, 0], [HELD, GONE], id="negative, then stale"),
    ],
)
def test_the_notation_is_that_of_rule_tests(text, values, states):
    track = parse_notation(text)
    assert track.values.tolist() == values
    assert track.states.tolist() == states


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), (5, 5), ("-5m", -300), ("1h30m", 5400), ("0", 0), (0.5, 0.5)]
)
def test_times_are_seconds_since_the_first_sweep(text, seconds):
    assert parse_time(text) == seconds


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        pytest.param({"colour": 1}, "colour", id="an unknown key"),
        pytest.param(
            {"xids": [{"nodes": "n-001", "code": 79, "at": "soon"}]}, "soon", id="no time"
        ),
        pytest.param(
            {"truth": [{"node": "n-9", "failure_class": "thermal", "from": 0}]},
            "no node 'n-9'",
            id="a truth about nobody",
        ),
        pytest.param({"series": [{"metric": TEMP}]}, "either", id="a series without values"),
        pytest.param(
            {"series": [{"metric": TEMP, "values": "1yx"}]}, "'1yx' is no value", id="bad notation"
        ),
        pytest.param({"series_file": "x.om"}, "recorded_start", id="a record without its time"),
        pytest.param({"sweep": "10s"}, "shorter than every", id="sweeps faster than scrapes"),
        pytest.param(
            {"truth": [{"node": "n-001", "failure_class": "thermal", "from": "1d"}]},
            "outside the trace",
            id="a truth after the end",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_trace(parts, words):
    with pytest.raises(SettingsError, match=words) as said:
        made(**parts)
    assert "trace t" in str(said.value)


def test_a_healthy_fleet_has_each_series_of_each_gpu_at_every_scrape():
    temps = named(made(), TEMP)
    assert [(s.labels["Hostname"], s.labels["gpu"]) for s in temps] == [
        ("n-001", "0"), ("n-001", "1"), ("n-002", "0"), ("n-002", "1"),
    ]  # fmt: skip
    assert len({s.labels["UUID"] for s in temps}) == 4
    for series in temps:
        assert list(points(series)) == [t * 30.0 for t in range(-10, 21)]
        assert 50 < series.values.min() <= series.values.max() < 75
    energy = named(made(), "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION")[0]
    assert (np.diff(energy.values) > 0).all()


def test_the_same_seed_gives_the_same_samples_and_another_others():
    def all_of(seed: int) -> list[tuple[dict[str, str], list[float]]]:
        return [(dict(s.labels), s.values.tolist()) for s in expand(made(seed=seed), ORIGIN)]

    assert all_of(1) == all_of(1)
    assert all_of(1) != all_of(2)


def test_spread_targets_are_scraped_at_moments_of_their_own():
    times = {s.times[0] for s in expand(made(spread_scrapes=True), ORIGIN)}
    assert len(times) == 2
    assert all(s.times[0] >= (ORIGIN.timestamp() - 300) * 1000 for s in expand(made(), ORIGIN))


def test_an_xid_moves_the_sticky_gauge_to_another_series():
    trace = made(xids=[{"nodes": "n-001", "gpus": 1, "code": 79, "at": "5m"}])
    quiet, loud = sorted(
        named(trace, LAST, Hostname="n-001", gpu="1"), key=lambda s: s.labels["err_code"]
    )
    assert (quiet.labels["err_code"], loud.labels["err_code"]) == ("0", "79")
    assert loud.labels["err_msg"] == "GPU has fallen off the bus"
    assert points(quiet)[270] == 0
    assert points(quiet)[300] == "stale"
    assert max(points(quiet)) == 300
    assert points(loud) == {t * 30.0: 79.0 for t in range(10, 21)}
    assert {s.labels["err_code"] for s in named(trace, LAST, gpu="0")} == {"0"}


def test_counted_xids_leave_the_exporters_window_and_totals_stay():
    trace = made(
        telemetry={"exporters": ["dcgm"], "metrics": ["xid_count", "xid_total"]},
        xids=[{"nodes": "n-001", "gpus": 0, "code": 31, "at": "1m", "count": 2}],
        restarts=[{"nodes": "n-001", "at": "9m"}],
    )
    count = one(named(trace, "DCGM_EXP_XID_ERRORS_COUNT", xid="31"))
    assert points(count)[120] == 2
    assert points(count)[360] == 1
    assert points(count)[420] == "stale"
    total = one(named(trace, "DCGM_EXP_XID_ERRORS_TOTAL", xid="31"))
    assert points(total)[510] == 2
    assert points(total)[540] == "stale"


def test_steps_ramps_and_notation_change_only_whom_they_name():
    trace = made(
        series=[
            {"metric": TEMP, "nodes": "n-001", "gpus": 0, "steps": [
                {"at": "2m", "value": 70, "rate": 0.1}, {"at": "4m", "value": None}]},
            {"metric": TEMP, "nodes": "n-002", "gpus": 1, "values": "1x3", "start": 0},
            {"metric": "DCGM_FI_DEV_ROW_REMAP_FAILURE", "nodes": "n-002", "gpus": 0,
             "values": "_x9 1x9"},
        ]
    )  # fmt: skip
    ramp = points(one(named(trace, TEMP, Hostname="n-001", gpu="0")))
    assert [ramp[t] for t in (120, 150, 210, 240)] == [70, 73, 79, "stale"]
    assert ramp[90] < 66
    short = points(one(named(trace, TEMP, Hostname="n-002", gpu="1")))
    assert [short[t] for t in (0, 30, 60, 90)] == [1, 1, 1, 1]
    assert max(short) == 90
    new = one(named(trace, "DCGM_FI_DEV_ROW_REMAP_FAILURE"))
    assert min(points(new)) == -300 + 9 * 30
    assert new.labels["Hostname"] == "n-002"


@pytest.mark.parametrize(
    ("effect", "inside"),
    [
        pytest.param("gone", ["stale", None, None], id="a failed scrape leaves a marker"),
        pytest.param("silent", [None, None, None], id="silence leaves nothing"),
        pytest.param("sentinel", [9223372036854775794.0] * 3, id="blank values"),
    ],
)
def test_gaps_take_samples_away_in_their_own_way(effect, inside):
    gap = {"nodes": "n-001", "gpus": 0, "metrics": ["*TEMP"], "from": "1m", "to": "150s"}
    trace = made(gaps=[{**gap, "effect": effect}])
    lost = points(one(named(trace, TEMP, Hostname="n-001", gpu="0")))
    assert [lost.get(t) for t in (60.0, 90.0, 120.0)] == inside
    assert isinstance(lost[150.0], float)
    assert len(points(one(named(trace, "DCGM_FI_DEV_SM_CLOCK", Hostname="n-001", gpu="0")))) == 31


def test_up_tells_failing_scrapes_from_series_that_are_gone():
    gaps = [
        {"nodes": "n-001", "from": "1m", "to": "2m"},
        {"nodes": "n-002", "gpus": 0, "from": "1m", "to": "2m"},
    ]
    found = {s.labels["instance"]: s for s in named(made(gaps=gaps), "up", job="dcgm-exporter")}
    ups = sorted(float(s.values.min()) for s in found.values())
    assert ups == [0.0, *[1.0] * (len(ups) - 1)]
    assert all(s.values[-1] == 1.0 for s in found.values())


def test_pods_have_their_owner_and_image_in_kube_state_metrics():
    pod = {"name": "x-1", "node": "n-001", "owner": "DaemonSet/x", "image": "x:2", "from": "1m"}
    trace = made(pods=[pod], telemetry={"exporters": ["ksm"]})
    (info,) = named(trace, "kube_pod_info", pod="x-1")
    assert (info.labels["created_by_kind"], info.labels["created_by_name"]) == ("DaemonSet", "x")
    (created,) = named(trace, "kube_pod_created", pod="x-1")
    assert set(created.values) == {ORIGIN.timestamp() + 60.0}
    (image,) = named(trace, "kube_pod_container_info", pod="x-1")
    assert image.labels["image"] == "x:2"


def test_a_frozen_exporter_repeats_its_last_values():
    trace = made(gaps=[{"nodes": "n-001", "from": "1m", "effect": "frozen"}])
    energy = named(trace, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", Hostname="n-001")[0]
    assert len(set(energy.values[13:].tolist())) == 1
    assert len(set(energy.values[:12].tolist())) == 12


@pytest.mark.parametrize(
    ("telemetry", "labels"),
    [
        pytest.param({"host_label": "hostname"}, {"hostname": "n-001"}, id="the new host label"),
        pytest.param({"gpu_label": "uuid"}, {"uuid"}, id="the old GPU label"),
        pytest.param({"target_label": "node"}, {"node": "n-001"}, id="a target label"),
        pytest.param({"workload": "exported"}, {"exported_pod": "train-n-001"}, id="exported"),
        pytest.param({"replicas": 2}, {"prometheus_replica": "prometheus-1"}, id="HA duplicates"),
        pytest.param({"mig": 3}, {"GPU_I_ID": "3"}, id="MIG instances"),
    ],
)
def test_the_spelling_of_labels_can_be_chosen(telemetry, labels):
    base = {"exporters": ["dcgm"], "metrics": ["basic"]}
    made_of = expand(made(telemetry={**base, **telemetry}), ORIGIN)
    found = [s.labels for s in made_of if s.labels["__name__"] != "up"]
    if isinstance(labels, set):
        assert all(labels <= s.keys() for s in found)
    else:
        assert any(labels.items() <= s.items() for s in found)


def test_a_failing_watch_shows_its_code_instead_of_ok():
    trace = made(
        telemetry={"exporters": ["dcgm"], "metrics": ["health"]},
        health=[{"nodes": "n-001", "gpus": 0, "watch": "MEM", "code": "X",
                 "from": "1m", "to": "2m"}],
    )  # fmt: skip
    name = "DCGM_EXP_GPU_HEALTH_STATUS"
    bad = points(one(named(trace, name, health_error_code="X")))
    assert bad == {60.0: 20.0, 90.0: 20.0, 120.0: "stale"}
    ok = points(named(trace, name, Hostname="n-001", gpu="0", health_watch="MEM")[0])
    assert ok[30] == 0
    assert ok[60] == "stale"
    assert ok[120] == 0


def test_a_driver_change_moves_every_series_and_a_boot_its_time():
    trace = made(
        telemetry={"exporters": ["dcgm", "node"], "metrics": ["basic", "xid"]},
        xids=[{"nodes": "n-001", "gpus": 0, "code": 79, "at": "1m"}],
        nodes=[{"nodes": "n-001", "at": "5m", "driver": "590.1", "booted": True}],
    )
    old = points(
        one(named(trace, TEMP, Hostname="n-001", gpu="0", DCGM_FI_DRIVER_VERSION="580.95.05"))
    )
    new = points(one(named(trace, TEMP, Hostname="n-001", gpu="0", DCGM_FI_DRIVER_VERSION="590.1")))
    assert old[300] == "stale"
    assert min(new) == 300
    boot = points(one(named(trace, "node_boot_time_seconds", instance="10.0.0.1:9100")))
    assert boot[270] == ORIGIN.timestamp() - 9 * 86400
    assert boot[300] == ORIGIN.timestamp() + 300
    quiet = named(trace, LAST, Hostname="n-001", gpu="0", err_code="0")
    assert points(quiet[-1])[300] == 0


def test_the_cluster_is_what_it_was_at_that_time():
    trace = made(
        nodes=[
            {"nodes": "n-001", "at": "2m", "conditions": {"Ready": False}, "allocatable": 1},
            {"nodes": "n-002", "at": "3m", "deleted": True},
            {"nodes": "n-001", "at": "4m", "labels": {"breakfix.dev/pool": None},
             "taints": [{"key": "x"}]},
        ],
        pods=[{"name": "p", "node": "n-001", "from": "1m",
               "changes": [{"at": "2m", "phase": "Failed"}]}],
    )  # fmt: skip
    world = World(trace, build_fleet(trace), ORIGIN)
    first, later = world.at(0), world.at(120)
    assert first.node("n-001").is_ready
    assert first.node("n-001").rack == "train-r1"
    assert not later.node("n-001").is_ready
    assert later.node("n-001").condition("Ready").since.timestamp() == ORIGIN.timestamp() + 120
    assert (later.node("n-001").gpus_allocatable, later.node("n-001").gpus_capacity) == (1, 2)
    assert {n.name for n in world.at(200).nodes()} == {"n-001"}
    assert world.at(240).node("n-001").pool == ""
    assert world.at(240).node("n-001").taints[0].key == "x"
    assert [p.name for p in first.pods("n-001") if p.namespace == "default"] == []
    assert world.at(60).pod("default", "p").phase == "Running"
    assert world.at(120).pod("default", "p").phase == "Failed"
    with pytest.raises(ClusterError, match="cannot be changed"):
        first.patch_node("n-001", "1", NodePatch())


def test_kube_state_metrics_follow_the_nodes():
    trace = made(
        telemetry={"exporters": ["ksm"]},
        nodes=[
            {"nodes": "n-001", "at": "2m", "conditions": {"Ready": "Unknown"}, "allocatable": 1}
        ],
    )
    ready = {"node": "n-001", "condition": "Ready"}
    name = "kube_node_status_condition"
    assert points(one(named(trace, name, **ready, status="true")))[90] == 1
    assert points(one(named(trace, name, **ready, status="true")))[120] == 0
    assert points(one(named(trace, name, **ready, status="unknown")))[120] == 1
    allocatable = one(named(trace, "kube_node_status_allocatable", node="n-001"))
    assert (points(allocatable)[90], points(allocatable)[120]) == (2, 1)


@pytest.mark.parametrize("is_gzip", [False, True], ids=["plain", "gzipped"])
def test_a_recorded_series_keeps_its_own_times_and_labels(tmp_path: Path, is_gzip):
    name = 'x{a="q\\"uo\\\\te",b=""}'
    text = f"# TYPE x gauge\n{name} 1.5 1767571200\n{name} 2 1767571100.5\n# EOF\n"
    path = tmp_path / "x.om"
    path.write_bytes(gzip.compress(text.encode()) if is_gzip else text.encode())
    trace = made(
        telemetry={"exporters": []}, series_file="x.om", recorded_start="2026-01-05T00:00:00Z"
    )
    series = one(expand(trace, ORIGIN, tmp_path))
    assert series.labels == {"__name__": "x", "a": 'q"uo\\te', "b": ""}
    assert series.times.tolist() == [1767571100500, 1767571200000]
    assert series.values.tolist() == [2, 1.5]
    path.write_text("x{} nine 1767571200\n")
    with pytest.raises(SettingsError, match=r"x\.om line 1"):
        list(expand(trace, ORIGIN, tmp_path))


def test_files_hold_many_traces_and_no_name_twice(tmp_path: Path):
    text = "---\nname: {}\nabout: x\nkind: noise\nfleet: [{{count: 1}}]\n"
    (tmp_path / "a.trace.yaml").write_text(text.format("a") + text.format("b"))
    (tmp_path / "c.trace.yaml").write_text(text.format("c"))
    (tmp_path / "other.yaml").write_text("x: 1")
    assert [s.trace.name for s in load_paths([tmp_path])] == ["a", "b", "c"]
    (tmp_path / "d.trace.yaml").write_text(text.format("c"))
    with pytest.raises(SettingsError, match="several traces are named c"):
        load_paths([tmp_path])
    empty = tmp_path / "nothing"
    empty.mkdir()
    with pytest.raises(SettingsError, match="no trace found"):
        load_paths([empty])
    with pytest.raises(SettingsError, match="not valid YAML"):
        parse_traces("a: [")


def test_node_days_and_sweeps_are_counted_from_the_first_sweep():
    trace = made(
        length="1d",
        fleet=[{"count": 10, "prefix": "g-"}, {"count": 5, "prefix": "c-", "is_gpu": False}],
    )
    assert trace.node_days == 10
    assert made(length="10m").sweeps == (0, 120, 240, 360, 480, 600)
