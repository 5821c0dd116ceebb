"""Counters of a node before its repair and now, from the history that Prometheus keeps."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.flow.gates import last_repair
from breakfix.flow.services import Services
from breakfix.model import Case, Outcome
from breakfix.observe.one_node import counters_of
from breakfix.verify import CounterReading, counters_outcome

_Found = Mapping[str, float] | str  # by GPU, or why there is none


def compare_counters(services: Services, case: Case) -> tuple[Outcome, str, dict[str, object]]:
    """(outcome, sentence, evidence) of the counters that no repair clears, for a case's node.

    The baseline is the last value of each GPU before the repair was sent, asked of the past: it
    cannot be lost with a process. A case without a repair is compared with when it was opened.
    Raises MetricsError.
    """
    repair = last_repair(services, case)
    before_at = repair.started_at if repair is not None else case.opened_at
    return counters_since(services, case.node, before_at, case.repaired_at or before_at)


def counters_since(
    services: Services, node: str, before_at: datetime, since: datetime
) -> tuple[Outcome, str, dict[str, object]]:
    """As `compare_counters`, of what was before `before_at` and what came after `since`."""
    rules, now = services.policy.validation.counters, services.clock.now()
    look_back_s = services.policy.validation.look_back_s
    since_s = min(look_back_s, max(1.0, (now - since).total_seconds()))
    asked = (services.metrics, services.policy, node, rules)
    before = counters_of(*asked, at=before_at, window_s=look_back_s)
    after = counters_of(*asked, at=now, window_s=since_s)
    readings = [_reading(r.name, before[r.name], after[r.name]) for r in rules]
    outcome, text = counters_outcome(rules, readings)
    evidence: dict[str, object] = {
        "counters_before_at": before_at.isoformat(),
        "counters": {r.name: _evidence(r) for r in readings if not r.error},
    }
    return outcome, text, evidence


def _reading(name: str, before: _Found, after: _Found) -> CounterReading:
    if isinstance(before, str):
        return CounterReading(name, {}, {}, error=before)
    if isinstance(after, str):
        return CounterReading(name, {}, {}, error=after)
    return CounterReading(name, before, after)


def _evidence(reading: CounterReading) -> dict[str, list[float | None]]:
    """GPU -> [before, after], of those that have counted anything."""
    gpus = sorted(reading.before.keys() | reading.after.keys())
    both = {g: [reading.before.get(g), reading.after.get(g)] for g in gpus}
    return {g: values for g, values in both.items() if any(values)}
