"""A real Prometheus scrapes the simulated fleet as it would a cluster."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time

import httpx
import pytest

from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("prometheus") is None, reason="no prometheus installed"),
]
DEADLINE_S = 60.0
FLEET = FleetConfig.model_validate(
    {
        "speed": 60,
        "racks": [
            {"name": "r1", "pool": "p1", "sku": "h100", "nodes": 2},
            {"name": "r2", "pool": "p2", "sku": "a100", "nodes": 2},
            {"name": "s1", "pool": "system", "sku": "", "nodes": 1},
        ],
        "workloads": [{"name": "train", "namespace": "team-a", "pool": "p1", "gpus": 4}],
    }
)


class Prometheus:
    def __init__(self, url):
        self.url = url

    def query(self, expr):
        answer = httpx.get(f"{self.url}/api/v1/query", params={"query": expr}, timeout=10)
        answer.raise_for_status()
        return [(r["metric"], float(r["value"][1])) for r in answer.json()["data"]["result"]]

    def until(self, expr, holds, *, every_s=0.3):
        """The first answer for which `holds` is true, within the deadline."""
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            found = self.query(expr)
            if holds(found):
                return found
            time.sleep(every_s)
        pytest.fail(f"{expr} never became right; last: {found}")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def is_ready(url):
    try:
        return httpx.get(f"{url}/-/ready", timeout=2).status_code == 200
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def fleet():
    with SimFleet(FLEET) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def prometheus(fleet, tmp_path_factory):
    folder = tmp_path_factory.mktemp("prometheus")
    config = fleet.prometheus_config(folder / "prometheus.yml", "1s")
    port = free_port()
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [
            shutil.which("prometheus"),
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + DEADLINE_S
        while not is_ready(url):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "prometheus never became ready"
            time.sleep(0.2)
        yield Prometheus(url)
    finally:
        process.terminate()
        process.wait(20)
        log.close()


def test_every_target_is_up(prometheus):
    # 4 GPU nodes with dcgm-exporter, 5 nodes with node-exporter, one kube-state-metrics
    found = prometheus.until("up == 1", lambda found: len(found) == 10)
    assert {metric["job"] for metric, _ in found} == {
        "dcgm-exporter",
        "node-exporter",
        "kube-state-metrics",
    }
    instances = [metric["instance"] for metric, _ in found]
    assert len(set(instances)) == len(instances)


def test_dcgm_series_arrive_for_every_gpu_with_the_exporters_labels(prometheus):
    found = prometheus.until("DCGM_FI_DEV_GPU_UTIL", lambda found: len(found) == 32)
    for metric, _ in found:
        assert metric["Hostname"] == metric["node"]
        assert metric["namespace"] == "gpu-operator"
        assert metric["pod"].startswith("nvidia-dcgm-exporter")
        assert {"gpu", "UUID", "pci_bus_id", "device", "modelName", "job"} <= metric.keys()


def test_a_workloads_labels_arrive_as_exported(prometheus):
    found = prometheus.until(
        'DCGM_FI_DEV_GPU_UTIL{exported_namespace="team-a"}', lambda found: len(found) == 4
    )
    assert all(metric["exported_pod"].startswith("train-") for metric, _ in found)
    assert all(metric["exported_container"] == "main" for metric, _ in found)


def test_the_joins_that_find_a_node_work(prometheus):
    boots = "node_boot_time_seconds * on(instance) group_left(nodename) node_uname_info"
    found = prometheus.until(boots, lambda found: len(found) == 5)
    assert {m["nodename"] for m, _ in found} == {"r1-n01", "r1-n02", "r2-n01", "r2-n02", "s1-n01"}
    gpu_pods = (
        'sum by (node) (kube_pod_container_resource_requests{resource="nvidia_com_gpu"}'
        ' * on(namespace, pod) group_left() (kube_pod_status_phase{phase="Running"} == 1))'
    )
    assert prometheus.until(gpu_pods, lambda found: len(found) == 1)[0][1] == 4


def test_a_fallen_gpu_is_seen_as_an_xid_a_missing_series_and_fewer_allocatable(fleet, prometheus):
    fleet.break_node("r2-n01", "xid79", gpu=3, vanish_after_s=8)
    xid = 'DCGM_EXP_XID_ERRORS_COUNT{xid="79"}'
    assert prometheus.until(xid, bool)[0][0]["Hostname"] == "r2-n01"
    count = 'count(DCGM_FI_DEV_GPU_UTIL{Hostname="r2-n01"})'
    prometheus.until(count, lambda found: found == [({}, 7.0)])
    allocatable = 'kube_node_status_allocatable{node="r2-n01",resource="nvidia_com_gpu"}'
    prometheus.until(allocatable, lambda found: [value for _, value in found] == [7.0])
    gone = 'DCGM_FI_DEV_XID_ERRORS{Hostname="r2-n01",gpu="3"}'
    prometheus.until(gone, lambda found: not found)


@pytest.mark.parametrize("fault", ["exporter_gone", "dcgm_hung"])
def test_an_exporter_that_does_not_answer_is_a_target_that_is_down(fleet, prometheus, fault):
    fleet.break_node("r1-n02", fault)
    prometheus.until('up{job="dcgm-exporter",node="r1-n02"} == 0', bool)
    assert fleet.heal("r1-n02") == 1
    prometheus.until('up{job="dcgm-exporter",node="r1-n02"} == 1', bool)


def test_a_reboot_changes_the_boot_time_and_shows_as_not_ready(fleet, prometheus):
    fleet.call(lambda: fleet.sim.fleet.power_cycle("r2-n02"))
    not_ready = 'kube_node_status_condition{node="r2-n02",condition="Ready",status="true"} == 0'
    prometheus.until(not_ready, bool)
    boots = 'changes(node_boot_time_seconds{instance="r2-n02:9100"}[5m])'
    prometheus.until(boots, lambda found: bool(found) and found[0][1] == 1)
    prometheus.until('up{node="r2-n02"} == 1', bool)
