"""A case that waits for people, and ways to answer it."""

from __future__ import annotations

from breakfix.flow.answering import give_answer
from breakfix.model import Answer, Purpose
from tests.flow.world import FlowWorld

TWO_BEFORE_REPAIR = "approvals: {tiers: [{needs: two, classes: [gpu_off_bus]}]}"
TWO_BEFORE_RETURN = "approvals: {tiers: [{needs: two, before: return}]}"
ASKED = {Purpose.REPAIR: "approve_repair", Purpose.RETURN: "approve_return"}


class ServiceUser:
    """Wakes a parked question of the road as Airflow's service user does: its Reject ends the wait
    and counts for nothing."""

    def __init__(self, world):
        self.world, self.woken, self.is_down = world, [], None

    def wake(self, case, purpose):
        if self.is_down:
            raise self.is_down
        run = self.world.road.runs[case.run_id]
        if str(run.stage) not in {ASKED[purpose], f"{ASKED[purpose]}_second"}:
            return
        self.woken.append(str(run.stage))
        reject = Answer("breakfix", False, "airflow_required_action", self.world.clock.now())
        go = self.world.road.settle(run, purpose, [reject])
        run.stage, run.wait = go.to, None


def asking_world(purpose=Purpose.REPAIR, **changes):
    """A world whose case waits for an answer about that, while nobody says a word."""
    world = FlowWorld(**changes)
    world.break_node("a1")
    world.silence |= {Purpose.REPAIR, Purpose.RETURN}
    if purpose is Purpose.RETURN:
        world.silence.discard(Purpose.REPAIR)
    stage = ASKED[purpose]
    world.drive(lambda: any(str(r.stage) == stage for r in world.road.runs.values()))
    return world


def run_of(world):
    return world.road.runs[world.case().run_id]


def answer_in_airflow(world, who, *, is_yes=True, channel="airflow_required_action"):
    """Answer the parked question where it is parked; the run goes where that leads."""
    world.clock.sleep(1)
    run = run_of(world)
    purpose = Purpose.REPAIR if "repair" in run.stage else Purpose.RETURN
    go = world.road.settle(run, purpose, [Answer(who, is_yes, channel, world.clock.now())])
    run.stage, run.wait = go.to, None
    return go


def say(world, who, *, is_yes=True, waker=None, **changes):
    """Answer by another channel: into the ledger first."""
    world.clock.sleep(1)
    case = world.case()
    given = {"channel": "cli", "at": world.clock.now(), "plan_hash": case.plan_hash, **changes}
    return give_answer(world.services, case.id, Answer(who, is_yes, **given), waker=waker)


def asked(world):
    return world.ledger.approvals(world.case().id)[-1]


def answered(world):
    """(who, does it count) of every answer in the audit, in order."""
    return [
        (e.actor, e.detail["counts"])
        for e in world.ledger.audit_entries()
        if e.event == "approval.answered"
    ]
