"""None, one, too many, some: what a plan makes of the number of nodes it meets."""

from __future__ import annotations

import pytest

from breakfix.model import CaseEnd, NodeState, RefusalReason
from tests.fakes_cluster import FakeCluster
from tests.flow.world import FlowWorld

MANY = tuple(f"{rack}{n}" for rack in "abcdefgh" for n in range(4))
ONE_A_RACK = "limits: {out: {fleet: {share: 0.5}, pool: {nodes: 3}, sku: {nodes: 9}}}"


def refusals(swept):
    return {r.node: r.reason for r in swept.refusals}


def test_empty_input_no_nodes_at_all():
    """The cluster has no node, no pod and no metrics.

    Lost: nothing; the sweep ends well, plans nothing and writes nothing to the cluster.
    """
    world = FlowWorld(nodes=())
    swept = world.road.sweep()
    assert (swept.cases, swept.refusals, swept.ended) == ((), (), ())
    assert not world.cluster.writes()
    assert world.is_audit_sound()


def test_empty_input_nodes_without_any_telemetry():
    """Prometheus answers, and knows none of the nodes.

    Lost: nothing; silence condemns nobody and clears nobody, and every node stays in service.
    """
    world = FlowWorld()
    world.metrics.silent = set(world.nodes)
    world.run_for(900)
    assert not world.ledger.cases()
    assert all(world.is_in_service(n) for n in world.nodes)


def test_no_eligible_node():
    """Every faulty node has its own reason to be left alone.

    Lost: nothing; each refusal is recorded with its guardrail, and no node is touched.
    """
    world = FlowWorld(nodes=("a1", "b1", "c1", "d1", "e1", "f1"))
    world.cluster.change_node("a1", is_unschedulable=True)
    world.cluster.change_node("b1", labels={"breakfix.dev/exclude": "true"})
    world.cluster.change_node("c1", labels={"node-role.kubernetes.io/control-plane": ""})
    world.cluster.change_node("d1", annotations={"weave.works/kured-reboot-in-progress": "x"})
    world.cluster.add_pod("bare", "e1", owners=())
    world.metrics.untied.add("f1")
    for name in ("b1", "c1", "d1"):
        labels = dict(world.node(name).labels) | {"nvidia.com/gpu.present": "true"}
        world.cluster.change_node(name, labels=labels)
    before = {n: world.node(n) for n in world.nodes}
    said = {}
    for name in world.nodes:  # one at a time: together they would be a crowd
        world.metrics.xids.clear()
        world.break_node(name)
        said |= refusals(world.road.sweep())
        world.clock.sleep(60)
    assert said == {
        "a1": RefusalReason.FOREIGN_CORDON,
        "b1": RefusalReason.EXCLUDED,
        "c1": RefusalReason.PROTECTED,
        "d1": RefusalReason.OTHER_OWNER,
        "e1": RefusalReason.POD_REFUSED,
        "f1": RefusalReason.NOT_CORROBORATED,
    }
    assert {n: world.node(n) for n in world.nodes} == before
    assert not world.ledger.cases()


def test_one_eligible_node():
    """Of five nodes one is faulty and free to go.

    Lost: nothing; that one is repaired and returned, and nothing is ever written on the others.
    """
    world = FlowWorld(nodes=("a1", "a2", "b1", "b2", "c1"))
    world.break_node("b1")
    world.drive(world.ended("b1"))
    assert world.case("b1").end is CaseEnd.RETURNED
    assert world.is_in_service("b1")
    touched = {c[1][0] for c in world.cluster.writes() if c[0] == "patch_node"}
    assert touched == {"b1"}


def test_many_over_the_limit():
    """Eight of 32 nodes are faulty, one in each rack, and three may be out at a time.

    Lost: nothing; never more than three are out, and all eight are repaired, one after another.
    """
    world = FlowWorld(
        nodes=MANY, overlay=ONE_A_RACK + "\ncommon_cause: {min_nodes: 20, surge_nodes: 20}"
    )
    broken = [n for n in MANY if n.endswith("0")]
    for name in broken:
        world.break_node(name)
    most = 0
    while not world.ended(*broken)():
        world.tick()
        most = max(most, sum(n.is_out for n in world.cluster._nodes.values()))
        assert world.clock.monotonic() < 12 * 3600
    assert most == 3
    assert {world.case(n).end for n in broken} == {CaseEnd.RETURNED}


def test_many_over_the_limit_is_a_storm():
    """Half of the fleet accuses itself at once.

    Lost: nothing; a crowd is one incident, no node of it is touched, and people hear of it.
    """
    world = FlowWorld(nodes=MANY)
    for name in MANY[::2]:
        world.break_node(name)
    world.run_for(1800)
    assert not world.cluster.writes()
    assert not world.ledger.cases()
    assert world.ledger._incidents


PROTECTORS = [
    pytest.param({"labels": {"app.kubernetes.io/name": "airflow"}}, id="Airflow"),
    pytest.param({"labels": {"app.kubernetes.io/name": "postgresql"}}, id="the ledger"),
    pytest.param({"labels": {"app.kubernetes.io/name": "prometheus"}}, id="Prometheus"),
]


@pytest.mark.parametrize("pod", PROTECTORS)
def test_protected_node_hosts_what_we_need(pod):
    """The faulty node runs Airflow, the ledger or Prometheus.

    Lost: nothing; it is refused as protected in every sweep, and stays as it was.
    """
    world = FlowWorld()
    world.cluster.add_pod("own", "a1", **pod)
    world.break_node("a1")
    before = world.node()
    assert refusals(world.road.sweep()) == {"a1": RefusalReason.PROTECTED}
    world.run_for(600)
    assert world.node() == before


@pytest.mark.parametrize("pod", PROTECTORS)
def test_protected_node_becomes_one_while_its_case_waits(pod):
    """The scheduler moves Airflow, the ledger or Prometheus onto a tolerated, quarantined node.

    Lost: nothing; no pod of it is evicted, the node is not rebooted, and a person gets the case.
    """
    world = FlowWorld()
    world.break_node("a1")
    world.cluster.add_pod("web", "a1", gpus=1)
    world.silence.add("repair")
    world.drive(world.is_held_out)
    world.cluster.add_pod("own", "a1", **pod)
    world.silence.clear()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert {("work", "own"), ("work", "web")} <= set(world.cluster._pods)
    assert not world.ran


def test_budget_blocks_drain_before_the_cordon():
    """A disruption budget over a pod of the faulty node allows nothing.

    Lost: nothing; the node is not even cordoned, and the refusal names the budget and the pod.
    """
    world = FlowWorld()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.break_node("a1")
    swept = world.road.sweep()
    (said,) = swept.refusals
    assert said.reason is RefusalReason.BUDGET
    assert "work/web" in said.text
    assert "web-1" in said.text
    assert world.is_in_service()


def test_budget_blocks_drain_after_the_cordon():
    """The budget closes after the node was admitted, and never opens again.

    Lost: nothing; the pod is never forced, the drain ends at its deadline, and a person gets the
    case with the blocker named.
    """
    world = FlowWorld()
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=1)
    world.break_node("a1")
    world.silence.add("repair")
    world.drive(world.is_held_out)
    world.cluster.allow("web", 0)
    world.silence.clear()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert ("work", "web-1") in world.cluster._pods
    assert not world.ran
    assert "web-1" in world.why()


def test_partial_success_one_of_two_repairs_fails():
    """Two nodes are repaired at once; one of them gets well by no reset and no reboot.

    Lost: nothing; the good one returns to service, the other stays out with a person told.
    """
    world = FlowWorld(reboot_works=False)
    world.break_node("a1", 95)
    world.break_node("b1", 95)
    run = world._run

    def unlike(key, pod, step):
        world.reset_exit = 1 if pod.node == "b1" else 0
        run(key, pod, step)

    world._run = unlike
    world.drive(world.ended("a1", "b1"), within_s=14400)
    assert world.case("a1").end is CaseEnd.RETURNED
    assert world.is_in_service("a1")
    assert world.case("b1").end is CaseEnd.ESCALATED
    assert world.is_held_out("b1")
    assert world.ledger.node_records()["b1"].state is NodeState.ESCALATED


def test_partial_success_of_a_drain():
    """Of three pods two can be evicted, the third is held by its budget for a while.

    Lost: nothing; no pod is evicted twice, and the drain goes on once the budget allows it.
    """
    world = FlowWorld()
    for n in (1, 2):
        world.cluster.add_pod(f"web-{n}", "a1")
    world.cluster.add_pod("db-1", "a1", labels={"app": "db"})
    world.cluster.add_budget("db", {"app": "db"}, allowed=1)
    world.break_node("a1")
    world.silence.add("repair")
    world.drive(world.is_held_out)
    world.cluster.allow("db", 0)
    world.silence.clear()
    world.drive(lambda: ("work", "web-2") not in world.cluster._pods)
    world.run_for(60)
    assert ("work", "db-1") in world.cluster._pods
    assert world.case().is_open
    world.cluster.allow("db", 1)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    evicted = [
        e.detail["pod"] for e in world.ledger.audit_entries(limit=9999) if e.event == "pod.evicted"
    ]
    assert sorted(evicted) == ["work/db-1", "work/web-1", "work/web-2"]


def test_partial_success_of_a_sweep_that_dies_half_way():
    """The API fails after the first of two nodes is quarantined.

    Lost: nothing; both cases are open and leased, and the second node is quarantined by its run.
    """
    world = FlowWorld(cluster=FakeCluster())
    world.break_node("a1")
    world.break_node("b1")
    patched = []
    patch = world.cluster.patch_node

    def first_only(name, *rest):
        if patched and name not in patched and len(patched) < 2:
            patched.append(name)
            world.cluster.fail("patch_node", times=1)
        patched.append(name)
        return patch(name, *rest)

    world.cluster.patch_node = first_only
    world.road.sweep()
    assert [world.is_held_out(n) for n in ("a1", "b1")] == [True, False]
    assert len(world.ledger.cases(open_only=True)) == 2
    world.drive(world.ended("a1", "b1"), within_s=14400)
    assert {world.case(n).end for n in ("a1", "b1")} == {CaseEnd.RETURNED}


def test_f39_a_ready_node_with_a_dead_gpu_does_not_eat_the_queue():
    """A node is Ready with a dead GPU: whatever lands there fails within seconds, so more lands.

    Lost: nothing; one sweep later it is cordoned and tainted, and no further pod is put there until
    it is repaired and checked.
    """
    world = FlowWorld()
    world.break_node("a1")
    for n in range(40):
        pod = world.cluster.add_pod(f"train-{n}", "a1", gpus=8)
        world.cluster.finish_pod(pod.namespace, pod.name, 1)
    assert world.node().is_ready
    world.road.sweep()
    assert world.is_held_out()
    world.drive(world.ended(), within_s=14400)
    assert (world.case().end, world.ran["reboot"]) == (CaseEnd.RETURNED, 1)
    assert world.is_in_service()
