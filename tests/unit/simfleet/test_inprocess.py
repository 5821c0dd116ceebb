"""The whole simulation over HTTP: repairs as pods, the control API, API faults."""

from __future__ import annotations

import json
import time

import httpx
import pytest
import yaml

from simfleet.client import ControlClient, ControlError
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from simfleet.kube import ADMIN_TOKEN

DEADLINE_S = 30.0
FLEET = FleetConfig.model_validate(
    {
        "speed": 200,
        "racks": [{"name": "r1", "pool": "p1", "sku": "h100", "nodes": 3}],
        "workloads": [{"name": "train", "pool": "p1", "replicas": 3, "gpus": 4}],
    }
)


class Cluster:
    """Just enough of a client to start pods and look at things."""

    def __init__(self, fleet):
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        self.http = httpx.Client(base_url=fleet.url, headers=headers, timeout=10)

    def get(self, path):
        answer = self.http.get(path)
        answer.raise_for_status()
        return answer.json()

    def node(self, name):
        return self.get(f"/api/v1/nodes/{name}")

    def run(self, node, *command):
        """Run a one-shot pod on a node; (phase, exit code, log) of its end."""
        name = f"repair-{time.monotonic_ns()}"
        container = {"name": "main", "image": "registry.example/tools:1", "command": [*command]}
        spec = {"nodeName": node, "restartPolicy": "Never", "containers": [container]}
        spec["tolerations"] = [{"operator": "Exists"}]
        body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        self.http.post("/api/v1/namespaces/default/pods", json=body).raise_for_status()
        path = f"/api/v1/namespaces/default/pods/{name}"
        pod = until(
            lambda: self.get(path), lambda p: p["status"]["phase"] in {"Succeeded", "Failed"}
        )
        states = [s["state"].get("terminated", {}) for s in pod["status"]["containerStatuses"]]
        log = self.http.get(f"{path}/log").text
        return pod["status"]["phase"], states[0].get("exitCode"), log


def until(look, holds):
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        seen = look()
        if holds(seen):
            return seen
        time.sleep(0.05)
    pytest.fail(f"never became right; last: {seen}")


def allocatable(node):
    return node["status"]["allocatable"]["nvidia.com/gpu"]


def ready(node):
    return next(c["status"] for c in node["status"]["conditions"] if c["type"] == "Ready")


@pytest.fixture(scope="module")
def fleet():
    with SimFleet(FLEET, tls=True) as fleet:
        yield fleet


@pytest.fixture
def cluster(fleet):
    cluster = Cluster(fleet)
    yield cluster
    cluster.http.close()


@pytest.fixture
def control(fleet):
    return ControlClient(fleet.url)


def test_a_reboot_pod_takes_the_node_down_and_brings_its_lost_gpu_back(fleet, cluster):
    fleet.break_node("r1-n01", "xid79", gpu=3)
    node = until(lambda: cluster.node("r1-n01"), lambda n: allocatable(n) == "7")
    boot = node["status"]["nodeInfo"]["bootID"]
    fleet.call(lambda: setattr(fleet.sim.world, "speed", 100.0))
    phase, _, _ = cluster.run("r1-n01", "nsenter", "-t", "1", "-m", "--", "systemctl", "reboot")
    assert phase == "Failed"
    node = until(lambda: cluster.node("r1-n01"), lambda n: allocatable(n) == "8")
    assert node["status"]["nodeInfo"]["bootID"] != boot
    until(lambda: cluster.node("r1-n01"), lambda n: ready(n) == "True")
    whats = [event["what"] for event in fleet.events(node="r1-n01")]
    assert whats.index("fault") < whats.index("reboot_started") < whats.index("cleared")


def test_a_node_is_not_ready_while_it_reboots(fleet, cluster):
    fleet.call(lambda: setattr(fleet.sim.world, "speed", 100.0))
    fleet.call(lambda: fleet.sim.fleet.power_cycle("r1-n03"))
    until(lambda: cluster.node("r1-n03"), lambda n: ready(n) == "Unknown")
    until(lambda: cluster.node("r1-n03"), lambda n: ready(n) == "True")


def test_reset_then_plugin_restart_then_diag_gives_a_sound_node(fleet, cluster):
    fleet.break_node("r1-n02", "xid95", gpu=6)
    until(lambda: cluster.node("r1-n02"), lambda n: allocatable(n) == "7")
    _, code, log = cluster.run("r1-n02", "nvidia-smi", "--gpu-reset")
    assert (code, "In use" in log) == (19, True)
    pods = cluster.get("/api/v1/pods?fieldSelector=spec.nodeName=r1-n02")["items"]
    for pod in pods:
        meta = pod["metadata"]
        if meta["namespace"] == "default" and meta["name"].startswith("train"):
            node = {"spec": {"unschedulable": True}}
            merge = {"Content-Type": "application/merge-patch+json"}
            cluster.http.patch("/api/v1/nodes/r1-n02", json=node, headers=merge)
            cluster.http.delete(f"/api/v1/namespaces/default/pods/{meta['name']}")
    until(lambda: fleet.status("r1-n02")["pods"], lambda p: not any("train" in x for x in p))
    phase, code, log = cluster.run("r1-n02", "nvidia-smi", "--gpu-reset")
    assert (phase, code) == ("Succeeded", 0)
    assert allocatable(cluster.node("r1-n02")) == "7"
    plugins = cluster.get(
        "/api/v1/namespaces/gpu-operator/pods?labelSelector=app=nvidia-device-plugin-daemonset"
    )["items"]
    name = next(p["metadata"]["name"] for p in plugins if p["spec"]["nodeName"] == "r1-n02")
    cluster.http.delete(f"/api/v1/namespaces/gpu-operator/pods/{name}").raise_for_status()
    until(lambda: cluster.node("r1-n02"), lambda n: allocatable(n) == "8")
    _, code, log = cluster.run("r1-n02", "dcgmi", "diag", "-r", "2", "-j")
    assert code == 0
    assert "test_categories" in json.loads(log)["DCGM Diagnostic"]


def test_restarting_the_exporters_pod_revives_a_dead_exporter(fleet, cluster):
    fleet.break_node("r1-n03", "exporter_gone")
    assert httpx.get(f"{fleet.url}/metrics/dcgm/r1-n03", timeout=10).status_code == 503
    pods = cluster.get(
        "/api/v1/namespaces/gpu-operator/pods?labelSelector=app=nvidia-dcgm-exporter"
    )["items"]
    name = next(p["metadata"]["name"] for p in pods if p["spec"]["nodeName"] == "r1-n03")
    cluster.http.delete(f"/api/v1/namespaces/gpu-operator/pods/{name}").raise_for_status()
    url = f"{fleet.url}/metrics/dcgm/r1-n03"
    until(lambda: httpx.get(url, timeout=10).status_code, lambda status: status == 200)


def test_the_control_api_breaks_shows_and_heals(control):
    hit = control.post("/sim/nodes/r1-n03/break", {"fault": "xid64", "gpu": 2})
    assert hit == {"fault": "xid64", "nodes": ["r1-n03"]}
    assert [f["fault"] for f in control.get("/sim/nodes/r1-n03")["faults"]] == ["xid64"]
    assert control.post("/sim/nodes/r1-n03/heal", {}) == {"ended": 1}
    assert len(control.get("/sim/status")["nodes"]) == 3
    assert control.put("/sim/speed", {"speed": 300}) == {"speed": 300.0}


@pytest.mark.parametrize(
    ("path", "body", "says"),
    [
        ("/sim/nodes/r9/break", {"fault": "xid79"}, "no node 'r9'"),
        ("/sim/nodes/r1-n01/break", {"fault": "xid7"}, "unknown fault 'xid7'"),
        ("/sim/nodes/r1-n01/break", {"fault": "xid79", "gpu": 12}, "no GPU 12"),
        ("/sim/nodes/r1-n01/break", {"fault": "xid79", "gqu": 1}, "gqu"),
        ("/sim/racks/r9/break", {}, "no rack 'r9'"),
        ("/sim/api-faults", {"kind": "flood"}, "flood"),
    ],
)
def test_a_wrong_request_gets_one_clear_line(control, path, body, says):
    with pytest.raises(ControlError) as caught:
        control.post(path, body)
    assert says in str(caught.value)


def test_one_list_names_every_exporter_with_its_job(fleet):
    everything = httpx.get(f"{fleet.url}/sd", timeout=10).json()
    jobs = [target["labels"]["job"] for target in everything]
    assert {job: jobs.count(job) for job in jobs} == {
        "dcgm-exporter": 3,
        "node-exporter": 3,
        "kube-state-metrics": 1,
    }
    for target in everything:
        path = target["labels"]["__metrics_path__"]
        assert httpx.get(f"http://{target['targets'][0]}{path}", timeout=10).status_code == 200


def test_api_faults_hit_the_api_and_end_when_cleared(fleet, cluster, control):
    control.post("/sim/api-faults", {"kind": "too_many", "path": "/api/v1/nodes.*", "times": 1})
    assert cluster.http.get("/api/v1/nodes").status_code == 429
    assert cluster.http.get("/api/v1/nodes").status_code == 200
    control.post("/sim/api-faults", {"kind": "error", "path": "/api/v1/nodes.*"})
    assert cluster.http.get("/api/v1/nodes").status_code == 500
    assert control.get("/sim/api-faults")[1]["hits"] == 1
    control.delete("/sim/api-faults")
    assert cluster.http.get("/api/v1/nodes").status_code == 200
    assert fleet.status("r1-n01")["up"]


@pytest.mark.parametrize(("user", "may_write"), [("admin", True), ("viewer", False)])
def test_a_kubeconfig_carries_a_token_with_its_role(fleet, control, user, may_write):
    config = yaml.safe_load(control.get_text(f"/sim/kubeconfig/{user}"))
    assert config["clusters"][0]["cluster"]["server"] == fleet.tls_url
    token = config["users"][0]["user"]["token"]
    headers = {"Authorization": f"Bearer {token}"}
    nodes = httpx.get(f"{fleet.url}/api/v1/nodes", headers=headers, timeout=10)
    assert nodes.status_code == 200
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"by-{user}"}}
    path = f"{fleet.url}/api/v1/namespaces/default/configmaps"
    made = httpx.post(path, headers=headers, json=body, timeout=10)
    assert made.status_code == (201 if may_write else 403)
