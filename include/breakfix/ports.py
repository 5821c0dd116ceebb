"""What the stages need from outside, as Protocols. Adapters implement them; tests have fakes of
them.

Every method may raise the port's own error from `breakfix.errors` and nothing else; every call has
a timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol, Self, TypeVar

from breakfix.brakes import Breaker, BreakerRule, Emergency, Lift, Storms
from breakfix.cohorts import Advice, ChangeAdvice
from breakfix.model import (
    Action,
    Answer,
    Approval,
    AuditEntry,
    Budget,
    Case,
    CaseEnd,
    Event,
    FailureClass,
    GivenAnswer,
    HaltLevel,
    Intent,
    Judgement,
    Label,
    Labelling,
    Node,
    NodeRecord,
    NodeState,
    Plan,
    Pod,
    Purpose,
    Refusal,
    Scope,
    Settlement,
    Step,
    StepStatus,
    Taint,
    Tier,
)

# --------------------------------------------------------------------------- metrics


@dataclass(frozen=True, slots=True)
class Sample:
    """One series of an instant query: its labels, its value, the time of evaluation."""

    labels: Mapping[str, str]
    value: float


Labels = tuple[str, ...]  # names of labels, or a series' values of them


class Vector(Sequence[Sample]):
    """Samples that need not exist one by one: a whole fleet's are read by rows."""

    def rows(self, *groups: Labels) -> Iterator[tuple[Labels, ...]]:
        """For every sample, and each group of label names, its values of them; "" where it has
        none.

        Raises MetricsError when a label is no text.
        """
        raise NotImplementedError

    @property
    def values(self) -> Sequence[float]:
        """The samples' values, in the same order."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The answer to an instant query."""

    samples: Sequence[Sample]
    warnings: tuple[str, ...] = ()  # partial responses say so here: treat as incomplete

    def rows(self, *groups: Labels) -> Iterator[tuple[Labels, ...]]:
        """See Vector."""
        if isinstance(self.samples, Vector):
            return self.samples.rows(*groups)
        return (
            tuple(tuple(s.labels.get(x, "") for x in group) for group in groups)
            for s in self.samples
        )

    @property
    def values(self) -> Sequence[float]:
        """The samples' values, in the same order."""
        if isinstance(self.samples, Vector):
            return self.samples.values
        return [s.value for s in self.samples]


class Held(str):
    """PromQL of what speaks now and did so at earlier points. The text is all of it, and may be
    asked like any other; or `speaks` is asked once at `steps` + 1 instants, `step_s` seconds apart,
    the last of them now: the series that are there at each, with their last value. Encoders that
    take no subclass of str want `str(held)`.
    """

    __slots__ = ("speaks", "step_s", "steps")

    speaks: str
    step_s: float
    steps: int

    def __new__(cls, text: str, *, speaks: str, step_s: float, steps: int) -> Self:
        made = super().__new__(cls, text)
        made.speaks, made.step_s, made.steps = speaks, step_s, steps
        return made

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:  # to be copied and pickled
        return (str(self),), {"speaks": self.speaks, "step_s": self.step_s, "steps": self.steps}


_T = TypeVar("_T")


class Arriving(Mapping[str, _T]):
    """Values that may still be under way: to look one up is to wait for it."""

    def __init__(self, looked_up: Mapping[str, Callable[[], _T]]) -> None:
        self._looked_up = looked_up

    def __getitem__(self, name: str) -> _T:
        return self._looked_up[name]()

    def __contains__(self, name: object) -> bool:
        return name in self._looked_up  # which waits for nothing

    def __iter__(self) -> Iterator[str]:
        return iter(self._looked_up)

    def __len__(self) -> int:
        return len(self._looked_up)


class Metrics(Protocol):
    """Prometheus. `at` is the instant of evaluation (past instants replay the past)."""

    def query(self, promql: str, *, at: datetime) -> QueryResult: ...

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        """Several queries, a few in flight, in their order. A query that failed has its error's
        text as value. Answers may still be Arriving. A query may be Held.
        """
        ...


# --------------------------------------------------------------------------- cluster


@dataclass(frozen=True, slots=True)
class NodePatch:
    """What to change on a node; None leaves a field alone, a None value in a map removes the key.

    `taints` replaces the whole list, so the caller passes everybody's taints with its own change
    made.
    """

    is_unschedulable: bool | None = None
    taints: tuple[Taint, ...] | None = None
    labels: Mapping[str, str | None] | None = None
    annotations: Mapping[str, str | None] | None = None


@dataclass(frozen=True, slots=True)
class Eviction:
    """What the API server said to one eviction.

    `status`: `evicted`, `gone` (404, or another uid has the name), `blocked` (429 of a budget),
    `busy` (429 or 5xx that asks to come back), `conflict` (409: the uid changed), `error` (e.g. two
    budgets: a person must look).
    """

    status: str
    message: str = ""
    retry_after_s: float | None = None


class Cluster(Protocol):
    """The Kubernetes API, as far as we use it."""

    def uid(self) -> str:
        """The cluster's identity: the uid of namespace kube-system."""
        ...

    def nodes(self) -> Sequence[Node]: ...

    def node(self, name: str) -> Node:
        """Raises NotFound."""
        ...

    def pods(self, node: str | None = None) -> Sequence[Pod]:
        """All pods, or those bound to a node; finished ones included."""
        ...

    def pod(self, namespace: str, name: str) -> Pod:
        """Raises NotFound."""
        ...

    def budgets(self) -> Sequence[Budget]: ...

    def daemon_sets(self) -> frozenset[tuple[str, str]]:
        """(namespace, name) of the DaemonSets that exist."""
        ...

    def node_events(self) -> Sequence[Event]:
        """What components have said of nodes; as long as the cluster keeps it."""
        ...

    def patch_node(self, name: str, resource_version: str, patch: NodePatch) -> Node:
        """Raises Conflict when the node is no longer at that resourceVersion, NotFound."""
        ...

    def evict(
        self, namespace: str, name: str, uid: str, *, grace_s: int | None, dry_run: bool = False
    ) -> Eviction: ...

    def delete_pod(self, namespace: str, name: str, uid: str, *, grace_s: int | None) -> bool:
        """False when it was gone or the name now belongs to another uid."""
        ...

    def mark_pod(
        self,
        namespace: str,
        name: str,
        uid: str,
        *,
        annotations: Mapping[str, str],
        labels: Mapping[str, str],
    ) -> bool:
        """Set these annotations and labels. False when it was gone or the name is another uid's."""
        ...

    def create_pod(self, manifest: Mapping[str, Any]) -> Pod:
        """Creates, or returns the pod of that name when it exists already."""
        ...

    def pod_log(self, namespace: str, name: str, *, limit_bytes: int = 1 << 20) -> str: ...

    def pod_exit_code(self, namespace: str, name: str) -> int | None:
        """Exit code of the first container; None while it runs or when the kubelet never told."""
        ...

    def post_event(self, node: Node, *, reason: str, message: str, is_warning: bool) -> None: ...

    def config_map(self, namespace: str, name: str) -> Mapping[str, str] | None: ...

    def create_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> bool:
        """False when it exists already (nothing is written then)."""
        ...

    def update_config_map(self, namespace: str, name: str, data: Mapping[str, str]) -> None:
        """Merge these keys into an existing ConfigMap. Raises NotFound."""
        ...

    def ensure_namespace(self, name: str) -> None: ...


# --------------------------------------------------------------------------- ledger


@dataclass(frozen=True, slots=True)
class Limit:
    """How many nodes may be out in a scope, and who is out by the cluster's word.

    `lifted`: the maximum while an emergency lifts it (None: none may). `breaker`: the scope's
    breaker by policy.
    """

    scope: Scope
    maximum: int
    out_now: frozenset[str]  # nodes cordoned or NotReady, the candidate itself left out
    lifted: int | None = None
    breaker: BreakerRule | None = None
    may_lift_breaker: bool = False


@dataclass(frozen=True, slots=True)
class Lease:
    """One slot of a scope, held by a node's case."""

    scope: Scope
    node: str
    case_id: str
    taken_at: datetime


@dataclass(frozen=True, slots=True)
class OpenQuestion:
    """A question of a case's present run that nobody has answered."""

    case_id: str
    purpose: Purpose
    asked_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Figures:
    """What the ledger knows beside cases and nodes, counted at one instant."""

    swept_at: datetime | None  # the newest sweep
    refusals: Mapping[str, int]  # of the last sweep, by reason
    leases: Mapping[Scope, int]  # slots taken
    steps: tuple[Step, ...]  # of open cases: dispatched, and not seen to their end
    questions: tuple[OpenQuestion, ...]
    reviews: int  # items that are open
    incidents: int
    head: tuple[int, str]  # of the audit chain
    circuits: Mapping[str, str] = field(default_factory=dict)  # dependency -> state


@dataclass(frozen=True, slots=True)
class ReviewItem:
    """Something for a person to look at, with its evidence as plain JSON values (`detail`).

    `node` is the scope for an incident. `times_seen`: in so many sweeps. `answers`: all that people
    said of it, the last one stands.
    """

    id: int
    at: datetime
    node: str
    reason: str
    detail: Mapping[str, Any]
    last_seen: datetime
    closed_at: datetime | None = None
    topic: str = ""
    times_seen: int = 1
    answers: tuple[Labelling, ...] = ()

    @property
    def answer(self) -> Labelling | None:
        """What stands of the answers."""
        return self.answers[-1] if self.answers else None

    @property
    def is_waiting(self) -> bool:
        """Whether it still wants a person: noise or known do not quiet what may not be quieted."""
        if self.closed_at is not None:
            return False
        answer = self.answer
        if answer is None:
            return True
        return answer.label is not Label.REAL and not self.detail.get("may_rest", False)


@dataclass(frozen=True, slots=True)
class Rung:
    """What a case tries next. `after`: the step that showed that it must."""

    action: Action
    attempt: int
    plan_hash: str
    tier: Tier
    after: str = ""


#: What the answers to a question amount to. Purely computational: it runs inside a transaction.
Settle = Callable[[Case, Approval, Sequence[Answer]], Settlement]


@dataclass(frozen=True, slots=True)
class Answered:
    """What became of answers: the question now, and who has said yes to it so far.

    `objections`: one for each answer that was handed in, empty for one that counts.
    """

    approval: Approval
    objections: tuple[str, ...] = ()
    yes: tuple[str, ...] = ()


class Ledger(Protocol):
    """The record of everything; the only place where limits are atomic. One instance speaks for one
    cluster.

    Every method is one transaction, and writes its own audit entry in it. A method that takes a
    `fence` raises StaleFence when the case has a newer one. All rows carry the cluster's name.
    """

    @property
    def id(self) -> str:
        """The ledger's own id, made when its database was created."""
        ...

    @property
    def cluster(self) -> str: ...

    # -- admission
    def admit(
        self, intent: Intent, limits: Sequence[Limit], *, requester: str, now: datetime
    ) -> Case | Refusal:
        """Lease every scope, open the case and audit it, or refuse; all or nothing.

        Locks the scopes' rows (in one order), counts the worse of its leases and `out_now` (as a
        union of nodes), then commits. A node with an open case: RETURNING is re-admitted at fence+1
        and QUARANTINED, anything else is refused (CASE_OPEN; HELD when a person holds it). While
        the kill switch is on, everything is refused (HALTED). A refused node opens no case; the
        same refusal again is not audited again.

        The breaker of each limit is decided here too, under the same locks: one that is open
        refuses, and a node that would be one too many opens it (BREAKER). An admission that no
        person asked for strikes its scopes. An emergency counts as it is at this instant.
        """
        ...

    # -- cases
    def case(self, case_id: str) -> Case:
        """Raises LedgerError when there is none."""
        ...

    def cases(
        self,
        *,
        open_only: bool = False,
        node: str | None = None,
        opened_since: datetime | None = None,
    ) -> Sequence[Case]:
        """Oldest first; `opened_since` leaves out those opened before it."""
        ...

    def move(
        self,
        case_id: str,
        fence: int,
        to: NodeState,
        *,
        actor: str,
        reason: str,
        now: datetime,
        deadline: datetime | None = None,
        repaired_at: datetime | None = None,
        detail: Mapping[str, Any] | None = None,
    ) -> Case:
        """Change state by the transition table.

        The same state again is no error: a new deadline, repair time or detail is kept, and what
        brings nothing new changes nothing.

        Entering RETURNING frees the scopes. `detail` is merged into the case's detail, where
        `state_reason` is `reason`. A case that holds no scope (it was RETURNING) cannot go back out
        of service by this (Refused, SCOPE_FULL): only `admit` leads there.
        """
        ...

    def end_case(
        self, case_id: str, fence: int, end: CaseEnd, *, actor: str, reason: str, now: datetime
    ) -> Case:
        """Close the case and free its scopes; ending twice with the same end is no error.

        RETURNED and ESCALATED must be reachable by the transition table; the other ends leave the
        state as it was. The node of an ESCALATED case stays escalated until the case is ended once
        more, with what became of it.
        """
        ...

    def climb(
        self, case_id: str, fence: int, rung: Rung, *, actor: str, reason: str, now: datetime
    ) -> Case:
        """The case at the next rung of its ladder: repairing, at fence+1, with its scopes kept.

        The plan's hash is the new rung's, so that no yes to the last one counts for it. Raises
        IllegalTransition unless the case was repaired, or under repair.
        """
        ...

    def take_over(
        self, case_id: str, fence: int, *, actor: str, reason: str, now: datetime
    ) -> Case:
        """The case at fence+1: what still runs with the old fence is refused from now on."""
        ...

    def reopen(self, case_id: str, *, actor: str, reason: str, now: datetime) -> Case:
        """An escalated case goes on: VALIDATING, at the next fence, repaired as of `now`.

        It holds its scopes again, whatever the limits say: its node has been out all along. Raises
        LedgerError unless it is escalated still, and the newest case of its node.
        """
        ...

    def leases(self) -> Sequence[Lease]:
        """Every slot taken, by scope and node."""
        ...

    def mend_leases(self, *, actor: str, now: datetime) -> Sequence[str]:
        """Make the slots what the open cases say, audited; what was changed, each in words."""
        ...

    def hold(self, case_id: str, *, actor: str, reason: str, now: datetime) -> Case: ...

    def unhold(self, case_id: str, *, actor: str, reason: str, now: datetime) -> Case: ...

    # -- steps
    def begin_step(
        self, case_id: str, fence: int, name: str, *, detail: Mapping[str, Any], now: datetime
    ) -> tuple[Step, bool]:
        """Record the intention BEFORE the effect. (step, True) when new; (the recorded one, False)
        else.

        A step whose name begins with `repair` counts as a repair in `NodeRecord.attempts`, once per
        case and attempt.
        """
        ...

    def finish_step(
        self,
        case_id: str,
        fence: int,
        name: str,
        status: StepStatus,
        *,
        detail: Mapping[str, Any],
        now: datetime,
    ) -> Step:
        """What became of the step; `detail` is merged. DISPATCHED is a note on the way, not an end.

        Raises LedgerError when the step was never begun, or noted on after its end.
        """
        ...

    def steps(self, case_id: str) -> Sequence[Step]: ...

    # -- rates
    def reserve(self, target: str, *, count: int, per_s: float) -> float:
        """Take the next `count` places of a rate that all processes share; by the ledger's clock.

        Returns the seconds to wait for the first; the others follow every 1 / `per_s` seconds.
        """
        ...

    # -- approvals
    @property
    def role(self) -> str:
        """Who is connected, as the database itself authenticated them."""
        ...

    def ask(
        self,
        case_id: str,
        fence: int,
        purpose: Purpose,
        *,
        plan_hash: str,
        expires_at: datetime,
        now: datetime,
        needed: int = 1,
    ) -> Approval:
        """Open a question, or return the one already there for that case, fence, purpose and plan.

        A question whose time is over (open or allowed) is not returned: it is asked anew, and so is
        one that was allowed by fewer people than are `needed` now. An open one learns that it takes
        more. An open question about a repair goes on at the case's new fence, with what people have
        said: they spoke of the plan, not of the run.
        """
        ...

    def answer(
        self,
        case_id: str,
        fence: int,
        purpose: Purpose,
        answers: Sequence[Answer],
        *,
        plan_hash: str,
        settle: Settle,
        now: datetime,
    ) -> Answered:
        """Record answers to the question about that plan, and what they amount to by `settle`.

        One transaction under the case's lock: `settle` sees every answer that counted so far and
        those that are new, so that of two at the same moment the second sees the first. The same
        answer again is not recorded again. Each is audited, those that do not count with the
        reason. An answer with an objection never counts later. The first decision stands, unless
        `settle` lets a no take a yes back; a yes after `expires_at` is recorded as EXPIRED.

        Raises Refused (NOT_APPROVED) for a plan that nobody was asked about, and for a yes without
        a name.
        """
        ...

    def answers(self, case_id: str) -> Sequence[GivenAnswer]:
        """All that was answered to the questions of a case, oldest first."""
        ...

    def questions(self) -> Sequence[Approval]:
        """Undecided questions of open cases at their present fence and plan, oldest first."""
        ...

    def approvals(self, case_id: str) -> Sequence[Approval]: ...

    # -- what sweeps leave
    def record_sweep(self, judgement: Judgement, plan: Plan, *, actor: str, now: datetime) -> str:
        """Store plan, refusals, incidents, node states and review items; returns the sweep's id."""
        ...

    def node_records(self, *, now: datetime | None = None) -> Mapping[str, NodeRecord]:
        """All nodes known; `attempts` looks back from `now` (None: wall time)."""
        ...

    def reviews(self, *, open_only: bool = True) -> Sequence[ReviewItem]:
        """Review items with their answers, oldest first; answered ones stay open while seen."""
        ...

    # -- what people say of it
    def answer_review(
        self,
        review_id: int,
        label: Label,
        *,
        actor: str,
        note: str,
        failure_class: FailureClass | None,
        until: datetime | None,
        now: datetime,
    ) -> ReviewItem:
        """Label a review item, open or closed. It changes no verdict, case or node.

        A new answer replaces the last one, which is kept; the same once more changes nothing.
        Raises LedgerError when there is no such item or the answer makes no sense.
        """
        ...

    def label_case(
        self,
        case_id: str,
        label: Label,
        *,
        actor: str,
        note: str,
        failure_class: FailureClass | None,
        now: datetime,
    ) -> Labelling:
        """Label a case, open or ended, by the same rules; the case itself is not changed."""
        ...

    def labellings(self, *, standing_at: datetime | None = None) -> Sequence[Labelling]:
        """All labellings, oldest first; or those in force on review items at that instant.

        In force: the last one of an item that is still open, or whose `until` is to come.
        """
        ...

    # -- what is learned from it
    def store_report(self, day: str, body: Mapping[str, Any], *, actor: str, now: datetime) -> bool:
        """Keep the learning report of a day (`2026-01-31`); False when there is one already."""
        ...

    def reports(self, *, limit: int = 30) -> Sequence[Mapping[str, Any]]:
        """The bodies of stored learning reports, newest first."""
        ...

    # -- changes
    def record_advice(
        self,
        scope: str,
        advice: Advice,
        *,
        reason: str,
        nodes: frozenset[str],
        detail: Mapping[str, Any],
        actor: str,
        now: datetime,
    ) -> ChangeAdvice:
        """What is advised of a change now: opened, or renewed while it is open.

        Audited (`change.advised`) when it is new or another advice than before.
        """
        ...

    def close_advice(self, scope: str, *, actor: str, reason: str, now: datetime) -> None:
        """The change is gone: its advice holds nothing any more. Closing twice is no error."""
        ...

    def advices(self, *, open_only: bool = True) -> Sequence[ChangeAdvice]: ...

    # -- storms
    def storms(self, *, since: datetime) -> Storms:
        """All breakers that ever opened, the strikes after `since`, and who is ill."""
        ...

    def watch_storms(
        self,
        rules: Mapping[Scope, BreakerRule],
        sick: Mapping[str, Sequence[Scope]],
        well: frozenset[str],
        *,
        actor: str,
        now: datetime,
    ) -> Sequence[Breaker]:
        """What a sweep saw: nodes that are ill, with their scopes, and nodes that surely are not.

        A node that is newly ill strikes each of its scopes. Breakers open by `rules`, and close
        once their scope was stable for its time; those that did either are returned. Audited.
        """
        ...

    def reset_breaker(self, scope: Scope, *, actor: str, reason: str, now: datetime) -> Breaker:
        """A person closes a breaker: what struck before does not count any more. Audited.

        Raises LedgerError when the scope's breaker never opened.
        """
        ...

    # -- emergency
    def ask_emergency(
        self,
        lifts: frozenset[Lift],
        *,
        lasts_s: float,
        requester: str,
        approver: str,
        reason: str,
        answer_by: datetime,
        now: datetime,
    ) -> Emergency:
        """Ask for limits to be lifted. Raises Refused while another is asked for or in force."""
        ...

    def approve_emergency(self, *, approver: str, now: datetime) -> Emergency:
        """In force from now on. Raises Refused: nothing is asked, too late, or another person."""
        ...

    def end_emergency(self, *, actor: str, reason: str, now: datetime) -> Emergency | None:
        """End, or withdraw, what is in force or asked; None when there is nothing."""
        ...

    def emergencies(self, *, limit: int = 10) -> Sequence[Emergency]:
        """Newest first, those that ended included."""

    def figures(self) -> Figures:
        """What the metrics tell, of one instant."""
        ...

    # -- kill switch
    def halt_level(self) -> HaltLevel: ...

    def set_halt(self, level: HaltLevel, *, actor: str, reason: str, now: datetime) -> None: ...

    # -- audit
    def audit(
        self, event: str, subject: str, *, actor: str, detail: Mapping[str, Any], now: datetime
    ) -> None:
        """For what has no state of its own: refusals at the moment of acting, overrides seen,
        ...
        """
        ...

    def audit_entries(self, *, after: int = 0, limit: int = 1000) -> Sequence[AuditEntry]: ...

    def head(self) -> tuple[int, str]:
        """(seq, hash) of the last audit entry, (0, "000...") when there is none.

        It only grows: a ledger whose head is behind one that was seen before was restored from a
        backup.
        """
        ...

    def verify_audit(self) -> tuple[int, str]:
        """(number of good entries, "" or what is wrong with the first bad one)."""
        ...


# --------------------------------------------------------------------------- repairs


@dataclass(frozen=True, slots=True)
class RepairRequest:
    """One act on one node, asked of whoever can do it.

    `key` is `<case>/<fence>/<step>` with the fence at which the step was begun: the same however
    often it is sent, by whomever, so that a far side that compares does it once. `boot_id` is the
    boot that it is meant for. `evidence` are plain JSON values, for those who repair by hand.
    """

    key: str
    case_id: str
    step: str
    action: Action
    node: Node
    boot_id: str
    gpus: tuple[str, ...] = ()  # none named: all of them
    is_replay: bool = False  # it may have been sent before
    evidence: Mapping[str, Any] = field(default_factory=dict)


class RepairStatus(StrEnum):
    """What the far side shows of an act. DONE is its word, not yet the node's."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"  # it says that it was not done
    UNKNOWN = "unknown"  # it does not know the act (any more)


@dataclass(frozen=True, slots=True)
class RepairLook:
    """What is true of an act now, in a word and a sentence."""

    status: RepairStatus
    text: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class RepairProvider(Protocol):
    """Somebody who can do one rung of a ladder: a pod on the node, a BMC, a webhook, an agent.

    The order is prepare, record, dispatch, look; a handle is what `prepare` found (and `dispatch`
    added), plain JSON values that are kept in the step. Raises RepairError, ClusterError.
    """

    @property
    def name(self) -> str: ...

    @property
    def can_compare(self) -> bool:
        """Whether a request that was sent twice is done once: the far side compares its key, or
        the boot. Where it cannot, an act is sent once and what is unclear stays unknown.
        """
        ...

    def prepare(self, request: RepairRequest) -> Mapping[str, Any]:
        """Whom it concerns, before anything is recorded; reads only. Raises Refused (UNSUPPORTED,
        REASON_GONE) when this node cannot be repaired so.
        """
        ...

    def dispatch(self, request: RepairRequest, handle: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask for the act; what to add to the handle. RepairError says whether it may be done."""
        ...

    def look(self, action: Action, handle: Mapping[str, Any]) -> RepairLook:
        """What became of it. Raises transient errors when that cannot be seen now."""
        ...


# --------------------------------------------------------------------------- people, runs, time


class Notifier(Protocol):
    """Tells people. Never decides anything; a failure to tell is logged, not raised."""

    def tell(self, subject: str, text: str, *, case_id: str = "") -> None: ...


class Waker(Protocol):
    """Wakes the run that waits for an answer which the ledger has by now. Raises BreakfixError."""

    def wake(self, case: Case, purpose: Purpose) -> None: ...


class CaseRuns(Protocol):
    """The runs that work on cases (Airflow's `node_case`)."""

    def start(self, case: Case) -> bool:
        """Start the run of the case at its fence; False when that run exists already."""
        ...

    def live(self) -> frozenset[str]:
        """Run ids that are queued or running."""
        ...


class Clock(Protocol):
    """Wall time (aware UTC) and a monotonic count for durations."""

    def now(self) -> datetime: ...

    def monotonic(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...
