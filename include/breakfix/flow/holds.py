"""Holds that automation puts on its own case: it waits for people, or for the world to change.

A person's hold is left alone by everybody but people; ours are looked at by the reconciler.
"""

from __future__ import annotations

from breakfix.flow.services import Services
from breakfix.model import OUR_HOLD, Case

OVERDUE_HOLD = f"{OUR_HOLD}drain-overdue"
REPLACED_HOLD = f"{OUR_HOLD}pods-not-replaced"
FAILING_HOLD = f"{OUR_HOLD}repairs-fail"
OUR_HOLDS = frozenset({OVERDUE_HOLD, REPLACED_HOLD, FAILING_HOLD})


def is_ours(case: Case) -> bool:
    """Whether automation, and no person, holds the case."""
    return case.held_by in OUR_HOLDS


def hold(services: Services, case: Case, by: str, reason: str) -> None:
    """Hold the case, and tell people that it is theirs now."""
    services.book.hold(case.id, actor=by, reason=reason, now=services.clock.now())
    text = f"{reason}. Go on with `breakfix case resume {case.id}`, or give up with `case abort`."
    services.notifier.tell(f"the case of {case.node} is on hold", text, case_id=case.id)


def let_go_on(services: Services, case: Case, *, actor: str, reason: str) -> Case:
    """Take the hold off; whoever runs the case next goes on from where the world is."""
    return services.book.unhold(case.id, actor=actor, reason=reason, now=services.clock.now())
