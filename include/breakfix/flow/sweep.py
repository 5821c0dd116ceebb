"""The sweep: observe, decide, plan, and, unless it is a dry run, record, admit and quarantine."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from breakfix.act.guard import halt_level
from breakfix.act.ownership import check_ownership
from breakfix.decide import judge
from breakfix.errors import BreakfixError, Refused
from breakfix.flow.case import put_in_quarantine
from breakfix.flow.services import Services
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    FailureClass,
    HaltLevel,
    Intent,
    Judgement,
    NodeRecord,
    NodeState,
    Observation,
    Plan,
    Refusal,
)
from breakfix.observe import observe
from breakfix.plan import make_plan
from breakfix.plan.planning import limits_of, plan_one
from breakfix.plan.world import World, build_world

log = logging.getLogger(__name__)

ACTOR = "fleet_sweep"


@dataclass(frozen=True, slots=True)
class Assessment:
    """One look at the fleet: what was seen, what it means, what should be done."""

    observation: Observation
    judgement: Judgement
    plan: Plan


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did. `cases` are open and want a run each."""

    assessment: Assessment
    sweep_id: str
    cases: tuple[Case, ...]
    refusals: tuple[Refusal, ...]
    ended: tuple[Case, ...]


def assess(services: Services, *, at: datetime | None = None) -> Assessment:
    """Observe, decide and plan; changes nothing and needs no ledger (but heeds one that is there)."""
    now = at or services.clock.now()
    records, cases, halt = _remembered(services)
    observation = observe(
        services.metrics,
        services.cluster,
        services.policy,
        services.settings.gpu_node_selector,
        at=now,
        is_past=at is not None,
        floors=_floors(records),
    )
    judgement = judge(observation, services.policy, records, now)
    plan = make_plan(
        observation,
        judgement,
        services.policy,
        records=records,
        cases=cases,
        halt=halt,
        now=now,
    )
    return Assessment(observation, judgement, plan)


def _remembered(
    services: Services,
) -> tuple[Mapping[str, NodeRecord], tuple[Case, ...], HaltLevel]:
    if services.ledger is None:
        return {}, (), halt_level(services.cluster, None, services.settings.namespace)
    ledger = services.ledger
    halt = halt_level(services.cluster, ledger, services.settings.namespace)
    return ledger.node_records(), tuple(ledger.cases(open_only=True)), halt


def _floors(records: Mapping[str, NodeRecord]) -> dict[str, datetime]:
    return {r.node: r.evidence_floor for r in records.values() if r.evidence_floor is not None}


def sweep(services: Services, *, actor: str = ACTOR) -> SweepResult:
    """One whole sweep: assess, record, end the watches that are over, admit and quarantine.

    A node whose quarantine fails keeps its case: the case's own run, or the reconciler, goes on from there.
    """
    ledger = services.book
    check_ownership(services.cluster, ledger, services.settings.namespace, now=services.clock.now())
    assessment = assess(services)
    now = services.clock.now()
    sweep_id = ledger.record_sweep(assessment.judgement, assessment.plan, actor=actor, now=now)
    ended = tuple(_end_watches(services, assessment))
    cases: list[Case] = []
    refusals = list(assessment.plan.refusals)
    world = world_of(services, assessment)
    for intent in assessment.plan.intents:
        outcome = admit(services, intent, world, requester=actor)
        (refusals if isinstance(outcome, Refusal) else cases).append(outcome)  # type: ignore[attr-defined]
    return SweepResult(assessment, sweep_id, tuple(cases), tuple(refusals), ended)


def world_of(services: Services, assessment: Assessment) -> World:
    """The assessment indexed as the plan saw it."""
    records, cases, halt = _remembered(services)
    fleet = frozenset(v.node for v in assessment.judgement.verdicts)
    return build_world(assessment.observation, fleet, services.policy, records, cases, halt)


def admit(services: Services, intent: Intent, world: World, *, requester: str) -> Case | Refusal:
    """Lease, case and audit in one transaction; then the node is quarantined.

    The quarantine is repeated by the case's own run, so that a crash between the two loses nothing.
    """
    node = world.by_name[intent.node]
    now = services.clock.now()
    outcome = services.book.admit(intent, limits_of(node, world), requester=requester, now=now)
    if isinstance(outcome, Refusal):
        return outcome
    try:
        put_in_quarantine(services, outcome)
    except Refused as e:
        log.info("case=%s node=%s quarantine refused: %s", outcome.id, outcome.node, e)
    except BreakfixError as e:
        log.warning("case=%s node=%s quarantine is left to the run: %s", outcome.id, outcome.node, e)
    return outcome


def open_by_hand(
    services: Services, node: str, failure_class: FailureClass, *, requester: str, reason: str
) -> Case | Refusal:
    """A person's own case for one node, through the same guards and the same admission."""
    check_ownership(
        services.cluster, services.book, services.settings.namespace, now=services.clock.now()
    )
    assessment = assess(services)
    world = world_of(services, assessment)
    intent = intent_by_hand(services, world, node, failure_class, reason=reason)
    if isinstance(intent, Refusal):
        services.book.audit(
            "refused", node, actor=requester, detail={"reason": intent.text}, now=services.clock.now()
        )
        return intent
    return admit(services, intent, world, requester=requester)


def intent_by_hand(
    services: Services, world: World, node: str, failure_class: FailureClass, *, reason: str
) -> Intent | Refusal:
    """What `open_by_hand` would do; also its dry run. Raises BreakfixError for an unknown node."""
    found = world.by_name.get(node)
    if found is None:
        msg = f"no GPU node named {node!r} (selector {services.settings.gpu_node_selector!r})"
        raise BreakfixError(msg)
    is_manual = failure_class is FailureClass.MANUAL
    action = (
        Action.DRAIN_ONLY if is_manual else services.policy.class_rule(failure_class).action_for(1)
    )
    return plan_one(found, failure_class, action, world, reason=reason, now=services.clock.now())


def _end_watches(services: Services, assessment: Assessment) -> list[Case]:
    """Cases under watch whose deadline has passed: in service for good, or watched on.

    A node that is suspect, or whose telemetry is lost, is not declared healthy: its watch goes on.
    """
    ended: list[Case] = []
    now = services.clock.now()
    wanted = {i.node for i in assessment.plan.intents}
    for case in services.book.cases(open_only=True):
        if case.state is not NodeState.RETURNING or case.node in wanted:
            continue
        if case.deadline is None or now < case.deadline:
            continue
        verdict = assessment.judgement.verdict(case.node)
        if verdict is not None and verdict.failure_class is None and not verdict.findings:
            ended.append(_end_well(services, case, now))
        else:
            reason = "watch goes on: " + (verdict.reason if verdict else "the node was not judged")
            services.book.move(
                case.id,
                case.fence,
                NodeState.RETURNING,
                actor=ACTOR,
                reason=reason,
                now=now,
                deadline=now + timedelta(seconds=services.policy.timing.watch_s),
            )
    return ended


def _end_well(services: Services, case: Case, now: datetime) -> Case:
    from breakfix.act.quarantine import clear_marks

    clear_marks(services.cluster, case)
    reason = "no recurrence until the end of the watch"
    return services.book.end_case(
        case.id, case.fence, CaseEnd.RETURNED, actor=ACTOR, reason=reason, now=now
    )
