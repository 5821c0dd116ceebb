"""Counters that no repair clears, before it and after it: what grew is a new fault."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from breakfix.model import Outcome
from breakfix.policy_validation import CounterRule

Values = Mapping[str, float]  # GPU -> value


@dataclass(frozen=True, slots=True)
class CounterReading:
    """One counter of one node, before and after; `error`: why it could not be read."""

    name: str
    before: Values
    after: Values
    error: str = ""


def counters_outcome(
    rules: Sequence[CounterRule], readings: Sequence[CounterReading]
) -> tuple[Outcome, str]:
    """Fixed: no counter grew by more than its rule allows, and each can be compared.

    A counter that the node reports neither before nor after says nothing unless it is required; one
    that vanished, or a GPU with errors and without a value from before, leaves the repair unproven.
    A GPU in another one's place is a new part: it has no past here, and must have no errors.
    """
    found = {r.name: r for r in readings}
    said = [s for rule in rules for s in _compared(rule, found.get(rule.name))]
    for wanted in (Outcome.NOT_FIXED, Outcome.CANNOT_TELL):
        texts = [text for outcome, text in said if outcome is wanted]
        if texts:
            return wanted, "; ".join(texts[:3])
    return Outcome.FIXED, "; ".join(text for _, text in said) or "no counter to compare"


def _compared(rule: CounterRule, reading: CounterReading | None) -> Iterator[tuple[Outcome, str]]:
    if reading is None or reading.error:
        why = reading.error if reading else "not read"
        yield Outcome.CANNOT_TELL, f"{rule.name} cannot be compared: {why}"
    elif not reading.before and not reading.after:
        outcome = Outcome.CANNOT_TELL if rule.is_required else Outcome.FIXED
        yield outcome, f"{rule.name} is not reported"
    else:
        grown = list(_grown(rule, reading))
        yield from grown or [(Outcome.FIXED, f"{rule.text}: none new")]


def _grown(rule: CounterRule, reading: CounterReading) -> Iterator[tuple[Outcome, str]]:
    is_complete = len(reading.after) >= len(reading.before)
    for gpu in sorted(reading.before.keys() | reading.after.keys()):
        old, new = reading.before.get(gpu), reading.after.get(gpu)
        if new is None and is_complete:
            continue  # a part that was replaced
        if new is None or not math.isfinite(new):
            yield Outcome.CANNOT_TELL, f"GPU {gpu} reports {rule.name} no more"
        elif old is None or not math.isfinite(old):
            if new > rule.may_grow:
                text = f"{new:g} {rule.text} on GPU {gpu}, and no value of before the repair"
                yield Outcome.CANNOT_TELL, text
        elif new > old + rule.may_grow:
            text = f"{new - old:g} {rule.text} on GPU {gpu} since before the repair ({new:g} now)"
            yield Outcome.NOT_FIXED, text
