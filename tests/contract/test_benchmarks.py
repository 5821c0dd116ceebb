"""The benchmark's own code, on a fleet so small that its times say nothing."""

from __future__ import annotations

import pytest

from benchmarks.cases import (
    measure_acting,
    measure_decide,
    measure_fill,
    measure_kubernetes,
    measure_sweeps,
)
from benchmarks.fleet import fleet_now
from benchmarks.report import render
from benchmarks.results import Results
from benchmarks.sweep_case import Target


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_way_from_prometheus_to_verdicts_gives_the_same_ones(
    start_prometheus, private_processes, tmp_path
) -> None:
    nodes = 100
    server = start_prometheus(remote_write=True)
    results = Results(gpus=8 * nodes)
    target = Target(server.url, server.pid, fleet_now(nodes), tmp_path / "queries.json")
    measure_fill(results, target)
    measure_sweeps(results, target, rounds=1)  # asserts that the verdicts are identical
    measure_kubernetes(results, nodes, private_processes, rounds=1)
    measure_decide(results, nodes)
    product, naive = results.sweeps["product"][0], results.sweeps["snapshots"][0]
    assert product.told == naive.told
    assert product.told["verdicts"] == nodes
    assert sum(product.told["speaking"].values()) > 3
    results.every_signal, results.command = {}, {}
    text = render(results, 1, took_s=1.0)
    assert (
        "| wall time of a sweep, over its queries with the bodies dropped | at most 1.3x |" in text
    )
    assert "100 nodes of 8 GPUs" in text


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_nodes_that_are_taken_out_are_all_quarantined_and_recorded(
    private_processes, tmp_path
) -> None:
    results = Results(gpus=8 * 64)
    measure_acting(results, 64, private_processes, tmp_path, rounds=1)  # asserts that all are
    (floor,) = results.acting_floors()
    assert floor.what == "nodes quarantined a second, 32 in one sweep"
    assert floor.measured > 0
