"""What the adapter promises of a cluster: the same cases on the simulated and on a real one."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breakfix.adapters.kubernetes import FleetLabels, connect
from breakfix.errors import ClusterError, Conflict, NotFound, SettingsError
from breakfix.model import Taint
from breakfix.ports import Eviction, NodePatch
from tests.contract.cluster_world import (
    LABEL,
    ClusterWorld,
    hosts,
    kubeconfig_of_a_cluster,
    pod_spec,
    wait_for,
)

pytestmark = pytest.mark.allow_hosts(hosts())
CORDON = "node.kubernetes.io/unschedulable"


@pytest.fixture(scope="module")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with kubeconfig_of_a_cluster(tmp_path_factory.mktemp("cluster")) as path:
        yield path


@pytest.fixture
def world(kubeconfig: Path) -> Iterator[ClusterWorld]:
    with ClusterWorld(kubeconfig) as it:
        yield it


def patched(world: ClusterWorld, name: str, **patch):
    """Patch at the version of now; controllers write to nodes too, so a conflict is read again."""

    def attempt():
        node = world.cluster.node(name)
        try:
            return world.cluster.patch_node(name, node.resource_version, NodePatch(**patch))
        except Conflict:
            return None

    return wait_for(attempt, "a patch without a conflict")


# --------------------------------------------------------------------------- reading


def test_names_the_cluster_by_its_first_namespace(world):
    uid = world.core.read_namespace("kube-system").metadata.uid
    assert world.cluster.uid() == uid


def test_reads_a_node_with_all_we_need(world):
    name = world.node(gpus=8, **{"breakfix.dev/pool": "train", "nvidia.com/gpu.product": "H100"})
    node = world.cluster.node(name)
    assert (node.name, node.boot_id) == (name, "boot-1")
    assert node.uid == world.core.read_node(name).metadata.uid
    assert (node.gpus_allocatable, node.gpus_capacity) == (8, 8)
    assert (node.pool, node.sku, node.rack) == ("train", "H100", "")
    assert node.is_ready
    assert not node.is_out
    assert node.created_at is not None
    assert node.created_at.tzinfo is not None
    assert Taint(LABEL, "NoSchedule", world.id) in node.taints


def test_labels_and_the_gpu_resource_are_settings(world, kubeconfig):
    name = world.node(gpus=4, **{"example.com/row": "r7"})
    labels = FleetLabels(rack="example.com/row")
    other = connect(kubeconfig=str(kubeconfig), labels=labels, gpu_resource="example.com/gpu")
    node = other.node(name)
    other.close()
    assert (node.rack, node.gpus_capacity) == ("r7", 0)


def test_lists_page_by_page(world, kubeconfig):
    names = {world.node(f"n{i}") for i in range(5)}
    paged = connect(kubeconfig=str(kubeconfig))
    paged._page = 2
    found = [n.name for n in paged.nodes()]
    paged.close()
    assert names <= set(found)
    assert len(found) == len(set(found))


def test_lists_pods_of_a_node_and_of_all(world):
    node, other = world.node("a"), world.node("b")
    world.pod("here", node, labels={"app": "x"})
    world.pod("there", other)
    mine = [p for p in world.cluster.pods(node) if p.namespace == world.namespace]
    everyone = [p for p in world.cluster.pods() if p.namespace == world.namespace]
    assert [p.name for p in mine] == ["here"]
    assert sorted(p.name for p in everyone) == ["here", "there"]
    assert (mine[0].node, mine[0].phase, mine[0].is_ready) == (node, "Running", True)
    assert mine[0].labels["app"] == "x"
    assert not mine[0].is_terminating


def test_reads_what_a_drain_must_know_of_a_pod(world):
    node = world.node()
    volumes = [
        {"name": "disk", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory"}},
    ]
    limits = {"nvidia.com/gpu": "2"}
    containers = [
        {"name": "a", "image": "i", "resources": {"limits": limits}},
        {"name": "b", "image": "i", "resources": {"limits": limits}},
    ]
    world.pod("p", node, volumes=volumes, containers=containers, is_running=False)
    pod = world.cluster.pod(world.namespace, "p")
    assert (pod.has_disk_empty_dir, pod.has_memory_empty_dir) == (True, True)
    assert (pod.gpus, pod.grace_s, pod.phase, pod.is_ready) == (4, 5, "Pending", False)
    assert pod.controller is None


def test_knows_the_controller_of_a_pod_and_the_daemon_sets(world):
    node = world.node()
    (agent,) = world.daemon_set("agent", node)
    (web,) = world.replica_set("web", node)
    kinds = {
        name: world.cluster.pod(world.namespace, name).controller.kind for name in (agent, web)
    }
    assert kinds == {agent: "DaemonSet", web: "ReplicaSet"}
    assert (world.namespace, "agent") in world.cluster.daemon_sets()


def test_reads_what_was_said_of_a_node(world):
    node = world.node()
    world.cluster.post_event(
        world.cluster.node(node), reason="Tested", message="by a test", is_warning=True
    )
    (event,) = [e for e in world.cluster.node_events() if e.node == node and e.reason == "Tested"]
    assert (event.message, event.count, event.source) == ("by a test", 1, "breakfix")
    assert event.last_at is not None
    assert event.last_at == event.first_at


def test_reads_budgets_as_the_server_counts_them(world):
    node = world.node()
    for i in range(2):
        world.pod(f"w{i}", node, labels={"app": "w"})
    world.budget("w", "w", 1, until=1)
    (budget,) = [b for b in world.cluster.budgets() if b.namespace == world.namespace]
    assert (budget.name, budget.allowed, budget.is_observed) == ("w", 1, True)
    assert budget.selector == {"matchLabels": {"app": "w"}}


@pytest.mark.parametrize(
    "ask",
    [
        lambda w: w.cluster.node(f"{w.id}-nobody"),
        lambda w: w.cluster.pod(w.namespace, "nobody"),
        lambda w: w.cluster.pod_log(w.namespace, "nobody"),
        lambda w: w.cluster.pod_exit_code(w.namespace, "nobody"),
        lambda w: w.cluster.patch_node(f"{w.id}-nobody", "1", NodePatch(labels={"a": "b"})),
        lambda w: w.cluster.update_config_map(w.namespace, "nobody", {"a": "b"}),
    ],
    ids=["node", "pod", "log", "exit code", "patch", "config map"],
)
def test_what_is_missing_is_not_found(world, ask):
    with pytest.raises(NotFound):
        ask(world)


# --------------------------------------------------------------------------- patching nodes


def test_a_patch_at_an_old_version_is_a_conflict(world):
    name = world.node()
    old = world.cluster.node(name)
    patched(world, name, labels={"example.com/a": "1"})
    with pytest.raises(Conflict):
        world.cluster.patch_node(name, old.resource_version, NodePatch(is_unschedulable=True))
    assert not world.cluster.node(name).is_unschedulable


def test_maps_change_key_by_key(world):
    name = world.node(**{"example.com/theirs": "1"})
    patched(world, name, labels={"breakfix.dev/a": "1"}, annotations={"breakfix.dev/b": "2"})
    node = patched(world, name, labels={"breakfix.dev/a": None}, annotations={"example.com/c": "3"})
    assert node.labels["example.com/theirs"] == "1"
    assert "breakfix.dev/a" not in node.labels
    assert node.annotations["breakfix.dev/b"] == "2"
    assert node.annotations["example.com/c"] == "3"


def test_taints_are_one_list_and_other_owners_survive_it(world):
    name = world.node()
    added = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    theirs = {
        "key": "example.com/upgrade",
        "value": "v2",
        "effect": "NoExecute",
        "timeAdded": "2026-01-02T03:04:05Z",
    }
    mine = {"key": LABEL, "value": world.id, "effect": "NoSchedule"}
    world.core.patch_node(name, {"spec": {"taints": [mine, theirs]}})
    ours = Taint("breakfix.dev/quarantine", "NoSchedule", "gpu_off_bus")
    node = world.cluster.node(name)
    node = world.cluster.patch_node(
        name, node.resource_version, NodePatch(taints=(*node.taints, ours))
    )
    assert set(node.taints) >= {ours, Taint("example.com/upgrade", "NoExecute", "v2")}
    left = tuple(t for t in node.taints if t.key != "breakfix.dev/quarantine")
    node = patched(world, name, taints=left)
    by_key = {t.key: t for t in node.taints}
    assert "breakfix.dev/quarantine" not in by_key
    assert by_key["example.com/upgrade"].added_at == added
    assert by_key[LABEL].value == world.id


def test_a_cordon_is_idempotent_and_its_taint_comes_later(world):
    name = world.node()
    first = patched(world, name, is_unschedulable=True)
    assert first.is_unschedulable

    def tainted():
        return CORDON in {t.key for t in world.cluster.node(name).taints}

    wait_for(tainted, "the cordon's taint")
    before = world.cluster.node(name)
    again = world.cluster.patch_node(
        name, before.resource_version, NodePatch(is_unschedulable=True)
    )
    assert again.resource_version == before.resource_version
    assert not patched(world, name, is_unschedulable=False).is_unschedulable
    wait_for(lambda: not tainted(), "the cordon's taint goes")


def test_one_patch_does_it_all(world):
    name = world.node()
    node = world.cluster.node(name)
    ours = Taint("breakfix.dev/quarantine", "NoSchedule", "x")
    patch = NodePatch(
        is_unschedulable=True,
        taints=(*node.taints, ours),
        labels={"breakfix.dev/state": "quarantined"},
        annotations={"breakfix.dev/case": "c1"},
    )
    after = world.cluster.patch_node(name, node.resource_version, patch)
    assert after.is_unschedulable
    assert ours in after.taints
    assert after.labels["breakfix.dev/state"] == "quarantined"
    assert after.annotations["breakfix.dev/case"] == "c1"


def test_a_value_the_server_refuses_is_an_error_that_is_not_transient(world):
    name = world.node()
    node = world.cluster.node(name)
    with pytest.raises(ClusterError) as caught:
        world.cluster.patch_node(
            name, node.resource_version, NodePatch(labels={"breakfix.dev/a": "no spaces please"})
        )
    assert not caught.value.is_transient


# --------------------------------------------------------------------------- evictions


def evict(world: ClusterWorld, name: str, uid: str, **options) -> Eviction:
    return world.cluster.evict(world.namespace, name, uid, **{"grace_s": None, **options})


def test_a_pod_without_budget_is_evicted_with_its_own_grace(world):
    uid = world.pod("p", world.node())
    assert evict(world, "p", uid).status == "evicted"
    assert world.cluster.pod(world.namespace, "p").is_terminating
    assert evict(world, "p", uid).status == "evicted"  # once more does no harm
    world.kill("p")
    assert evict(world, "p", uid).status == "gone"


def test_a_dry_run_evicts_nothing(world):
    uid = world.pod("p", world.node())
    assert evict(world, "p", uid, dry_run=True).status == "evicted"
    assert not world.cluster.pod(world.namespace, "p").is_terminating


def test_the_grace_of_an_eviction_can_be_set(world):
    uid = world.pod("p", world.node())
    assert evict(world, "p", uid, grace_s=77).status == "evicted"
    pod = world.core.read_namespaced_pod("p", world.namespace)
    assert pod.metadata.deletion_grace_period_seconds in (5, 77)  # a kubelet may shorten it


def test_a_pod_of_the_same_name_is_another_pod(world):
    node = world.node()
    old = world.pod("p", node)
    world.kill("p")
    world.pod("p", node)
    assert evict(world, "p", old).status == "conflict"
    assert not world.cluster.pod(world.namespace, "p").is_terminating


def test_a_budget_blocks_until_it_allows(world):
    node = world.node()
    uids = {f"w{i}": world.pod(f"w{i}", node, labels={"app": "w"}) for i in range(2)}
    world.budget("w", "w", 1, until=1)
    assert evict(world, "w0", uids["w0"], dry_run=True).status == "evicted"
    assert evict(world, "w0", uids["w0"]).status == "evicted"
    blocked = evict(world, "w1", uids["w1"])
    assert blocked.status == "blocked"
    assert "w" in blocked.message
    world.kill("w0")
    world.pod("w2", node, labels={"app": "w"})
    wait_for(lambda: world._allows("w", 1), "the budget recovers")
    assert evict(world, "w1", uids["w1"]).status == "evicted"


def test_a_budget_that_is_not_counted_yet_blocks_or_is_counted_soon(world):
    uid = world.pod("w", world.node(), labels={"app": "w"})
    world.budget("w", "w", 1)
    first = evict(world, "w", uid)
    assert first.status == "blocked"
    assert first.retry_after_s in (None, 10.0)
    wait_for(lambda: world._allows("w", 0), "the budget is counted")
    assert evict(world, "w", uid).status == "blocked"


def test_two_budgets_are_an_error_for_a_person(world):
    uid = world.pod("w", world.node(), labels={"app": "w"})
    world.budget("x", "w", 0, until=1)
    world.budget("y", "w", 0, until=1)
    answer = evict(world, "w", uid)
    assert answer.status == "error"
    assert "PodDisruptionBudget" in answer.message


# --------------------------------------------------------------------------- deleting and creating


def test_only_the_pod_of_that_uid_is_deleted(world):
    uid = world.pod("p", world.node())
    wrong = replace(world.cluster.pod(world.namespace, "p"), uid="00000000-dead-beef")
    assert not world.cluster.delete_pod(world.namespace, "p", wrong.uid, grace_s=0)
    assert not world.cluster.pod(world.namespace, "p").is_terminating
    assert world.cluster.delete_pod(world.namespace, "p", uid, grace_s=None)
    assert world.cluster.pod(world.namespace, "p").is_terminating
    assert world.cluster.delete_pod(world.namespace, "p", uid, grace_s=0)
    assert not world.cluster.delete_pod(world.namespace, "p", uid, grace_s=0)


def test_creating_a_pod_twice_gives_the_first(world):
    node = world.node()
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "repair", "namespace": world.namespace},
        "spec": {**pod_spec(node), "restartPolicy": "Never"},
    }
    first = world.cluster.create_pod(manifest)
    assert (first.node, first.phase) == (node, "Pending")
    assert world.cluster.create_pod(manifest).uid == first.uid


def test_the_exit_code_comes_from_the_kubelet(world):
    world.pod("p", world.node())
    assert world.cluster.pod_exit_code(world.namespace, "p") is None
    world.end("p", 226)
    assert world.cluster.pod_exit_code(world.namespace, "p") == 226
    assert world.cluster.pod(world.namespace, "p").is_finished


def test_a_pod_that_is_not_bound_has_no_log(world):
    world.pod("p", nodeSelector={"kubernetes.io/hostname": f"{world.id}-nobody"})
    assert world.cluster.pod_log(world.namespace, "p") == ""


# --------------------------------------------------------------------------- events and config maps


def test_an_event_is_found_at_its_node(world):
    name = world.node()
    node = world.cluster.node(name)
    world.cluster.post_event(node, reason="Quarantined", message="XID 79", is_warning=True)
    (event,) = world.core.list_namespaced_event(
        "default", field_selector=f"involvedObject.name={name},reason=Quarantined"
    ).items
    assert (event.type, event.message) == ("Warning", "XID 79")
    assert event.source.component == "breakfix"
    assert event.involved_object.uid == node.uid
    world.core.delete_namespaced_event(event.metadata.name, "default")


def test_a_config_map_is_created_once(world):
    cluster, namespace = world.cluster, world.namespace
    assert cluster.config_map(namespace, "owner") is None
    assert cluster.create_config_map(namespace, "owner", {"ledger": "a"})
    assert not cluster.create_config_map(namespace, "owner", {"ledger": "b"})
    assert cluster.config_map(namespace, "owner") == {"ledger": "a"}
    cluster.update_config_map(namespace, "owner", {"audit_seq": "7"})
    assert cluster.config_map(namespace, "owner") == {"ledger": "a", "audit_seq": "7"}


def test_a_namespace_is_made_where_it_is_missing(world):
    name = f"{world.id}-two"
    try:
        world.cluster.ensure_namespace(name)
        world.cluster.ensure_namespace(name)
        assert world.core.read_namespace(name).metadata.name == name
        with pytest.raises(NotFound):
            world.cluster.create_config_map(f"{world.id}-three", "x", {})
    finally:
        world.core.delete_namespace(name)


# --------------------------------------------------------------------------- connecting


def test_wrong_credentials_are_a_setting(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text("apiVersion: v1\nkind: Config\nclusters: []\ncontexts: []\nusers: []\n")
    with pytest.raises(SettingsError, match="BREAKFIX_KUBECONFIG"):
        connect(kubeconfig=str(path), context="nobody")
    with pytest.raises(SettingsError, match="BREAKFIX_KUBECONFIG is not set, and no in-cluster"):
        connect()


def test_a_server_that_is_not_there_is_a_transient_error(tmp_path):
    path = tmp_path / "kubeconfig"
    path.write_text(
        "apiVersion: v1\nkind: Config\ncurrent-context: x\n"
        "clusters: [{name: x, cluster: {server: 'http://127.0.0.1:9'}}]\n"
        "contexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {}}]\n"
    )
    cluster = connect(kubeconfig=str(path), timeout_s=1.0)
    began = time.monotonic()
    with pytest.raises(ClusterError) as caught:
        cluster.node("a")
    cluster.close()
    assert caught.value.is_transient
    assert time.monotonic() - began < 10


# --------------------------------------------------------------------------- asking a pod


def test_a_pod_is_marked_and_keeps_what_others_wrote_on_it(world):
    uid = world.pod("p", world.node(), annotations={"theirs": "stays"})
    marks = {"breakfix.dev/checkpoint": "c1"}
    asked = {"annotations": marks, "labels": {"x": "requested"}}
    assert world.cluster.mark_pod(world.namespace, "p", uid, **asked)
    pod = world.cluster.pod(world.namespace, "p")
    assert pod.annotations["theirs"] == "stays"
    assert (pod.annotations["breakfix.dev/checkpoint"], pod.labels["x"]) == ("c1", "requested")


def test_a_pod_of_another_uid_or_none_is_not_marked(world):
    world.pod("p", world.node())
    asked = {"annotations": {"breakfix.dev/checkpoint": "c1"}, "labels": {}}
    assert not world.cluster.mark_pod(world.namespace, "p", str(uuid.uuid4()), **asked)
    assert "breakfix.dev/checkpoint" not in world.cluster.pod(world.namespace, "p").annotations
    assert not world.cluster.mark_pod(world.namespace, "gone", str(uuid.uuid4()), **asked)


def test_a_pod_tells_who_holds_it_and_until_when_it_may_stop(world):
    uid = world.pod("p", world.node(), finalizers=["breakfix.dev/test"])
    assert world.cluster.pod(world.namespace, "p").finalizers == ("breakfix.dev/test",)
    assert evict(world, "p", uid, grace_s=60).status == "evicted"
    pod = world.cluster.pod(world.namespace, "p")
    assert pod.is_terminating
    assert 0 < (pod.stops_by - datetime.now(UTC)).total_seconds() <= 61
    world.core.patch_namespaced_pod("p", world.namespace, {"metadata": {"finalizers": None}})
