"""Drains that people, pods, nodes and the API server interfere with."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.errors import ClusterError
from breakfix.flow.by_hand import drain_by_hand
from breakfix.flow.case import run_stage
from breakfix.flow.drain_endings import resume_case
from breakfix.flow.holds import OVERDUE_HOLD, REPLACED_HOLD
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.model import CaseEnd, NodeState, Owner, StepStatus
from breakfix.ports import Eviction
from tests.flow.world import FlowWorld

HOLD = "drain: {overdue: hold, hold_for: 2h}"


def pods_on(world, node="a1"):
    """Besides ours."""
    pods = (p for p in world.cluster._pods.values() if "breakfix.dev/case" not in p.labels)
    return sorted(p.name for p in pods if p.node == node)


def draining(*pods, overlay="", blocked=True, **changes):
    """A case of a1 whose drain has begun, and which a budget holds unless `blocked` is False."""
    world = FlowWorld(overlay=overlay, **changes)
    for name in pods or ("web-1",):
        world.cluster.add_pod(name, "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=9)
    world.break_node("a1")
    if blocked:
        world.drive(lambda: bool(world.ledger.cases(node="a1")))
        world.cluster.allow("web", 0)
    world.drive(world.at_stage(Stage.DRAIN))
    return world


def state_fault(overlay="", pods=("web-1",)):
    """A node that offers a GPU too few: a state, which can go by itself. Its drain is blocked."""
    world = FlowWorld(overlay=overlay)
    world.add_plugin("a1")
    for name in pods:
        world.cluster.add_pod(name, "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=1)
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.drive(lambda: bool(world.ledger.cases(node="a1")))
    world.cluster.allow("web", 0)
    world.drive(lambda: step(world) is not None)
    return world


def step(world, name="drain-1"):
    """The step of a1's case, or None before it."""
    cases = world.ledger.cases(node="a1")
    known = world.ledger.steps(cases[-1].id) if cases else ()
    return next((s for s in known if s.name == name), None)


def drain(world):
    return step(world)


def is_held(world, by=OVERDUE_HOLD):
    return lambda: any(c.held_by == by for c in world.ledger.cases(node="a1"))


def reconciled(world):
    return reconcile(world.services, world.road)


# --------------------------------------------------------------------------- people


def test_f08_a_person_uncordons_in_the_middle_of_a_drain():
    """A person uncordons the node while half of its pods are evicted.

    Lost: nothing; not one pod more is evicted, no repair is ever sent, and the node stays theirs.
    """
    world = draining("a", "b", "c", "d", blocked=False)
    world.cluster.before["evict"] = lambda: world.uncordon("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert [a[1] for m, a in world.cluster.calls if m == "evict"] == ["a"]
    world.run_for(600)
    assert not world.ran
    assert world.is_in_service()
    assert world.is_audit_sound()


def test_f08_a_person_uncordons_while_the_drain_waits():
    """A person uncordons the node while a budget holds its drain.

    Lost: nothing; the pod stays where it is, and the case ends as theirs.
    """
    world = draining()
    world.uncordon("a1")
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert pods_on(world) == ["web-1"]
    assert world.is_in_service()


@pytest.mark.parametrize("by", ["the drain", "the reconciler"])
def test_f08_a_person_uncordons_a_node_whose_drain_is_on_hold(by):
    """The drain was overdue and is on hold; a person uncordons the node.

    Lost: nothing; the hold is ours, so it does not keep the case from ending as theirs.
    """
    world = draining(overlay=HOLD)
    world.drive(is_held(world))
    world.uncordon("a1")
    if by == "the drain":
        resume_case(world.services, world.case().id, actor="cli:ann", reason="")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert pods_on(world) == ["web-1"]
    assert world.is_in_service()


def test_f09_a_person_takes_only_our_taint_away():
    """A person takes our taint off the node in the middle of a drain, and leaves the cordon.

    Lost: nothing; the drain stops at the next pod, and the cordon is left: it is theirs now.
    """
    world = draining("a", "b", blocked=False)
    world.cluster.before["evict"] = lambda: world.cluster.change_node("a1", taints=())
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert [a[1] for m, a in world.cluster.calls if m == "evict"] == ["a"]
    assert world.node().is_unschedulable
    assert not world.ran


# --------------------------------------------------------------------------- the node


def test_f10_the_node_is_deleted_during_the_drain():
    """The node is deleted while its pods are being evicted.

    Lost: nothing; the case ends, its place is free, and nothing is done to another of that name.
    """
    world = draining("a", "b", blocked=False)

    def delete():
        world.cluster.remove_node("a1")
        world.cluster._pods.clear()

    world.cluster.before["evict"] = delete
    world.drive(world.ended())
    assert world.case().end is CaseEnd.NODE_GONE
    assert not world.ledger.leases()
    assert not world.ran


def test_f11_the_node_recovers_while_its_drain_waits():
    """The fault goes away by itself while a budget holds the drain.

    Lost: nothing; the next sweep gives the node back with its pod still on it, unrepaired.
    """
    world = state_fault()
    world.cluster.change_node("a1", gpus_allocatable=8)
    began = world.clock.now()
    world.drive(world.ended())
    assert world.clock.now() - began < timedelta(minutes=3)
    assert world.case().end is CaseEnd.ABORTED
    assert pods_on(world) == ["plugin-a1", "web-1"]
    assert world.is_in_service()
    assert not world.ledger.leases()


def test_f11_the_node_recovers_just_as_its_drain_ends():
    """A sweep finds the node well, while its case's run ends the drain and begins the repair.

    Lost: nothing; a node under repair is not put to work, it goes on with the next run.
    """
    world = state_fault()
    world.cluster.change_node("a1", gpus_allocatable=8)
    case, take_over = world.case(), world.ledger.take_over

    def repaired_first(*args, **kwargs):
        world.ledger.take_over = take_over
        now = world.clock.now()
        world.ledger.finish_step(case.id, 1, "drain-1", StepStatus.DONE, detail={}, now=now)
        world.ledger.move(
            case.id, 1, NodeState.REPAIRING, actor="node_case", reason="drained", now=now
        )
        return take_over(*args, **kwargs)

    world.ledger.take_over = repaired_first
    world.road.sweep()
    assert (world.case().is_open, world.case().state) == (True, NodeState.REPAIRING)
    assert world.is_held_out()
    assert reconciled(world).started == [f"{case.id}.2"]


def test_f11_what_cannot_be_told_is_no_recovery():
    """The exporters and the node fall silent while a budget holds the drain.

    Lost: nothing; silence gives nothing back, and the node stays out.
    """
    world = state_fault()
    world.metrics.silent.add("a1")
    world.run_for(180)
    assert world.case().is_open
    assert world.is_held_out()


def test_f11_an_event_stands_until_a_repair():
    """An XID is no longer seen while a budget holds the drain.

    Lost: nothing; the GPU did fail, so the node stays out until it is repaired.
    """
    world = draining()
    world.metrics.xids.clear()
    world.run_for(180)
    assert world.case().is_open
    assert world.is_held_out()


# --------------------------------------------------------------------------- pods that do not go


def test_f24_a_budget_is_never_satisfied():
    """A disruption budget allows nothing until the drain's deadline.

    Lost: nothing; the budget and its pod are named on the case and on the node, the pod runs on,
    and by policy the case waits for people.
    """
    world = draining(overlay=HOLD)
    world.drive(is_held(world))
    (blocked,) = drain(world).detail["blocked"]
    assert (blocked["pod"], blocked["kind"], blocked["name"]) == ("work/web-1", "budget", "web")
    assert any(reason == "DrainBlocked" for _, reason, _, _ in world.cluster.events)
    assert any("on hold" in subject for subject, _ in world.notifier.told)
    assert pods_on(world) == ["web-1"]
    assert world.is_held_out()
    assert not world.ran


HOLDUPS = [
    pytest.param({"finalizers": ("example.com/x",)}, {}, "finalizer", id="a finalizer"),
    pytest.param({}, {"is_ready": False}, "stuck_terminating", id="its node is not Ready"),
    pytest.param({"grace_s": 7200}, {}, "long_grace", id="a grace of two hours"),
]


@pytest.mark.parametrize(("pod", "node", "kind"), HOLDUPS)
def test_f24_an_evicted_pod_does_not_go(pod, node, kind):
    """The pod is evicted and stays: a finalizer, a dead kubelet, a very long grace.

    Lost: nothing; what keeps it is named, it is not forced, and no repair meets a running pod.
    """
    world = FlowWorld(overlay=HOLD)
    world.cluster.pods_go_at_once = False
    world.cluster.add_pod("web-1", "a1", **pod)
    world.break_node("a1")
    settle = world.cluster.settle
    if "grace_s" in pod:
        world.cluster.settle = lambda: None
    world.drive(lambda: step(world) is not None)
    if node:
        world.cluster.change_node(
            "a1", conditions=(replace(world.node().conditions[0], status="Unknown"),)
        )
    world.drive(is_held(world))
    (blocked,) = drain(world).detail["blocked"]
    assert blocked["kind"] == kind
    assert [m for m, _ in world.cluster.calls].count("evict") == 1
    assert not [m for m, _ in world.cluster.calls if m == "delete_pod"]
    assert not world.ran
    if kind == "finalizer":  # its owner lets go, and the drain goes on where the world is
        world.cluster.settle = settle
        world.cluster.change_pod("work", "web-1", finalizers=())
        world.drive(world.ended())
        assert world.case().end is CaseEnd.RETURNED


def test_f24_by_policy_a_dead_node_is_repaired_with_what_is_stuck_on_it():
    """The node is dead, so that no pod's end is ever confirmed, and policy says dead_node: leave.

    Lost: nothing; the pods were evicted and their grace is over, what is left is on record, and
    the reboot, which brings the kubelet back, ends them.
    """
    world = FlowWorld(overlay="drain: {overdue: hold, dead_node: leave}")
    world.cluster.pods_go_at_once = False
    world.cluster.add_pod("web-1", "a1")
    world.break_node("a1")
    world.drive(lambda: step(world) is not None)
    dead = (replace(world.node().conditions[0], status="Unknown"),)
    world.cluster.change_node("a1", conditions=dead)
    reboot = world.cluster.reboot

    def reboots(name):
        reboot(name)
        world.cluster.change_node(name, conditions=(replace(dead[0], status="True"),))

    world.cluster.reboot = reboots
    world.drive(lambda: drain(world).status is StepStatus.DONE)
    assert drain(world).detail["left_behind"] == ["work/web-1"]
    assert not [m for m, _ in world.cluster.calls if m == "delete_pod"]
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert pods_on(world) == []


def test_f24_people_hear_of_a_stuck_pod_before_the_deadline():
    """A pod is stuck in Terminating a minute after its grace.

    Lost: nothing; people are told then, not when the drain is overdue.
    """
    world = FlowWorld(overlay="drain: {timeout: 1h, overdue: hold}")
    world.cluster.pods_go_at_once = False
    world.cluster.add_pod("web-1", "a1", finalizers=("example.com/x",))
    world.break_node("a1")
    world.drive(lambda: step(world) is not None)
    began = world.clock.now()
    world.drive(lambda: any("needs a person" in s for s, _ in world.notifier.told))
    assert world.clock.now() - began < timedelta(minutes=3)


# --------------------------------------------------------------------------- names and lists


def test_f25_an_evicted_pod_comes_back_under_its_name():
    """The evicted pod is there again under its name, with another uid, before the next look.

    Lost: nothing; the eviction names a uid, so the new pod is only taken by its own.
    """
    world = draining("web-1", blocked=False)
    world.cluster.before["evict"] = lambda: world.cluster.add_pod("web-1", "a1", uid="another")
    world.drive(world.ended())
    evictions = [a[2] for m, a in world.cluster.calls if m == "evict"]
    assert evictions == ["uid-web-1", "another"]
    assert world.case().end is CaseEnd.RETURNED


def test_f25_a_pod_that_tolerates_everything_comes_back_each_time():
    """The successor of each evicted pod lands on the node again: it tolerates cordon and taint.

    Lost: nothing; after three times it is not evicted any more, and a person is told.
    """
    world = FlowWorld(overlay=HOLD)
    world.cluster.add_pod("agent-0", "a1")
    world.break_node("a1")
    names = iter(f"agent-{i}" for i in range(1, 99))
    real = world.cluster.evict

    def evict(*args, **options):
        answer = real(*args, **options)
        later = world.clock.now() + timedelta(seconds=1)
        world.cluster.add_pod(next(names), "a1", created_at=later)
        return answer

    world.cluster.evict = evict
    world.drive(is_held(world))
    assert drain(world).detail["evicted"] == 4
    (blocked,) = drain(world).detail["blocked"]
    assert (blocked["kind"], blocked["needs_person"]) == ("comes_back", True)
    assert any("needs a person" in subject for subject, _ in world.notifier.told)
    assert not world.ran


def test_f25_a_pod_vanishes_before_its_eviction():
    """A pod is gone between the look and its eviction.

    Lost: nothing; there is nothing to evict, and the drain is done.
    """
    world = draining("a", "b", blocked=False)
    world.cluster.before["evict"] = lambda: world.cluster.remove_pod("work", "b")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_f25_the_list_of_pods_fails():
    """The API server cannot list the node's pods, at the beginning of a pass and after it.

    Lost: nothing; an empty answer is never read from an error, and the task tries again.
    """
    world = draining(blocked=False)
    world.cluster.fail("pods", times=1)
    with pytest.raises(ClusterError):
        world.road.tick()
    assert drain_is_open(world)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert pods_on(world) == []


def drain_is_open(world):
    return step(world) is None or step(world).status is StepStatus.DISPATCHED


# --------------------------------------------------------------------------- ladders

LADDERS = """
drain:
  timeout: 40m
  overdue: hold
  ladders:
    - {name: system, namespaces: [kube-*], skip: true}
    - name: training
      namespaces: [train]
      rungs: [{do: wait, for: 10m}, {do: checkpoint, for: 10m}, {do: evict, for: 5m}]
    - {name: storage, namespaces: [storage], order: 10, rungs: [{do: evict}]}
"""


def test_f26_each_namespace_leaves_by_its_own_ladder():
    """Pods of four namespaces are on one node: skipped, waited for, plain, and last in turn.

    Lost: nothing; training has its time and saves its work, storage goes last, system stays.
    """
    world = FlowWorld(overlay=LADDERS)
    for name, space in (
        ("dns", "kube-system"),
        ("job", "train"),
        ("web", "work"),
        ("s3", "storage"),
    ):
        world.cluster.add_pod(name, "a1", namespace=space)
    world.break_node("a1")
    world.drive(lambda: step(world) is not None)
    began = world.clock.now()
    world.drive(lambda: drain(world).detail.get("left") == 2)
    assert pods_on(world) == ["dns", "job", "s3"]
    assert {p["pod"]: p["rung"] for p in drain(world).detail["pods"]} == {
        "train/job": "wait",
        "storage/s3": "evict",
    }
    world.drive(lambda: "breakfix.dev/checkpoint" in job(world).annotations)
    assert world.clock.now() - began >= timedelta(minutes=10)
    saved = {**job(world).annotations, "breakfix.dev/checkpointed": world.case().id}
    world.cluster.change_pod("train", "job", annotations=saved)
    world.drive(world.ended())
    assert world.clock.now() - began < timedelta(minutes=30)
    assert [a[1] for m, a in world.cluster.calls if m == "evict"] == ["web", "job", "s3"]
    assert pods_on(world) == ["dns"]
    assert world.case().end is CaseEnd.RETURNED


def job(world):
    return world.cluster._pods["train", "job"]


def test_f26_a_pod_that_finishes_in_its_time_is_not_evicted_before():
    """A training pod finishes while its ladder still waits for it.

    Lost: nothing; it ran to its end, and the drain goes on at once.
    """
    world = FlowWorld(overlay=LADDERS)
    world.cluster.add_pod("job", "a1", namespace="train")
    world.break_node("a1")
    world.drive(lambda: step(world) is not None)
    world.run_for(120)
    assert job(world).phase == "Running"
    world.cluster.finish_pod("train", "job")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


# --------------------------------------------------------------------------- failed, and then


def test_f27_a_drain_fails_and_the_node_heals():
    """The drain is overdue and on hold, and then the fault goes away by itself.

    Lost: nothing; the node is given back with its pods, though nobody came.
    """
    world = state_fault(overlay=HOLD)
    world.drive(is_held(world))
    world.cluster.change_node("a1", gpus_allocatable=8)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ABORTED
    assert world.is_in_service()
    assert "web-1" in pods_on(world)


def test_f27_a_drain_fails_and_a_person_resumes_it():
    """The drain is overdue and on hold; its budget opens for a moment, and a person resumes it.

    Lost: nothing; it goes on from where the world is, with its time anew, to a good end.
    """
    world = draining("a", "b", overlay=HOLD)
    world.drive(is_held(world))
    world.cluster.remove_pod("work", "a")  # somebody moved it meanwhile
    said = resume_case(world.services, world.case().id, actor="cli:ann", reason="budget is open")
    assert "goes on" in said
    reconciled(world)
    world.drive(world.at_stage(Stage.DRAIN))
    assert not world.case().held_by
    world.cluster.allow("web", 1)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    evicted = [e.detail["pod"] for e in world.ledger.audit_entries() if e.event == "pod.evicted"]
    assert evicted == ["work/b"]
    assert world.ran["reboot"] == 1


def test_f27_what_held_the_drain_goes_and_it_resumes_by_itself():
    """The drain is overdue and on hold; later its budget opens.

    Lost: nothing; the reconciler takes our own hold off, and the next run goes on.
    """
    world = draining(overlay=HOLD)
    world.drive(is_held(world))
    assert not reconciled(world).started
    world.cluster.allow("web", 1)
    assert [d.kind for d in reconciled(world).drift] == ["hold_over"]
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_f27_a_drain_on_hold_for_which_nobody_comes_escalates():
    """The drain is overdue and on hold, and nobody comes for as long as policy waits.

    Lost: nothing; the wait ends, the node stays out, and its case is with people.
    """
    world = draining(overlay=HOLD)
    world.drive(is_held(world))
    world.drive(world.ended(), within_s=9000)
    assert world.case().end is CaseEnd.ESCALATED
    assert "nobody came" in world.why()
    assert world.is_held_out()
    assert pods_on(world) == ["web-1"]


def test_f27_a_persons_own_hold_is_left_alone():
    """A person holds the case of a drain that could go on.

    Lost: nothing; neither the reconciler nor the sweep takes a person's hold off.
    """
    world = draining(overlay=HOLD)
    world.ledger.hold(world.case().id, actor="cli:ann", reason="look", now=world.clock.now())
    world.cluster.allow("web", 1)
    world.run_for(1800)
    assert world.case().held_by == "cli:ann"
    assert pods_on(world) == ["web-1"]


def test_f27_a_person_takes_the_hold_of_an_overdue_drain_into_their_own_hands():
    """A person holds a case that automation holds already; later its budget opens.

    Lost: nothing; the hold is theirs, so that no reconciler takes it off, and no pod is evicted.
    """
    world = draining(overlay=HOLD)
    world.drive(is_held(world))
    world.ledger.hold(world.case().id, actor="cli:ann", reason="look", now=world.clock.now())
    world.cluster.allow("web", 1)
    world.run_for(1800)
    assert world.case().held_by == "cli:ann"
    assert pods_on(world) == ["web-1"]


def test_f27_by_policy_an_overdue_drain_gives_the_node_back():
    """The drain is overdue, and policy says uncordon.

    Lost: nothing; the node is as it was before us, with the pods that did not go.
    """
    world = draining(overlay="{drain: {overdue: uncordon}, limits: {cooldown: 2h}}")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ABORTED
    assert world.is_in_service()
    assert not world.ledger.leases()


def test_f27_a_drain_at_the_command_line_fails_and_is_begun_again():
    """`breakfix drain` is overdue and on hold; its budget opens, and the command is given again.

    Lost: nothing; the command goes on with its own case, and only it takes the hold off.
    """
    world = FlowWorld(overlay=HOLD)
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_budget("web", {"app": "web"}, allowed=1)
    told = []

    def by_hand():
        return drain_by_hand(
            world.services, "a1", requester="cli:ann", reason="test", tell=told.append
        )

    world.cluster.before["evict"] = lambda: world.cluster.allow("web", 0)
    first = by_hand()
    assert (first.is_done, first.left) == (False, 1)
    assert "on hold: overdue" in first.text
    world.cluster.allow("web", 1)
    assert not reconciled(world).started
    second = by_hand()
    assert (second.is_done, second.case_id) == (True, first.case_id)
    assert second.evicted == 1
    assert world.is_held_out()


# --------------------------------------------------------------------------- the API server


def test_f29_a_budget_that_asks_for_time_gets_it():
    """A budget that is still being counted asks for ten seconds.

    Lost: nothing; nobody asks again before, and then the pod goes.
    """
    world = draining(blocked=False)
    asked = []
    real = world.cluster.evict

    def evict(*args, **options):
        asked.append(world.clock.now())
        if len(asked) == 1:
            return Eviction("blocked", "The disruption budget web is still being processed", 10.0)
        return real(*args, **options)

    world.cluster.evict = evict
    world.drive(world.ended())
    assert (asked[1] - asked[0]).total_seconds() >= 10.0
    assert world.case().end is CaseEnd.RETURNED


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(Eviction("busy", "429 too many requests", 1.0), id="429 of fairness"),
        pytest.param(Eviction("busy", "500 internal error"), id="500"),
        pytest.param(Eviction("blocked", "still being processed", 10.0), id="429 of a new budget"),
        pytest.param(Eviction("conflict", "409"), id="409"),
    ],
)
def test_f29_an_eviction_is_answered_with_an_error(answer):
    """The API server answers evictions with 429, 500 or 409 for a while.

    Lost: nothing; they are asked again, not before the server wants, and the drain ends.
    """
    world = draining("a", "b", blocked=False)
    world.cluster.answer_evictions(*[answer] * 5)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert pods_on(world) == []


def test_f29_one_server_error_in_mid_drain_does_not_lose_the_case():
    """The API server fails reads and evictions now and then through a whole drain.

    Lost: nothing; the task fails, is tried again, and goes on from where the world is.
    """
    world = draining("a", "b", "c", blocked=False)
    for method in ("pods", "evict", "node", "daemon_sets"):
        world.cluster.fail(method)
    failures = 0
    for _ in range(40):
        try:
            world.tick()
        except ClusterError:
            failures += 1
    assert failures
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    evicted = [e.detail["pod"] for e in world.ledger.audit_entries() if e.event == "pod.evicted"]
    assert sorted(evicted) == ["work/a", "work/b", "work/c"]


def test_api_timeout_of_an_eviction_that_had_its_effect():
    """The connection breaks after the API server has taken the eviction.

    Lost: nothing; the request is on record, and the second one meets a pod that is on its way.
    """
    world = draining(blocked=False)
    world.cluster.pods_go_at_once = False
    real = world.cluster.evict

    def unheard(*args, **options):
        world.cluster.evict = real
        real(*args, **options)
        return Eviction("busy", "no answer: read timed out")

    world.cluster.evict = unheard
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    events = [e.event for e in world.ledger.audit_entries() if e.event.startswith("pod.evict")]
    assert events == ["pod.evicting", "pod.evicting", "pod.evicted"]


def test_partial_success_some_pods_go_and_others_do_not():
    """Of four pods two are evicted, one is blocked for good, one has two budgets.

    Lost: nothing; each is told truthfully, what went is gone, and what did not runs on.
    """
    world = FlowWorld(overlay=HOLD)
    for name in ("a", "b"):
        world.cluster.add_pod(name, "a1", labels={"app": "free"})
    world.cluster.add_pod("held", "a1", labels={"app": "web"})
    world.cluster.add_pod("twice", "a1", labels={"app": "two"})
    world.cluster.add_budget("web", {"app": "web"}, allowed=1)
    for name in ("x", "y"):
        world.cluster.add_budget(name, {"app": "two"}, allowed=1)
    world.break_node("a1")
    world.drive(lambda: bool(world.ledger.cases(node="a1")))
    world.cluster.allow("web", 0)
    world.drive(is_held(world))
    detail = drain(world).detail
    assert (detail["evicted"], detail["left"]) == (2, 2)
    assert {b["pod"]: b["kind"] for b in detail["blocked"]} == {
        "work/held": "budget",
        "work/twice": "budgets",
    }
    assert pods_on(world) == ["held", "twice"]
    assert world.case().state is NodeState.QUARANTINED


# --------------------------------------------------------------------------- afterwards

REPLACED = "drain: {replaced: {within: 10m, otherwise: hold}}"
RS = Owner("ReplicaSet", "web", "uid-rs")


def replacing_world(*, successor_ready, node="b1", **successor):
    world = FlowWorld(overlay=REPLACED)
    world.cluster.add_pod("web-1", "a1")
    world.cluster.add_pod("web-2", "b2")
    world.break_node("a1")
    world.cluster.before["evict"] = lambda: world.cluster.add_pod(
        "web-3", node, is_ready=successor_ready, **successor
    )
    return world


def replaced(world):
    return step(world, "replaced-1")


def test_partial_success_the_replaced_pods_are_ready_elsewhere():
    """All evicted pods come up elsewhere, one of them only after some minutes.

    Lost: nothing; the repair begins once it is proved that the workload is whole.
    """
    world = replacing_world(successor_ready=False)
    world.drive(lambda: replaced(world) is not None)
    world.run_for(60)
    assert not world.ran
    world.cluster.change_pod("work", "web-3", is_ready=True)
    world.drive(world.ended())
    assert replaced(world).status is StepStatus.VERIFIED
    assert world.case().end is CaseEnd.RETURNED


def test_partial_success_a_repair_that_is_run_by_hand_does_not_pass_the_look():
    """Somebody runs the task of the repair while the drain still waits for the pods' successors.

    Lost: nothing; the task settles, and the repair waits until the workload is whole.
    """
    world = replacing_world(successor_ready=False)
    world.drive(lambda: replaced(world) is not None)
    case = world.case()
    go = run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence)
    assert go.to is Stage.SETTLE_RUN
    assert step(world, "repair-reboot_node-1") is None
    world.cluster.change_pod("work", "web-3", is_ready=True)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def test_partial_success_a_successor_fails_elsewhere():
    """The drain is done, and the pod's successor crashes on its new node.

    Lost: nothing; the repair waits, people are told, and it goes on once the pod is Ready.
    """
    world = replacing_world(successor_ready=False, waiting="CrashLoopBackOff")
    world.drive(is_held(world, REPLACED_HOLD))
    assert "CrashLoopBackOff" in replaced(world).detail["text"]
    assert any(reason == "PodsNotReplaced" for _, reason, _, _ in world.cluster.events)
    world.run_for(900)
    assert not world.ran
    world.cluster.change_pod("work", "web-3", is_ready=True)
    world.drive(world.ended())
    assert replaced(world).status is StepStatus.DONE
    assert world.case().end is CaseEnd.RETURNED


@pytest.mark.parametrize(
    ("successor", "within_min"),
    [
        pytest.param(
            {"node": "", "phase": "Pending", "unschedulable": "0/4 nodes"}, 3, id="no place"
        ),
        pytest.param(None, 3, id="it was scaled down"),
    ],
)
def test_partial_success_no_successor_runs(successor, within_min):
    """The pod's successor finds no node, or there is none as its owner was scaled down.

    Lost: nothing; it is on record as not replaced, and the repair goes on: it gives a node back.
    """
    if successor is None:
        world = FlowWorld(overlay=REPLACED)
        world.cluster.add_pod("web-1", "a1")
        world.break_node("a1")
    else:
        world = replacing_world(successor_ready=False, **successor)
    world.drive(lambda: replaced(world) is not None)
    began = world.clock.now()
    world.drive(lambda: replaced(world).status is not StepStatus.DISPATCHED)
    assert world.clock.now() - began < timedelta(minutes=within_min)
    assert replaced(world).status is StepStatus.DONE
    assert any("not replaced" in subject for subject, _ in world.notifier.told)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
