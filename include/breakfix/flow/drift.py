"""Where ledger, cluster and runs disagree. Reads only: a dry run of the reconciler is this.

The cases are read first: what is read after them is newer than they are. A finding is never acted
upon as it stands; `reconcile` looks again at what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum

from breakfix.act import marks
from breakfix.act.guard import halt_level
from breakfix.errors import BreakfixError, ClusterError, LedgerError, StaleFence
from breakfix.flow.drain_endings import hold_is_old, why_goes_on
from breakfix.flow.draining import drain_step
from breakfix.flow.endings import is_ending
from breakfix.flow.giving_way import why_give_way
from breakfix.flow.holds import is_ours
from breakfix.flow.repairs import is_new_rung
from breakfix.flow.services import Services
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    HaltLevel,
    Node,
    NodeRecord,
    NodeState,
    Pod,
    StepStatus,
)
from breakfix.ports import CaseRuns

#: Requester of a case that was opened for marks of nobody; it escalates at once.
ADOPTER = "reconcile_cases:adopted"


class DriftKind(StrEnum):
    """What can disagree. docs/runbook.md has the table of them."""

    NODE_GONE = "node_gone"
    NODE_REPLACED = "node_replaced"
    TAKEN_BACK = "taken_back"
    NO_RUN = "no_run"
    STALE_RUN = "stale_run"
    DRAIN_LEFT = "drain_left"
    HOLD_OVER = "hold_over"
    HOLD_OLD = "hold_old"
    GIVES_WAY = "gives_way"
    ADOPTION_CUT = "adoption_cut"
    ESCALATION_OVER = "escalation_over"
    MARKS_LEFT = "marks_left"
    MARKS_OF_NOBODY = "marks_of_nobody"
    LABEL_DIFFERS = "label_differs"
    SLOTS_DIFFER = "slots_differ"
    POD_LEFT = "pod_left"


@dataclass(frozen=True, slots=True)
class Drift:
    """One disagreement: what was found, and what is done about it, each as a clause."""

    kind: DriftKind
    node: str
    case_id: str
    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Seen:
    """What one look found. `live` is None where the runs could not be asked."""

    cases: tuple[Case, ...]
    nodes: Mapping[str, Node]
    live: frozenset[str] | None
    halt: HaltLevel
    records: Mapping[str, NodeRecord]
    pods: tuple[Pod, ...]
    notes: list[str] = field(default_factory=list)


def look_around(services: Services, runs: CaseRuns | None) -> Seen:
    """Ledger, cluster and runs, in the order in which they may be believed.

    Raises ClusterError when the API server says that it has no node at all: that is no answer.
    """
    ledger, settings = services.book, services.settings
    cases = tuple(ledger.cases(open_only=True))
    nodes = {n.name: n for n in services.cluster.nodes()}
    if not nodes:
        raise ClusterError("the API server lists no node at all: not believed", is_transient=True)
    seen = Seen(
        cases=cases,
        nodes=nodes,
        live=None if runs is None else runs.live(),
        halt=halt_level(services.cluster, ledger, settings.namespace),
        records=ledger.node_records(now=services.clock.now()),
        pods=tuple(p for p in services.cluster.pods() if _is_our_pod(p, settings.namespace)),
    )
    if runs is None:
        seen.notes.append("runs are not looked at from here: the DAG reconcile_cases starts them")
    return seen


def find(services: Services, seen: Seen) -> tuple[Drift, ...]:
    """Every disagreement. What could not be judged is in `seen.notes`, and hides nothing else."""
    found: list[Drift] = []
    for what, ask in _questions(services, seen):
        with noted(what, seen.notes):
            found += ask()
    return tuple(found)


Ask = Callable[[], Iterable[Drift]]


def _questions(services: Services, seen: Seen) -> Iterator[tuple[str, Ask]]:
    for case in seen.cases:
        yield case.id, lambda case=case: of_case(services, case, seen)  # type: ignore[misc]
    for record in seen.records.values():
        if record.state is NodeState.ESCALATED:
            yield record.node, lambda r=record: of_escalation(services, r, seen)  # type: ignore[misc]
    for node in seen.nodes.values():
        if marks.is_marked(node):
            yield node.name, lambda n=node: of_marks(services, n)  # type: ignore[misc]
    yield "runs", lambda: _of_runs(services, seen)
    yield "pods", lambda: _of_pods(services, seen)
    yield "slots", lambda: of_slots(services)


@contextmanager
def noted(what: str, notes: list[str]) -> Iterator[None]:
    """Trouble with one case or node is a note; the others are still looked after."""
    try:
        yield
    except StaleFence:
        notes.append(f"{what}: changed hands meanwhile")
    except BreakfixError as e:
        notes.append(f"{what}: {e}")


# --------------------------------------------------------------------------- open cases


def of_case(services: Services, case: Case, seen: Seen) -> Iterator[Drift]:
    """The first thing that is wrong with an open case; the label only when nothing else is."""
    node = seen.nodes.get(case.node)
    if node is None:
        yield _drift(DriftKind.NODE_GONE, case, "the node is gone", "the case ends")
    elif node.uid != case.node_uid:
        found = "another machine has the node's name now"
        yield _drift(DriftKind.NODE_REPLACED, case, found, "the case ends; the machine is let be")
    elif case.requester == ADOPTER and case.state is NodeState.QUARANTINED:
        found = "it was opened for marks of nobody, and did not escalate"
        yield _drift(DriftKind.ADOPTION_CUT, case, found, "it escalates")
    elif not case.held_by or is_ours(case):
        yield from _of_work(services, case, node, seen)


def _of_work(services: Services, case: Case, node: Node, seen: Seen) -> Iterator[Drift]:
    if is_theirs(services, case, node):
        found = "a person took the node back"
        yield _drift(DriftKind.TAKEN_BACK, case, found, "our marks go, and the case ends")
    elif case.held_by:
        yield from _of_hold(services, case, seen)
    elif wants_run(services, case, seen):
        yield _drift(DriftKind.NO_RUN, case, *_without_run(services, case))
    elif is_left_by_hand(services, case):
        found = "a drain at the command line was begun, and is not finished in its time"
        remedy = f"a person: `breakfix drain {case.node}` goes on, `case abort` gives it back"
        yield _drift(DriftKind.DRAIN_LEFT, case, found, remedy)
    elif why := why_give_way(services, case):
        remedy = f"policy recovery.others: {services.policy.recovery.others}"
        yield _drift(DriftKind.GIVES_WAY, case, why, remedy)
    else:
        yield from _of_label(case, node)


def _of_hold(services: Services, case: Case, seen: Seen) -> Iterator[Drift]:
    """A case that automation holds: forgotten by everybody, or free to go on."""
    if hold_is_old(services, case):
        found = f"{case.held_by}: nobody came within {services.policy.drain.hold_s:.0f} s"
        yield _drift(DriftKind.HOLD_OLD, case, found, "it escalates")
    elif seen.halt is HaltLevel.NONE and not case.requester.startswith("cli:"):
        why = why_goes_on(services, case)
        if why:
            yield _drift(DriftKind.HOLD_OVER, case, why, "the hold is taken off, and it goes on")


def is_theirs(services: Services, case: Case, node: Node) -> bool:
    """By the node as it is after the steps were read: a quarantine of just now is on it then."""
    if case.state is NodeState.RETURNING:
        return False
    known = services.book.steps(case.id)
    if not marks.was_taken_back(node, case, known):
        return False
    return marks.was_taken_back(services.cluster.node(case.node), case, known)


def wants_run(services: Services, case: Case, seen: Seen) -> bool:
    """Whether a run should be at work on the case, and none is."""
    if seen.live is None or case.run_id in seen.live:
        return False
    if is_ending(case):
        return True
    if case.state is NodeState.RETURNING or _is_drained_by_hand(services, case):
        return False
    takes_more = case.state is NodeState.QUARANTINED or is_new_rung(services, case)
    return not (seen.halt is HaltLevel.DISRUPTION and takes_more)


def _is_drained_by_hand(services: Services, case: Case) -> bool:
    """A drain that a person sees to at the command line, or one that has nothing left to do."""
    if case.action is not Action.DRAIN_ONLY or case.state is not NodeState.QUARANTINED:
        return False
    step = drain_step(services, case)
    has_ended = step is not None and step.status is not StepStatus.DISPATCHED
    return has_ended or case.requester.startswith("cli:")


def is_left_by_hand(services: Services, case: Case) -> bool:
    """A drain by hand whose command line must be gone: its time is over, and it said nothing."""
    if case.action is not Action.DRAIN_ONLY or case.state is not NodeState.QUARANTINED:
        return False
    step = drain_step(services, case)
    if step is None or step.status is not StepStatus.DISPATCHED:
        return False
    until = step.started_at + timedelta(seconds=services.policy.drain.timeout_s)
    return services.clock.now() > until


def _without_run(services: Services, case: Case) -> tuple[str, str]:
    """What it means that no run has the case: slots without a worker, steps without an end."""
    begun = [s.name for s in services.book.steps(case.id) if s.status is StepStatus.DISPATCHED]
    found = f"no run has the case, which is {case.state}"
    if begun:
        found += f"; dispatched and not recorded further: {', '.join(begun)}"
    if case.fence >= services.policy.limits.max_runs:
        return found, f"after {case.fence} runs it escalates, unless this one was never started"
    return found, f"run {case.run_id} is started, or the next one if it has ended already"


def _of_label(case: Case, node: Node) -> Iterator[Drift]:
    label = node.labels.get(marks.STATE, "")
    if marks.is_of(node, case) and label != case.state:
        found = f"the node's label says {label or 'nothing'}, the ledger {case.state}"
        yield _drift(DriftKind.LABEL_DIFFERS, case, found, "the label follows the ledger")


# --------------------------------------------------------------------------- escalated nodes


def of_escalation(services: Services, record: NodeRecord, seen: Seen) -> Iterator[Drift]:
    """An escalation is over when its node is gone or replaced, or when a person put it to work."""
    case = services.book.case(record.last_case)
    if case.end is not CaseEnd.ESCALATED:
        return
    node = seen.nodes.get(record.node)
    over = why_over(case, node)
    if over is not None:
        found = over[1]
        yield _drift(DriftKind.ESCALATION_OVER, case, found, "its record is closed, our marks go")
    elif node is not None and marks.is_of(node, case):
        label = node.labels.get(marks.STATE, "")
        if label != NodeState.ESCALATED:
            found = f"the node's label says {label or 'nothing'}, the ledger escalated"
            yield _drift(DriftKind.LABEL_DIFFERS, case, found, "the label follows the ledger")


def why_over(case: Case, node: Node | None) -> tuple[CaseEnd, str] | None:
    """How an escalation has ended, by the node; None while it stands."""
    if node is None:
        return CaseEnd.NODE_GONE, "the node is gone"
    if node.uid != case.node_uid:
        return CaseEnd.NODE_GONE, "another machine has the name now"
    if node.is_unschedulable:
        return None
    return CaseEnd.OVERRIDDEN, "a person put the node to work"


# --------------------------------------------------------------------------- marks on nodes


@dataclass(frozen=True, slots=True)
class Orphan:
    """What is to become of marks that no open or escalated case has. `owner`: whose they were."""

    owner: Case | None
    lifts_cordon: bool
    adopts: bool
    found: str


def of_marks(services: Services, node: Node) -> Iterator[Drift]:
    """Marks of ours without a case: one that died between the two, or one that nobody knows."""
    orphan = orphan_of(services, node)
    if orphan is None:
        return
    if orphan.adopts:
        kind, remedy = DriftKind.MARKS_OF_NOBODY, "it stays out, as an escalated case for people"
    elif orphan.owner is None:
        kind, remedy = DriftKind.MARKS_OF_NOBODY, "our marks go; it is in service already"
    else:
        cordon = "and the cordon, which is ours" if orphan.lifts_cordon else "any cordon stays"
        kind, remedy = DriftKind.MARKS_LEFT, f"our marks go, {cordon}"
    case_id = orphan.owner.id if orphan.owner else node.annotations.get(marks.CASE, "")
    yield Drift(kind, node.name, case_id, orphan.found, remedy)


def orphan_of(services: Services, node: Node) -> Orphan | None:
    """None while an open or escalated case of this machine accounts for the marks.

    Read after the node: a mark is never on a node before its case is in the ledger.
    """
    mine = [c for c in services.book.cases(node=node.name) if c.node_uid == node.uid]
    if any(c.is_open for c in mine) or (mine and mine[-1].end is CaseEnd.ESCALATED):
        return None
    named = _named(services, node)
    owner = next((c for c in mine if named is not None and c.id == named.id), None)
    if owner is None and named is None and marks.CASE not in node.annotations and mine:
        owner = mine[-1]
    if owner is None or owner.end is CaseEnd.NODE_GONE:
        return _of_nobody(node, owner, named)
    lifts = owner.end is not CaseEnd.OVERRIDDEN and marks.cordoned_by_us(node)
    found = f"marks of case {owner.id}, which ended: {owner.end}"
    return Orphan(owner, lifts, adopts=False, found=found)


def _named(services: Services, node: Node) -> Case | None:
    """The case that the node names, if this ledger knows it."""
    case_id = node.annotations.get(marks.CASE, "")
    if not case_id:
        return None
    try:
        return services.book.case(case_id)
    except LedgerError as e:
        if e.is_transient:
            raise
        return None


def _of_nobody(node: Node, owner: Case | None, named: Case | None) -> Orphan:
    name = node.annotations.get(marks.CASE, "")
    if owner is not None:
        found = f"marks of case {owner.id}, which ended as its node was gone; it is back"
    elif named is not None:
        found = f"marks of case {name}, which was of another machine"
    elif name:
        found = f"marks of case {name}, which this ledger does not know"
    else:
        found = "marks that name no case"
    return Orphan(None, lifts_cordon=False, adopts=node.is_unschedulable, found=found)


# --------------------------------------------------------------------------- runs, pods, slots


def _of_runs(services: Services, seen: Seen) -> Iterator[Drift]:
    wanted = {c.run_id for c in seen.cases}
    for run_id in sorted((seen.live or frozenset()) - wanted):
        case_id, _, fence = run_id.rpartition(".")
        if not case_id or not fence.isdigit() or not _is_past(services, case_id, int(fence)):
            continue
        found = f"run {run_id} is live, and its case has ended or changed hands"
        remedy = "whatever it tries is refused; it ends with what it waits for"
        yield Drift(DriftKind.STALE_RUN, "", case_id, found, remedy)


def _is_past(services: Services, case_id: str, fence: int) -> bool:
    try:
        case = services.book.case(case_id)
    except LedgerError as e:
        if e.is_transient:
            raise
        return False  # a run by hand under a name of its own
    return not case.is_open or case.fence > fence


def _is_our_pod(pod: Pod, namespace: str) -> bool:
    return pod.namespace == namespace and marks.CASE in pod.labels and not pod.is_finished


def _of_pods(services: Services, seen: Seen) -> Iterator[Drift]:
    for pod in seen.pods:
        why = why_pod_is_left(services, pod)
        if why:
            case_id, remedy = pod.labels[marks.CASE], "it is deleted before it acts"
            yield Drift(DriftKind.POD_LEFT, pod.node, case_id, why, remedy)


def why_pod_is_left(services: Services, pod: Pod) -> str:
    """Why no case waits for this pod of ours any more; empty while one does."""
    case_id = pod.labels[marks.CASE]
    if pod.is_terminating:
        return ""
    try:
        case = services.book.case(case_id)
    except LedgerError as e:
        if e.is_transient:
            raise
        return f"pod {pod.name} is of case {case_id}, which this ledger does not know"
    if case.is_open:
        return ""
    return f"pod {pod.name} waits, and its case has ended: {case.end}"


def of_slots(services: Services) -> Iterator[Drift]:
    """Slots without an open case of theirs, and open cases without their slots."""
    ledger = services.book
    before = {(x.scope, x.node, x.case_id) for x in ledger.leases()}
    holding = {NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING}
    due = {
        (scope, c.node, c.id)
        for c in ledger.cases(open_only=True)
        if c.state in holding
        for scope in c.scopes
    }
    differ = (before ^ due) & ({(x.scope, x.node, x.case_id) for x in ledger.leases()} ^ due)
    if differ:
        named = ", ".join(sorted(f"{scope} by {node}" for scope, node, _ in differ)[:5])
        found = f"{len(differ)} slots are not what the open cases say: {named}"
        yield Drift(DriftKind.SLOTS_DIFFER, "", "", found, "the slots follow the cases")


def _drift(kind: DriftKind, case: Case, found: str, remedy: str) -> Drift:
    return Drift(kind, case.node, case.id, found, remedy)
