"""What waits for people: every open question, with all that somebody must know to answer it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from breakfix.flow.questions import yes_so_far
from breakfix.flow.services import Services
from breakfix.flow.tiers import kept_impact, tier_of
from breakfix.model import (
    Approval,
    Case,
    GivenAnswer,
    Impact,
    Purpose,
    ScopeKind,
    Tier,
    digest,
)


@dataclass(frozen=True, slots=True)
class WaitingQuestion:
    """One question. `tier`: the stricter of what it was asked with and the policy in force."""

    case: Case
    approval: Approval
    tier: Tier
    yes: tuple[GivenAnswer, ...]
    cost: Impact | None  # of a repair; a return stops nothing

    @property
    def pool(self) -> str:
        return next((s.value for s in self.case.scopes if s.kind is ScopeKind.POOL), "")


def open_questions(
    services: Services, *, purpose: Purpose | None = None, pool: str | None = None
) -> list[WaitingQuestion]:
    """All that is asked now and not expired, oldest first; of one purpose or pool if that is
    given.
    """
    services = services.refreshed()
    cases = {c.id: c for c in services.book.cases(open_only=True)}
    now = services.clock.now()
    found = [
        _opened(services, cases[a.case_id], a)
        for a in services.book.questions()
        if a.case_id in cases and now < a.expires_at and purpose in {None, a.purpose}
    ]
    return [q for q in found if pool in {None, q.pool}]


def token_of(questions: Iterable[WaitingQuestion]) -> str:
    """Names just these questions: who answers many at once says that they are those he saw."""
    keys = sorted((q.case.run_id, q.approval.plan_hash) for q in questions)
    return digest({"questions": keys})[:8]


def _opened(services: Services, case: Case, approval: Approval) -> WaitingQuestion:
    is_repair = approval.purpose is Purpose.REPAIR
    tier = tier_of(services, case, approval.purpose)
    asked = Tier.TWO if approval.needed > 1 else Tier.ONE
    return WaitingQuestion(
        case=case,
        approval=approval,
        tier=max(asked, tier, key=lambda t: t.people),
        yes=yes_so_far(approval, services.book.answers(case.id)),
        cost=kept_impact(case) if is_repair else None,
    )
