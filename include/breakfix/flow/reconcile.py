"""Drift between ledger, cluster and runs, found and mended: nothing is lost, nothing stays half
done.

Reads the world first and believes it: a node that is gone ends its case, a person's hand ends it
too, a case without a live run gets its next one, and our marks on a node without a case are taken
off. What is found, and how, is in `drift`; here each finding is looked at once more, and mended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from breakfix.act import leftovers
from breakfix.act.ownership import check_ownership, ownership_problem
from breakfix.act.quarantine import clear_marks, set_state_label
from breakfix.act.repair import withdraw_pods
from breakfix.errors import NotFound
from breakfix.flow import drift
from breakfix.flow.drain_endings import escalate_held, hold_is_old
from breakfix.flow.drift import ADOPTER, Drift, DriftKind, Seen, noted
from breakfix.flow.endings import escalate, give_up, own_marks
from breakfix.flow.giving_way import give_way, why_give_way
from breakfix.flow.guarding import acting
from breakfix.flow.holds import is_ours, let_go_on
from breakfix.flow.services import Services
from breakfix.model import (
    Action,
    Case,
    CaseEnd,
    FailureClass,
    HaltLevel,
    Impact,
    Intent,
    Node,
    NodeState,
    Refusal,
)
from breakfix.ports import CaseRuns

log = logging.getLogger(__name__)

ACTOR = "reconcile_cases"


@dataclass(slots=True)
class ReconcileReport:
    """What was found and mended. `notes` are for people: what was left alone, and why."""

    drift: list[Drift] = field(default_factory=list)  # all that was found, mended or not
    started: list[str] = field(default_factory=list)  # run ids
    ended: list[str] = field(default_factory=list)  # case ids
    escalated: list[str] = field(default_factory=list)
    cleaned: list[str] = field(default_factory=list)  # node names
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Pass:
    """One pass at work."""

    services: Services
    runs: CaseRuns | None
    seen: Seen
    report: ReconcileReport
    actor: str

    def case(self, found: Drift) -> Case:
        """As the ledger has it now."""
        return self.services.book.case(found.case_id)

    def node(self, name: str) -> Node | None:
        """As the cluster has it now: no drift is mended on the word of a list alone."""
        try:
            return self.services.cluster.node(name)
        except NotFound:
            return None


def reconcile(
    services: Services, runs: CaseRuns | None, *, is_dry_run: bool = False, actor: str = ACTOR
) -> ReconcileReport:
    """One pass over all open cases, all escalated and all marked nodes; a dry run only finds.

    Trouble with one of them is a note, not the end of the pass. `runs` None: the runs cannot be
    asked from here, and none is started.
    """
    services = services.refreshed()
    namespace, now = services.settings.namespace, services.clock.now()
    if not is_dry_run:
        check_ownership(services.cluster, services.book, namespace, now=now)
    seen = drift.look_around(services, runs)
    report = ReconcileReport(notes=seen.notes)
    report.drift += drift.find(services, seen)
    if is_dry_run:
        problem = ownership_problem(services.cluster, services.book, namespace)
        report.notes += [problem] if problem else []
        return report
    work = _Pass(services, runs, seen, report, actor)
    for found in report.drift:
        log.info("%s node=%s case=%s %s", found.kind, found.node, found.case_id, found.found)
        with noted(found.case_id or found.node or found.kind.value, report.notes):
            _mend(work, found)
    if seen.halt is HaltLevel.ALL:
        report.notes.append("halted (level all): no mark is taken off any node")
    return report


#: Under a halt of everything only the record is brought up to date, no node and no run is touched.
_RECORD_ONLY = frozenset(
    {
        DriftKind.NODE_GONE,
        DriftKind.NODE_REPLACED,
        DriftKind.ESCALATION_OVER,
        DriftKind.SLOTS_DIFFER,
    }
)


def _mend(work: _Pass, found: Drift) -> None:
    if work.seen.halt is HaltLevel.ALL and found.kind not in _RECORD_ONLY:
        return
    mend = _MENDS.get(found.kind)
    if mend is None:
        where = f"{found.node}: " if found.node else ""
        work.report.notes.append(f"{where}{found.found}; {found.remedy}")
    else:
        mend(work, found)


# --------------------------------------------------------------------------- cases


def _node_gone(work: _Pass, found: Drift) -> None:
    case, node = work.case(found), work.node(found.node)
    if not case.is_open or (node is not None and node.uid == case.node_uid):
        return  # the list was wrong, or somebody else saw it too
    withdraw_pods(acting(work.services), case)
    _end(work, case, CaseEnd.NODE_GONE, found.found)


def _taken_back(work: _Pass, found: Drift) -> None:
    case, node = work.case(found), work.node(found.node)
    if node is None or not case.is_open or (case.held_by and not is_ours(case)):
        return
    if not drift.is_theirs(work.services, case, node):
        return
    if case.held_by:
        let_go_on(work.services, case, actor=work.actor, reason=found.found)
    give_up(
        work.services,
        _take(work, case, found.found),
        CaseEnd.OVERRIDDEN,
        found.found,
        actor=work.actor,
    )
    work.report.ended.append(case.id)


def _no_run(work: _Pass, found: Drift) -> None:
    """The run of this fence if there never was one (a sweep died before it), else that of the
    next.
    """
    case = work.case(found)
    if case.is_open:
        _run_next(work, case)


def _hold_over(work: _Pass, found: Drift) -> None:
    """What automation had waited for has come: the next run goes on from there."""
    case = work.case(found)
    if case.is_open and is_ours(case):
        let_go_on(work.services, case, actor=work.actor, reason=found.found)
        _run_next(work, case)


def _hold_old(work: _Pass, found: Drift) -> None:
    case = work.case(found)
    if case.is_open and hold_is_old(work.services, case):
        escalate_held(work.services, case, actor=work.actor)
        work.report.escalated.append(case.id)


def _run_next(work: _Pass, case: Case) -> None:
    if work.runs is None:
        return
    if work.runs.start(case):
        work.report.started.append(case.run_id)
        return
    if case.run_id in work.runs.live():
        return  # somebody has started it just now
    if case.fence >= work.services.policy.limits.max_runs:
        text = f"{case.fence} runs did not finish it"
        escalate(work.services, _take(work, case, text), actor=work.actor, reason=text)
        work.report.escalated.append(case.id)
        return
    taken = _take(work, case, "its run ended before the case did")
    work.runs.start(taken)
    work.report.started.append(taken.run_id)


def _gives_way(work: _Pass, found: Drift) -> None:
    """The fence moves first: the run that waits for a yes does nothing with a late one."""
    case = work.case(found)
    if not case.is_open or not why_give_way(work.services, case):
        return
    give_way(work.services, _take(work, case, found.found), actor=work.actor)
    after = work.case(found)
    if after.end is CaseEnd.ESCALATED:
        work.report.escalated.append(case.id)
    elif not after.is_open:
        work.report.ended.append(case.id)


def _label_differs(work: _Pass, found: Drift) -> None:
    case = work.case(found)
    if case.end is CaseEnd.ESCALATED:
        node = work.node(found.node)
        if node is not None and node.uid == case.node_uid:
            leftovers.adopt(acting(work.services), node, case, actor=work.actor, why=found.found)
    elif case.is_open:
        set_state_label(own_marks(work.services), case, case.state)
    work.report.cleaned.append(found.node)


def _take(work: _Pass, case: Case, reason: str) -> Case:
    now = work.services.clock.now()
    return work.services.book.take_over(
        case.id, case.fence, actor=work.actor, reason=reason, now=now
    )


def _end(work: _Pass, case: Case, end: CaseEnd, reason: str) -> None:
    now = work.services.clock.now()
    work.services.book.end_case(case.id, case.fence, end, actor=work.actor, reason=reason, now=now)
    work.services.notifier.tell(f"case of {case.node} ended: {end}", reason, case_id=case.id)
    work.report.ended.append(case.id)


# --------------------------------------------------------------------------- nodes


def _escalation_over(work: _Pass, found: Drift) -> None:
    """The record is closed first: marks that a crash leaves behind are then taken off as any
    others.
    """
    case, node = work.case(found), work.node(found.node)
    over = drift.why_over(case, node)
    if case.end is not CaseEnd.ESCALATED or over is None:
        return
    end, text = over
    known = work.services.book.steps(case.id)
    if end is CaseEnd.OVERRIDDEN and not any(s.name.startswith("quarantine-") for s in known):
        end, text = CaseEnd.ABORTED, "it was never taken out"
    _end(work, case, end, text)
    is_same = node is not None and node.uid == case.node_uid
    if is_same and work.seen.halt is not HaltLevel.ALL:
        clear_marks(work.services.cluster, case)


def _marks(work: _Pass, found: Drift) -> None:
    """Our marks outlive their case when somebody crashed between the two."""
    node = work.node(found.node)
    orphan = drift.orphan_of(work.services, node) if node is not None else None
    if node is None or orphan is None:
        return
    if orphan.adopts:
        _adopt(work, node, orphan.found)
        return
    leftovers.lift(
        acting(work.services),
        node,
        with_cordon=orphan.lifts_cordon,
        actor=work.actor,
        why=orphan.found,
    )
    work.report.cleaned.append(node.name)


def _adopt(work: _Pass, node: Node, why: str) -> None:
    """Somebody must own a node that is out: an escalated case, which counts and can be seen.

    It takes nothing out of service, so that no limit is asked; a halt is.
    """
    intent = Intent(
        node=node.name,
        node_uid=node.uid,
        boot_id=node.boot_id,
        failure_class=FailureClass.MANUAL,
        action=Action.DRAIN_ONLY,
        confidence=0.0,
        reason=f"found out of service by our marks: {why}",
        impact=Impact(0, 0, 0),
        scopes=node.scopes(),
        is_by_hand=True,
    )
    now = work.services.clock.now()
    admitted = work.services.book.admit(intent, (), requester=ADOPTER, now=now)
    if isinstance(admitted, Refusal):
        work.report.notes.append(f"{node.name}: {why}; not adopted: {admitted.text}")
        return
    _escalate_adopted(work, admitted)


def _adoption_cut(work: _Pass, found: Drift) -> None:
    case = work.case(found)
    if case.is_open and case.requester == ADOPTER and case.state is NodeState.QUARANTINED:
        _escalate_adopted(work, case)


def _escalate_adopted(work: _Pass, case: Case) -> None:
    node = work.node(case.node)
    if node is not None and node.uid == case.node_uid:
        leftovers.adopt(acting(work.services), node, case, actor=work.actor, why=case.reason)
    escalate(work.services, case, actor=work.actor, reason=case.reason)
    work.report.escalated.append(case.id)


# --------------------------------------------------------------------------- pods, slots


def _pod_left(work: _Pass, found: Drift) -> None:
    services = work.services
    for pod in work.seen.pods:
        is_meant = pod.labels.get("breakfix.dev/case") == found.case_id and pod.node == found.node
        if is_meant and drift.why_pod_is_left(services, pod):
            leftovers.delete_pod(acting(services), pod, actor=work.actor, why=found.found)
            work.report.cleaned.append(f"{pod.namespace}/{pod.name}")


def _slots_differ(work: _Pass, found: Drift) -> None:
    del found
    now = work.services.clock.now()
    work.report.notes += work.services.book.mend_leases(actor=work.actor, now=now)


_MENDS: Mapping[DriftKind, Callable[[_Pass, Drift], None]] = {
    DriftKind.NODE_GONE: _node_gone,
    DriftKind.NODE_REPLACED: _node_gone,
    DriftKind.TAKEN_BACK: _taken_back,
    DriftKind.NO_RUN: _no_run,
    DriftKind.HOLD_OVER: _hold_over,
    DriftKind.HOLD_OLD: _hold_old,
    DriftKind.GIVES_WAY: _gives_way,
    DriftKind.ADOPTION_CUT: _adoption_cut,
    DriftKind.LABEL_DIFFERS: _label_differs,
    DriftKind.ESCALATION_OVER: _escalation_over,
    DriftKind.MARKS_LEFT: _marks,
    DriftKind.MARKS_OF_NOBODY: _marks,
    DriftKind.SLOTS_DIFFER: _slots_differ,
    DriftKind.POD_LEFT: _pod_left,
}
