"""Steps of a case in the ledger: begun before the effect, finished after it, none repeated.

A case can take its node out more than once (it breaks again while under watch). Each time is a
round, and steps are named `<what>-<round>`: not by fence, so that whoever takes a case over sees
what its predecessor has done.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from breakfix.act import marks
from breakfix.act.guard import Acting
from breakfix.errors import ClusterError
from breakfix.model import Case, Node, Step, StepStatus

QUARANTINE, DRAIN, REPAIR, DIAG, RELEASE = "quarantine", "drain", "repair", "diag", "release"

#: Steps that do something to the node; the others only look at it.
_ACTS = tuple(f"{what}-" for what in (QUARANTINE, DRAIN, REPAIR, RELEASE))

log = logging.getLogger(__name__)


def current_round(steps: Sequence[Step]) -> int:
    """1 for a case that took its node out once."""
    return max(1, sum(s.name.startswith(f"{QUARANTINE}-") for s in steps))


def next_round(steps: Sequence[Step]) -> int:
    """The round of a quarantine now: a new one when the last one ended in a release."""
    number = current_round(steps)
    last = step_named(steps, f"{RELEASE}-{number}")
    return number + 1 if last is not None and last.status is StepStatus.DONE else number


def step_named(steps: Sequence[Step], name: str) -> Step | None:
    """The step of that name, if it was begun."""
    return next((s for s in steps if s.name == name), None)


def begin(acting: Acting, case: Case, name: str, detail: Mapping[str, Any]) -> tuple[Step, bool]:
    """Record the intention before the effect. (step, False) when it was recorded before."""
    now = acting.clock.now()
    return acting.ledger.begin_step(case.id, case.fence, name, detail=detail, now=now)


def finish(
    acting: Acting,
    case: Case,
    name: str,
    status: StepStatus,
    detail: Mapping[str, Any],
    *,
    node: Node | None = None,
) -> Step:
    """Record what became of a step, and mark the ledger's new head in the cluster.

    Of an act on the node also how it left the node: as it was read (`node`), or as it is now. A
    ledger that does not own the cluster records nothing: Refused (UNOWNED_CLUSTER).
    """
    now = acting.clock.now()
    acting.check_ownership()
    if name.startswith(_ACTS):
        detail = {**detail, "node_after": _picture(acting, case, node)}
    step = acting.ledger.finish_step(case.id, case.fence, name, status, detail=detail, now=now)
    log.info("case=%s node=%s step=%s %s", case.id, case.node, name, status)
    acting.mark_head()
    return step


def _picture(acting: Acting, case: Case, node: Node | None) -> Mapping[str, Any]:
    """The node now; what it did not tell is said so, and holds no record of what was done."""
    try:
        return marks.picture(node or acting.cluster.node(case.node))
    except ClusterError as e:
        return {"not_read": str(e)[:300]}
