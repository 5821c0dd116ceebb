"""`drain --dry-run` names the pods that `kubectl drain --dry-run=server` names."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from breakfix.model import PodAction, PodDecision
from breakfix.plan.drain_pods import decide_pods
from tests.contract.cluster_world import ClusterWorld, hosts, kubeconfig_of_a_cluster

pytestmark = [
    pytest.mark.allow_hosts(hosts()),
    pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed"),
]
MIRROR = {f"kubernetes.io/config.{key}": "0123456789abcdef" for key in ("mirror", "hash")} | {
    "kubernetes.io/config.source": "file"
}
DISK = [{"name": "scratch", "emptyDir": {}}]
MEMORY = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with kubeconfig_of_a_cluster(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
def world(kubeconfig: Path) -> Iterator[ClusterWorld]:
    with ClusterWorld(kubeconfig) as it:
        yield it


def kubectl(world: ClusterWorld, node: str, *flags: str) -> tuple[set[str], str]:
    """(namespace/name of the pods it would evict, what it complains of)."""
    command = ["kubectl", f"--kubeconfig={world.kubeconfig}", "drain", node]
    command += ["--dry-run=server", "--ignore-daemonsets", "--timeout=30s", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return set(re.findall(r"evicting pod (\S+) \(server dry run\)", done.stdout)), done.stderr


def ours(world: ClusterWorld, node: str, *, disk: bool, force: bool) -> list[PodDecision]:
    return decide_pods(
        world.cluster.pods(node),
        daemon_sets=world.cluster.daemon_sets(),
        allow_disk_empty_dir=disk,
        allow_unmanaged=force,
    )


def named(decisions: list[PodDecision], action: PodAction) -> set[str]:
    return {f"{d.namespace}/{d.name}" for d in decisions if d.action is action}


def furnish(world: ClusterWorld, node: str, *, bare: bool, scratch: bool) -> None:
    world.daemon_set("agent", node)
    world.replica_set("web", node, 2)
    world.pod("static", node, annotations=MIRROR, is_running=False)
    world.pod("finished", node, volumes=DISK)
    world.end("finished", 1)
    if bare:
        world.pod("bare", node)
    if scratch:
        world.replica_set("scratch", node, volumes=DISK)


@pytest.mark.parametrize("bare", [False, True], ids=["", "with an unmanaged pod"])
@pytest.mark.parametrize("scratch", [False, True], ids=["", "with an emptyDir on disk"])
@pytest.mark.parametrize("disk", [False, True], ids=["", "--delete-emptydir-data"])
@pytest.mark.parametrize("force", [False, True], ids=["", "--force"])
def test_decides_as_kubectl(world, bare, scratch, disk, force):
    node = world.node()
    furnish(world, node, bare=bare, scratch=scratch)
    flags = (["--delete-emptydir-data"] if disk else []) + (["--force"] if force else [])
    evicted, complaint = kubectl(world, node, *flags)
    decisions = ours(world, node, disk=disk, force=force)
    refused = named(decisions, PodAction.REFUSE)
    if refused:
        assert evicted == set()
        assert "unable to drain" in complaint
        assert all(pod in complaint for pod in refused)
        others = named(decisions, PodAction.EVICT)
        assert not any(re.search(rf"{pod}(?![\w-])", complaint) for pod in others)
    else:
        assert evicted == named(decisions, PodAction.EVICT)
        assert len(evicted) >= 3  # two of the ReplicaSet and the finished one


def test_a_memory_backed_empty_dir_is_the_one_difference(world):
    node = world.node()
    (pod,) = world.replica_set("shm", node, volumes=MEMORY)
    evicted, complaint = kubectl(world, node)
    assert evicted == set()
    assert "--delete-emptydir-data" in complaint
    (decision,) = [d for d in ours(world, node, disk=False, force=False) if d.name == pod]
    assert decision.action is PodAction.EVICT
    assert "kubectl would ask" in decision.warnings[0]
    assert kubectl(world, node, "--delete-emptydir-data")[0] == {f"{world.namespace}/{pod}"}
