"""Direct replays: who is looked at and when; quiet nodes must be quiet; noise stays harmless."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from breakfix.errors import MetricsError
from breakfix.model import FailureClass
from breakfix.replay.direct import compare, replay_all_directly, replay_directly
from breakfix.replay.fleet import build_fleet
from breakfix.replay.load import Source, make_trace
from breakfix.replay.outcome import OURS, Replayed
from breakfix.replay.touches import is_touched, touches_of
from tests.observations import POLICY


def source(**parts: Any) -> Source:
    whole = {
        "name": "t", "about": "x", "kind": "noise", "length": "1h", "every": "60s", "warmup": "20m",
        "fleet": [{"prefix": "n-", "count": 30, "gpus": 2, "racks": 3}],
        "telemetry": {"metrics": ["basic", "xid", "xid_count", "remap", "ecc", "health"]},
    }  # fmt: skip
    return Source(make_trace({**whole, **parts}), Path())


def disruptive(replayed: Replayed) -> set[tuple[str, FailureClass | None]]:
    return {(c.node, c.failure_class) for c in replayed.calls[OURS] if c.is_disruptive}


def test_a_fleet_to_which_nothing_happens_says_nothing():
    done = replay_directly(source(), POLICY)
    assert all(calls == () for calls in done.calls.values())


def test_noise_on_a_node_is_seen_there_and_nowhere_else():
    xid = {"nodes": "n-007", "gpus": 1, "code": 31, "at": "10m"}
    done = replay_directly(source(xids=[xid]), POLICY)
    assert {c.node for c in done.calls[OURS]} == {"n-007"}
    assert min(c.at for c in done.calls[OURS]) == 720
    assert max(c.at for c in done.calls[OURS]) == 3600
    assert disruptive(done) == set()


def test_a_fault_is_recommended_as_it_would_be_through_prometheus():
    done = replay_directly(
        source(xids=[{"nodes": "n-007", "gpus": 1, "code": 79, "at": "10m"}]), POLICY
    )
    assert disruptive(done) == {("n-007", FailureClass.GPU_OFF_BUS)}
    assert {c.node for c in done.calls["fatal_events"]} == {"n-007"}


def test_an_exporter_that_does_not_answer_is_seen_in_what_the_server_says_of_it():
    gap = {"nodes": "n-007", "from": "10m", "to": "30m"}
    telemetry = {"metrics": ["basic", "xid", "xid_count"], "target_label": "node"}
    done = replay_directly(source(gaps=[gap], telemetry=telemetry), POLICY)
    assert any("exporter_down" in c.signals for c in done.calls[OURS])


def test_a_crowd_is_still_one_incident_when_few_nodes_are_looked_at():
    xids = [{"nodes": f"n-{i:03d}", "gpus": 0, "code": 79, "at": "10m"} for i in range(1, 9)]
    done = replay_directly(source(xids=xids), POLICY)
    assert done.incidents
    assert disruptive(done) == set()


def test_only_changes_are_kept_where_that_is_enough():
    parts = {"xids": [{"nodes": "n-007", "gpus": 1, "code": 79, "at": "10m"}]}
    whole = replay_directly(source(**parts), POLICY)
    brief = replay_directly(source(**parts), POLICY, is_whole=False)
    assert 0 < len(brief.calls[OURS]) < len(whole.calls[OURS]) == 25
    assert disruptive(brief) == disruptive(whole)
    assert set(brief.calls[OURS]) <= set(whole.calls[OURS])


def test_a_quiet_node_that_speaks_stops_everything():
    loud = source(
        telemetry={"metrics": ["basic", "xid"], "also": {"DCGM_FI_DEV_ECC_DBE_VOL_TOTAL": 3}}
    )
    with pytest.raises(MetricsError, match="a quiet node says ecc_dbe"):
        replay_directly(loud, POLICY)


def test_differences_are_named():
    trace = source(xids=[{"nodes": "n-007", "gpus": 1, "code": 79, "at": "10m"}])
    quiet = replay_directly(source(), POLICY)
    loud = replay_directly(trace, POLICY)
    assert compare(loud, loud) == []
    assert "breakfix, n-007 at 720 s" in compare(loud, quiet)[0]


def test_many_traces_keep_their_order():
    sources = [source(name=n) for n in ("b", "a", "c")]
    told: list[str] = []
    done = replay_all_directly(sources, POLICY, progress=lambda r: told.append(r.trace.name))
    assert [r.trace.name for r in done] == told == ["b", "a", "c"]


@pytest.mark.parametrize(
    ("parts", "node", "metric", "span"),
    [
        pytest.param(
            {"gaps": [{"nodes": "n-001", "from": 60, "to": 120}]},
            "n-001", "DCGM_FI_DEV_GPU_UTIL", (60, 120), id="a gap is in all its exporter shows",
        ),
        pytest.param(
            {"gaps": [{"nodes": "n-001", "from": 60, "to": 120}]},
            "n-001", "up", (60, 120), id="and in what the server says of the scrapes",
        ),
        pytest.param(
            {"series": [{"metric": "DCGM_FI_DEV_GPU_TEMP", "nodes": "n-001", "how": "plus",
                         "steps": [{"at": 60, "value": 30}, {"at": 120, "value": 0}]}]},
            "n-001", "DCGM_FI_DEV_GPU_TEMP", (60, 120), id="what is added ends when nothing is",
        ),
        pytest.param(
            {"series": [{"metric": "DCGM_FI_DEV_GPU_TEMP", "nodes": "n-001",
                         "steps": [{"at": 60, "value": 30}]}]},
            "n-001", "DCGM_FI_DEV_GPU_TEMP", (60, math.inf), id="a value that stays has no end",
        ),
        pytest.param(
            {"nodes": [{"nodes": "n-001", "at": 60, "booted": True}]},
            "n-001", "node_boot_time_seconds", (60, 60), id="a boot is in the boot time",
        ),
    ],
)  # fmt: skip
def test_what_happens_is_known_by_node_metric_and_time(parts, node, metric, span):
    trace = source(**parts).trace
    (touch,) = touches_of(trace, build_fleet(trace))[node]
    assert (touch.start, touch.end) == span
    assert is_touched([metric], [touch])
    assert not is_touched(["vllm:errors"], [touch])
