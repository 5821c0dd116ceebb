"""What the guardrails look at: the observation indexed once, and what the plan has already
promised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from breakfix.model import (
    REPAIRS,
    Action,
    Budget,
    Case,
    HaltLevel,
    Node,
    NodeRecord,
    NodeState,
    Observation,
    Pod,
    PodDecision,
    Scope,
)
from breakfix.plan.drain_ladder import decide_drain
from breakfix.plan.gangs import Gang, GangKey, gang_of, gangs_by_key
from breakfix.plan.selectors import selects
from breakfix.policy import Policy

#: Label of the pods that repair and validate: ours, and no workload.
OUR_PODS = "breakfix.dev/case"

#: States of a case that somebody is at work on.
BUSY = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})


@dataclass(slots=True)
class World:
    """The fleet at planning time. `taken` and `budget_used` grow as the plan admits nodes."""

    observation: Observation
    policy: Policy
    records: Mapping[str, NodeRecord]
    cases: Mapping[str, Case]  # open ones, by node
    halt: HaltLevel
    fleet: tuple[Node, ...]
    by_name: Mapping[str, Node]
    pods_on: Mapping[str, Sequence[Pod]]
    members: Mapping[Scope, frozenset[str]]
    confirmed: Mapping[str, str]  # node -> the second source that its metrics are its own
    out: frozenset[str]  # by the cluster's word or the ledger's, whichever is worse
    available: frozenset[Action] = REPAIRS  # the repairs that somebody is there to do
    lemons: Mapping[str, str] = field(default_factory=dict)  # node -> why it is one
    taken: set[str] = field(default_factory=set)
    budget_used: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    drains: dict[str, list[PodDecision]] = field(default_factory=dict)  # worked out once a node
    gangs: Mapping[GangKey, Gang] | None = None  # worked out when the first node is a candidate

    def pods_to_drain(self, node: str) -> list[PodDecision]:
        """What a drain of the node would do with each of its pods, by policy; our own pods stay."""
        if node not in self.drains:
            self.drains[node] = decide_drain(
                (p for p in self.pods_on.get(node, ()) if OUR_PODS not in p.labels),
                daemon_sets=self.observation.daemon_sets,
                drain=self.policy.drain,
            )
        return self.drains[node]

    def gangs_on(self, pods: Iterable[Pod]) -> list[Gang]:
        """The gangs that these pods belong to, largest first."""
        if self.gangs is None:
            self.gangs = gangs_by_key(self.observation.pods)
        keys = {key for p in pods if (key := gang_of(p)) is not None}
        found = [self.gangs[key] for key in keys if key in self.gangs]
        return sorted(found, key=lambda g: (-g.gpus, g.kind, g.namespace, g.name))

    def is_leaving(self, node: Node) -> bool:
        """Whether what runs there has to find another place: taken, under a case, or NotReady."""
        case = self.cases.get(node.name)
        is_busy = case is not None and case.state in BUSY
        return is_busy or node.name in self.taken or not node.is_ready

    def out_besides(self, node: str, scope: Scope) -> frozenset[str]:
        """Who is out of that scope, or promised to be, the node itself left out."""
        return ((self.out | self.taken) & self.members[scope]) - {node}

    def maximum(self, scope: Scope) -> int:
        """Nodes that may be out of the scope at a time. A scope that policy does not limit allows
        all.
        """
        share = self.policy.limits.out.get(scope.kind)
        size = len(self.members[scope])
        return size if share is None else share.of(size)


#: Ledger states in which a node is out of service whatever the cluster shows.
_OUT_STATES = BUSY | {NodeState.ESCALATED}


def build_world(
    observation: Observation,
    fleet_names: frozenset[str],
    policy: Policy,
    *,
    records: Mapping[str, NodeRecord],
    cases: Sequence[Case],
    halt: HaltLevel,
    confirmed: Mapping[str, str] | None = None,
    available: frozenset[Action] = REPAIRS,
    lemons: Mapping[str, str] | None = None,
) -> World:
    """Index one observation. `fleet_names` are the GPU nodes: only they count in scopes and
    shares.
    """
    fleet = tuple(n for n in observation.nodes if n.name in fleet_names)
    pods_on: dict[str, list[Pod]] = defaultdict(list)
    for pod in observation.pods:
        pods_on[pod.node].append(pod)
    members: dict[Scope, set[str]] = defaultdict(set)
    for node in fleet:
        for scope in node.scopes():
            members[scope].add(node.name)
    open_cases = {c.node: c for c in cases if c.is_open}
    ledger_out = {n for n, c in open_cases.items() if c.state in _OUT_STATES}
    ledger_out |= {r.node for r in records.values() if r.state in _OUT_STATES}
    return World(
        observation=observation,
        policy=policy,
        records=records,
        cases=open_cases,
        halt=halt,
        fleet=fleet,
        by_name={n.name: n for n in observation.nodes},
        pods_on=pods_on,
        members={s: frozenset(m) for s, m in members.items()},
        confirmed=confirmed or {},
        available=available,
        lemons=lemons or {},
        out=frozenset({n.name for n in fleet if n.is_out} | ledger_out),
    )


def budgets_of(pod: Pod, budgets: Sequence[Budget]) -> list[Budget]:
    """The budgets that protect a pod (usually none or one)."""
    return [b for b in budgets if b.namespace == pod.namespace and selects(b.selector, pod.labels)]
