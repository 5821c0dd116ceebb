"""Repeat offenders among the nodes that are about to be repaired: held for hardware instead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta

from breakfix.flow.services import Services
from breakfix.learn import History
from breakfix.learn.history import episodes_of
from breakfix.learn.lemons import Offender, offenders
from breakfix.model import Case


def lemons_among(services: Services, nodes: Collection[str]) -> Mapping[str, str]:
    """Node -> why it is a lemon, for those that are. Reads the past of these nodes alone."""
    ledger, rule = services.ledger, services.policy.learning.lemon
    if ledger is None or not nodes:
        return {}
    now = services.clock.now()
    since = now - timedelta(seconds=rule.window_s)
    cases = _telling(c for c in ledger.cases(opened_since=since) if c.node in nodes)
    if not cases:
        return {}
    history = History(
        cases=cases,
        reviews=(),
        labellings=tuple(a for a in ledger.labellings() if a.case_id),
        steps={c.id: tuple(ledger.steps(c.id)) for c in cases if c.fence > 1},
    )
    found = offenders(episodes_of(history), rule, now)
    return {o.node: _words(o, rule.window_s) for o in found if o.is_lemon}


def _telling(cases: Iterable[Case]) -> list[Case]:
    """Those of nodes with more than one, or with one that changed hands: only such a case can have
    seen a return that failed. In a storm of first cases there are none, and nothing more is read.
    """
    of_node: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        of_node[case.node].append(case)
    return [c for own in of_node.values() if len(own) > 1 or own[0].fence > 1 for c in own]


def lemon_words(services: Services, node: str) -> str:
    """Why this node is a lemon; an empty string when it is none."""
    return lemons_among(services, [node]).get(node, "")


def _words(offender: Offender, window_s: float) -> str:
    classes = ", ".join(offender.classes)
    return (
        f"repeat offender: {offender.cases} cases in {window_s / 86400:.0f} days ({classes}),"
        f" {offender.failed_returns} failed returns, score {offender.score:g}"
    )
