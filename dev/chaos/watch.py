"""Holds the rules against the truth of the simulation, several times a second. Knows nothing of the
product but its limits in plain words: one node of ours out per rack, pool and SKU.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Truth = Mapping[str, Any]  # one node of /sim/status


@dataclass(slots=True)
class Watch:
    """What was seen so far. `violations` are sentences, each once."""

    foreign: frozenset[str]  # cordoned by people before the start
    never: set[str] = field(default_factory=set)  # nodes that nothing may touch
    fleet_most: int = 0  # of ours out at a time
    samples: int = 0
    most_out: int = 0
    violations: dict[str, int] = field(default_factory=dict)  # sentence -> first sample
    broken_at: dict[str, float] = field(default_factory=dict)
    out_since: dict[str, float] = field(default_factory=dict)
    delays: list[tuple[float, float]] = field(default_factory=list)  # broken at, seconds until out

    def broke(self, node: str, at_s: float) -> None:
        """A fault that shows at once was put on a node in service."""
        self.broken_at[node] = at_s

    def sample(self, nodes: Sequence[Truth], at_s: float) -> None:
        """Hold one instant against the rules."""
        self.samples += 1
        cordoned = {str(n["node"]) for n in nodes if n["cordoned"]}
        ours = cordoned - self.foreign
        self._limits([n for n in nodes if n["node"] in ours])
        for node in sorted(ours & self.never):
            self._broken(f"{node} was taken out, and must not be")
        for node in sorted(self.foreign - cordoned):
            self._broken(f"the cordon that people put on {node} is gone")
        for node in ours - self.out_since.keys():
            self.out_since[node] = at_s
            if (since := self.broken_at.pop(node, None)) is not None:
                self.delays.append((since, at_s - since))
        for node in self.out_since.keys() - ours:
            del self.out_since[node]

    def _limits(self, out: Sequence[Truth]) -> None:
        self.most_out = max(self.most_out, len(out))
        if len(out) > self.fleet_most:
            self._broken(f"{len(out)} nodes of the fleet were out at once")
        for kind in ("rack", "pool", "sku"):
            counted = Counter(str(n[kind]) for n in out if n[kind])
            for name, number in counted.items():
                if number > 1:
                    self._broken(f"{number} nodes of {kind} {name} were out at once")

    def _broken(self, sentence: str) -> None:
        self.violations.setdefault(sentence, self.samples)


@dataclass(frozen=True, slots=True)
class Ended:
    """A case at the end, as far as the rules ask."""

    id: str
    node: str
    is_open: bool
    end: str
    reboots: int  # that it has recorded
    dispatched: tuple[str, ...]  # steps whose outcome nobody recorded


def at_the_end(
    cases: Sequence[Ended],
    nodes: Sequence[Truth],
    *,
    foreign: Collection[str],
    incurable: Collection[str],
    rebooted: Mapping[str, int],
    audit_fault: str,
) -> list[str]:
    """What is wrong when all has settled, as sentences. `rebooted`: how often each node really was;
    `incurable`: nodes whose hardware stays broken.
    """
    wrong = [f"the audit does not verify: {audit_fault}"] if audit_fault else []
    last = {c.node: c for c in cases}
    for case in cases:
        if case.is_open:
            wrong.append(f"case {case.id} of {case.node} has not ended")
        if case.dispatched and not case.is_open:
            wrong.append(f"case {case.id} ended with steps unsettled: {', '.join(case.dispatched)}")
    for node in nodes:
        wrong += _node_wrong(node, last.get(str(node["node"])), foreign, incurable)
    recorded: Counter[str] = Counter()
    for case in cases:
        recorded[case.node] += case.reboots
    wrong += [
        f"{node} was rebooted {count} times, {recorded[node]} of them on record"
        for node, count in sorted(rebooted.items())
        if count > recorded[node]
    ]
    return wrong


def _node_wrong(
    node: Truth, case: Ended | None, foreign: Collection[str], incurable: Collection[str]
) -> list[str]:
    name = str(node["node"])
    if name in foreign:
        return []
    is_escalated = case is not None and (case.is_open or case.end == "escalated")
    if node["cordoned"] and not is_escalated:
        return [f"{name} is out of service, and nobody has it"]
    if case is None:
        return []
    if name in incurable:
        return [] if case.end == "escalated" else [f"{name} has broken hardware: {case.end}"]
    if case.end != "returned":
        return [f"{name} should be back in service: {case.end or 'its case is open'}"]
    return []


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed; 0 of none."""
    if not values:
        return 0.0
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, max(0, -(-int(share * 100) * len(ranked) // 100) - 1))]
