"""What the demo breaks, and what must come of it: each line is checked at the end, and told in the
report.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from breakfix.model import (
    Approval,
    AuditEntry,
    Case,
    CaseEnd,
    Decision,
    Node,
    NodeState,
    Purpose,
    Step,
)

REJECTED = "r04-n01"
ROLLOUT_RACK = "r06"


@dataclass(slots=True)
class Facts:
    """All that the check looks at: the ledger, the cluster, and what was seen on the way."""

    cases: Sequence[Case]
    steps: dict[str, Sequence[Step]]
    approvals: dict[str, Sequence[Approval]]
    nodes: dict[str, Node]
    audit: Sequence[AuditEntry]
    audit_problem: str
    refusals: set[tuple[str, str]] = field(default_factory=set)  # (node, reason) seen in the ledger
    incidents: set[str] = field(default_factory=set)
    ever_out: set[str] = field(default_factory=set)
    crowded: list[str] = field(default_factory=list)  # scopes seen with too many of ours out
    freed_at: dict[str, datetime] = field(
        default_factory=dict
    )  # case -> when its scopes were freed
    reboots: dict[str, int] = field(default_factory=dict)

    def of(self, node: str) -> list[Case]:
        return [c for c in self.cases if c.node == node]


@dataclass(frozen=True, slots=True)
class Expectation:
    """One line of the story: `check` returns what is wrong, or an empty string."""

    nodes: str
    story: str
    check: Callable[[Facts], str]


def _returned(facts: Facts, node: str) -> str:
    cases = facts.of(node)
    if not cases:
        return f"no case was opened for {node}"
    case = cases[-1]
    if case.end is not CaseEnd.RETURNED:
        return f"the case of {node} ended as {case.end or 'not at all'} ({case.state})"
    if facts.nodes[node].is_out:
        return f"{node} is still out of service"
    return ""


def _off_the_bus(facts: Facts) -> str:
    if problem := _returned(facts, "r01-n02"):
        return problem
    return "" if facts.reboots.get("r01-n02") == 1 else "it was not rebooted exactly once"


def _budget(facts: Facts) -> str:
    if ("r02-n02", "budget") not in facts.refusals:
        return "no refusal naming the budget was recorded"
    return _returned(facts, "r02-n02")


def _untouched(*names: str) -> Callable[[Facts], str]:
    def check(facts: Facts) -> str:
        touched = [n for n in names if facts.of(n) or n in facts.ever_out]
        return f"touched: {', '.join(touched)}" if touched else ""

    return check


def _rollout(facts: Facts) -> str:
    rack = [n for n in facts.nodes if n.startswith(ROLLOUT_RACK)]
    if problem := _untouched(*rack)(facts):
        return problem
    return "" if facts.incidents else "no incident was recorded for the rack"


def _one_after_the_other(facts: Facts) -> str:
    for node in ("r03-n01", "r03-n03"):
        if problem := _returned(facts, node):
            return problem
    first, second = sorted(
        (facts.of("r03-n01")[0], facts.of("r03-n03")[0]), key=lambda c: c.opened_at
    )
    freed = facts.freed_at.get(first.id)
    if freed is None or second.opened_at < freed:
        return "the second was taken out before the first had freed its rack"
    waited = {"scope_full"} & {r for n, r in facts.refusals if n == second.node}
    return "" if waited else "no refusal was recorded while the second waited"


def _rejected(facts: Facts) -> str:
    cases = facts.of(REJECTED)
    if not cases or cases[-1].end is not CaseEnd.ESCALATED:
        return "its case did not escalate"
    case = cases[-1]
    said = [a for a in facts.approvals[case.id] if a.purpose is Purpose.REPAIR]
    if not said or said[-1].decision is not Decision.REFUSED or said[-1].approver != "oncall":
        return "no refusal by oncall is on record"
    if any(s.name.startswith("repair") for s in facts.steps[case.id]):
        return "it was repaired all the same"
    return "" if facts.nodes[REJECTED].is_unschedulable else "it is back in service"


def _lemon(facts: Facts) -> str:
    cases = facts.of("r05-n02")
    if not cases or cases[-1].end is not CaseEnd.ESCALATED:
        return "its case did not escalate"
    repairs = [s for c in cases for s in facts.steps[c.id] if s.name.startswith("repair")]
    if not repairs:
        return "it was never repaired"
    states = [e.detail.get("state") for e in facts.audit if e.subject == cases[-1].id]
    return "" if NodeState.RETURNING in states else "it never came back before it failed again"


def _foreign_cordon(facts: Facts) -> str:
    node = facts.nodes["r07-n02"]
    if not node.is_unschedulable:
        return "somebody's cordon was lifted"
    ours = [k for k in (*node.labels, *node.annotations) if k.startswith("breakfix.dev/case")]
    return f"our marks are on it: {ours}" if ours else ""


def _audit(facts: Facts) -> str:
    return facts.audit_problem


def _limits(facts: Facts) -> str:
    return "; ".join(facts.crowded)


STORY: tuple[Expectation, ...] = (
    Expectation(
        "r01-n02", "a GPU falls off the bus (XID 79): rebooted, back in service", _off_the_bus
    ),
    Expectation("r02-n02", "a budget protects its pods: waits, then drains, is repaired", _budget),
    Expectation("r01-n04", "hot but healthy: not touched", _untouched("r01-n04")),
    Expectation(
        "r02-n03, r02-n04",
        "application errors (XID 13, 31): not touched",
        _untouched("r02-n03", "r02-n04"),
    ),
    Expectation(
        "r06-*", "a bad driver rollout over a rack: one incident, nothing drained", _rollout
    ),
    Expectation(
        "r03-n01, r03-n03", "two faults in one rack: one after the other", _one_after_the_other
    ),
    Expectation("r04-n01", "its repair is rejected: escalates, not repaired", _rejected),
    Expectation("r05-n02", "fails again after its repair: escalates", _lemon),
    Expectation("r07-n02", "cordoned by somebody else: still cordoned, not ours", _foreign_cordon),
    Expectation("all", "never more than one of ours out per rack, pool or SKU", _limits),
    Expectation("all", "the audit log verifies", _audit),
)
