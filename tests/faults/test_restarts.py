"""Processes, views and queues of before: half-written nodes, old events, old runs, late news."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.flow.case import run_stage, settle_question
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import sweep
from breakfix.model import Answer, CaseEnd, NodeState, Purpose, StepStatus, Taint
from breakfix.observe.promql import fact_query
from breakfix.ports import QueryResult, Sample
from breakfix.rulebook.cases import parse_cases
from breakfix_airflow.sweeps import start_listed
from tests.contract.test_policy_cases import failures
from tests.fakes_ledger import FakeLedger
from tests.flow.world import FlowWorld

OURS = Taint("breakfix.dev/quarantine", "NoSchedule", "gpu_off_bus")
CASE, BY_US, STATE = (f"breakfix.dev/{k}" for k in ("case", "cordoned-by-us", "state"))


def waiting(**changes):
    """A case of a1 that waits for a yes to its repair, with two pods on the node."""
    world = FlowWorld(**changes)
    for name in ("web-1", "web-2"):
        world.cluster.add_pod(name, "a1")
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    return world


def everything_dies(world):
    """Scheduler, triggerer and tasks are gone; the ledger, the cluster and people are not."""
    for run in list(world.road.runs):
        world.road.kill(run)


def work_pods(world):
    return sorted(n for space, n in world.cluster._pods if space == "work")


def is_calm(world, *, pods=("web-1", "web-2")):
    """Nobody's pod was moved, nothing was repaired, the audit is whole."""
    return work_pods(world) == sorted(pods) and not world.ran and world.is_audit_sound()


# --------------------------------------------------------------------------- late views


def test_f12_a_late_list_of_nodes_shows_the_node_as_before_its_quarantine():
    """A sweep works on a list from before the quarantine: schedulable, no marks, fault still seen.

    Lost: nothing; the ledger knows the case, one quarantine stands, and the late list ends nothing.
    """
    world = FlowWorld()
    late = world.cluster.nodes()
    world.break_node("a1")
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    case, nodes = world.case(), world.cluster.nodes
    world.cluster.nodes = lambda: late
    for _ in range(3):
        assert not sweep(world.services).cases
        reconcile(world.services, world.road)
    world.cluster.nodes = nodes
    assert world.ledger.cases() == (case,)
    assert world.is_held_out()


def test_f12_a_late_list_of_nodes_shows_a_cordon_that_a_person_has_lifted():
    """A person took the node back, and the list still shows it quarantined.

    Lost: nothing; whoever acts reads the node itself, so that the drain that was due is not begun.
    """
    world = waiting()
    late = world.cluster.nodes()
    world.uncordon("a1")
    world.cluster.nodes = lambda: late
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert is_calm(world)


@pytest.mark.parametrize("news", ["fault", "nothing", "silence"], ids="last: {}".format)
def test_f12_healthy_and_unhealthy_news_of_one_node_mix(news):
    """Every look tells something else of the node: an XID, no XID, no telemetry at all.

    Lost: nothing; there is one case, the XID stands until a repair, and no look uncordons the node.
    """
    world = waiting()
    xids = list(world.metrics.xids)
    for turn in range(12):
        what = news if turn == 11 else ("fault", "nothing", "silence")[turn % 3]
        world.metrics.xids[:] = xids if what == "fault" else []
        world.metrics.silent = {"a1"} if what == "silence" else set()
        sweep(world.services)
        reconcile(world.services, world.road)
        world.clock.sleep(20)
    assert len(world.ledger.cases()) == 1
    assert world.case().state is NodeState.QUARANTINED
    assert world.is_held_out()
    assert is_calm(world)


# --------------------------------------------------------------------------- half of the marks


HALVES = {
    "the cordon only": {"taints": (), "annotations": {}, "labels": {}},
    "the taint only": {"is_unschedulable": False, "annotations": {}, "labels": {}},
    "the annotations only": {"is_unschedulable": False, "taints": (), "labels": {}},
    "all but the annotation that says whose cordon it is": {"annotations": {CASE: "$case"}},
    "all but the state label": {"labels": {}},
}


def half(world, changes):
    kept = dict(changes)
    if kept.get("annotations") == {CASE: "$case"}:
        kept["annotations"] = {CASE: world.case().id}
    world.cluster.change_node("a1", **kept)


@pytest.mark.parametrize("changes", HALVES.values(), ids=HALVES)
def test_f13_an_open_case_finds_half_of_its_marks_after_a_restart(changes):
    """While nothing of ours ran, somebody took a part of our marks off the node.

    Lost: nothing; a lifted cordon or taint is a person's word, a lost label is written again, and a
    node that stays out has an owner.
    """
    world = waiting()
    everything_dies(world)
    half(world, changes)
    world.metrics.xids.clear()
    world._sweep_at = world.clock.now() + timedelta(days=1)
    for _ in range(3):
        reconcile(world.services, world.road)
    node, case = world.node(), world.case()
    has_owner = case.is_open or case.end is CaseEnd.ESCALATED
    is_persons = case.end is CaseEnd.OVERRIDDEN and not world.taints()
    assert has_owner or is_persons
    assert not (world.taints() and not has_owner)
    if case.is_open:
        assert node.labels[STATE] == case.state
    assert is_calm(world)


@pytest.mark.parametrize("cordoned", [True, False], ids=["cordoned", "in service"])
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"taints": (OURS,)}, id="taint"),
        pytest.param({"taints": (Taint(OURS.key, "NoExecute"),)}, id="a taint of an older form"),
        pytest.param({"annotations": {CASE: "2024-case-7"}}, id="a case of an older form"),
        pytest.param({"annotations": {BY_US: "yes"}}, id="a value of an older form"),
        pytest.param({"labels": {STATE: "cordoned"}}, id="a state of an older form"),
        pytest.param({"annotations": {BY_US: "true"}, "taints": (OURS,)}, id="all but the case"),
    ],
)
def test_f13_marks_of_nobody_are_found_after_a_restart(changes, cordoned):
    """The ledger knows no case for marks of ours, whole or half, of this form or of an older one.

    Lost: nothing; a node that is out becomes an escalated case, one in service loses the marks.
    """
    world = FlowWorld()
    world.cluster.change_node("a1", is_unschedulable=cordoned, **changes)
    world.run_for(60)
    assert world.node().is_unschedulable == cordoned
    if cordoned:
        assert world.case().end is CaseEnd.ESCALATED
        assert any("a1" in subject for subject, _ in world.notifier.told)
    else:
        assert world.is_in_service()
        assert not world.ledger.cases()
    assert not world.ran


# --------------------------------------------------------------------------- cold starts


def boots_are_told(world, booted):
    """Telemetry that also tells when nodes booted."""
    policy, ask = world.services.policy, world.metrics.query_many
    question = fact_query(policy.facts["boot_time"], policy.names)

    def query_many(queries, *, at):
        told = {
            name: QueryResult(
                tuple(Sample({"node": n}, when.timestamp()) for n, when in booted.items())
            )
            for name, promql in queries.items()
            if promql == question
        }
        return {**ask(queries, at=at), **told}

    world.metrics.query_many = query_many


def test_f14_an_empty_start_meets_an_event_from_before_the_nodes_boot():
    """The XID is in Prometheus' memory; a person has rebooted the node since, and it is busy again.

    Lost: nothing; the event is older than the boot, no case is opened, and no pod is moved.
    """
    world = FlowWorld(overlay="classes: {gpu_off_bus: {mode: auto}}")
    world.break_node("a1")
    world.clock.sleep(1800)
    booted = {n: world.clock.now() - timedelta(minutes=20) for n in ("a1", "a2", "b1", "b2")}
    boots_are_told(world, booted)
    world.cluster.add_pod("train-1", "a1", gpus=8)
    world.run_for(600)
    assert not world.ledger.cases()
    assert is_calm(world, pods=["train-1"])


@pytest.mark.parametrize("stage", [Stage.APPROVE_REPAIR, Stage.REBOOT_NODE])
def test_f14_everything_was_down_while_a_person_mended_the_node(stage):
    """Hours later the case is still open; the node was rebooted, uncordoned, and has new work.

    Lost: nothing; the next run finds the person's hand before it does anything.
    """
    world = waiting()
    if stage is Stage.REBOOT_NODE:
        world.silence.clear()
        world.drive(world.at_stage(stage))
    everything_dies(world)
    world.clock.sleep(5 * 3600)
    world.cluster.reboot("a1")
    world.uncordon("a1")
    for name in ("web-1", "web-2"):
        world.cluster.add_pod(name, "a1", uid=f"{name}-new")
    world.run_for(900)
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert not world.node().is_unschedulable
    assert is_calm(world)


def test_f14_the_node_has_rebooted_and_is_busy_under_our_quarantine():
    """It was drained for its reboot; all died; it rebooted by itself, and tolerating pods came.

    Lost: nothing; the reboot was for another boot and is not sent, and people are told.
    """
    world = waiting()
    world.silence.clear()
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    everything_dies(world)
    world.cluster.reboot("a1")
    world.cluster.add_pod("train-1", "a1", gpus=8)
    world.drive(world.ended())
    assert world.ran["reboot"] == 0
    assert work_pods(world) == ["train-1"]
    assert world.case().end in {CaseEnd.ESCALATED, CaseEnd.ABORTED}


# --------------------------------------------------------------------------- what is played again


ACTS = (
    *(Stage.BEGIN, Stage.DRAIN, Stage.RESET_GPU, Stage.REBOOT_NODE, Stage.CHECK_GPUS),
    *(Stage.RUN_DIAG, Stage.RETURN_NODE, Stage.ESCALATE),
)


@pytest.mark.parametrize("how", ["ended", "taken over", "held"])
def test_f15_the_whole_queue_of_before_the_restart_is_played_again(how):
    """Every task of an old run is run once more, in order and against it, on a node back at work.

    Lost: nothing; an ended case, an old fence and a hold are found first, and nothing is written.
    """
    world = waiting()
    old = world.case()
    if how == "ended":
        world.silence.clear()
        world.drive(world.ended())
        old = world.case()
    elif how == "taken over":
        now = world.clock.now()
        world.ledger.take_over(old.id, old.fence, actor="ann", reason="t", now=now)
    else:
        world.ledger.hold(old.id, actor="cli:ann", reason="t", now=world.clock.now())
    writes, head, ran = len(world.cluster.writes()), world.ledger.head(), dict(world.ran)
    for stage in (*ACTS, *reversed(ACTS)):
        assert run_stage(world.services, stage, old.id, old.fence).to is Stage.SETTLE_RUN
    assert (len(world.cluster.writes()), world.ledger.head()) == (writes, head)
    assert dict(world.ran) == ran


def test_f15_an_old_yes_is_delivered_again_after_the_case_changed_hands():
    """The message queue delivers the yes to a question of a run that is no longer the case's.

    Lost: nothing; it opens nothing, and the new run's own question still waits.
    """
    world = waiting()
    old = world.case()
    now = world.clock.now()
    world.ledger.take_over(old.id, old.fence, actor="ann", reason="t", now=now)
    said = [Answer("oncall", is_yes=True, channel="cli", at=now)]
    went = settle_question(world.services, old.id, old.fence, Purpose.REPAIR, said)
    assert went.to is Stage.SETTLE_RUN
    assert not any(s.name.startswith("drain") for s in world.ledger.steps(old.id))
    assert is_calm(world)


def test_f15_the_list_of_cases_to_start_is_handed_on_twice_and_late():
    """The task that starts the cases' runs is cleared and run again when they have long ended.

    Lost: nothing; only an open case at that very fence gets a run, and only its first.
    """
    world = waiting()
    case = world.case()
    listed = [{"case_id": case.id, "fence": case.fence}]
    assert start_listed(world.ledger, world.road, listed) == []
    world.silence.clear()
    world.drive(world.ended())
    runs = set(world.road.runs)
    assert start_listed(world.ledger, world.road, listed) == []
    assert set(world.road.runs) == runs


def test_f15_a_ledger_of_before_comes_back_with_the_case_still_open():
    """The database was restored to before the node's return; its old case is open in it again.

    Lost: nothing; the cluster has seen a later entry of the audit, and nobody acts by this ledger.
    """
    world = waiting()
    old = FakeLedger("test")
    old.__dict__.update({k: _copy(v) for k, v in world.ledger.__dict__.items() if k != "_lock"})
    world.silence.clear()
    world.drive(world.ended())
    world.cluster.add_pod("train-1", "a1", gpus=8)
    writes = len(world.cluster.writes())
    world.services = replace(world.services, ledger=old)
    case = old.cases()[-1]
    assert case.is_open
    for stage in ACTS:
        assert run_stage(world.services, stage, case.id, case.fence).to is Stage.SETTLE_RUN
    assert len(world.cluster.writes()) == writes


def _copy(value):
    return value.copy() if hasattr(value, "copy") else value


# --------------------------------------------------------------------------- a clock set back


SECOND_FAILURE = """
cases:
  - name: a second failure resets the time since which the node is bad
    nodes: [{at: -1m, conditions: {Ready: 'False'}}]
    series:
      - metric: kube_node_status_condition
        per: once
        labels: {node: node, condition: Ready, status: 'true'}
        values: 1x30 0x14
        start: -1350
    telemetry: {exporters: [dcgm, node]}
    expect: {class: node_not_ready, action: review, findings: {ksm_not_ready: 1}}
"""


def test_f38_a_second_failure_resets_the_conditions_transition_time():
    """Ready is False for seven minutes; another failure a minute ago set its transition time anew.

    Lost: nothing; the series of kube-state-metrics still tells the seven minutes, and people hear.
    """
    assert failures(parse_cases(SECOND_FAILURE, "f38")) == {}


def test_f38_more_failures_of_a_node_do_not_put_its_deadlines_off():
    """New XIDs keep coming while the case waits for a yes that nobody gives.

    Lost: nothing; the question ends when it was to end, and the node's case with it.
    """
    world = waiting()
    (asked,) = world.ledger.approvals(world.case().id)
    while world.case().is_open and world.clock.now() < asked.expires_at + timedelta(hours=2):
        world.break_node("a1", xid=95)
        world.run_for(60)
    late = (world.case().ended_at - asked.expires_at).total_seconds()
    assert world.case().end is CaseEnd.ESCALATED
    assert late <= 120
    assert len(world.ledger.cases()) == 1


def test_f38_more_failures_do_not_put_the_deadline_of_a_drain_off():
    """A budget holds the drain, and new XIDs of the node come in every sweep.

    Lost: nothing; the drain is overdue when it was to be, whatever else is seen meanwhile.
    """
    world = waiting()
    world.cluster.add_budget("web", {"app": "web"}, allowed=0)
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.drive(lambda: "drain-1" in world.steps())
    began = world.clock.now()
    until = began + timedelta(seconds=world.services.policy.drain.timeout_s)
    while world.steps()["drain-1"] is StepStatus.DISPATCHED and world.clock.now() < until:
        world.break_node("a1", xid=95)
        world.run_for(30)
    world.run_for(90)
    assert world.steps()["drain-1"] is not StepStatus.DISPATCHED or world.case().held_by
    assert work_pods(world) == ["web-1", "web-2"]
