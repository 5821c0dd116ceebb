"""What people do: answer well and badly, take nodes back, hold, abort, halt, ask for cases."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.case import STAGES, abort_case
from breakfix.flow.stages import Stage, stage_of
from breakfix.model import (
    Answer,
    Case,
    Decision,
    FailureClass,
    HaltLevel,
    NodeState,
    Purpose,
    StepStatus,
)
from tests.fleet_machine import truth
from tests.fleet_machine.journal import CASE, TAINT
from tests.fleet_machine.troubles import some_node
from tests.flow.driver import QUESTIONS


def _asked(m, rng):
    runs = [r for r in m.world.road.runs.values() if r.stage in QUESTIONS and not r.is_over]
    return rng.choice(runs) if runs else None


def question(m, run):
    """The open question of a run that waits for an answer; None when it is settled."""
    purpose = QUESTIONS[run.stage]
    for a in reversed(m.world.ledger.approvals(run.case_id)):
        if a.purpose is purpose and a.fence == run.fence:
            return a if a.decision is Decision.PENDING else None
    return None


def say(m, run, who, *, is_yes=True, at=None, plan_hash="", channel="cli"):
    """Put an answer in; the truth remembers it."""
    asked = question(m, run)
    if asked is None:
        return None
    at = at or m.world.clock.now()
    answer = Answer(who, is_yes, channel, at, plan_hash or asked.plan_hash)
    m.inbox.setdefault((run.case_id, run.fence, asked.purpose), []).append(answer)
    run.wait = None
    m.world.truth.said.append(
        truth.Said(
            run.case_id,
            str(asked.purpose),
            plan_hash or asked.plan_hash,
            who,
            is_yes,
            at,
            asked.asked_at,
            asked.expires_at,
            channel,
        )
    )
    return f"{who} says {'yes' if is_yes else 'no'} to the {asked.purpose} of {run.node}"


def yes(m, rng):
    run = _asked(m, rng)
    return say(m, run, rng.choice(m.world.site.approvers)) if run else None


def no(m, rng):
    run = _asked(m, rng)
    return say(m, run, "oncall", is_yes=False) if run else None


def bad_yes(m, rng):
    """A yes that must not count, alone or before a good one."""
    run = _asked(m, rng)
    asked = question(m, run) if run else None
    if asked is None:
        return None
    case = m.world.ledger.case(run.case_id)
    kinds = ["stranger", "nobody", "requester", "older plan", "early", "late"]
    if case.requester.rpartition(":")[2] in m.world.site.approvers:
        kinds += ["requester"] * 4
    kind = rng.choice(kinds)
    match kind:
        case "stranger":
            return say(m, run, "mallory")
        case "nobody":
            return say(m, run, "")
        case "requester":
            return say(m, run, case.requester.rpartition(":")[2])
        case "older plan":
            return say(m, run, "oncall", plan_hash="0" * 64)
        case "early":
            return say(m, run, "oncall", at=asked.asked_at - timedelta(seconds=1))
        case _:
            return say(m, run, "oncall", at=asked.expires_at + timedelta(seconds=1))


def bad_no(m, rng):
    """A no of somebody who has no say."""
    run = _asked(m, rng)
    return say(m, run, "mallory", is_yes=False) if run else None


def annotates(m, rng):
    """Whoever may write to the node answers; what no annotation can say, too."""
    run = _asked(m, rng)
    is_yes = rng.random() < 0.8
    return say(m, run, "whoever", is_yes=is_yes, channel=truth.ANNOTATION) if run else None


def contradiction(m, rng):
    """One approver says yes and another one no."""
    run = _asked(m, rng)
    if run is None or question(m, run) is None:
        return None
    say(m, run, "oncall")
    return say(m, run, "second", is_yes=False)


# -- hands on nodes


def _is_taken(m, name):
    """By a case whose quarantine is recorded as done, and which has not let it go."""
    for case in m.world.open_cases():
        if case.node == name and case.state in truth.OUT:
            known = m.world.ledger.steps(case.id)
            rounds = [s for s in known if s.name.startswith("quarantine-")]
            done = rounds and rounds[-1].status is StepStatus.DONE
            number = rounds[-1].name.removeprefix("quarantine-") if rounds else ""
            return bool(done) and not any(s.name == f"release-{number}" for s in known)
    return False


def uncordon(m, rng):
    name = some_node(m, rng, lambda n: n.is_unschedulable and CASE in n.annotations)
    if name is None or m.world.truth.cordon.get(name) != "ours":
        return None
    m.world.uncordon(name)
    m.world.truth.cordon.pop(name)
    if _is_taken(m, name):
        m.world.truth.taken_back[name] = m.world.clock.now()
    return f"a person uncordons {name}"


def untaint(m, rng):
    name = some_node(m, rng, lambda n: any(t.key == TAINT for t in n.taints))
    if name is None:
        return None
    others = tuple(t for t in m.world.node(name).taints if t.key != TAINT)
    m.world.cluster.change_node(name, taints=others)
    if _is_taken(m, name):
        m.world.truth.taken_back[name] = m.world.clock.now()
    return f"a person takes our taint off {name}"


def exclude(m, rng):
    name = some_node(m, rng, lambda n: not truth.is_excluded(n))
    if name is None:
        return None
    m.world.relabel(name, dict([rng.choice((truth.EXCLUDE, truth.SKIP))]))
    m.world.truth.note_foreign(m.world.node(name))
    return f"{name} is excluded"


def include(m, rng):
    name = some_node(m, rng, truth.is_excluded)
    if name is None:
        return None
    m.world.relabel(name, {truth.EXCLUDE[0]: None, truth.SKIP[0]: None})
    m.world.truth.note_foreign(m.world.node(name))
    return f"{name} is excluded no longer"


def control_plane(m, rng):
    name = some_node(m, rng)
    if name is None:
        return None
    is_on = truth.CONTROL_PLANE in m.world.node(name).labels
    m.world.relabel(name, {truth.CONTROL_PLANE: None if is_on else ""})
    m.world.truth.note_foreign(m.world.node(name))
    return f"{name} {'leaves' if is_on else 'joins'} the control plane"


# -- hands on cases and switches


def hold(m, rng):
    cases = m.world.open_cases()
    if not cases:
        return None
    watched = [c for c in cases if c.state is NodeState.RETURNING]
    case = rng.choice(rng.choice((watched or cases, cases)))
    m.world.ledger.hold(case.id, actor="ann", reason="", now=m.world.clock.now())
    return f"ann holds the case of {case.node}"


def unhold(m, rng):
    cases = [c for c in m.world.open_cases() if c.held_by]
    for case in cases:
        m.world.ledger.unhold(case.id, actor="ann", reason="", now=m.world.clock.now())
    return "ann holds nothing any more" if cases else None


def abort(m, rng):
    cases = m.world.open_cases()
    if not cases:
        return None
    case = rng.choice(cases)
    m.task(
        "abort",
        lambda: abort_case(
            m.world.services.refreshed(), case.id, actor="cli:ann", reason="spare it"
        ),
    )
    return f"ann aborts the case of {case.node}"


def halt(m, rng):
    level = rng.choice((HaltLevel.DISRUPTION, HaltLevel.DISRUPTION, HaltLevel.ALL))
    if rng.random() < 0.5:
        now = m.world.clock.now()
        m.world.ledger.set_halt(level, actor="ann", reason="", now=now)
        return f"ann halts {level}"
    text = rng.choice((level.value, level.value, "stop!"))
    m.world.cluster.config_maps[m.namespace, "breakfix-halt"] = {"level": text}
    return f"the cluster halts: {text}"


def unhalt(m, rng):
    w = m.world
    key = (m.namespace, "breakfix-halt")
    if w.ledger.halt_level() is HaltLevel.NONE and key not in w.cluster.config_maps:
        return None
    if w.ledger.halt_level() is not HaltLevel.NONE:
        w.ledger.set_halt(HaltLevel.NONE, actor="ann", reason="", now=w.clock.now())
    w.cluster.config_maps.pop(key, None)
    return "nothing is halted"


def by_hand(m, rng):
    """A person asks for a case, whatever the signals say."""
    name = some_node(m, rng, truth.is_gpu_node)
    if name is None:
        return None
    kind = rng.choice((FailureClass.MANUAL, FailureClass.GPU_OFF_BUS))
    who = rng.choice(("cli:oncall", "cli:ann"))

    def ask():
        w = m.world
        case = open_by_hand(w.services.refreshed(), name, kind, requester=who, reason="cables")
        if isinstance(case, Case):
            m.start(case)

    m.task("by hand", ask)
    return f"{who} asks for {kind} of {name}"


def drained_by_hand_is_over(m, rng):
    """Whoever had a node drained by hand aborts that case in the end."""
    cases = [c for c in m.world.open_cases() if c.requester.startswith("cli:")]
    if not cases:
        return None
    case = rng.choice(cases)
    m.task(
        "abort",
        lambda: abort_case(m.world.services.refreshed(), case.id, actor="cli:ann", reason="done"),
    )
    return f"ann is done with {case.node}"


def pushed(m, rng):
    """Somebody marks tasks of a run as done in Airflow, and so it goes on elsewhere."""
    runs = [r for r in m.world.road.runs.values() if not r.is_over]
    if not runs:
        return None
    waiting = [r for r in runs if r.wait is not None]
    run = rng.choice(rng.choice((waiting or runs, runs)))
    case = m.world.ledger.case(run.case_id)
    there = (Stage.DRAIN, stage_of(case.action), Stage.CHECK_GPUS, Stage.RETURN_NODE)
    to = rng.choice((*there, rng.choice(list(STAGES))))
    if run.stage in QUESTIONS and rng.random() < 0.5:
        to = Stage.DRAIN if QUESTIONS[run.stage] is Purpose.REPAIR else Stage.RETURN_NODE
    before, run.stage, run.wait = run.stage, to, None
    return f"the run of {run.node} is pushed from {before} to {run.stage}"


def policy_edit(m, rng):
    """A class may act no longer, or may again."""
    base = m.base_site
    if m.world.site is not base:
        m.world.change_site(base)
        return "the policy is as it was"
    known = ("gpu_off_bus", "ecc_uncorrectable", "device_plugin")
    at_work = [str(c.failure_class) for c in m.world.open_cases()]
    name = rng.choice([k for k in known if k in at_work] or known)
    word = rng.choice(("recommend", "off", "approve"))
    m.world.change_site(dataclasses.replace(base, modes={**base.modes, name: word}))
    return f"{name} is {word} now"
