"""How many people must say yes before a repair or a return: the strictest of all that policy says.
Pure.
"""

from __future__ import annotations

from collections.abc import Iterable

from breakfix.model import Action, FailureClass, Impact, Purpose, Tier
from breakfix.policy import Policy
from breakfix.policy_approvals import TierRule


def strictest(tiers: Iterable[Tier]) -> Tier:
    """The one that asks for most people; AUTOMATIC of none."""
    return max(tiers, key=lambda t: t.people, default=Tier.AUTOMATIC)


def repair_tier(
    failure_class: FailureClass, action: Action, impact: Impact, policy: Policy
) -> Tier:
    """Before the drain: by the class's mode, by the gangs that would stop, by the rules.

    A person's own drain has been decided by that person; only a rule that names the action asks.
    """
    named = _rules(Purpose.REPAIR, failure_class, action, policy)
    if action is Action.DRAIN_ONLY:
        named = [r for r in named if Action.DRAIN_ONLY in r.actions]
        return strictest(r.needs for r in named if _is_so_large(impact, r))
    asked = [r.needs for r in named if _is_so_large(impact, r)]
    if _asks_by_mode(failure_class, policy) or impact.gang_gpus > policy.approvals.gang_gpus:
        asked.append(Tier.ONE)
    return strictest(asked)


def return_tier(failure_class: FailureClass, action: Action, policy: Policy) -> Tier:
    """Before a validated node takes work again."""
    asked = [r.needs for r in _rules(Purpose.RETURN, failure_class, action, policy)]
    if "return" in policy.approvals.ask_before:
        asked.append(Tier.ONE)
    return strictest(asked)


def _asks_by_mode(failure_class: FailureClass, policy: Policy) -> bool:
    if "repair" not in policy.approvals.ask_before:
        return False
    return policy.class_rule(failure_class).mode != "auto"


def _rules(
    before: Purpose, failure_class: FailureClass, action: Action, policy: Policy
) -> list[TierRule]:
    return [
        r
        for r in policy.approvals.tiers
        if r.before is before
        and (not r.actions or action in r.actions)
        and (not r.classes or failure_class in r.classes)
    ]


def _is_so_large(impact: Impact, rule: TierRule) -> bool:
    sizes = (
        (rule.gang_gpus_over, impact.gang_gpus),
        (rule.gpus_over, impact.gpus_stopped),
        (rule.pods_over, impact.pods_evicted),
    )
    return all(bound is None or size > bound for bound, size in sizes)
