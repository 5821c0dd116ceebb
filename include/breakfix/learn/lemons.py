"""Repeat offenders: nodes whose trouble comes back, whatever is repaired. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from breakfix.learn.history import Episode
from breakfix.model import FailureClass, Label
from breakfix.policy import Lemon


@dataclass(frozen=True, slots=True)
class Offender:
    """A node and what it did in the window. `is_lemon`: hold it out and have it inspected."""

    node: str
    score: float
    cases: int
    classes: tuple[FailureClass, ...]
    failed_returns: int
    is_lemon: bool


def offenders(episodes: Sequence[Episode], rule: Lemon, now: datetime) -> tuple[Offender, ...]:
    """Nodes with more than one case or a return that failed, the worst first.

    A case that was noise is none of the node's doing and does not count.
    """
    since = now - timedelta(seconds=rule.window_s)
    of_node: dict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        if episode.is_case and episode.at >= since and episode.truth.label is not Label.NOISE:
            of_node[episode.node].append(episode)
    found = (_offender(node, cases, rule) for node, cases in of_node.items())
    again = (o for o in found if o.cases > 1 or o.failed_returns)
    return tuple(sorted(again, key=lambda o: (-o.score, o.node)))


def _offender(node: str, cases: Sequence[Episode], rule: Lemon) -> Offender:
    classes = tuple(sorted({c.failure_class for c in cases}))
    failed = sum(c.failed_returns for c in cases)
    score = (
        rule.per_case * len(cases)
        + rule.per_failed_return * failed
        + rule.per_other_class * (len(classes) - 1)
    )
    return Offender(node, score, len(cases), classes, failed, score >= rule.score)
