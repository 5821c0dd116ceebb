"""Machines and the cluster's objects hear of each other."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from simfleet.faults import FaultOptions
from simfleet.fleet import FleetConfig
from simfleet.kube import Store
from simfleet.live import LiveFleet, Unavailable
from simfleet.objects import node_object
from simfleet.scenario import Player, Scenario
from simfleet.world import World
from tests.unit.simfleet.bench import HandClock

FLEET = FleetConfig.model_validate(
    {
        "speed": 60,
        "racks": [
            {"name": "r1", "pool": "p1", "sku": "h100", "nodes": 2},
            {"name": "r2", "pool": "p2", "sku": "a100", "nodes": 4},
        ],
    }
)


class Setting:
    def __init__(self):
        self.clock = HandClock()
        self.store = Store(seed=1)
        self.world = World(now=self.clock, speed=60, seed=1)
        self.fleet = LiveFleet(FLEET, self.world, self.store)
        now = self.store.timestamp()
        for number, machine in enumerate(self.fleet.machines.values()):
            self.store.create("Node", node_object(machine, number, now))
            self.pod(machine.spec.name, "gpu-operator", f"exporter-{number}", exporter=True)

    def pod(self, node, namespace, name, *, gpus=0, exporter=False):
        labels = {"app": "nvidia-dcgm-exporter"} if exporter else {}
        limits = {"nvidia.com/gpu": str(gpus)} if gpus else {}
        container = {"name": "main", "resources": {"limits": limits, "requests": limits}}
        return self.store.create(
            "Pod",
            {
                "metadata": {"name": name, "namespace": namespace, "labels": labels},
                "spec": {"nodeName": node, "containers": [container]},
                "status": {"phase": "Running"},
            },
        )

    def later(self, seconds):
        end = self.clock.at + seconds
        while self.clock.at < end:
            self.clock.at += 0.5
            self.fleet.tick()

    def node(self, name):
        return self.store.get("Node", "", name)


@pytest.fixture
def setting():
    return Setting()


def families(text):
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


def test_a_pod_with_gpus_shows_on_the_gpus_of_its_node(setting):
    setting.pod("r1-n01", "team-a", "train-0", gpus=2)
    text = setting.fleet.dcgm("r1-n01")
    assert text.count('DCGM_FI_DEV_GPU_UTIL{gpu="0"') == 1
    busy = [s for s in families(text)["DCGM_FI_DEV_GPU_UTIL"] if s.labels.get("pod") == "train-0"]
    assert [s.labels["gpu"] for s in busy] == ["0", "1"]
    setting.store.delete("Pod", "team-a", "train-0")
    assert "train-0" not in setting.fleet.dcgm("r1-n01")


def test_a_rebooting_machine_answers_no_scrape_until_it_is_back(setting):
    setting.fleet.power_cycle("r1-n01")
    for scrape in (setting.fleet.dcgm, setting.fleet.node_exporter):
        with pytest.raises(Unavailable):
            scrape("r1-n01")
    setting.later(20)
    assert "node_boot_time_seconds" in setting.fleet.node_exporter("r1-n01")
    assert setting.fleet.dcgm("r1-n01")


def test_an_exporter_without_its_pod_is_down(setting):
    setting.store.delete("Pod", "gpu-operator", "exporter-0")
    with pytest.raises(Unavailable, match="no exporter pod"):
        setting.fleet.dcgm("r1-n01")


def test_a_hung_exporter_keeps_the_scraper_waiting(setting):
    setting.fleet.break_node("r1-n01", "dcgm_hung")
    with pytest.raises(Unavailable) as caught:
        setting.fleet.dcgm("r1-n01")
    assert caught.value.hangs


def test_a_rollout_changes_driver_labels_and_fails_gpus_on_the_whole_rack(setting):
    options = FaultOptions(driver="590.1.2", upgrade_state="upgrade-done", stagger_s=1)
    hit = setting.fleet.break_node("r2-n01", "bad_driver_rollout", options)
    assert hit == ["r2-n01", "r2-n02", "r2-n03", "r2-n04"]
    setting.later(10)
    for name in hit:
        labels = setting.node(name)["metadata"]["labels"]
        assert labels["nvidia.com/cuda.driver-version.full"] == "590.1.2"
        assert labels["nvidia.com/gpu-driver-upgrade-state"] == "upgrade-done"
        text = setting.fleet.dcgm(name)
        assert 'DCGM_FI_DRIVER_VERSION="590.1.2"' in text
        assert 'xid="119"' in text
    assert "590" not in setting.fleet.dcgm("r1-n01")
    setting.fleet.roll_back("r2")
    setting.later(1)
    labels = setting.node("r2-n01")["metadata"]["labels"]
    assert labels["nvidia.com/cuda.driver-version.full"] == "580.95.05"
    assert "nvidia.com/gpu-driver-upgrade-state" not in labels


def test_labels_of_others_survive_a_driver_change(setting):
    def mark(node):
        node["metadata"]["labels"]["team"] = "mine"

    setting.store.mutate("Node", "", "r2-n01", mark)
    setting.fleet.break_node("r2-n01", "bad_driver")
    setting.later(1)
    assert setting.node("r2-n01")["metadata"]["labels"]["team"] == "mine"


def test_an_uncordon_in_the_cluster_brings_the_lemon_back(setting):
    fleet = setting.fleet
    fleet.cordon("r1-n01")
    fleet.break_node("r1-n01", "lemon", FaultOptions(gpu=1, fails_again_after_s=5))
    setting.later(1)
    fleet.power_cycle("r1-n01")
    setting.later(60)
    assert fleet.node_status("r1-n01")["faults"] == []
    fleet.cordon("r1-n01", cordoned=False)
    setting.later(7)
    assert [f["fault"] for f in fleet.node_status("r1-n01")["faults"]] == ["lemon"]


def test_kube_state_metrics_agree_with_the_objects(setting):
    setting.pod("r1-n01", "team-a", "train-0", gpus=2)
    setting.fleet.cordon("r1-n02")
    found = families(setting.fleet.kube_state())
    cordoned = {s.labels["node"]: s.value for s in found["kube_node_spec_unschedulable"]}
    assert cordoned["r1-n02"] == 1
    assert cordoned["r1-n01"] == 0
    ready = [
        s.value
        for s in found["kube_node_status_condition"]
        if s.labels == {"node": "r1-n01", "condition": "Ready", "status": "true"}
    ]
    assert ready == [1]
    gpus = [
        (s.labels["pod"], s.labels["node"], s.value)
        for s in found["kube_pod_container_resource_requests"]
        if s.labels["resource"] == "nvidia_com_gpu"
    ]
    assert gpus == [("train-0", "r1-n01", 2)]
    allocatable = {
        s.labels["node"]: s.value
        for s in found["kube_node_status_allocatable"]
        if s.labels["resource"] == "nvidia_com_gpu"
    }
    assert allocatable["r1-n01"] == 8
    labels = [s.labels for s in found["kube_node_labels"] if s.labels["node"] == "r1-n01"]
    assert labels[0]["label_nvidia_com_gpu_product"] == "NVIDIA-H100-80GB-HBM3"


def test_a_timeline_is_played_once_in_its_order(setting):
    scenario = Scenario.model_validate(
        {
            "fleet": FLEET.model_dump(),
            "timeline": [
                {"at": "2s", "node": "r1-n01", "fault": "xid79", "gpu": 3},
                {"at": "5s", "heal": "r1-n01"},
                {"at": "6s", "cordon": "r1-n02"},
                {"at": "7s", "api_fault": {"kind": "drop"}},
            ],
        }
    )
    rules = []
    player = Player(scenario, setting.fleet, rules.append, rules.clear)
    player.start()
    player.start()
    setting.later(3)
    assert setting.fleet.machine("r1-n01").allocatable_gpus() == 7
    setting.later(5)
    assert setting.fleet.machine("r1-n01").allocatable_gpus() == 8
    assert setting.node("r1-n02")["spec"]["unschedulable"] is True
    assert (rules, player.progress()["played"]) == ([{"kind": "drop"}], 4)


def test_a_name_that_is_not_in_the_fleet_is_refused(setting):
    with pytest.raises(ValueError, match="no node 'r9'"):
        setting.fleet.break_node("r9", "xid79")
    with pytest.raises(ValueError, match="no rack 'r9'"):
        setting.fleet.break_rack("r9", "bad_driver")
