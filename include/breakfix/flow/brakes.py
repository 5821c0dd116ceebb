"""Storms as sweeps see them, and emergencies as people ask for them, approve and end them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import timedelta

from breakfix.approve import is_same_person, person
from breakfix.brakes import Breaker, Emergency, Lift
from breakfix.errors import Refused, SettingsError
from breakfix.flow.assessment import Assessment, world_of
from breakfix.flow.services import Services
from breakfix.model import RefusalReason, Scope
from breakfix.plan.planning import sick_nodes, well_nodes

log = logging.getLogger(__name__)


def watch_storms(services: Services, assessment: Assessment, *, actor: str) -> Sequence[Breaker]:
    """Tell the ledger who is ill and who is not; people hear of each breaker that opens or closes.

    While the metrics say nothing of a node it is neither: a gap in telemetry is no new illness.
    """
    world = world_of(services, assessment)
    sick = sick_nodes(assessment.observation, assessment.judgement)
    gone = assessment.brakes.storms.sick - world.by_name.keys()
    well = well_nodes(
        assessment.observation, assessment.judgement, services.policy.required_signals
    )
    rules = {s: rule for s in world.members if (rule := world.breaker_rule(s)) is not None}
    changed = services.book.watch_storms(
        rules,
        {n.name: n.scopes() for n in world.fleet if n.name in sick},
        well | gone,
        actor=actor,
        now=services.clock.now(),
    )
    for breaker in changed:
        log.warning("breaker=%s open=%s: %s", breaker.scope, breaker.is_open, breaker.reason)
        text = breaker.reason if breaker.is_open else "no node was struck for long enough"
        word = "open: no node is taken out" if breaker.is_open else "closed again"
        services.notifier.tell(f"breaker of {breaker.scope} is {word}", text)
    return changed


def reset_breaker(services: Services, scope: Scope, *, actor: str, reason: str) -> Breaker:
    """A person says that the storm is over: what struck until now does not count again."""
    if not reason:
        raise SettingsError("say why with --reason: it stands in the audit log")
    now = services.clock.now()
    return services.book.reset_breaker(scope, actor=actor, reason=reason, now=now)


def ask_emergency(
    services: Services,
    lifts: frozenset[Lift],
    *,
    lasts_s: float,
    requester: str,
    approver: str,
    reason: str,
) -> Emergency:
    """Ask that limits be lifted; in force once the approver says so. Raises Refused, SettingsError.

    What policy does not let be lifted, no emergency lifts; nor for longer than policy says.
    """
    rules = services.policy.limits.emergency
    if not reason:
        raise SettingsError("say why with --reason: it stands in the audit log")
    if not lifts:
        raise SettingsError(f"name what to lift: {', '.join(sorted(rules.may_lift))}")
    beyond = sorted(lifts - rules.may_lift)
    if beyond:
        _refuse(f"policy lets no emergency lift {', '.join(beyond)} (limits.emergency.may_lift)")
    if not 0 < lasts_s <= rules.longest_s:
        _refuse(f"an emergency lasts up to {rules.longest_s / 60:g} min (limits.emergency.longest)")
    _check_approver(services, requester, approver)
    now = services.clock.now()
    asked = services.book.ask_emergency(
        lifts,
        lasts_s=lasts_s,
        requester=person(requester),
        approver=approver,
        reason=reason,
        answer_by=now + timedelta(seconds=rules.answer_within_s),
        now=now,
    )
    services.notifier.tell(f"emergency asked of {approver}", str(asked))
    return asked


def approve_emergency(services: Services, *, approver: str) -> Emergency:
    """The yes of the person who was named, who is an approver by policy still. Raises Refused."""
    name = person(approver)
    if name not in services.policy.approvals.approvers:
        _refuse(f"{name} is no approver by policy (approvals.approvers)")
    made = services.book.approve_emergency(approver=name, now=services.clock.now())
    services.notifier.tell("emergency in force", str(made))
    return made


def end_emergency(services: Services, *, actor: str, reason: str) -> Emergency | None:
    """End it, or withdraw the question; anybody may, for it only makes limits hold again."""
    now = services.clock.now()
    ended = services.book.end_emergency(actor=actor, reason=reason, now=now)
    if ended is not None:
        services.notifier.tell("emergency ended", f"by {actor}: {reason or 'no reason given'}")
    return ended


def _check_approver(services: Services, requester: str, approver: str) -> None:
    if approver not in services.policy.approvals.approvers:
        _refuse(f"{approver or 'nobody'} is no approver by policy (approvals.approvers)")
    if is_same_person(approver, requester):
        _refuse("requester and approver are the same person")


def _refuse(text: str) -> None:
    raise Refused(RefusalReason.NOT_APPROVED, text)
