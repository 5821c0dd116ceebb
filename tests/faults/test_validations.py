"""Repairs that did not help, validations that cannot be made, nodes that are others by now."""

from __future__ import annotations

from pathlib import Path

import pytest

from breakfix.errors import SourceError
from breakfix.flow.gates import remedy_asked
from breakfix.flow.stages import Stage
from breakfix.model import Action, CaseEnd, NodeState, Purpose, StepStatus
from breakfix.verify import Remedy
from tests.flow.world import FlowWorld

DIAG = Path(__file__).parent.parent / "data" / "diag"
ISOLATED = (205, (DIAG / "r3_fail_memory_isolate.json").read_text())


def repaired(xid=79, **changes):
    """a1 is repaired, and its validation has begun."""
    world = FlowWorld(**changes)
    world.break_node("a1", xid)
    world.drive(world.at_stage(Stage.CHECK_GPUS))
    return world


def is_left_out(world):
    return world.is_held_out() and world.node().labels["breakfix.dev/state"] == "escalated"


def asked_to_return(world):
    approvals = world.ledger.approvals(world.case().id)
    return [a for a in approvals if a.purpose is Purpose.RETURN]


# --------------------------------------------------------------------------- F10


@pytest.mark.parametrize("stage", [Stage.CHECK_GPUS, Stage.RUN_DIAG, Stage.CHECK_SIGNALS], ids=str)
def test_f10_the_node_is_replaced_between_repair_and_validation(stage):
    """The node is deleted after its repair, and another machine comes under its name.

    Lost: nothing; the case ends with the node it was about, its place is free, and the new machine
    is neither tested, marked nor returned in the old one's name.
    """
    world = repaired()
    world.drive(world.at_stage(stage))
    case = world.case()
    world.cluster.remove_node("a1")
    world.cluster.add_node("a1", rack="a", uid="another", boot_id="boot-of-another")
    writes = len(world.cluster.writes())
    world.drive(world.ended())
    assert world.case().end is CaseEnd.NODE_GONE
    assert world.is_in_service()
    later = world.cluster.writes()[writes:]
    assert all(method == "delete_pod" for method, _ in later)
    assert not any(lease.case_id == case.id for lease in world.ledger.leases())
    assert world.is_audit_sound()


# --------------------------------------------------------------------------- F28


def test_f28_a_reboot_that_is_called_done_in_the_same_boot_validates_nothing():
    """Somebody says that the node was rebooted, and it runs the boot that was to end.

    Lost: nothing; the validation believes the boot id alone, runs no diagnostic in that boot, and
    the node stays out.
    """
    world = FlowWorld(reboot_works=False)
    world.break_node("a1")
    world.drive(world.at_stage(Stage.REBOOT_NODE))
    world.road.tick()
    case, now = world.case(), world.clock.now()
    world.ledger.finish_step(
        case.id,
        case.fence,
        "repair-reboot_node-1",
        StepStatus.DONE,
        detail={"text": "says who was to reboot it"},
        now=now,
    )
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert world.ran["quick diag"] == world.ran["diag"] == 0
    assert any("runs the boot that its repair was to end" in text for text in texts(world))
    assert is_left_out(world)


def texts(world):
    return [str(s.detail.get("text", "")) for s in world.ledger.steps(world.case().id)]


# --------------------------------------------------------------------------- verification failure


@pytest.mark.parametrize(
    ("diag", "remedy"),
    [
        pytest.param(ISOLATED, Remedy.HOLD_FOR_HARDWARE, id="it says that the hardware is bad"),
        pytest.param((0, "{"), Remedy.PERSON, id="what it says cannot be read"),
        pytest.param((0, ""), Remedy.PERSON, id="it says nothing"),
        pytest.param((203, ""), Remedy.PERSON, id="it is killed each time"),
    ],
)
def test_verification_failure_of_the_diagnostic_keeps_the_node_out(diag, remedy):
    """The repair is done, all GPUs are there, and the diagnostic does not pass.

    Lost: nothing; nobody is asked to return the node, it stays out with the reason on record, and
    what proves nothing about the hardware is not called hardware.
    """
    world = repaired(diag=diag)
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert is_left_out(world)
    assert not asked_to_return(world)
    steps = [s for s in world.ledger.steps(world.case().id) if s.name.startswith("diag_r2")]
    assert remedy_asked(steps[-1]) is remedy
    assert world.ran["reboot"] == 1
    assert world.is_audit_sound()


def test_verification_failure_by_telemetry_that_does_not_come_back():
    """The repair is done, and the node's exporters stay silent.

    Lost: nothing; silence is no proof of health and no reason for another repair, so the node stays
    out until a person looks.
    """
    world = repaired()
    world.metrics.silent.add("a1")
    world.drive(world.ended())
    assert world.case().end is CaseEnd.ESCALATED
    assert is_left_out(world)
    assert world.ran["reboot"] == 1


def test_verification_failure_by_prometheus_that_is_away():
    """Prometheus is away for ten minutes in the middle of a validation.

    Lost: nothing; the validation waits or is made again, and the node returns only on evidence.
    """
    world = repaired(overlay="timing: {signals: 20m}")
    world.drive(world.at_stage(Stage.CHECK_SIGNALS))
    world.metrics.is_down = True
    try_for(world, 600)
    assert world.case().state is NodeState.VALIDATING
    world.metrics.is_down = False
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED


def try_for(world, seconds):
    """As Airflow does: a task that raised is tried again."""
    end = world.clock.now().timestamp() + seconds
    while world.clock.now().timestamp() < end:
        try:
            world.tick()
        except SourceError:
            world.clock.sleep(10)


def test_verification_failure_in_the_watch_takes_the_node_out_one_rung_higher():
    """The validation was passed, the node is back in service, and the same fault comes again.

    Lost: nothing; the same case takes the node out again, repairs it by the next rung and not by
    the one that did not help, and it is told as one story.
    """
    world = FlowWorld()
    world.break_node("a1", 95)
    world.drive(lambda: world.ledger.cases() and world.case().state is NodeState.RETURNING)
    assert world.case().action is Action.RESET_GPU
    world.clock.sleep(5)
    world.break_node("a1", 95)
    world.drive(lambda: world.ran["reboot"] == 1)
    assert (world.case().action, world.case().attempt) == (Action.REBOOT_NODE, 2)
    assert world.ran["reset"] == 1
    assert len(world.ledger.cases(node="a1")) == 1
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
