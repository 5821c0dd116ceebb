"""Others who cordon, taint, label and annotate the same nodes, and slots that are not ours."""

from __future__ import annotations

import random
import threading
import time
from dataclasses import dataclass, field, replace

import pytest

from breakfix.act.guard import Acting, Expected
from breakfix.act.marks import is_marked
from breakfix.act.quarantine import clear_marks, quarantine, release, set_state_label
from breakfix.errors import ClusterError, Conflict, Refused
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.case import abort_case
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import sweep
from breakfix.model import (
    Case,
    CaseEnd,
    FailureClass,
    NodeState,
    Purpose,
    Refusal,
    RefusalReason,
    Taint,
)
from breakfix.policy import Limits
from breakfix.ports import NodePatch
from breakfix.settings import load_settings
from breakfix.wiring import build_cluster
from simfleet.fleet import FleetConfig
from simfleet.inprocess import SimFleet
from tests.fakes_ledger import FakeLedger
from tests.flow.world import FlowWorld
from tests.unit.act_world import FakeClock, intent

THEIRS = Taint("example.com/upgrade", "NoSchedule", "v2")


def broken(**changes):
    world = FlowWorld(**changes)
    world.break_node("a1")
    return world


def waiting(**changes):
    world = broken(**changes)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    return world


def mend(world):
    return reconcile(world.services, world.road)


# --------------------------------------------------------------------------- before us


def test_f07_a_taint_that_was_there_before_us_stays_through_a_whole_case():
    """A node with another owner's taint, label and annotation is quarantined, repaired, returned.

    Lost: nothing; when we are done the node is exactly as it was before us.
    """
    world = FlowWorld()
    world.cluster.change_node(
        "a1",
        taints=(THEIRS,),
        labels={**world.node().labels, "team": "vision"},
        annotations={"example.com/note": "keep"},
    )
    before = world.node()
    world.break_node("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    after = world.node()
    assert (after.taints, after.labels, after.annotations) == (
        before.taints,
        before.labels,
        before.annotations,
    )
    assert not after.is_unschedulable


def test_f07_a_node_that_somebody_cordoned_before_us_is_left_to_them():
    """A faulty node was cordoned by somebody else before any sweep saw the fault.

    Lost: nothing; no case is opened, not one mark of ours is put on it, and the cordon stays.
    """
    world = FlowWorld()
    world.cluster.change_node("a1", is_unschedulable=True)
    world.break_node("a1")
    world.run_for(600)
    assert not world.ledger.cases()
    assert world.node().is_unschedulable
    assert not world.cluster.writes()


@pytest.mark.parametrize("end", ["aborted", "returned"])
def test_f07_a_cordon_that_came_first_by_a_hair_outlives_our_case(end):
    """Between our last look and our patch somebody else cordons the node.

    Lost: nothing; the cordon is theirs, and stays when our marks go.
    """
    world = FlowWorld()
    case = open_by_hand(
        world.services, "a1", FailureClass.MANUAL, requester="cli:ann", reason="fan"
    )
    assert isinstance(case, Case)
    annotations = {**world.node().annotations, "breakfix.dev/cordoned-by-us": "false"}
    world.cluster.change_node("a1", annotations=annotations)
    if end == "aborted":
        abort_case(world.services, case.id, actor="cli:ann", reason="t")
    else:
        acting = Acting(
            world.cluster,
            world.ledger,
            world.clock,
            "breakfix",
            world.services.policy.limits,
        )
        release(acting, world.ledger.case(case.id), Expected(is_recovery=True))
    assert world.node().is_unschedulable
    assert not world.taints()


def test_f07_what_was_cordoned_before_us_stays_so_when_marks_are_found_and_lifted():
    """A case died between its end and its marks, on a node whose cordon was never ours.

    Lost: nothing; the reconciler takes our marks off and leaves the cordon.
    """
    world = waiting()
    annotations = {**world.node().annotations, "breakfix.dev/cordoned-by-us": "false"}
    world.cluster.change_node("a1", annotations=annotations)
    case, now = world.case(), world.clock.now()
    world.ledger.end_case(case.id, 1, CaseEnd.ABORTED, actor="t", reason="t", now=now)
    world.road.kill(case.run_id)
    mend(world)
    assert world.node().is_unschedulable
    assert not world.taints()


# --------------------------------------------------------------------------- slots and two actors


def test_f34_the_slots_of_a_case_are_stolen_from_the_ledger():
    """Somebody deletes the rows that hold a rack for a node that is out.

    Lost: nothing; the node itself still counts, so that no second one goes, and the slots return.
    """
    world = waiting()
    for held in world.ledger._leases.values():
        held.clear()
    world.break_node("a2")  # the same rack
    refused = {r.node: r.reason for r in sweep(world.services).refusals}
    assert refused["a2"] is RefusalReason.SCOPE_FULL
    mend(world)
    assert {x.case_id for x in world.ledger.leases()} == {world.case().id}


def test_f34_the_owner_of_the_slots_is_lost_and_no_clock_frees_them():
    """The run that works on a case dies, and nobody looks for two days.

    Lost: nothing; the slot is held all the time, and the next run takes the case over with it.
    """
    world = waiting()
    world.road.kill(world.case().run_id)
    taken = world.ledger.leases()
    world.clock.sleep(2 * 86400)
    world.break_node("a2")
    outcome = open_by_hand(
        world.services, "a2", FailureClass.MANUAL, requester="cli:ann", reason="t"
    )
    assert isinstance(outcome, Refusal)
    assert outcome.reason is RefusalReason.SCOPE_FULL
    assert {(x.scope, x.case_id) for x in world.ledger.leases()} == {
        (x.scope, x.case_id) for x in taken
    }
    assert mend(world).started == [f"{world.case().id}.2"]
    assert world.ledger.leases()


def test_f34_a_case_that_another_run_has_taken_cannot_be_moved_by_the_first():
    """Two runs believe that they own the case; the older one wakes up and writes.

    Lost: nothing; the fence refuses it, and the newer run's state stands.
    """
    world = waiting()
    old = world.case()
    now = world.clock.now()
    world.ledger.take_over(old.id, old.fence, actor="t", reason="t", now=now)
    with pytest.raises(Refused):
        world.ledger.move(old.id, old.fence, NodeState.REPAIRING, actor="old", reason="t", now=now)
    with pytest.raises(Refused):
        quarantine(
            Acting(world.cluster, world.ledger, world.clock, "breakfix", Limits(out={})),
            old,
            Expected(),
        )
    assert world.case().state is NodeState.QUARANTINED


@pytest.mark.parametrize("owner", ["kured", "autoscaler"])
def test_f34_another_actor_takes_the_node_while_it_is_ours(owner):
    """kured, or the autoscaler, marks the node for itself while our case waits for a yes.

    Lost: nothing; the node is given over before anything is evicted, and their mark stays.
    """
    world = waiting()
    world.cluster.add_pod("web-1", "a1")
    node = world.node()
    theirs = {
        "kured": {"annotations": {**node.annotations, "weave.works/kured-reboot-in-progress": "x"}},
        "autoscaler": {
            "taints": (*node.taints, Taint("ToBeDeletedByClusterAutoscaler", "NoSchedule", "1"))
        },
    }[owner]
    world.cluster.change_node("a1", **theirs)
    world.silence.clear()
    world.road.runs[world.case().run_id].wait = None
    world.run_for(120)
    assert ("work", "web-1") in world.cluster._pods
    assert not world.ran
    if owner == "kured":
        assert "weave.works/kured-reboot-in-progress" in world.node().annotations
    else:
        assert any(t.key.startswith("ToBeDeleted") for t in world.node().taints)


# --------------------------------------------------------------------------- at the same time


FLEET = FleetConfig.model_validate(
    {"speed": 50, "racks": [{"name": "r1", "pool": "p1", "sku": "h100", "nodes": 2}]}
)
NODE = "r1-n01"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """The real adapter on a simulated API server, with its versions and conflicts."""
    with SimFleet(FLEET) as fleet:
        path = fleet.kubeconfig(tmp_path_factory.mktemp("kube") / "kubeconfig")
        cluster = build_cluster(load_settings(kubeconfig=str(path)))
        yield cluster
        cluster.close()


@dataclass
class Editor:
    """Somebody else's controller: adds and removes things of its own, and knows what should be."""

    cluster: object
    seed: int
    stop: threading.Event = field(default_factory=threading.Event)
    labels: dict = field(default_factory=dict)
    annotations: dict = field(default_factory=dict)
    taints: dict = field(default_factory=dict)
    edits: int = 0

    def run(self):
        dice = random.Random(self.seed)
        while not self.stop.is_set():
            self.edit(dice)
            time.sleep(0.002)

    def edit(self, dice):
        node = self.cluster.node(NODE)
        key, value = f"other.example/{dice.randrange(5)}", str(dice.randrange(100))
        kind = dice.choice(("label", "annotation", "taint"))
        kept = dict(getattr(self, kind + "s"))
        change = None if key in kept and dice.random() < 0.5 else value
        kept = {**kept, key: change} if change else {k: v for k, v in kept.items() if k != key}
        if kind == "taint":
            others = tuple(t for t in node.taints if t.key != key)
            mine = (Taint(key, "PreferNoSchedule", change),) if change else ()
            patch = NodePatch(taints=(*others, *mine))
        else:
            patch = NodePatch(**{kind + "s": {key: change}})
        try:
            self.cluster.patch_node(NODE, node.resource_version, patch)
        except Conflict:
            return
        setattr(self, kind + "s", kept)
        self.edits += 1

    def seen_on(self, node):
        own = "other.example/"
        return (
            {k: v for k, v in node.labels.items() if k.startswith(own)},
            {k: v for k, v in node.annotations.items() if k.startswith(own)},
            {t.key: t.value for t in node.taints if t.key.startswith(own)},
        )


def acting_on(cluster, ledger):
    return Acting(cluster, ledger, FakeClock(), "breakfix", Limits(out={}))


def until_done(act):
    """As a task does: what was transient is tried again."""
    for _ in range(20):
        try:
            return act()
        except ClusterError as e:
            if not e.is_transient:
                raise
    raise AssertionError("never done")


@pytest.mark.parametrize("seed", range(3))
def test_f40_another_controller_edits_the_node_while_we_do(cluster, seed):
    """Labels, annotations and taints of another owner come and go with every millisecond.

    Lost: nothing; each of its edits stands, and of ours nothing is left when we are done.
    """
    editor, before = Editor(cluster, seed), cluster.node(NODE)
    editor.labels, editor.annotations, editor.taints = editor.seen_on(before)
    worker = threading.Thread(target=editor.run)
    worker.start()
    ledger = FakeLedger("test")
    cluster.ensure_namespace("breakfix")
    acting = acting_on(cluster, ledger)
    _own(cluster, ledger)
    try:
        for round_ in range(200):
            if round_ >= 4 and editor.edits > 20:  # a busy machine runs the other thread seldom
                break
            case = ledger.admit(
                replace(intent(NODE), node_uid=before.uid, boot_id=before.boot_id),
                (),
                requester="t",
                now=acting.clock.now(),
            )
            taken = until_done(lambda c=case: quarantine(acting, c, Expected(is_ours=False)))
            assert taken.is_unschedulable
            for state in (NodeState.REPAIRING, NodeState.VALIDATING):
                until_done(lambda c=case, s=state: set_state_label(acting, c, s))
            until_done(lambda c=case: release(acting, c, Expected()))
            until_done(lambda c=case: clear_marks(cluster, c))
            ledger.end_case(
                case.id, 1, CaseEnd.ABORTED, actor="t", reason="t", now=acting.clock.now()
            )
    finally:
        editor.stop.set()
        worker.join(20)
    node = cluster.node(NODE)
    assert editor.edits > 20
    assert editor.seen_on(node) == (editor.labels, editor.annotations, editor.taints)
    assert not is_marked(node)
    assert node.labels["breakfix.dev/pool"] == before.labels["breakfix.dev/pool"]  # the site's own
    assert not node.is_unschedulable


def _own(cluster, ledger):
    """Each test brings a ledger of its own to the same fleet."""
    data = {"ledger": ledger.id, "cluster": ledger.cluster, "audit_seq": "0", "audit_hash": ""}
    if not cluster.create_config_map("breakfix", "breakfix-ledger", data):
        cluster.update_config_map("breakfix", "breakfix-ledger", data)


@pytest.mark.parametrize("round_", range(3))
def test_f34_two_actors_cordon_the_same_node_at_the_same_moment(cluster, round_):
    """A driver manager and our quarantine patch the node in the same instant, on a real API.

    Lost: nothing; whoever was first owns the cordon, and only our own is lifted by us.
    """
    ledger = FakeLedger("test")
    _own(cluster, ledger)
    acting, node = acting_on(cluster, ledger), cluster.node(NODE)
    case = ledger.admit(
        replace(intent(NODE), node_uid=node.uid, boot_id=node.boot_id),
        (),
        requester="t",
        now=acting.clock.now(),
    )
    gate, was_first = threading.Barrier(2), []

    def driver_manager():
        gate.wait(10)
        for _ in range(50):
            seen = cluster.node(NODE)
            try:
                cluster.patch_node(
                    NODE,
                    seen.resource_version,
                    NodePatch(is_unschedulable=True, annotations={"other.example/cordon": "me"}),
                )
            except Conflict:
                continue
            was_first.append(not seen.is_unschedulable)
            return

    worker = threading.Thread(target=driver_manager)
    worker.start()
    gate.wait(10)
    until_done(lambda: quarantine(acting, case, Expected(is_ours=False)))
    worker.join(20)
    after = until_done(lambda: release(acting, case, Expected()))
    until_done(lambda: clear_marks(cluster, case))
    assert after.is_unschedulable == was_first[0]
    assert after.annotations["other.example/cordon"] == "me"
    last = cluster.node(NODE)
    cluster.patch_node(
        NODE,
        last.resource_version,
        NodePatch(is_unschedulable=False, annotations={"other.example/cordon": None}),
    )


def test_f40_a_patch_of_a_stale_version_is_refused_and_never_wipes_a_list(cluster):
    """We hold a node as it was, somebody adds a taint, and then we patch the whole list of taints.

    Lost: nothing; the version in our patch is old, the API refuses it, and it is worked out anew.
    """
    stale = cluster.node(NODE)
    cluster.patch_node(NODE, stale.resource_version, NodePatch(taints=(*stale.taints, THEIRS)))
    with pytest.raises(Conflict):
        cluster.patch_node(NODE, stale.resource_version, NodePatch(taints=()))
    assert THEIRS in cluster.node(NODE).taints
    fresh = cluster.node(NODE)
    others = tuple(t for t in fresh.taints if t != THEIRS)
    cluster.patch_node(NODE, fresh.resource_version, NodePatch(taints=others))
