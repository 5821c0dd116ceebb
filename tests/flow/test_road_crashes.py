"""Killed at every single effect, the case still ends right and no effect happens twice.

The process dies right before, or right after, the Nth write to the cluster or the ledger: nothing
of ours catches that, as nothing catches SIGKILL. Then the same run tries the task again, or the
reconciler starts the next one.
"""

from __future__ import annotations

from collections import Counter

import pytest

from breakfix.flow.case import abort_case
from breakfix.flow.reconcile import reconcile
from breakfix.flow.stages import Stage
from breakfix.model import CaseEnd, Purpose
from breakfix.ports import Cluster, Ledger
from tests.fakes_cluster import FakeCluster
from tests.fakes_ledger import FakeLedger
from tests.flow.world import FlowWorld


def writes_of(port, *reads):
    """All that a port can do but read: what is added to it later is killed at, too."""
    return tuple(sorted(n for n in vars(port) if not n.startswith("_") and n not in reads))


CLUSTER_WRITES = writes_of(
    Cluster,
    *("uid", "nodes", "node", "pods", "pod", "budgets", "daemon_sets", "node_events"),
    *("pod_log", "pod_exit_code", "config_map"),
)
LEDGER_WRITES = writes_of(
    Ledger,
    *("id", "cluster", "case", "cases", "leases", "steps", "approvals", "node_records", "reviews"),
    *("labellings", "reports", "advices", "figures", "halt_level", "answers", "questions", "role"),
    *("storms", "emergencies"),
    *("audit_entries", "head", "verify_audit"),
)


class Killed(BaseException):
    """What no `except Exception` sees."""


class Fuse:
    """Burns through at the Nth write, once: `at` counts from 1, 0 never."""

    def __init__(self, at=0, *, is_after=False):
        self.at, self.is_after, self.count = at, is_after, 0

    def write(self, effect):
        self.count += 1
        if self.count == self.at and not self.is_after:
            raise Killed
        result = effect()
        if self.count == self.at:
            raise Killed
        return result


def fused(kind, writes, fuse, *args):
    """That fake, its writes through the fuse."""

    def through(name):
        def write(self, *a, **k):
            return fuse.write(lambda: getattr(kind, name)(self, *a, **k))

        return write

    return type(f"Fused{kind.__name__}", (kind,), {n: through(n) for n in writes})(*args)


def make_world(fuse, *, xid):
    cluster = fused(FakeCluster, CLUSTER_WRITES, fuse)
    world = FlowWorld(cluster=cluster, ledger=fused(FakeLedger, LEDGER_WRITES, fuse, "test"))
    for name in ("web-1", "web-2"):
        cluster.add_pod(name, "a1", gpus=2)
    world.break_node("a1", xid)
    return world


def live(world, *, retries):
    """Until the case has ended; a killed task is retried, or its run is lost."""
    while not world.ended()():
        try:
            world.drive(world.ended())
        except Killed:
            if not retries:
                for run in list(world.road.runs):
                    world.road.kill(run)
            world.clock.sleep(1)


def effects(world):
    """How often the world was really changed, by effect."""
    evicted = Counter(
        e.detail["pod"] for e in world.ledger.audit_entries(limit=9999) if e.event == "pod.evicted"
    )
    return {
        "repairs": sum(world.ran[k] for k in ("reboot", "reset")),
        "repair pods": sum("repair" in name for _, name in world.cluster.manifests),
        "repeated evictions": sum(n > 1 for n in evicted.values()),
        "cases": len(world.ledger.cases()),
    }


ONCE = {"repairs": 1, "repair pods": 1, "repeated evictions": 0, "cases": 1}


def count_writes(xid):
    fuse = Fuse()
    live(make_world(fuse, xid=xid), retries=True)
    return fuse.count


WRITES = {xid: count_writes(xid) for xid in (79, 95)}


@pytest.mark.parametrize("retries", [True, False], ids=["task retried", "run lost"])
@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("xid", "at"), [(xid, n) for xid, count in WRITES.items() for n in range(1, count + 1)]
)  # 79 reboots, 95 resets
def test_a_process_killed_at_any_write_loses_nothing_and_repeats_nothing(
    xid, at, is_after, retries
):
    fuse = Fuse(at, is_after=is_after)
    world = make_world(fuse, xid=xid)
    live(world, retries=retries)
    assert fuse.count >= at
    assert (world.case().end, world.why()) == (
        CaseEnd.RETURNED,
        "no recurrence until the end of the watch",
    )
    assert effects(world) == ONCE
    assert world.is_in_service()
    assert not [p for p in world.cluster._pods.values() if p.namespace == "work"]
    assert world.is_audit_sound()


@pytest.mark.parametrize("is_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("at", range(1, 14))
def test_an_abort_killed_at_any_write_is_completed_or_can_be_repeated(at, is_after):
    fuse = Fuse()
    world = make_world(fuse, xid=79)
    world.silence.add(Purpose.REPAIR)
    world.drive(world.at_stage(Stage.APPROVE_REPAIR))
    world.metrics.xids.clear()
    fuse.count, fuse.at, fuse.is_after = 0, at, is_after
    case = world.case()
    try:
        abort_case(world.services, case.id, actor="cli:ann", reason="spare it")
    except Killed:
        for run in list(world.road.runs):
            world.road.kill(run)
    is_begun = "ending" in world.case().detail
    fuse.at, world.silence = 0, set()
    if is_begun:
        world.drive(world.ended())
    else:
        abort_case(world.services, case.id, actor="cli:ann", reason="spare it")
    assert (world.case().end, world.why()) == (CaseEnd.ABORTED, "spare it")
    reconcile(world.services, world.road)
    assert world.is_in_service()
    assert not world.ran
    assert world.is_audit_sound()


@pytest.mark.parametrize("stage", [Stage.DRAIN, Stage.REBOOT_NODE, Stage.CHECK_SIGNALS])
def test_a_stage_run_twice_by_two_workers_does_nothing_twice(stage):
    from breakfix.flow.case import run_stage

    world = make_world(Fuse(), xid=79)
    world.drive(world.at_stage(stage))
    case = world.case()
    for _ in range(3):
        run_stage(world.services, stage, case.id, case.fence)
    world.drive(world.ended())
    assert effects(world) == ONCE


def test_an_old_run_that_wakes_up_after_the_case_changed_hands_does_nothing():
    from breakfix.flow.case import run_stage

    world = make_world(Fuse(), xid=79)
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    old = world.case()
    world.road.kill(old.run_id)
    reconcile(world.services, world.road)
    assert world.case().fence == old.fence + 1
    writes = len(world.cluster.writes())
    for stage in (Stage.DRAIN, Stage.REBOOT_NODE, Stage.RETURN_NODE, Stage.ESCALATE):
        assert run_stage(world.services, stage, old.id, old.fence).to is Stage.SETTLE_RUN
    assert len(world.cluster.writes()) == writes
    world.drive(world.ended())
    assert effects(world) == ONCE
