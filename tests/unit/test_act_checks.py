"""Load on a node is a pod by name: started once, on all GPUs, and bounded in time."""

from __future__ import annotations

import pytest

from breakfix.act.checks import Load, LoadKind, start_load
from breakfix.act.guard import Expected
from breakfix.act.pods import PodSettings
from breakfix.errors import ClusterError, Refused
from breakfix.model import StepStatus
from tests.unit.act_world import make_world

SETTINGS = PodSettings(nccl_image="site/nccl:1", nvbandwidth_image="site/nvbandwidth:1")
LOADS = {
    "diag": Load(LoadKind.DIAG, 8, level=3),
    "nccl": Load(LoadKind.NCCL, 8, deadline_s=600),
    "nvbandwidth": Load(LoadKind.NVBANDWIDTH, 8, tests=("host_to_device_memcpy_ce",)),
}


@pytest.fixture(params=LOADS)
def kind(request):
    return request.param


def start(world, kind):
    name = f"{kind}-1"
    return start_load(world.acting, world.case, Expected(), SETTINGS, load=LOADS[kind], name=name)


def test_a_load_takes_all_gpus_of_its_node_and_ends_in_time(kind):
    world = make_world(is_quarantined=True)
    step = start(world, kind)
    ((key, manifest),) = world.cluster.manifests.items()
    (container,) = manifest["spec"]["containers"]
    assert (step.status, step.detail["pod"]) == (StepStatus.DISPATCHED, "/".join(key))
    assert container["resources"]["limits"] == {"nvidia.com/gpu": "8"}
    assert manifest["spec"]["nodeName"] == "gpu-1"
    seconds = {"diag": 2700, "nccl": 600, "nvbandwidth": 900}
    assert manifest["spec"]["activeDeadlineSeconds"] == seconds[kind]
    assert step.detail["boot_id"] == "boot-gpu-1-1"


def test_a_load_is_started_once_also_after_a_crash(kind):
    world = make_world(is_quarantined=True)
    world.cluster.fail("create_pod")
    with pytest.raises(ClusterError):
        start(world, kind)
    start(world, kind)
    start(world, kind)
    assert len(world.cluster.manifests) == 1


def test_no_load_is_put_on_a_node_that_somebody_took_back(kind):
    world = make_world(is_quarantined=True)
    world.cluster.change_node("gpu-1", is_unschedulable=False)
    with pytest.raises(Refused):
        start(world, kind)
    assert not world.cluster.writes()


def test_nccl_says_its_version_and_whether_it_has_nvls():
    world = make_world(is_quarantined=True)
    start(world, "nccl")
    (manifest,) = world.cluster.manifests.values()
    (container,) = manifest["spec"]["containers"]
    env = {e["name"]: e["value"] for e in container["env"]}
    assert env == {"NCCL_DEBUG": "INFO", "NCCL_DEBUG_SUBSYS": "INIT,NVLS"}
    assert container["command"][-2:] == ["-g", "8"]
