"""The demo's fleet plays its part: room for what is evicted, a budget that blocks for a while."""

from __future__ import annotations

import time
from collections import Counter
from importlib import resources
from pathlib import Path

import httpx
import pytest

from simfleet.inprocess import SimFleet
from simfleet.kube import ADMIN_TOKEN
from simfleet.scenario import load_scenario

DEMO = Path(str(resources.files("simfleet"))) / "scenarios" / "demo.yaml"
SCENARIO = load_scenario(DEMO)
HARMLESS = {"hot", "app_xid13", "app_xid31"}
BROKEN = [x.node for x in SCENARIO.timeline if x.node and x.fault not in HARMLESS]
DEADLINE_S = 30.0
EVICTION = {"apiVersion": "policy/v1", "kind": "Eviction"}


@pytest.fixture(scope="module")
def fleet():
    with SimFleet(SCENARIO, hold=True) as fleet:
        deadline = time.monotonic() + DEADLINE_S
        while not all(p["status"].get("phase") == "Running" for p in pods(fleet)):
            assert time.monotonic() < deadline, "not every pod runs"
            time.sleep(0.1)
        yield fleet


def pods(fleet):
    return fleet.call(lambda: list(fleet.sim.store.objects("Pod")))


def gpus_of(pod):
    limits = pod["spec"]["containers"][0].get("resources", {}).get("limits", {})
    return int(limits.get("nvidia.com/gpu", 0))


def test_each_broken_node_runs_gpu_pods_and_its_pool_has_room_for_them_elsewhere(fleet):
    held = Counter()
    for pod in pods(fleet):
        held[pod["spec"]["nodeName"]] += gpus_of(pod)
    machines = fleet.sim.fleet.machines
    for name in BROKEN:
        pool = machines[name].spec.pool
        others = [n for n, m in machines.items() if m.spec.pool == pool and n != name]
        room = sum(len(machines[n].gpus) - held[n] for n in others)
        assert 0 < held[name] <= room, name


def test_the_budget_blocks_until_a_fifth_replica_is_ready(fleet):
    pod = next(
        p["metadata"]["name"]
        for p in pods(fleet)
        if p["metadata"]["namespace"] == "team-b" and p["spec"]["nodeName"] == "r02-n02"
    )
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    url = f"{fleet.url}/api/v1/namespaces/team-b/pods/{pod}/eviction"
    body = EVICTION | {"metadata": {"name": pod, "namespace": "team-b"}}

    def evict():
        return httpx.post(url, headers=headers, json=body, timeout=10).status_code

    fleet.call(lambda: fleet.sim.fleet.cordon("r02-n02"))
    assert evict() == 429
    fleet.call(lambda: fleet.sim.fleet.scale("team-b", "chat", 5))
    deadline = time.monotonic() + DEADLINE_S
    while (answer := evict()) == 429:
        assert time.monotonic() < deadline, "the budget never let a pod go"
        time.sleep(0.1)
    assert answer == 201
