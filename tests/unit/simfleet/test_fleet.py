"""Fleet and scenario files: what they mean, and what is said about wrong ones."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from simfleet.fleet import BadFleet, FleetConfig, RackConfig, node_specs, uniform_fleet
from simfleet.machine import SimMachine
from simfleet.objects import fleet_objects, node_object
from simfleet.scenario import load_scenario, seconds
from simfleet.world import World

DEMO = Path(str(resources.files("simfleet"))) / "scenarios" / "demo.yaml"
SMALL = {
    "racks": [{"name": "r1", "pool": "p1", "sku": "h100", "nodes": 3, "cordoned": ["r1-n02"]}],
    "workloads": [{"name": "train", "pool": "p1", "budget": {"max_unavailable": 1}}],
}
ONE_NODE = "fleet: {racks: [{name: r1, pool: p, nodes: 1, gpus: 4}]}\n"


def write(tmp_path, text):
    file = tmp_path / "scenario.yaml"
    file.write_text(text)
    return file


def test_a_node_is_registered_with_its_labels_capacity_and_boot_id():
    spec = node_specs(FleetConfig.model_validate(SMALL))[0]
    machine = SimMachine(spec, World())
    node = node_object(machine, 0, "2026-01-01T00:00:00Z")
    labels = node["metadata"]["labels"]
    assert (
        labels.items()
        >= {
            "kubernetes.io/hostname": "r1-n01",
            "breakfix.dev/pool": "p1",
            "topology.kubernetes.io/rack": "r1",
            "topology.kubernetes.io/zone": "zone-a",
            "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3",
            "nvidia.com/gpu.count": "8",
            "nvidia.com/gpu.present": "true",
        }.items()
    )
    assert "nvidia.com/gpu-driver-upgrade-state" not in labels
    assert node["status"]["allocatable"]["nvidia.com/gpu"] == "8"
    assert node["status"]["nodeInfo"]["bootID"] == machine.boot_id


def test_a_node_cordoned_from_the_start_is_unschedulable_and_tainted():
    spec = node_specs(FleetConfig.model_validate(SMALL))[1]
    node = node_object(SimMachine(spec, World()), 1, "2026-01-01T00:00:00Z")
    assert node["spec"]["unschedulable"] is True
    assert [t["key"] for t in node["spec"]["taints"]] == ["node.kubernetes.io/unschedulable"]


def test_workloads_become_replica_sets_with_budgets_beside_the_gpu_daemon_sets():
    found = list(fleet_objects(FleetConfig.model_validate(SMALL)))
    names = {(kind, obj["metadata"]["name"]) for kind, obj in found}
    assert names >= {
        ("DaemonSet", "nvidia-device-plugin-daemonset"),
        ("DaemonSet", "nvidia-dcgm-exporter"),
        ("ReplicaSet", "train"),
        ("PodDisruptionBudget", "train"),
        ("Namespace", "gpu-operator"),
    }


@pytest.mark.parametrize("nodes", [3, 17, 1000])
def test_a_regular_fleet_has_as_many_nodes_as_asked(nodes):
    specs = node_specs(uniform_fleet(nodes))
    assert len({spec.name for spec in specs}) == nodes


def test_identities_depend_on_the_seed_alone():
    spec = node_specs(uniform_fleet(3))[0]
    same = [[g.uuid for g in SimMachine(spec, World(seed=4)).gpus] for _ in range(2)]
    other = [g.uuid for g in SimMachine(spec, World(seed=5)).gpus]
    assert same[0] == same[1] != other


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5s", 5), ("1m30s", 90), ("2h", 7200), ("0.5s", 0.5), (7, 7), ("soon", "soon")],
)
def test_durations_are_written_as_people_write_them(text, expected):
    assert seconds(text) == expected


def test_the_demo_scenario_holds_every_case():
    scenario = load_scenario(DEMO)
    faults = [line.fault for line in scenario.timeline if line.fault]
    assert {"xid79", "hot", "app_xid13", "app_xid31", "lemon", "bad_driver_rollout"} <= set(faults)
    specs = {spec.name: spec for spec in node_specs(scenario.fleet)}
    assert 20 <= len(specs) <= 26
    assert [name for name, spec in specs.items() if spec.cordoned] == ["r07-n02"]
    rollout = next(line for line in scenario.timeline if line.fault == "bad_driver_rollout")
    assert sum(spec.rack == rollout.rack for spec in specs.values()) >= 4


def test_the_demos_cases_share_no_pool_unless_the_story_wants_it():
    scenario = load_scenario(DEMO)
    specs = {spec.name: spec for spec in node_specs(scenario.fleet)}
    harmless = {"hot", "app_xid13", "app_xid31"}
    broken = [specs[x.node].pool for x in scenario.timeline if x.node and x.fault not in harmless]
    assert sorted(broken) == [
        "batch-l40s", "batch-l40s", "infer-a100", "train-b200", "train-h100", "train-h200",
    ]  # fmt: skip
    cordoned = {spec.pool for spec in specs.values() if spec.cordoned}
    assert not cordoned & set(broken)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("racks: []", "racks"),
        ("racks: [{name: r1, pool: p, sku: h999, nodes: 2}]", "unknown SKU 'h999'"),
        ("racks: [{name: r1, pool: p}]", "either `nodes` or `names`"),
        ("racks: [{name: r1, pool: p, names: [a, a]}]", "named twice: a"),
        ("racks: [{name: r1, pool: p, nodes: 1}]\nspead: 2", "spead"),
        ("fleet: {racks: [{name: r1, pool: p, nodes: 1}]}\ntimeline: [{at: 5s}]", "one thing"),
        (
            ONE_NODE + "timeline: [{at: 5s, node: r9-n01, fault: xid79}]",
            "no node r9-n01",
        ),
        (
            ONE_NODE + "timeline: [{at: 5s, node: r1-n01, fault: xid7}]",
            "unknown fault 'xid7'",
        ),
        (
            ONE_NODE + "timeline: [{at: 5s, node: r1-n01, fault: xid79, gpu: 5}]",
            "no GPU 5",
        ),
        ("- just a list", "file"),
        ("a: [", "cannot read"),
    ],
)
def test_a_wrong_file_gets_one_clear_line(tmp_path, text, says):
    with pytest.raises(BadFleet) as caught:
        load_scenario(write(tmp_path, text))
    assert says in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1 or says == "cannot read"


def test_a_fleet_file_is_a_scenario_in_which_nothing_happens(tmp_path):
    scenario = load_scenario(write(tmp_path, "racks: [{name: r1, pool: p, nodes: 3}]"))
    assert (len(scenario.fleet.racks), scenario.timeline) == (1, ())


def test_a_rack_without_gpus_has_none():
    (spec,) = node_specs(FleetConfig(racks=(RackConfig(name="s", pool="sys", sku="", nodes=1),)))
    assert (spec.gpus, SimMachine(spec, World()).gpus) == (0, [])
