"""How many people a case's repair or return wants now: never fewer than when it was admitted."""

from __future__ import annotations

from typing import Any

import msgspec

from breakfix.flow.draining import drain_step
from breakfix.flow.looking import look
from breakfix.flow.services import Services
from breakfix.model import Action, Case, Impact, NodeState, Purpose, Tier
from breakfix.plan.planning import impact_of
from breakfix.plan.tiers import repair_tier, return_tier, strictest

ACTOR = "node_case"


def tier_of(services: Services, case: Case, purpose: Purpose) -> Tier:
    """The stricter of two policies: that of the admission, and that in force now."""
    if purpose is Purpose.RETURN:
        return return_tier(case.failure_class, case.action, services.policy)
    if case.state is NodeState.REPAIRING:
        return strictest((kept_tier(case), rung_tier(services, case, case.action)))
    in_force = repair_tier(case.failure_class, case.action, kept_impact(case), services.policy)
    return strictest((kept_tier(case), in_force))


def rung_tier(services: Services, case: Case, action: Action) -> Tier:
    """What a further rung wants of a node that is drained: it stops no pod any more, and a call to
    the vendor does nothing to the node.
    """
    if action is Action.OPEN_VENDOR_CASE:
        return Tier.AUTOMATIC
    return repair_tier(case.failure_class, action, Impact(0, 0, 0), services.policy)


def kept_tier(case: Case) -> Tier:
    """What the case was admitted with, or has been raised to since; in doubt a person is asked."""
    if not case.detail.get("needs_approval", True):
        return Tier.AUTOMATIC
    kept = Tier(case.detail.get("tier", Tier.ONE))
    return Tier.ONE if kept is Tier.AUTOMATIC else kept


def kept_impact(case: Case) -> Impact:
    """What the plan said that it costs; nothing where the case does not know."""
    known: dict[str, Any] = {"pods_evicted": 0, "gpus_stopped": 0, "gpus_free_after": 0}
    return msgspec.convert({**known, **case.detail.get("impact", {})}, Impact)


def recounted(services: Services, case: Case) -> Case:
    """The case with what its drain would stop now: a job may have come since the plan was made.

    Not once the drain has begun: what it stopped by then is no longer there to be counted.
    """
    if drain_step(services, case) is not None:
        return case
    world = look(services)
    node = world.by_name.get(case.node)
    if node is None:
        return case
    impact = impact_of(node, world)
    if _size(impact) == _size(kept_impact(case)):
        return case
    tier = strictest(
        (
            kept_tier(case),
            repair_tier(case.failure_class, case.action, impact, services.policy),
        )
    )
    detail = {
        "impact": msgspec.to_builtins(impact),
        "tier": tier.value,
        "needs_approval": tier is not Tier.AUTOMATIC,
    }
    return services.book.move(
        case.id,
        case.fence,
        case.state,
        actor=ACTOR,
        reason=f"a drain would now stop {impact.gpus_stopped} GPUs",
        now=services.clock.now(),
        detail=detail,
    )


def _size(impact: Impact) -> tuple[object, ...]:
    return impact.pods_evicted, impact.gpus_stopped, impact.gang_gpus, impact.gangs
