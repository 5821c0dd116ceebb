"""The soak: while a node is under watch after its return, it is compared with its peers.

The comparison is recorded in the node's case. A node that does worse is a finding that people see,
and its watch goes on; nothing is done to it for that alone.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace
from datetime import datetime, timedelta

from breakfix.cohorts import Advice, CanaryReport, Cohort
from breakfix.decide.soak import SOAK, soak_of
from breakfix.errors import BreakfixError
from breakfix.flow.assessment import Assessment
from breakfix.flow.canary import check_cohorts
from breakfix.flow.services import Services
from breakfix.model import Case, Node, NodeState, Observation
from breakfix.observe.remembered import RememberedMetrics

log = logging.getLogger(__name__)

MOST = 20  # comparisons in one sweep; the others come with the next (ours)


def soak_returned(services: Services, assessment: Assessment, *, actor: str) -> int:
    """Compare the nodes under watch whose look is due; how many were compared.

    One node's trouble is logged and holds nobody else's look, nor the sweep.
    """
    if not services.policy.canary.watch_returned:
        return 0
    now = services.clock.now()
    due = [c for c in services.book.cases(open_only=True) if _is_due(services, c, now)]
    # all of them ask the same of the same instant: what their peers did is asked once
    services = replace(services, metrics=RememberedMetrics(services.metrics))
    done = 0
    for case in due[:MOST]:
        try:
            done += _look(services, case, assessment, now, actor)
        except BreakfixError as e:
            log.warning("case=%s node=%s not compared with its peers: %s", case.id, case.node, e)
    return done


def _is_due(services: Services, case: Case, now: datetime) -> bool:
    """First when a whole window lies after the return, then every `watch_every`."""
    if case.state is not NodeState.RETURNING or case.deadline is None or case.held_by:
        return False
    rules, last = services.policy.canary, soak_of(case)
    if last is not None:
        next_at = datetime.fromisoformat(str(last["at"])) + timedelta(seconds=rules.watch_every_s)
        return now >= next_at
    watch_s = services.policy.timing.watch_s
    returned = case.deadline - timedelta(seconds=watch_s)
    return now >= returned + timedelta(seconds=min(rules.window_s, watch_s / 2))


def _look(
    services: Services, case: Case, assessment: Assessment, now: datetime, actor: str
) -> bool:
    node = assessment.observation.node(case.node)
    if node is None:
        return False
    rules, timing = services.policy.canary, services.policy.timing
    looks = max(1, math.ceil(timing.watch_s / max(rules.watch_every_s, 1.0)))
    report = check_cohorts(
        services,
        Cohort(f"node {node.name}", nodes=frozenset({node.name})),
        Cohort("its peers", nodes=peers_of(node, assessment.observation)),
        at=now,
        pods=assessment.observation.pods,
        looks=looks,
    )
    _record(services, case, report, now, actor)
    return True


def peers_of(node: Node, observation: Observation) -> frozenset[str]:
    """Nodes of the same SKU and pool that are in service."""
    return frozenset(
        n.name
        for n in observation.judged
        if n.name != node.name and (n.sku, n.pool) == (node.sku, node.pool) and not n.is_out
    )


def _record(
    services: Services, case: Case, report: CanaryReport, now: datetime, actor: str
) -> None:
    last = soak_of(case)
    soak = {
        "advice": report.advice.value,
        "reason": report.reason,
        "at": now.isoformat(),
        "looks": 1 + (int(last["looks"]) if last else 0),
        "fence": case.fence,
    }
    services.book.move(
        case.id,
        case.fence,
        NodeState.RETURNING,
        actor=actor,
        reason=f"against its peers: {report.advice}: {report.reason}",
        now=now,
        detail={SOAK: soak},
    )
    if report.advice is Advice.ROLL_BACK and (last is None or last["advice"] != report.advice):
        text = f"since its return, against its peers: {report.advice}: {report.reason}"
        services.notifier.tell(f"{case.node} under watch", text, case_id=case.id)
