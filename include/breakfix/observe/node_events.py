"""Events that components wrote of nodes: how often, within a window. Hearsay that a person or a
log watcher put there: evidence beside other evidence, never alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from breakfix.model import Event


def count_events(
    what: str,
    events: Iterable[Event],
    *,
    at: datetime,
    window_s: float,
    floors: Mapping[str, datetime],
) -> Mapping[tuple[str, str], float]:
    """`REASON|REASON`: how often within the window, by node and reason.

    The same thing said by two objects, as after a restart of the watcher, is counted once: the
    larger count. What was last said before the node's floor, or will be said, does not count.
    """
    wanted = frozenset(what.split("|"))
    said: dict[tuple[str, str, str, str], float] = {}
    for event in events:
        if event.reason not in wanted or event.last_at is None or event.last_at > at:
            continue
        start = at - timedelta(seconds=window_s)
        start = max(start, floors.get(event.node, start))
        if event.last_at > start:
            what_was_said = (event.node, event.reason, event.source, event.message)
            said[what_was_said] = max(said.get(what_was_said, 0.0), _since(event, start))
    counts: dict[tuple[str, str], float] = defaultdict(float)
    for (node, reason, _, _), count in said.items():
        counts[node, reason] += count
    return counts


def _since(event: Event, start: datetime) -> float:
    """So many of an event's repetitions as fall after `start`, when they came evenly; at least
    the last one.
    """
    if event.first_at is None or event.last_at is None or event.first_at >= start:
        return float(event.count)
    share = (event.last_at - start) / (event.last_at - event.first_at)
    return max(1.0, float(round(event.count * share)))
