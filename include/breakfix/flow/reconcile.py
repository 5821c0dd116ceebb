"""Drift between ledger, cluster and runs, found and mended: nothing is lost, nothing stays half
done.

Reads the world first and believes it: a node that is gone ends its case, a person's hand ends it
too, a case without a live run gets its next one, and our marks on a node without a case are taken
off.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from breakfix.act.guard import halt_level
from breakfix.act.marks import CASE, is_marked, was_taken_back
from breakfix.act.ownership import check_ownership
from breakfix.act.quarantine import clear_marks
from breakfix.act.repair import withdraw_pods
from breakfix.errors import BreakfixError, LedgerError, StaleFence
from breakfix.flow.drain_endings import escalate_held, hold_is_old, why_goes_on
from breakfix.flow.draining import drain_step
from breakfix.flow.endings import escalate, give_up, is_ending
from breakfix.flow.guarding import acting
from breakfix.flow.holds import is_ours, let_go_on
from breakfix.flow.services import Services
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    HaltLevel,
    Node,
    NodeRecord,
    NodeState,
    StepStatus,
)
from breakfix.ports import CaseRuns

log = logging.getLogger(__name__)

ACTOR = "reconcile_cases"


@dataclass(slots=True)
class ReconcileReport:
    """What was mended. `notes` are for people: what was found and left alone, and why."""

    started: list[str] = field(default_factory=list)  # run ids
    ended: list[str] = field(default_factory=list)  # case ids
    escalated: list[str] = field(default_factory=list)
    cleaned: list[str] = field(default_factory=list)  # node names
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one pass found when it began."""

    nodes: Mapping[str, Node]
    live: frozenset[str]
    halt: HaltLevel
    report: ReconcileReport


def reconcile(services: Services, runs: CaseRuns) -> ReconcileReport:
    """One pass over all open cases and all marked nodes.

    Trouble with one of them is a note, not the end of the pass.
    """
    services = services.refreshed()
    ledger, namespace = services.book, services.settings.namespace
    check_ownership(services.cluster, ledger, namespace, now=services.clock.now())
    cases = ledger.cases(open_only=True)  # first: what is read after it is newer than they are
    found = _Pass(
        nodes={n.name: n for n in services.cluster.nodes()},
        live=runs.live(),
        halt=halt_level(services.cluster, ledger, namespace),
        report=ReconcileReport(),
    )
    for case in cases:
        with _noted(case.id, found.report):
            _mend_case(services, runs, case, found)
    for record in ledger.node_records(now=services.clock.now()).values():
        if record.state is NodeState.ESCALATED:
            with _noted(record.node, found.report):
                _mend_escalation(services, record, found)
    if found.halt is HaltLevel.ALL:
        found.report.notes.append("halted (level all): no mark is taken off any node")
        return found.report
    for node in found.nodes.values():
        if is_marked(node):
            with _noted(node.name, found.report):
                _mend_marks(services, node, found.report)
    return found.report


@contextmanager
def _noted(what: str, report: ReconcileReport) -> Iterator[None]:
    """Trouble with one case or node is a note; the others are still looked after."""
    try:
        yield
    except StaleFence:
        report.notes.append(f"{what}: changed hands meanwhile")
    except BreakfixError as e:
        report.notes.append(f"{what}: {e}")


def _mend_case(services: Services, runs: CaseRuns, case: Case, found: _Pass) -> None:
    node = found.nodes.get(case.node)
    if node is None or node.uid != case.node_uid:
        text = "the node is gone" if node is None else "another node has the name now"
        withdraw_pods(acting(services), case)
        _end(services, case, CaseEnd.NODE_GONE, text, found.report)
    elif found.halt is HaltLevel.ALL:
        return
    elif is_ours(case):
        _mend_hold(services, runs, case, found)
    elif case.held_by:
        return
    elif _is_theirs(services, case, node):
        text = "a person took the node back"
        give_up(services, _take(services, case, text), CaseEnd.OVERRIDDEN, text, actor=ACTOR)
        found.report.ended.append(case.id)
    elif _wants_run(services, case, found.live, found.halt):
        _start(services, runs, case, found.report)


def _mend_hold(services: Services, runs: CaseRuns, case: Case, found: _Pass) -> None:
    """A case that automation holds: taken back, forgotten by everybody, or free to go on."""
    if _is_theirs(services, case, found.nodes[case.node]):
        text = "a person took the node back"
        let_go_on(services, case, actor=ACTOR, reason=text)
        give_up(services, _take(services, case, text), CaseEnd.OVERRIDDEN, text, actor=ACTOR)
        found.report.ended.append(case.id)
    elif hold_is_old(services, case):
        escalate_held(services, case, actor=ACTOR)
        found.report.escalated.append(case.id)
    elif found.halt is HaltLevel.NONE and not case.requester.startswith("cli:"):
        why = why_goes_on(services, case)
        if why:
            let_go_on(services, case, actor=ACTOR, reason=why)
            _start(services, runs, case, found.report)


def _is_theirs(services: Services, case: Case, node: Node) -> bool:
    """By the node as it is after the steps were read: a quarantine of just now is on it then."""
    if case.state is NodeState.RETURNING:
        return False
    known = services.book.steps(case.id)
    if not was_taken_back(node, case, known):
        return False
    return was_taken_back(services.cluster.node(case.node), case, known)


def _wants_run(services: Services, case: Case, live: frozenset[str], halt: HaltLevel) -> bool:
    if case.run_id in live:
        return False
    if is_ending(case):
        return True
    if case.state is NodeState.RETURNING or _is_drained_by_hand(services, case):
        return False
    return not (halt is HaltLevel.DISRUPTION and case.state is NodeState.QUARANTINED)


def _is_drained_by_hand(services: Services, case: Case) -> bool:
    """A drain that a person sees to at the command line, or one that has nothing left to do."""
    if case.action is not Action.DRAIN_ONLY:
        return False
    step = drain_step(services, case)
    has_ended = step is not None and step.status is not StepStatus.DISPATCHED
    return has_ended or case.requester.startswith("cli:")


def _start(services: Services, runs: CaseRuns, case: Case, report: ReconcileReport) -> None:
    """The run of this fence if there never was one (a sweep died before it), else that of the
    next.
    """
    if runs.start(case):
        report.started.append(case.run_id)
        return
    if case.run_id in runs.live():
        return  # somebody has started it just now
    if case.fence >= services.policy.limits.max_runs:
        text = f"{case.fence} runs did not finish it"
        escalate(services, _take(services, case, text), actor=ACTOR, reason=text)
        report.escalated.append(case.id)
        return
    taken = _take(services, case, "its run ended before the case did")
    runs.start(taken)
    report.started.append(taken.run_id)


def _take(services: Services, case: Case, reason: str) -> Case:
    now = services.clock.now()
    return services.book.take_over(case.id, case.fence, actor=ACTOR, reason=reason, now=now)


def _end(
    services: Services, case: Case, end: CaseEnd, reason: str, report: ReconcileReport
) -> None:
    now = services.clock.now()
    services.book.end_case(case.id, case.fence, end, actor=ACTOR, reason=reason, now=now)
    services.notifier.tell(f"case of {case.node} ended: {end}", reason, case_id=case.id)
    report.ended.append(case.id)


def _mend_marks(services: Services, node: Node, report: ReconcileReport) -> None:
    """Our marks outlive their case when somebody crashed between the two."""
    case_id = node.annotations.get(CASE, "")
    try:
        case = services.book.case(case_id)
    except LedgerError as e:
        if e.is_transient:
            raise
        report.notes.append(
            f"{node.name}: marked by case {case_id}, which this ledger does not know"
        )
        return
    if case.is_open or case.end is CaseEnd.ESCALATED or case.node_uid != node.uid:
        return
    detail = {"node": node.name, "end": case.end}
    services.book.audit(
        "marks.cleared", case.id, actor=ACTOR, detail=detail, now=services.clock.now()
    )
    clear_marks(services.cluster, case)
    report.cleaned.append(node.name)


def _mend_escalation(services: Services, record: NodeRecord, found: _Pass) -> None:
    """An escalation is over when its node is gone or replaced, or when a person put it to work.

    The record is closed first: marks that a crash leaves behind are then taken off as any others.
    """
    case = services.book.case(record.last_case)
    node = found.nodes.get(record.node)
    if case.end is not CaseEnd.ESCALATED:
        return
    if node is None or node.uid != case.node_uid:
        text = "the node is gone" if node is None else "another machine has the name now"
        _end(services, case, CaseEnd.NODE_GONE, text, found.report)
    elif not services.cluster.node(record.node).is_unschedulable:
        known = services.book.steps(case.id)
        was_out = any(s.name.startswith("quarantine-") for s in known)
        end = CaseEnd.OVERRIDDEN if was_out else CaseEnd.ABORTED
        text = "a person put the node to work" if was_out else "it was never taken out"
        _end(services, case, end, text, found.report)
