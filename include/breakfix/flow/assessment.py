"""Observe, decide, plan: what a sweep begins with, and all that `judge` and `plan` do. Changes
nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from breakfix.act.guard import halt_level
from breakfix.brakes import NO_BRAKES, Brakes
from breakfix.cohorts import ChangeAdvice
from breakfix.decide import judge
from breakfix.decide.canary import hold_changes
from breakfix.decide.soak import heed_soaks
from breakfix.flow.lemons import lemons_among
from breakfix.flow.looking import brakes_of
from breakfix.flow.providers import available
from breakfix.flow.services import Services
from breakfix.model import (
    DISRUPTIVE,
    Case,
    HaltLevel,
    Judgement,
    NodeRecord,
    Observation,
    OpenFinding,
    Plan,
)
from breakfix.observe import observe
from breakfix.observe.identity import confirmed_nodes
from breakfix.plan import make_plan
from breakfix.plan.world import World, build_world


@dataclass(frozen=True, slots=True)
class Assessment:
    """One look at the fleet: what was seen, what it means, what should be done."""

    observation: Observation
    judgement: Judgement
    plan: Plan
    brakes: Brakes = NO_BRAKES


def assess(services: Services, *, at: datetime | None = None) -> Assessment:
    """Observe, decide and plan. Needs no ledger, but heeds one that is there.

    `at` in the past judges the metrics of then; what the cluster was like then nobody knows, and
    the observation's warnings say so.
    """
    now = at or services.clock.now()
    records, cases, halt = remembered(services)
    brakes = brakes_of(services, now)
    observation = observe(
        services.metrics,
        services.cluster,
        services.policy,
        at=now,
        gpu_node_selector=services.settings.gpu_node_selector,
        floors=_floors(records),
        open_findings={} if at is not None else _open_findings(records),
        is_past=at is not None,
    )
    if services.policy_note:
        warnings = (services.policy_note, *observation.warnings)
        observation = replace(observation, warnings=warnings)
    judged = judge(observation, services.policy, records, now)
    judgement = hold_changes(heed_soaks(judged, cases), observation, advices_of(services))
    accused = [v.node for v in judgement.verdicts if v.recommended_action in DISRUPTIVE]
    plan = make_plan(
        observation,
        judgement,
        services.policy,
        records=records,
        cases=cases,
        halt=halt,
        confirmed=confirmed_nodes(services.metrics, observation, services.policy, accused),
        now=now,
        brakes=brakes,
        lemons=lemons_among(services, accused),
        available=available(services),
    )
    return Assessment(observation, judgement, plan, brakes)


def remembered(services: Services) -> tuple[Mapping[str, NodeRecord], tuple[Case, ...], HaltLevel]:
    """What the ledger knows that a judgement or plan must heed; nothing where there is no
    ledger.
    """
    namespace = services.settings.namespace
    halt = halt_level(services.cluster, services.ledger, namespace)
    if services.ledger is None:
        return {}, (), halt
    records = services.ledger.node_records(now=services.clock.now())
    return records, tuple(services.ledger.cases(open_only=True)), halt


def advices_of(services: Services) -> tuple[ChangeAdvice, ...]:
    """Open advice on changes; nothing where there is no ledger."""
    return () if services.ledger is None else tuple(services.ledger.advices())


def world_of(services: Services, assessment: Assessment) -> World:
    """The assessment, indexed as the plan saw it."""
    records, cases, halt = remembered(services)
    fleet = frozenset(v.node for v in assessment.judgement.verdicts)
    return build_world(
        assessment.observation,
        fleet,
        services.policy,
        records=records,
        cases=cases,
        halt=halt,
        brakes=assessment.brakes,
    )


def _floors(records: Mapping[str, NodeRecord]) -> dict[str, datetime]:
    return {r.node: r.evidence_floor for r in records.values() if r.evidence_floor is not None}


def _open_findings(records: Mapping[str, NodeRecord]) -> dict[str, tuple[OpenFinding, ...]]:
    """What the last sweep left open. Who took a node back has settled what was missed."""
    return {
        r.node: tuple(f for f in r.open_findings if not _is_settled(f, r.overridden_at))
        for r in records.values()
        if r.open_findings
    }


def _is_settled(finding: OpenFinding, overridden_at: datetime | None) -> bool:
    missed_at = finding.missed_at
    return overridden_at is not None and missed_at is not None and missed_at <= overridden_at
