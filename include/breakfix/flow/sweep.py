"""The sweep: observe, decide, plan, and, unless it is a dry run, record, admit and quarantine."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from breakfix.act.guard import halt_level
from breakfix.act.ownership import check_ownership
from breakfix.act.quarantine import clear_marks
from breakfix.decide.soak import soak_of
from breakfix.errors import BreakfixError, Refused
from breakfix.flow.assessment import Assessment, assess, world_of
from breakfix.flow.brakes import watch_storms
from breakfix.flow.case import put_in_quarantine
from breakfix.flow.drain_endings import give_back_recovered
from breakfix.flow.guarding import SideBySide
from breakfix.flow.proof import required_signals
from breakfix.flow.services import Services
from breakfix.flow.soak import soak_returned
from breakfix.model import (
    Case,
    CaseEnd,
    HaltLevel,
    Intent,
    Node,
    NodeState,
    Outcome,
    Refusal,
    Verdict,
)
from breakfix.observe.expected import expectation
from breakfix.plan.planning import limits_of
from breakfix.plan.world import World
from breakfix.verify import signals_outcome

log = logging.getLogger(__name__)

ACTOR = "fleet_sweep"
_ROUNDS = 2  # of quarantines side by side, for each batch of admissions


@dataclass(frozen=True, slots=True)
class SweepResult:
    """What a sweep did. `cases` are open and want a run each."""

    assessment: Assessment
    sweep_id: str
    cases: tuple[Case, ...]
    refusals: tuple[Refusal, ...]
    ended: tuple[Case, ...]


def sweep(services: Services, *, actor: str = ACTOR) -> SweepResult:
    """One whole sweep: assess, record, end the watches that are over, admit and quarantine.

    A node whose quarantine fails keeps its case: the case's own run, or the reconciler, goes on
    from there.
    """
    services = services.refreshed()
    ledger = services.book
    check_ownership(services.cluster, ledger, services.settings.namespace, now=services.clock.now())
    assessment = assess(services)
    now = services.clock.now()
    sweep_id = ledger.record_sweep(assessment.judgement, assessment.plan, actor=actor, now=now)
    watch_storms(services, assessment, actor=actor)
    soak_returned(services, assessment, actor=ACTOR)
    give_back_recovered(services, assessment.judgement, actor=ACTOR)
    ended = tuple(_end_watches(services, assessment))
    world = world_of(services, assessment)
    cases, refused = take_out(services, assessment.plan.intents, world, requester=actor)
    refusals = (*assessment.plan.refusals, *refused)
    return SweepResult(assessment, sweep_id, tuple(cases), refusals, ended)


def take_out(
    services: Services, intents: Sequence[Intent], world: World, *, requester: str
) -> tuple[list[Case], list[Refusal]]:
    """Admit each node and quarantine it; the cases that were opened, and what admission refused.

    Nodes are admitted one after the other, by the ledger's count. Those of a batch are then
    quarantined side by side, each guarded and recorded as if it were alone, while the next batch is
    admitted: so what is in the ledger runs ahead of the cluster by two batches at most.
    """
    cases: list[Case] = []
    refusals: list[Refusal] = []
    at_once, due = services.settings.acts_at_once, expectation(services.policy, world.fleet)
    with ThreadPoolExecutor(at_once, "quarantine") as pool:
        under_way: list[Future[None]] = []
        for start in range(0, len(intents), at_once * _ROUNDS):
            batch = intents[start : start + at_once * _ROUNDS]
            outcomes = [_open(services, i, world, due, requester=requester) for i in batch]
            opened = [c for c in outcomes if isinstance(c, Case)]
            _finish(under_way)
            beside = SideBySide.of(min(at_once, len(opened)))
            under_way = [pool.submit(_quarantine, services, case, beside) for case in opened]
            cases += opened
            refusals += [r for r in outcomes if isinstance(r, Refusal)]
        _finish(under_way)
    return cases, refusals


def _finish(quarantines: Iterable[Future[None]]) -> None:
    """All of them are over. Raises what went wrong beyond what a quarantine expects."""
    for quarantine in quarantines:
        quarantine.result()


def admit(services: Services, intent: Intent, world: World, *, requester: str) -> Case | Refusal:
    """Lease, case and audit in one transaction; then the node is quarantined.

    The quarantine is repeated by the case's own run, so that a crash between the two loses nothing.
    """
    due = expectation(services.policy, world.fleet)
    outcome = _open(services, intent, world, due, requester=requester)
    if isinstance(outcome, Case):
        _quarantine(services, outcome)
    return outcome


def _open(
    services: Services,
    intent: Intent,
    world: World,
    due: Callable[[Node], int],
    *,
    requester: str,
) -> Case | Refusal:
    node = world.by_name[intent.node]
    now = services.clock.now()
    whole = replace(intent, gpus_expected=due(node))
    return services.book.admit(whole, limits_of(node, world), requester=requester, now=now)


def _quarantine(services: Services, case: Case, beside: SideBySide | None = None) -> None:
    """A quarantine that is refused or fails is the case's own run's to settle."""
    try:
        put_in_quarantine(services, case, is_fresh=True, beside=beside)
    except Refused as e:
        log.info("case=%s node=%s quarantine refused: %s", case.id, case.node, e)
    except BreakfixError as e:
        log.warning("case=%s node=%s quarantine is left to the run: %s", case.id, case.node, e)


def _end_watches(services: Services, assessment: Assessment) -> list[Case]:
    """Cases under watch whose deadline has passed: in service for good, or watched on.

    A node that is suspect, or whose telemetry is lost, is not declared healthy: its watch goes on.
    """
    ended: list[Case] = []
    now = services.clock.now()
    if halt_level(services.cluster, services.book, services.settings.namespace) is HaltLevel.ALL:
        return ended
    wanted = {i.node for i in assessment.plan.intents}
    for case in services.book.cases(open_only=True):
        if case.state is not NodeState.RETURNING or case.node in wanted or case.held_by:
            continue
        if case.deadline is None or now < case.deadline:
            continue
        try:
            done = _end_watch(services, case, assessment.judgement.verdict(case.node), now)
        except BreakfixError as e:  # one node's trouble must not hold the sweep of all others
            log.warning("case=%s node=%s watch not ended: %s", case.id, case.node, e)
            continue
        if done is not None:
            ended.append(done)
    return ended


def _end_watch(
    services: Services, case: Case, verdict: Verdict | None, now: datetime
) -> Case | None:
    """The case, ended well; None when the watch goes on."""
    outcome = signals_outcome(verdict, required=required_signals(services))
    if outcome is Outcome.FIXED:
        return _end_well(services, case, now)
    services.book.move(
        case.id,
        case.fence,
        NodeState.RETURNING,
        actor=ACTOR,
        reason="watch goes on: " + (verdict.reason if verdict else "the node was not judged"),
        now=now,
        deadline=now + timedelta(seconds=services.policy.timing.watch_s),
    )
    return None


def _end_well(services: Services, case: Case, now: datetime) -> Case:
    clear_marks(services.cluster, case)
    reason, soak = "no recurrence until the end of the watch", soak_of(case)
    if soak is not None:
        reason += f"; against its peers: {soak['advice']}: {soak['reason']}"
    return services.book.end_case(
        case.id, case.fence, CaseEnd.RETURNED, actor=ACTOR, reason=reason, now=now
    )
