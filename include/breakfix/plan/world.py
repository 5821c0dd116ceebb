"""What the guardrails look at: the observation indexed once, and what the plan has already
promised.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import nsmallest

from breakfix.brakes import LIFT_OF, NO_BRAKES, Brakes, BreakerRule, Lift
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
    PodAction,
    PodDecision,
    Scope,
    ScopeKind,
)
from breakfix.plan.alerts import AlertHolds, alert_holds
from breakfix.plan.drain_ladder import decide_drain
from breakfix.plan.gangs import Gang, GangKey, gang_of, gangs_by_key
from breakfix.plan.headroom import Headroom
from breakfix.plan.selectors import selects
from breakfix.plan.windows import Closed, closed, of_node
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
    out_of: dict[Scope, set[str]]  # the same by scope, with what the plan has taken
    brakes: Brakes = NO_BRAKES
    sick: Mapping[Scope, frozenset[str]] = field(default_factory=dict)  # by this judgement
    available: frozenset[Action] = REPAIRS  # the repairs that somebody is there to do
    lemons: Mapping[str, str] = field(default_factory=dict)  # node -> why it is one
    taken: set[str] = field(default_factory=set)
    budget_used: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    drains: dict[str, list[PodDecision]] = field(default_factory=dict)  # worked out once a node
    gangs: Mapping[GangKey, Gang] | None = None  # worked out when the first node is a candidate
    calendar: dict[tuple[int, ...], Closed | None] = field(default_factory=dict)
    struck_of: dict[Scope, set[str]] = field(default_factory=dict)  # worked out once a scope
    _first_out: dict[Scope, tuple[int, list[str]]] = field(default_factory=dict)
    _holds: AlertHolds | None = None
    _headroom: Headroom | None = None
    _budgets: Mapping[tuple[str, str, str], list[tuple[int, Budget]]] | None = None

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

    def count_out(self, node: str, scope: Scope) -> int:
        """How many are out of that scope, or promised to be, the node itself left out."""
        out = self.out_of.get(scope, set())
        return len(out) - (node in out)

    def first_out(self, node: str, scope: Scope, most: int) -> list[str]:
        """The first of their names. Kept, since a full fleet refuses thousands by the same ones."""
        out = self.out_of.get(scope, set())
        size, names = self._first_out.get(scope, (-1, []))
        if size != len(out):
            names = nsmallest(most + 1, out)
            self._first_out[scope] = len(out), names
        return [n for n in names if n != node][:most]

    def maximum(self, scope: Scope) -> int:
        """Nodes that may be out of the scope at a time, as policy has it. A scope that policy does
        not limit allows all.
        """
        share = self.policy.limits.out.get(scope.kind)
        size = len(self.members[scope])
        return size if share is None else share.of(size)

    def lifted_maximum(self, scope: Scope) -> int:
        """The same while an emergency lifts the scope's limit: the fleet keeps a last one."""
        size = len(self.members[scope])
        most = self.policy.limits.emergency.fleet.of(size)
        return max(self.maximum(scope), most) if scope.kind is ScopeKind.FLEET else size

    def allowed_out(self, scope: Scope) -> int:
        """The maximum that holds now, emergency heeded."""
        is_lifted = self.is_lifted(LIFT_OF[scope.kind])
        return self.lifted_maximum(scope) if is_lifted else self.maximum(scope)

    def is_lifted(self, lift: Lift) -> bool:
        """Whether an emergency that is in force lifts it, and policy lets it be lifted."""
        emergency = self.brakes.emergency
        if emergency is None or not emergency.is_in_force(self.observation.at):
            return False
        return lift in emergency.lifts & self.policy.limits.emergency.may_lift

    def breaker_rule(self, scope: Scope) -> BreakerRule | None:
        """The breaker of a scope by policy; None where there is none."""
        breaker = self.policy.limits.breaker
        trip = breaker.most.get(scope.kind)
        if trip is None:
            return None
        most = trip.of(len(self.members[scope]))
        return BreakerRule(scope, most, breaker.window_s, breaker.cool_down_s)

    def struck(self, rule: BreakerRule) -> frozenset[str] | set[str]:
        """Distinct nodes that count for the scope's breaker: by the ledger, newly ill by this
        judgement, or taken by this plan.
        """
        scope = rule.scope
        if scope not in self.struck_of:
            known = self.brakes.storms.nodes(rule, self.observation.at)
            taken = self.taken & self.members[scope]
            self.struck_of[scope] = {*known, *self.sick.get(scope, ()), *taken}
        return self.struck_of[scope]

    def closed_for(self, node: Node) -> Closed | None:
        """What the calendar says to taking this node out now; worked out once for its like."""
        windows = self.policy.limits.windows
        mine = of_node(node, windows)
        if mine not in self.calendar:
            self.calendar[mine] = closed([windows[i] for i in mine], self.observation.at)
        return self.calendar[mine]

    @property
    def alerts(self) -> AlertHolds:
        """What the firing alerts hold."""
        if self._holds is None:
            rules, names = self.policy.limits.alerts, self.policy.names.node
            self._holds = alert_holds(self.observation.alerts, rules, names)
        return self._holds

    @property
    def headroom(self) -> Headroom:
        """GPUs that would stay free."""
        if self._headroom is None:
            is_counted = self.policy.limits.headroom_pending
            self._headroom = Headroom(
                self.fleet,
                self.pods_on.get("", ()) if is_counted else (),
                in_use=self._gpus_in_use,
                to_move=lambda n: sum(p.gpus for p in self.moving(n)),
                is_out=lambda n: n.name in self.taken or n.name in self.out,
                is_leaving=self.is_leaving,
            )
        return self._headroom

    def _gpus_in_use(self, node: str) -> int:
        return sum(p.gpus for p in self.pods_on.get(node, ()) if not p.is_finished)

    def moving(self, node: str) -> list[Pod]:
        """Pods that a drain would evict and that then want a place; one that is going already has
        its successor among the pending.
        """
        evicted = {d.uid for d in self.pods_to_drain(node) if d.action is PodAction.EVICT}
        return [
            p
            for p in self.pods_on.get(node, ())
            if p.uid in evicted and not p.is_terminating and not p.is_finished
        ]

    def budgets_of(self, pod: Pod) -> list[Budget]:
        """The budgets that protect a pod (usually none or one)."""
        if self._budgets is None:
            self._budgets = _indexed(self.observation.budgets)
        keys = [(pod.namespace, k, v) for k, v in pod.labels.items()]
        near = [b for key in (*keys, (pod.namespace, "", "")) for b in self._budgets.get(key, ())]
        near.sort(key=lambda numbered: numbered[0])
        return [b for _, b in near if selects(b.selector, pod.labels)]

    def take(self, node: Node) -> None:
        """The plan takes the node: every count from here on has it."""
        self.headroom.take(node)
        self.taken.add(node.name)
        for scope in node.scopes():
            self.out_of.setdefault(scope, set()).add(node.name)
            if scope in self.struck_of:
                self.struck_of[scope].add(node.name)


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
    brakes: Brakes | None = None,
    sick: Collection[str] = (),
    available: frozenset[Action] = REPAIRS,
    lemons: Mapping[str, str] | None = None,
) -> World:
    """Index one observation. `fleet_names` are the GPU nodes: only they count in scopes and
    shares. `sick`: nodes that this very judgement finds ill, for the breaker.
    """
    fleet = tuple(n for n in observation.nodes if n.name in fleet_names)
    pods_on: dict[str, list[Pod]] = defaultdict(list)
    for pod in observation.pods:
        pods_on[pod.node].append(pod)
    open_cases = {c.node: c for c in cases if c.is_open}
    ledger_out = {n for n, c in open_cases.items() if c.state in _OUT_STATES}
    ledger_out |= {r.node for r in records.values() if r.state in _OUT_STATES}
    out = frozenset({n.name for n in fleet if n.is_out} | ledger_out)
    return World(
        observation=observation,
        policy=policy,
        records=records,
        cases=open_cases,
        halt=halt,
        fleet=fleet,
        by_name={n.name: n for n in observation.nodes},
        pods_on=pods_on,
        members={s: frozenset(m) for s, m in _by_scope(fleet).items()},
        confirmed=confirmed or {},
        out=out,
        out_of=_by_scope(n for n in fleet if n.name in out),
        brakes=brakes or NO_BRAKES,
        sick={
            scope: frozenset(names)
            for scope, names in _by_scope(n for n in fleet if n.name in sick).items()
        },
        available=available,
        lemons=lemons or {},
    )


def _indexed(
    budgets: Sequence[Budget],
) -> Mapping[tuple[str, str, str], list[tuple[int, Budget]]]:
    """By namespace and one label that a budget asks for; those that ask for none by ("", "")."""
    found: dict[tuple[str, str, str], list[tuple[int, Budget]]] = defaultdict(list)
    for number, budget in enumerate(budgets):
        labels = (budget.selector or {}).get("matchLabels") or {}
        key, value = min(labels.items(), default=("", ""))
        found[budget.namespace, key, value].append((number, budget))
    return found


def _by_scope(nodes: Iterable[Node]) -> dict[Scope, set[str]]:
    members: dict[Scope, set[str]] = defaultdict(set)
    for node in nodes:
        for scope in node.scopes():
            members[scope].add(node.name)
    return members


def budgets_of(pod: Pod, budgets: Sequence[Budget]) -> list[Budget]:
    """The budgets among these that protect a pod."""
    return [b for b in budgets if b.namespace == pod.namespace and selects(b.selector, pod.labels)]
