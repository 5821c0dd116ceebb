"""From verdicts to one plan: who is taken out now, and why everybody else is not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from breakfix.brakes import LIFT_OF, Brakes, Lift
from breakfix.hands_off import is_cordoned_by_others
from breakfix.model import (
    DISRUPTIVE,
    REPAIRS,
    Action,
    Case,
    FailureClass,
    Finding,
    HaltLevel,
    Impact,
    Intent,
    Judgement,
    Node,
    NodeRecord,
    NodeState,
    Observation,
    Plan,
    PodAction,
    Refusal,
    RefusalReason,
    Tier,
    Verdict,
)
from breakfix.plan.drain_ladder import ladders_in_words
from breakfix.plan.gangs import gang_of
from breakfix.plan.limits import (
    Candidate,
    attempts_left,
    first_refusal,
    free_gpus_after,
    promise,
)
from breakfix.plan.tiers import repair_tier
from breakfix.plan.world import BUSY, World, build_world
from breakfix.policy import Policy
from breakfix.ports import Limit


def make_plan(
    observation: Observation,
    judgement: Judgement,
    policy: Policy,
    *,
    records: Mapping[str, NodeRecord],
    cases: Sequence[Case],
    halt: HaltLevel,
    confirmed: Mapping[str, str],
    now: datetime,
    brakes: Brakes | None = None,
    lemons: Mapping[str, str] | None = None,
    available: frozenset[Action] = REPAIRS,
) -> Plan:
    """The plan for one judgement. Purely computational: the same facts give the same plan.

    Candidates are tried in order of confidence (then name), so that a limit that is nearly full is
    spent on the surest fault. Each admitted node counts against the next one. `confirmed`: node ->
    the second source that its metrics are its own. `lemons`: node -> why it is held for hardware
    instead of another repair. `available`: the repairs that somebody is there to do.
    """
    fleet = frozenset(v.node for v in judgement.verdicts)
    world = build_world(
        observation,
        fleet,
        policy,
        records=records,
        cases=cases,
        halt=halt,
        confirmed=confirmed,
        brakes=brakes,
        sick=newly_sick(sick_nodes(observation, judgement), brakes),
        available=available,
        lemons=lemons,
    )
    intents: list[Intent] = []
    refusals: list[Refusal] = []
    for verdict in sorted(judgement.verdicts, key=lambda v: (-v.confidence, v.node)):
        node = world.by_name.get(verdict.node)
        if node is None or _is_busy(verdict.node, world):
            continue
        outcome = _consider(verdict, node, world, now)
        if isinstance(outcome, Intent):
            promise(node, world)
            intents.append(outcome)
        elif outcome is not None:
            refusals.append(outcome)
    return Plan(now, policy.hash, tuple(intents), tuple(refusals), judgement.incidents)


def sick_nodes(observation: Observation, judgement: Judgement) -> frozenset[str]:
    """Nodes that count as fallen ill: a verdict wants them out, or an incident or NotReady has
    them. One that is not Ready under somebody else's cordon is at work on, not ill.
    """
    wanted = {v.node for v in judgement.verdicts if v.recommended_action in DISRUPTIVE}
    for incident in judgement.incidents:
        wanted.update(incident.nodes)
    fleet = {v.node for v in judgement.verdicts}
    wanted |= {n.name for n in observation.nodes if not n.is_ready and not is_cordoned_by_others(n)}
    return frozenset(wanted & fleet)


def well_nodes(
    observation: Observation, judgement: Judgement, required: frozenset[str]
) -> frozenset[str]:
    """Nodes that are surely not ill: judged by all required signals, and nothing wants them out."""
    known = {v.node for v in judgement.verdicts if required.isdisjoint(v.unknown)}
    return frozenset(known - sick_nodes(observation, judgement))


def newly_sick(sick: frozenset[str], brakes: Brakes | None) -> frozenset[str]:
    """Those of which the ledger does not know yet; one that was ill before counts when it was."""
    return sick - (brakes.storms.sick if brakes else frozenset())


def _is_busy(node: str, world: World) -> bool:
    """Somebody is at work on it already: a case that is not under watch, or an escalation."""
    case, record = world.cases.get(node), world.records.get(node)
    if case is not None:
        return case.state in BUSY
    return record is not None and record.state is NodeState.ESCALATED


def _as_judged(
    verdict: Verdict, reason: RefusalReason, failure_class: FailureClass, world: World
) -> Refusal:
    """What decide refused stays refused; a class that policy turns off is called so."""
    mode = world.policy.class_rule(failure_class).mode
    if reason is RefusalReason.MODE_RECOMMEND and mode == "off":
        reason = RefusalReason.MODE_OFF
    return Refusal(verdict.node, reason, verdict.reason, failure_class, verdict.recommended_action)


def _consider(verdict: Verdict, node: Node, world: World, now: datetime) -> Intent | Refusal | None:
    failure_class = verdict.failure_class
    if failure_class is None:
        return None
    if verdict.refusal is not None:
        return _as_judged(verdict, verdict.refusal, failure_class, world)
    if verdict.recommended_action not in DISRUPTIVE:
        return None
    attempt = next_attempt(node.name, world)
    action = verdict.recommended_action
    reason, lemon = verdict.reason, world.lemons.get(node.name, "")
    if lemon or not attempts_left(world, node.name, failure_class):
        record = world.records.get(node.name)
        repairs = record.repairs if record is not None else {}
        action = world.policy.class_rule(failure_class).hardware(repairs)
    if action is Action.OPEN_VENDOR_CASE and action not in world.available:
        action = Action.HOLD_FOR_HARDWARE
    candidate = Candidate(node, failure_class, action, now)
    refusal = first_refusal(candidate, world)
    if refusal is not None:
        text = f"{refusal.text}; {lemon}" if lemon else refusal.text
        is_advice = refusal.reason is RefusalReason.MODE_RECOMMEND
        return replace(refusal, text=text, impact=impact_of(node, world) if is_advice else None)
    if lemon:
        reason = f"{reason}. {lemon}: {action} instead of another repair"
    return make_intent(
        candidate, world, verdict.confidence, reason, attempt, findings=verdict.findings
    )


def next_attempt(node: str, world: World) -> int:
    """1 for a first repair; a recurrence goes on where the ladder stopped."""
    record = world.records.get(node)
    return 1 + (record.attempts if record is not None else 0)


def make_intent(
    candidate: Candidate,
    world: World,
    confidence: float,
    reason: str,
    attempt: int,
    *,
    findings: tuple[Finding, ...] = (),
) -> Intent:
    """The intent of an admitted candidate, with what it costs."""
    node, policy = candidate.node, world.policy
    impact = impact_of(node, world)
    tier = repair_tier(candidate.failure_class, candidate.action, impact, policy)
    return Intent(
        node=node.name,
        node_uid=node.uid,
        boot_id=node.boot_id,
        failure_class=candidate.failure_class,
        action=candidate.action,
        confidence=confidence,
        reason=reason,
        impact=impact,
        scopes=node.scopes(),
        attempt=attempt,
        needs_approval=tier is not Tier.AUTOMATIC,
        tier=tier,
        policy_hash=policy.hash,
        findings=findings,
        is_by_hand=candidate.is_by_person,
    )


def impact_of(node: Node, world: World) -> Impact:
    """What a drain of the node costs: its own pods, and the rest of every gang they belong to."""
    leaving = {
        (d.namespace, d.name): d
        for d in world.pods_to_drain(node.name)
        if d.action is PodAction.EVICT
    }
    pods = [
        p
        for p in world.pods_on.get(node.name, ())
        if (p.namespace, p.name) in leaving and not p.is_finished
    ]
    gangs = world.gangs_on(pods)
    alone = sum(p.gpus for p in pods if gang_of(p) is None)
    wide = [g for g in gangs if g.nodes - {node.name}]
    return Impact(
        pods_evicted=len(leaving),
        gpus_stopped=alone + sum(g.gpus for g in gangs),
        gpus_free_after=free_gpus_after(node, world),
        gangs=tuple(map(str, wide)),
        gang_gpus=sum(g.gpus for g in wide),
        ladders=ladders_in_words(leaving.values()),
    )


def limits_of(node: Node, world: World) -> list[Limit]:
    """What the ledger must hold while it admits this node: every scope, its maximum, who is out,
    the maximum while an emergency lifts it, and the breaker.
    """
    may_lift = world.policy.limits.emergency.may_lift
    return [
        Limit(
            scope,
            world.maximum(scope),
            frozenset(world.out & world.members[scope]) - {node.name},
            lifted=world.lifted_maximum(scope) if LIFT_OF[scope.kind] in may_lift else None,
            breaker=world.breaker_rule(scope),
            may_lift_breaker=Lift.BREAKER in may_lift,
        )
        for scope in node.scopes()
    ]


def plan_one(
    node: Node,
    failure_class: FailureClass,
    action: Action,
    world: World,
    *,
    reason: str,
    now: datetime,
) -> Intent | Refusal:
    """A person's own request for one node: the same guards, without the verdict."""
    if _is_busy(node.name, world) or node.name in world.cases:
        text = "the node has an open case or is escalated"
        return Refusal(node.name, RefusalReason.CASE_OPEN, text, failure_class, action)
    if action not in DISRUPTIVE:
        text = f"policy knows no repair of {failure_class} ({action})"
        return Refusal(node.name, RefusalReason.MODE_RECOMMEND, text, failure_class, action)
    candidate = Candidate(node, failure_class, action, now, is_by_person=True)
    refusal = first_refusal(candidate, world)
    if refusal is not None:
        return refusal
    return make_intent(candidate, world, 1.0, reason, next_attempt(node.name, world))
