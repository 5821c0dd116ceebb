"""The frozen vocabulary: what every stage, the ledger, the CLI and the DAGs say to one another.

Nothing here reads a clock, a network or a file. All times are aware datetimes in UTC, all durations
seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import msgspec

# --------------------------------------------------------------------------- words


class NodeState(StrEnum):
    """The coarse state everybody sees. `unknown` is no member: it is a verdict about telemetry."""

    HEALTHY = "healthy"
    SUSPECT = "suspect"
    QUARANTINED = "quarantined"
    REPAIRING = "repairing"
    VALIDATING = "validating"
    RETURNING = "returning"
    ESCALATED = "escalated"


#: From -> where a node may go next. Anything else is refused by the ledger.
TRANSITIONS: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.HEALTHY: frozenset({NodeState.SUSPECT, NodeState.QUARANTINED}),
    NodeState.SUSPECT: frozenset({NodeState.HEALTHY, NodeState.QUARANTINED}),
    NodeState.QUARANTINED: frozenset(
        {NodeState.REPAIRING, NodeState.VALIDATING, NodeState.ESCALATED, NodeState.HEALTHY}
    ),
    NodeState.REPAIRING: frozenset({NodeState.VALIDATING, NodeState.ESCALATED}),
    NodeState.VALIDATING: frozenset(
        {NodeState.RETURNING, NodeState.REPAIRING, NodeState.ESCALATED}
    ),
    NodeState.RETURNING: frozenset({NodeState.HEALTHY, NodeState.QUARANTINED, NodeState.ESCALATED}),
    NodeState.ESCALATED: frozenset({NodeState.VALIDATING, NodeState.HEALTHY}),
}


class FailureClass(StrEnum):
    """What kind of trouble the findings say."""

    GPU_OFF_BUS = "gpu_off_bus"
    GPU_MISSING = "gpu_missing"
    ECC_UNCORRECTABLE = "ecc_uncorrectable"
    ECC_CONTAINED = "ecc_contained"
    ROW_REMAP_PENDING = "row_remap_pending"
    ROW_REMAP_FAILED = "row_remap_failed"
    NVLINK_DOWN = "nvlink_down"
    FABRIC = "fabric"
    GPU_RECOVERY = "gpu_recovery"
    GSP = "gsp"
    THERMAL = "thermal"
    PCIE_DEGRADED = "pcie_degraded"
    NETWORK_PORT = "network_port"
    NODE_NOT_READY = "node_not_ready"
    DISK = "disk"
    DEVICE_PLUGIN = "device_plugin"
    STRAGGLER = "straggler"
    APP_LEVEL = "app_level"
    UNCLASSIFIED = "unclassified"  # something spoke that no rule classifies: people look
    TELEMETRY_LOST = "telemetry_lost"
    CHANGE_INDUCED = "change_induced"
    MANUAL = "manual"  # a person asked for it; no finding says anything


class Action(StrEnum):
    """What a verdict recommends; for the repairs, after quarantine and drain."""

    NONE = "none"
    REVIEW = "review"  # a person looks; automation does nothing
    RESTART_DEVICE_PLUGIN = "restart_device_plugin"
    RESET_GPU = "reset_gpu"
    REBOOT_NODE = "reboot_node"
    POWER_CYCLE = "power_cycle"  # from outside, when the node's own system does not obey
    REPLACE_NODE = "replace_node"  # re-provisioned, or another machine in its place
    OPEN_VENDOR_CASE = "open_vendor_case"  # the vendor gets the evidence; the node stays out
    HOLD_FOR_HARDWARE = "hold_for_hardware"  # quarantine, drain, escalate with evidence
    DRAIN_ONLY = "drain_only"  # a person's own drain


#: Actions for which a node leaves service.
DISRUPTIVE = frozenset(
    {
        Action.RESTART_DEVICE_PLUGIN,
        Action.RESET_GPU,
        Action.REBOOT_NODE,
        Action.POWER_CYCLE,
        Action.REPLACE_NODE,
        Action.OPEN_VENDOR_CASE,
        Action.HOLD_FOR_HARDWARE,
        Action.DRAIN_ONLY,
    }
)

#: The rungs of a repair ladder, from the bottom; a ladder only goes up.
RUNGS: tuple[Action, ...] = (
    Action.RESTART_DEVICE_PLUGIN,
    Action.RESET_GPU,
    Action.REBOOT_NODE,
    Action.POWER_CYCLE,
    Action.REPLACE_NODE,
    Action.OPEN_VENDOR_CASE,
    Action.HOLD_FOR_HARDWARE,
)

#: Repairs after which the node runs another boot: nothing else proves that they were done.
BOOTS = frozenset({Action.REBOOT_NODE, Action.POWER_CYCLE, Action.REPLACE_NODE})

#: Rungs that somebody must do; the rest of a ladder is waiting for people.
REPAIRS = frozenset(RUNGS) - {Action.HOLD_FOR_HARDWARE}

#: So begin the names under which automation holds a case of its own (`Case.held_by`).
OUR_HOLD = "breakfix:"


class SignalMode(StrEnum):
    """How far one finding may go."""

    ALONE = "alone"  # may carry a disruptive action by itself
    CORROBORATE = "corroborate"  # needs a finding of another independence group
    NEVER = "never"  # context only, never raises an action


class SignalKind(StrEnum):
    """`event`: it happened, and stays true until a repair. `state`: it must be true now."""

    EVENT = "event"
    STATE = "state"


class ScopeKind(StrEnum):
    """What a limit counts over."""

    FLEET = "fleet"
    POOL = "pool"
    RACK = "rack"
    SKU = "sku"
    FABRIC = "fabric"


class HaltLevel(StrEnum):
    """The kill switch. `disruption` holds what takes nodes out; `all` holds recovery too."""

    NONE = "none"
    DISRUPTION = "disruption"
    ALL = "all"


class RefusalReason(StrEnum):
    """Which guardrail said no."""

    HALTED = "halted"
    UNOWNED_CLUSTER = "unowned_cluster"
    PROTECTED = "protected"
    EXCLUDED = "excluded"
    FOREIGN_CORDON = "foreign_cordon"
    OTHER_OWNER = "other_owner"
    CASE_OPEN = "case_open"
    SCOPE_FULL = "scope_full"
    FLEET_SHARE = "fleet_share"
    HEADROOM = "headroom"
    BUDGET = "budget"
    POD_REFUSED = "pod_refused"
    ATTEMPTS = "attempts"
    COOLDOWN = "cooldown"
    NOT_CORROBORATED = "not_corroborated"
    COMMON_CAUSE = "common_cause"
    TELEMETRY = "telemetry"
    MAINTENANCE = "maintenance"
    RECENT_CHANGE = "recent_change"
    MODE_RECOMMEND = "mode_recommend"
    MODE_OFF = "mode_off"
    WINDOW = "window"
    ALERT = "alert"
    BREAKER = "breaker"
    STALE_FENCE = "stale_fence"
    REASON_GONE = "reason_gone"
    NODE_CHANGED = "node_changed"
    OVERRIDDEN = "overridden"
    NOT_APPROVED = "not_approved"
    HELD = "held"
    UNSUPPORTED = "unsupported"  # nobody is there who could do this repair


class StepStatus(StrEnum):
    """Truthful: dispatched is not done, done is not verified."""

    DISPATCHED = "dispatched"
    DONE = "done"
    VERIFIED = "verified"
    FAILED = "failed"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """What verify says of a repair."""

    FIXED = "fixed"
    NOT_FIXED = "not_fixed"
    CANNOT_TELL = "cannot_tell"


class CaseEnd(StrEnum):
    """How a closed case ended."""

    RETURNED = "returned"
    ESCALATED = "escalated"
    ABORTED = "aborted"
    OVERRIDDEN = "overridden"  # a person took the node back
    NODE_GONE = "node_gone"


class Purpose(StrEnum):
    """What an approval is about."""

    REPAIR = "repair"
    RETURN = "return"


class Decision(StrEnum):
    """What became of a question."""

    PENDING = "pending"
    ALLOWED = "allowed"
    REFUSED = "refused"
    EXPIRED = "expired"


class Tier(StrEnum):
    """How many people must say yes before something is done."""

    AUTOMATIC = "automatic"
    ONE = "one"
    TWO = "two"

    @property
    def people(self) -> int:
        return _PEOPLE[self]


_PEOPLE: Mapping[Tier, int] = {Tier.AUTOMATIC: 0, Tier.ONE: 1, Tier.TWO: 2}


class Label(StrEnum):
    """What a person says a finding, a review item or a case was."""

    REAL = "real"  # the fault was there
    NOISE = "noise"  # there was none
    KNOWN = "known"  # there is one, and it is tracked elsewhere


# --------------------------------------------------------------------------- the cluster as seen


@dataclass(frozen=True, slots=True)
class Taint:
    """One taint of a node."""

    """`added_at` is carried so that another owner's taint is sent back whole; it does not tell
    taints apart."""

    key: str
    effect: str
    value: str = ""
    added_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition of a node; `since` is its last transition."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: datetime | None = None


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Node:
    """One node at one resourceVersion. `pool`, `rack`, `sku`, `fabric` come from configured
    labels.
    """

    name: str
    uid: str
    resource_version: str
    boot_id: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    conditions: tuple[Condition, ...] = ()
    is_unschedulable: bool = False
    gpus_allocatable: int = 0
    gpus_capacity: int = 0
    created_at: datetime | None = None
    system_uuid: str = ""  # of the machine, as its firmware has it
    pool: str = ""
    rack: str = ""
    sku: str = ""
    fabric: str = ""

    def condition(self, kind: str) -> Condition | None:
        """The condition of that type, or None when the node does not report it."""
        return next((c for c in self.conditions if c.type == kind), None)

    @property
    def is_ready(self) -> bool:
        """Ready=True; an absent or Unknown condition is not ready."""
        ready = self.condition("Ready")
        return ready is not None and ready.status == "True"

    @property
    def is_out(self) -> bool:
        """Cordoned or NotReady: counts against every limit, whoever did it."""
        return self.is_unschedulable or not self.is_ready

    def scopes(self) -> tuple[Scope, ...]:
        """The scopes this node counts in; an unlabelled one counts in scope `""` of that kind."""
        return (
            Scope(ScopeKind.FLEET, ""),
            Scope(ScopeKind.POOL, self.pool),
            Scope(ScopeKind.RACK, self.rack),
            Scope(ScopeKind.SKU, self.sku),
            *((Scope(ScopeKind.FABRIC, self.fabric),) if self.fabric else ()),
        )


@dataclass(frozen=True, slots=True)
class Owner:
    """Who owns a pod."""

    kind: str
    name: str
    uid: str
    is_controller: bool = True


@dataclass(frozen=True, slots=True)
class Toleration:
    """One toleration of a pod, as the API has it; an empty key with `Exists` tolerates all."""

    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""

    def tolerates(self, taint: Taint) -> bool:
        """As the scheduler decides."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        return self.operator == "Exists" or (bool(self.key) and self.value == taint.value)


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Pod:
    """One pod; `node` is empty while it is not bound, `grace_s` None where it names none."""

    namespace: str
    name: str
    uid: str
    node: str = ""
    phase: str = "Running"
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    owners: tuple[Owner, ...] = ()
    gpus: int = 0
    is_ready: bool = True
    is_terminating: bool = False
    has_disk_empty_dir: bool = False
    has_memory_empty_dir: bool = False
    grace_s: int | None = None
    node_selector: Mapping[str, str] = field(default_factory=dict)
    node_terms: tuple[Mapping[str, Any], ...] = ()  # required node affinity: one must hold
    tolerations: tuple[Toleration, ...] = ()
    claims: int = 0  # resource claims (DRA): devices that `gpus` does not count
    created_at: datetime | None = None
    reason: str = ""  # of the pod's end, e.g. Evicted
    changed_at: datetime | None = None  # newest transition of its conditions
    waiting: str = ""  # why a container waits, e.g. CrashLoopBackOff
    unschedulable: str = ""  # the scheduler's words, while it finds no node
    run_s: float | None = None  # how long the container that ended last had run
    ended_at: datetime | None = None  # when that was
    exit_code: int = 0  # and what it left
    finalizers: tuple[str, ...] = ()  # who must let go before it is gone
    stops_by: datetime | None = None  # of a terminating pod: when its grace ends
    init_waiting: str = ""  # the first init container that has not completed

    @property
    def controller(self) -> Owner | None:
        """The owner that recreates this pod, if any."""
        return next((o for o in self.owners if o.is_controller), None)

    @property
    def is_finished(self) -> bool:
        return self.phase in ("Succeeded", "Failed")

    @property
    def is_mirror(self) -> bool:
        """A static pod of the kubelet: the API server cannot remove it."""
        return "kubernetes.io/config.mirror" in self.annotations


@dataclass(frozen=True, slots=True)
class Event:
    """What some component says of a node. The same thing said again raises `count` and `last_at`;
    clusters forget events after an hour or so.
    """

    node: str
    reason: str
    message: str = ""
    count: int = 1
    first_at: datetime | None = None
    last_at: datetime | None = None
    source: str = ""  # the component, e.g. kernel-monitor


@dataclass(frozen=True, slots=True)
class Budget:
    """A PodDisruptionBudget: `allowed` is status.disruptionsAllowed as the API server said it.

    `selector` is the labelSelector as received (`matchLabels`, `matchExpressions`); an empty one
    selects every pod of the namespace, None selects no pod.
    """

    namespace: str
    name: str
    selector: Mapping[str, Any] | None
    allowed: int
    is_observed: bool = True  # observedGeneration == generation; a stale budget allows nothing


@dataclass(frozen=True, slots=True)
class Scope:
    """What a limit counts over, e.g. rack=r7."""

    kind: ScopeKind
    value: str

    def __str__(self) -> str:
        return f"{self.kind}={self.value}" if self.value else str(self.kind)


# --------------------------------------------------------------------------- observe


@dataclass(frozen=True, slots=True)
class Reading:
    """One value of one signal on one GPU (or on the node, `gpu == ""`).

    `key` tells several readings of one signal apart (the XID number of an `xid` signal). `age_s` is
    the age of the newest sample behind the value, in seconds at the observation's instant.
    """

    signal: str
    node: str
    gpu: str
    value: float
    key: str = ""
    age_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Coverage:
    """How complete one signal is: the nodes that report it, against those expected to."""

    signal: str
    nodes_seen: frozenset[str]
    nodes_expected: int
    oldest_age_s: float | None = None
    error: str = ""  # why the signal could not be read at all

    @property
    def share(self) -> float:
        """Share of the expected nodes that report, 0..1; 1.0 when none is expected."""
        if self.nodes_expected == 0:
            return 1.0
        return min(1.0, len(self.nodes_seen) / self.nodes_expected)


@dataclass(frozen=True, slots=True)
class FiringAlerts:
    """The alerts that fire, by their labels; `error`: why nobody can tell."""

    labels: tuple[Mapping[str, str], ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The fleet at one instant, with the age and completeness of every signal."""

    at: datetime
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...] = ()
    budgets: tuple[Budget, ...] = ()
    gpu_nodes: frozenset[str] | None = None  # the nodes that are judged; None: all of them
    daemon_sets: frozenset[tuple[str, str]] = frozenset()  # (namespace, name) of those that exist
    readings: tuple[Reading, ...] = ()
    coverage: Mapping[str, Coverage] = field(default_factory=dict)
    facts: Mapping[str, Mapping[str, str]] = field(
        default_factory=dict
    )  # node -> driver_version, ...
    waiting: Mapping[str, int] = field(
        default_factory=dict
    )  # why the scheduler finds no node -> GPU pods that wait for that reason
    alerts: FiringAlerts | None = None  # None: nobody asked, since policy names none
    unreported: Mapping[str, tuple[OpenFinding, ...]] = field(
        default_factory=dict
    )  # node -> open findings that neither speak now nor are reported at all
    warnings: tuple[str, ...] = ()

    def node(self, name: str) -> Node | None:
        return next((n for n in self.nodes if n.name == name), None)

    @property
    def judged(self) -> tuple[Node, ...]:
        """The GPU nodes: others are seen, and never judged or touched."""
        if self.gpu_nodes is None:
            return self.nodes
        return tuple(n for n in self.nodes if n.name in self.gpu_nodes)


_LATEST_BOOT = 1e11  # seconds since 1970: no boot is later, and datetime can still tell it


def boot_time(facts: Mapping[str, str]) -> datetime | None:
    """When the node booted, by its fact `boot_time`; of several values the newest, None if none."""
    found = []
    for word in facts.get("boot_time", "").split(","):
        try:
            seconds = float(word)
        except ValueError:
            continue
        if 0 < seconds < _LATEST_BOOT:  # false of NaN too
            found.append(datetime.fromtimestamp(seconds, UTC))
    return max(found, default=None)


# --------------------------------------------------------------------------- decide


@dataclass(frozen=True, slots=True)
class Finding:
    """One signal that speaks, on one GPU or node."""

    signal: str
    node: str
    gpu: str
    value: float
    threshold: float
    window_s: float
    age_s: float
    weight: float  # 0..1: how sure this finding alone makes its class
    group: str  # independence group: findings of one group do not add up
    mode: SignalMode
    kind: SignalKind
    failure_class: FailureClass
    action: Action
    source: str  # where rule and number come from
    text: str  # one sentence for a person
    key: str = ""
    held: str = ""  # why it does not count for now; "" when it counts


@dataclass(frozen=True, slots=True)
class OpenFinding:
    """What spoke on a node and has not been seen to end: that it is silent now may be the silence
    of its telemetry. `missed_at`: when it was first neither spoken nor reported; None: it speaks.
    """

    signal: str
    gpu: str = ""
    missed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What decide says of one node. `unknown` names what could not be judged."""

    node: str
    state: NodeState
    failure_class: FailureClass | None
    confidence: float
    findings: tuple[Finding, ...]
    unknown: tuple[str, ...]
    recommended_action: Action
    reason: str
    refusal: RefusalReason | None = None  # why a fault that was seen is not acted upon
    open_findings: tuple[OpenFinding, ...] = ()  # what the next sweep must see end


@dataclass(frozen=True, slots=True)
class Incident:
    """Many nodes of one scope degrading together: one incident, no node of it is touched."""

    scope: str  # e.g. "rack=r7" or "driver_version=580.95.05"
    nodes: tuple[str, ...]
    failure_classes: tuple[FailureClass, ...]
    reason: str
    cause: str = ""  # what is suspected, as a clause


@dataclass(frozen=True, slots=True)
class Judgement:
    """All verdicts of one observation, with the policy they were made by."""

    at: datetime
    policy_version: str
    policy_hash: str
    verdicts: tuple[Verdict, ...]
    incidents: tuple[Incident, ...] = ()

    def verdict(self, node: str) -> Verdict | None:
        return next((v for v in self.verdicts if v.node == node), None)


# --------------------------------------------------------------------------- plan


class PodAction(StrEnum):
    """What a drain does with a pod. `evict`: it must leave, by its ladder."""

    EVICT = "evict"
    SKIP = "skip"
    REFUSE = "refuse"


class RungKind(StrEnum):
    """One way to get a pod to leave its node."""

    WAIT = "wait"  # for it to finish
    CHECKPOINT = "checkpoint"  # ask it to save its work, and wait for its answer
    EVICT = "evict"  # as disruption budgets allow
    DELETE = "delete"  # whatever budgets say


@dataclass(frozen=True, slots=True)
class DrainRung:
    """One rung of a pod's ladder; `for_s` 0 on the last one means until the drain's deadline."""

    do: RungKind
    for_s: float = 0.0

    def __str__(self) -> str:
        return f"{self.do} {_span(self.for_s)}" if self.for_s else str(self.do)


def _span(seconds: float) -> str:
    for unit, size in (("h", 3600), ("m", 60)):
        if seconds >= size and seconds % size == 0:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:g}s"


@dataclass(frozen=True, slots=True)
class PodDecision:
    """What a drain does with one pod; the words are those of `drain --dry-run -o json`.

    `ladder`: how a pod that must leave is brought to it; `order`: pods of lower orders leave first.
    """

    namespace: str
    name: str
    uid: str
    action: PodAction
    reason: str
    gpus: int = 0
    warnings: tuple[str, ...] = ()
    ladder: tuple[DrainRung, ...] = ()
    order: int = 0

    @property
    def climbs(self) -> str:
        """The ladder in words: `wait 2h, evict`."""
        return ", ".join(map(str, self.ladder))


@dataclass(frozen=True, slots=True)
class Impact:
    """What taking the node out costs."""

    pods_evicted: int
    gpus_stopped: int  # of the node's pods and of every gang that one of them belongs to
    gpus_free_after: int  # schedulable GPUs of its SKU and pool that stay free
    gangs: tuple[str, ...] = ()  # what stops elsewhere too, each in words
    gang_gpus: int = 0  # of gpus_stopped: those of gangs that run on other nodes, too
    ladders: tuple[str, ...] = ()  # how pods leave, in words: `3 pods: wait 2h, evict`


@dataclass(frozen=True, slots=True)
class Intent:
    """One node the plan would take out, with all a person must know to say yes."""

    node: str
    node_uid: str
    boot_id: str
    failure_class: FailureClass
    action: Action
    confidence: float
    reason: str
    impact: Impact
    scopes: tuple[Scope, ...]
    attempt: int = 1
    needs_approval: bool = True
    tier: Tier = Tier.ONE  # how many people must say yes; AUTOMATIC when it needs no approval
    policy_hash: str = ""
    findings: tuple[Finding, ...] = ()
    is_by_hand: bool = False  # a person says so; there may be no finding
    gpus_expected: int = 0  # what the node should have, counted before anything is done to it

    def evidence(self) -> dict[str, Any]:
        """What a case keeps of its intent, as plain JSON values."""
        kept: dict[str, Any] = msgspec.to_builtins(
            {
                "findings": self.findings,
                "impact": self.impact,
                "needs_approval": self.needs_approval,
                "tier": self.tier,
                "is_by_hand": self.is_by_hand,
                "gpus_expected": self.gpus_expected,
                "policy_hash": self.policy_hash,
                "rung": 1,  # of the ladder within one time out of service
            }
        )
        return kept

    @property
    def hash(self) -> str:
        """What an approval is bound to: node, boot, class and action under one policy."""
        return digest(
            {
                "node": self.node,
                "uid": self.node_uid,
                "boot_id": self.boot_id,
                "class": self.failure_class,
                "action": self.action,
                "attempt": self.attempt,
                "policy": self.policy_hash,
            }
        )


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something automation decided not to do, and the guardrail that said no."""

    node: str
    reason: RefusalReason
    text: str
    failure_class: FailureClass | None = None
    action: Action = Action.NONE
    scope: Scope | None = None
    impact: Impact | None = field(default=None, compare=False)  # of what is only recommended


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be done, and what not, and why."""

    at: datetime
    policy_hash: str
    intents: tuple[Intent, ...]
    refusals: tuple[Refusal, ...]
    incidents: tuple[Incident, ...] = ()

    @property
    def hash(self) -> str:
        """The same intents and refusals give the same hash, whenever they were made."""
        return digest(
            {
                "intents": sorted(i.hash for i in self.intents),
                "refusals": sorted(f"{r.node}:{r.reason}" for r in self.refusals),
                "policy": self.policy_hash,
            }
        )


# --------------------------------------------------------------------------- cases


@dataclass(frozen=True, slots=True)
class Case:
    """One node's incident. Every write must name the `fence` it believes in."""

    id: str
    cluster: str
    node: str
    node_uid: str
    fence: int
    state: NodeState
    failure_class: FailureClass
    action: Action
    confidence: float
    plan_hash: str
    reason: str
    opened_at: datetime
    updated_at: datetime
    boot_id: str  # when the case was opened
    attempt: int = 1
    scopes: tuple[Scope, ...] = ()
    requester: str = ""
    held_by: str = ""  # a person halted this case
    repaired_at: datetime | None = None  # evidence older than this is of before the repair
    deadline: datetime | None = None  # of the state it is in
    ended_at: datetime | None = None
    end: CaseEnd | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_open(self) -> bool:
        return self.ended_at is None

    @property
    def run_id(self) -> str:
        """The id of the one DAG run that may act for this case at this fence."""
        return f"{self.id}.{self.fence}"


@dataclass(frozen=True, slots=True)
class Step:
    """One side effect of a case. Unique per case, fence-independent name and attempt."""

    case_id: str
    fence: int
    name: str
    status: StepStatus
    started_at: datetime
    ended_at: datetime | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Approval:
    """A question put to people and what became of it."""

    case_id: str
    fence: int
    purpose: Purpose
    plan_hash: str
    asked_at: datetime
    expires_at: datetime
    decision: Decision = Decision.PENDING
    approver: str = ""
    channel: str = ""
    note: str = ""
    decided_at: datetime | None = None
    needed: int = 1  # people who must say yes


@dataclass(frozen=True, slots=True)
class Answer:
    """What a channel says somebody said. approve.settle decides whether it counts.

    `plan_hash`: the plan it was given for; empty where the channel can only answer what it shows.
    """

    approver: str
    is_yes: bool
    channel: str  # airflow_required_action, airflow_mark_success, cli, node_annotation, api
    at: datetime
    plan_hash: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True)
class Settlement:
    """What the answers to a question amount to.

    `note` says why, also for each answer that did not count. `objections`: one for each answer, in
    the order in which they were given; empty for one that counts. `yes`: who has said yes so far.
    """

    decision: Decision
    approver: str = ""
    channel: str = ""
    note: str = ""
    objections: tuple[str, ...] = ()
    yes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer as it was recorded. One with an objection did not count, and never will.

    `asked_at` tells which question of the case it was given to. `role`: of the ledger's database,
    as that authenticated it, under which the record was written.
    """

    case_id: str
    purpose: Purpose
    asked_at: datetime
    answer: Answer
    objection: str = ""
    role: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One link of the audit chain."""

    seq: int
    at: datetime
    actor: str
    event: str
    subject: str  # case id, node or cluster
    detail: Mapping[str, Any]
    previous_hash: str
    hash: str


@dataclass(frozen=True, slots=True)
class NodeRecord:
    """What the ledger remembers of a node between sweeps."""

    node: str
    state: NodeState
    since: datetime
    last_case: str = ""
    evidence_floor: datetime | None = None  # events before it were repaired, or a person ended them
    attempts: int = 0  # repairs in the policy's look-back
    attempts_by_class: Mapping[FailureClass, int] = field(default_factory=dict)  # the same, split
    repairs: Mapping[Action, int] = field(default_factory=dict)  # the same ones, by rung
    last_ended_at: datetime | None = None
    overridden_at: datetime | None = None  # when a person last took the node back
    open_findings: tuple[OpenFinding, ...] = ()  # as the last verdict left them


@dataclass(frozen=True, slots=True)
class Labelling:
    """One person's word on a review item or a case. A later one on the same replaces it; all are
    kept.

    It speaks of `node`, `topic` and the evidence that `marks` name, and of nothing else. Until
    `until` (None for `real`) the same evidence is not put into the queue again.
    """

    id: int
    at: datetime
    actor: str
    label: Label
    node: str
    topic: str
    marks: tuple[str, ...] = ()
    note: str = ""
    failure_class: FailureClass | None = None  # what it was, where the person knows better
    until: datetime | None = None
    review_id: int | None = None
    case_id: str = ""


# --------------------------------------------------------------------------- canonical form


def canonical(value: object) -> bytes:
    """JSON with sorted keys, for hashes and the audit chain. Dataclasses, enums and datetimes are
    fine.
    """
    return msgspec.json.encode(value, order="sorted")


def digest(value: object) -> str:
    """SHA-256 (hex) of the canonical form."""
    return hashlib.sha256(canonical(value)).hexdigest()
