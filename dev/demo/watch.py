"""Looks at the stack once a second, keeps what must not be forgotten, and draws the live table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from rich.console import Group
from rich.table import Table
from rich.text import Text

from breakfix.adapters.kubernetes import KubernetesCluster
from breakfix.adapters.ledger import PostgresLedger
from breakfix.model import Case, Node, NodeState, ScopeKind
from dev.demo.story import Facts
from simfleet.client import ControlClient

_COLUMNS = (("node", 8), ("broken by", 20), ("state", 12), ("case", 11))
_AT_WORK = {NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING}
_STYLES = {
    "healthy": "green",
    "suspect": "yellow",
    "quarantined": "red",
    "repairing": "magenta",
    "validating": "cyan",
    "returning": "blue",
    "escalated": "bold red",
}


@dataclass(slots=True)
class Watcher:
    """What was seen so far. `look` may be called as often as one likes."""

    ledger: PostgresLedger
    cluster: KubernetesCluster
    control: ControlClient
    nodes: dict[str, Node] = field(default_factory=dict)
    cases: Sequence[Case] = ()
    faults: dict[str, str] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    ever_out: set[str] = field(default_factory=set)
    foreign: frozenset[str] = frozenset()
    crowded: set[str] = field(default_factory=set)
    _told: dict[str, str] = field(default_factory=dict)

    def look(self) -> None:
        """Read cluster, ledger and the truth of the simulation once."""
        self.nodes = {n.name: n for n in self.cluster.nodes()}
        self.cases = self.ledger.cases()
        if not self.foreign:
            self.foreign = frozenset(n.name for n in self.nodes.values() if n.is_unschedulable)
        self.ever_out |= {n.name for n in self.nodes.values() if n.is_unschedulable} - self.foreign
        for name, said in self._faults().items():
            self.faults.setdefault(name, said)
        self._count_scopes()
        for case in self.cases:
            self.notes[case.node] = self._note(case)

    def _faults(self) -> dict[str, str]:
        found: dict[str, str] = {}
        for node in self.control.get("/sim/status")["nodes"]:
            names = sorted({str(f["fault"]) for f in node["faults"]})
            if names:
                found[str(node["node"])] = ", ".join(names)
        return found

    def _count_scopes(self) -> None:
        """At most one node of ours at work per rack, pool and SKU: an open case, by the ledger's
        word.
        """
        seen: Counter[str] = Counter()
        for case in self.cases:
            if case.is_open and case.state in _AT_WORK:
                kinds = (ScopeKind.RACK, ScopeKind.POOL, ScopeKind.SKU)
                seen.update(str(s) for s in case.scopes if s.kind in kinds)
        self.crowded |= {f"{scope} had {n} nodes at work" for scope, n in seen.items() if n > 1}

    def _note(self, case: Case) -> str:
        if case.end is not None:
            return f"case ended: {case.end}"
        steps = self.ledger.steps(case.id)
        waiting = [a for a in self.ledger.approvals(case.id) if a.decision == "pending"]
        if waiting:
            return f"asks: {waiting[-1].purpose} of {case.failure_class}?"
        if steps:
            last = steps[-1]
            return f"{last.name} {last.status} {last.detail.get('text', '')}".strip()
        return case.reason

    def state_of(self, node: str) -> str:
        """The newest case's word, else what the cluster shows."""
        for case in reversed(self.cases):
            if case.node == node:
                return str(case.state)
        if self.nodes[node].is_unschedulable:
            return "cordoned"
        return "in service"

    def changes(self) -> list[str]:
        """What is new since the last call, a line a node: for where no table can be drawn."""
        lines = []
        for case in self.cases:
            line = f"{case.node} {case.state}: {self.notes.get(case.node, '')}"
            if self._told.get(case.node) != line:
                self._told[case.node] = line
                lines.append(line)
        return lines

    def table(self, elapsed_s: float, said: int) -> Group:
        """The live table: every node that is broken, has a case, or is out."""
        names = sorted(set(self.faults) | {c.node for c in self.cases} | set(self.foreign))
        title = f"{elapsed_s:5.0f} s"
        table = Table(title=title, title_justify="left", header_style="bold", expand=True)
        for column, width in _COLUMNS:
            table.add_column(column, overflow="ellipsis", no_wrap=True, width=width)
        table.add_column("now", overflow="ellipsis", no_wrap=True, ratio=1)
        for name in names:
            case = next((c for c in reversed(self.cases) if c.node == name), None)
            state = self.state_of(name)
            table.add_row(
                name,
                self.faults.get(name, "cordoned by somebody" if name in self.foreign else ""),
                Text(state, style=_STYLES.get(state, "")),
                case.id[-8:] + f".{case.fence}" if case else "",
                Text(self.notes.get(name, ""), overflow="ellipsis"),
            )
        open_cases = sum(c.is_open for c in self.cases)
        line = f"{len(self.cases)} cases, {open_cases} open; {said} questions answered"
        return Group(table, Text(line, style="dim"))

    def facts(self) -> Facts:
        """Everything the story's check needs, read once more."""
        self.look()
        audit = self.ledger.audit_entries(limit=100_000)
        _, problem = self.ledger.verify_audit()
        facts = Facts(
            cases=self.cases,
            steps={c.id: self.ledger.steps(c.id) for c in self.cases},
            approvals={c.id: self.ledger.approvals(c.id) for c in self.cases},
            nodes=self.nodes,
            audit=audit,
            audit_problem=problem,
            ever_out=self.ever_out,
            crowded=sorted(self.crowded),
            reboots=self._reboots(),
        )
        for entry in audit:
            facts.refusals |= {(r["node"], r["reason"]) for r in entry.detail.get("refused", ())}
            facts.incidents |= {i["scope"] for i in entry.detail.get("incidents", ())}
            if entry.detail.get("state") in {NodeState.RETURNING, NodeState.ESCALATED}:
                facts.freed_at.setdefault(entry.subject, entry.at)
        return facts

    def _reboots(self) -> dict[str, int]:
        events = self.control.get("/sim/events", {"what": "reboot_started"})
        return Counter(e["node"] for e in events)

    def newest_change(self) -> datetime | None:
        """When a case last changed."""
        return max((c.updated_at for c in self.cases), default=None)
