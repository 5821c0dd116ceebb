"""What random lives of fleets have found; each was mended, and stays so."""

from __future__ import annotations

import pytest

from breakfix.act.ownership import CONFIG_MAP
from breakfix.errors import ClusterError, Refused
from breakfix.flow.case import abort_case, run_stage
from breakfix.flow.stages import Stage
from breakfix.model import CaseEnd, HaltLevel, NodeState, Purpose
from tests.flow.world import FlowWorld


def at_the_moment(world, method, nth, what):
    """Right before the nth call of that method somebody else does something."""
    real, count = getattr(world.cluster, method), iter(range(1, 10**6))

    def call(*args, **kwargs):
        if next(count) == nth:
            what()
        return real(*args, **kwargs)

    setattr(world.cluster, method, call)


@pytest.mark.parametrize("nth", [1, 2], ids=["as the limits are asked", "as the reason is asked"])
def test_a_person_who_uncordons_while_a_guard_thinks_wins(nth):
    """A person uncordons the node after the guard looked at it, while reason and limits are asked.

    Lost: nothing; the guard looks once more before the act, so no pod is evicted and the node is
    theirs.
    """
    world = FlowWorld()
    world.cluster.add_pod("web-1", "a1")
    world.break_node("a1")
    world.drive(world.at_stage(Stage.DRAIN))
    at_the_moment(world, "nodes", nth, lambda: world.uncordon("a1"))
    case = world.case()
    run_stage(world.services, Stage.DRAIN, case.id, case.fence)
    assert ("work", "web-1") in world.cluster._pods
    assert world.case().end is CaseEnd.OVERRIDDEN
    assert not world.node().is_unschedulable


def test_a_diagnostic_that_nobody_read_for_a_day_is_a_day_old():
    """The diagnostic ends, and everything of ours is down for a day before its result is read.

    Lost: nothing; the result is as old as its pod, so nobody is asked and the node is checked anew.
    """
    world = FlowWorld(overlay="classes: {gpu_off_bus: {diag_level: 1}}")
    world.break_node("a1")
    world.drive(world.at_stage(Stage.RUN_DIAG))
    case = world.case()
    run_stage(world.services, Stage.RUN_DIAG, case.id, case.fence)
    world.kubelet()
    labels = {k: p.labels.get("breakfix.dev/step", "") for k, p in world.cluster._pods.items()}
    (key,) = [k for k, step in labels.items() if step.startswith("diag")]
    world.cluster.change_pod(*key, ended_at=world.clock.now())
    world.clock.sleep(86400)
    run_stage(world.services, Stage.RUN_DIAG, case.id, case.fence)
    assert not [a for a in world.ledger.approvals(case.id) if a.purpose is Purpose.RETURN]
    world.drive(world.ended())
    assert (world.case().end, world.case().fence) == (CaseEnd.RETURNED, 2)


def test_a_repair_that_is_refused_at_its_dispatch_is_refused_in_the_state_it_is_in():
    """Between the start of a repair and its dispatch what it works on vanishes: no plugin pod.

    Lost: nothing; the case goes to people at once instead of failing until its runs are used up.
    """
    world = FlowWorld(overlay="signals: [{name: kube_gpus_short, mode: alone, weight: 0.95}]")
    world.cluster.change_node("a1", gpus_allocatable=7)
    world.drive(world.at_stage(Stage.RESTART_DEVICE_PLUGIN))
    case = world.case()
    result = run_stage(world.services, Stage.RESTART_DEVICE_PLUGIN, case.id, case.fence)
    assert result.to is Stage.ESCALATE
    assert world.case().state is NodeState.REPAIRING
    world.drive(world.ended())
    assert (world.case().end, world.case().fence) == (CaseEnd.ESCALATED, 1)


def test_a_ledger_that_does_not_own_the_cluster_withdraws_no_pod():
    """Somebody aborts a case in a ledger that the cluster does not name any more.

    Lost: nothing; the repair pod of whoever owns the cluster now is not deleted.
    """
    world = FlowWorld()
    world.break_node("a1")
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    case = world.case()
    run_stage(world.services, Stage.REBOOT_NODE, case.id, case.fence)
    pods = dict(world.cluster._pods)
    assert any("repair" in p.name for p in pods.values())
    world.cluster.config_maps["breakfix", CONFIG_MAP]["ledger"] = "another"
    with pytest.raises(Refused, match="owns this cluster"):
        abort_case(world.services, case.id, actor="cli:ann", reason="mine")
    assert world.cluster._pods == pods


def test_marks_stay_while_everything_is_halted():
    """A person takes our taint off, the case begins to end, and is cut short; then all is halted.

    Lost: nothing; the node is not touched until the halt is lifted, then the end is completed.
    """
    world = FlowWorld()
    world.break_node("a1")
    world.drive(world.at_stage(Stage.DRAIN))
    others = tuple(t for t in world.node().taints if not t.key.startswith("breakfix.dev/"))
    world.cluster.change_node("a1", taints=others)
    world.cluster.fail("patch_node")
    case = world.case()
    with pytest.raises(ClusterError):
        run_stage(world.services, Stage.DRAIN, case.id, case.fence)
    now = world.clock.now()
    world.ledger.set_halt(HaltLevel.ALL, actor="ann", reason="", now=now)
    before = world.node()
    assert run_stage(world.services, Stage.DRAIN, case.id, case.fence).to is Stage.SETTLE_RUN
    assert world.node() == before
    world.ledger.set_halt(HaltLevel.NONE, actor="ann", reason="", now=now)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.OVERRIDDEN
