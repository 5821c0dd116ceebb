"""Repairs of a node, whoever does them. A step is dispatched here and settled on evidence.

The intention is on record before the effect. `dispatched` says that it was asked for, no more;
`settle` says what became of it, or None while nothing can be said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from breakfix.act import guard, marks, steps
from breakfix.act.guard import Acting, Expected
from breakfix.act.pod_repairs import PodRepairs
from breakfix.act.pod_repairs import pod_of as pod_of_handle
from breakfix.act.pods import PodSettings
from breakfix.errors import CircuitOpen, ClusterError, NotFound, Refused, RepairError, StaleFence
from breakfix.model import BOOTS, Action, Case, Node, RefusalReason, Step, StepStatus
from breakfix.ports import RepairLook, RepairProvider, RepairRequest, RepairStatus

_PENDING = frozenset({StepStatus.DISPATCHED})
#: Nobody knows that their pod did its work, so it may yet do it.
_MAY_FIRE = frozenset({StepStatus.DISPATCHED, StepStatus.UNKNOWN})

#: In a step's detail: it was sent; before that nobody can be at it, unless its sender died sending.
IS_SENT = "is_sent"
BOOTED = "boot_id_after"

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Repair:
    """What to do, by whom, under which step. `evidence`: for those who repair by hand."""

    action: Action
    provider: RepairProvider
    step: str
    gpus: tuple[str, ...] = ()
    evidence: Mapping[str, Any] = field(default_factory=dict)


def pod_of(step: Step) -> tuple[str, str]:
    """(namespace, name) of the step's pod."""
    return pod_of_handle(step.detail)


def step_name(acting: Acting, case: Case, what: str, nth: int = 1) -> str:
    """`<what>-<round>`, and `.<nth>` when the same thing is done again within a round."""
    number = steps.current_round(acting.ledger.steps(case.id))
    return f"{what}-{number}" + (f".{nth}" if nth > 1 else "")


def rung_name(acting: Acting, case: Case) -> str:
    """The step of the rung that the case is at: `repair-<action>-<round>`, and `.r<n>` from the
    second rung of a round on, so that a ladder may have the same rung twice.
    """
    rung = int(case.detail.get("rung", 1))
    name = step_name(acting, case, f"{steps.REPAIR}-{case.action}")
    return name + (f".r{rung}" if rung > 1 else "")


def known_boot_id(acting: Acting, case: Case) -> str:
    """The boot after the case's last reboot, or the one it was opened for."""
    rebooted = [s for s in acting.ledger.steps(case.id) if s.detail.get(BOOTED)]
    if not rebooted:
        return case.boot_id
    return str(max(rebooted, key=lambda s: s.started_at).detail[BOOTED])


# --------------------------------------------------------------------------- dispatch


def dispatch(acting: Acting, case: Case, expected: Expected, repair: Repair) -> Step:
    """Ask for the repair, once, and return its step; a settled one is returned as it is.

    It is meant for the boot that the case knows, and Refused (NODE_CHANGED) in another. Where the
    far side compares, a dispatch that was cut short is sent again; where it cannot, it is sent only
    by whoever recorded it.
    """
    step = steps.step_named(acting.ledger.steps(case.id), repair.step)
    if step is not None and step.status not in _PENDING:
        return step
    node = acting.cluster.node(case.node)
    boot_id = str(step.detail["boot_id"]) if step is not None else known_boot_id(acting, case)
    if step is not None and repair.action in BOOTS and node.boot_id != boot_id:
        return step  # it has happened; `settle` says so
    request = _request(case, step, repair, node, boot_id)
    handle = step.detail if step is not None else _prepared(request, repair)
    guarded = replace(expected, boot_id="" if expected.is_recovery else boot_id)
    checked = guard.check(acting, case, repair.step, guarded)
    begun = {**handle, "node_before": marks.picture(checked)}
    step, is_new = steps.begin(acting, case, repair.step, begun)
    if step.status not in _PENDING or step.detail.get(IS_SENT):
        return step
    if not is_new and not can_send_again(step, repair):
        return step  # whether its sender came to send it, only the node can show
    request = replace(request, key=_key(case, step), is_replay=not is_new)
    return _send(acting, case, repair, request, step)


def can_send_again(step: Step, repair: Repair) -> bool:
    """Whether sending what may have been sent is harmless: the very far side that it was meant for
    compares. Settings may name another one by now, which knows nothing of it.
    """
    return repair.provider.can_compare and _is_his(step, repair)


def _is_his(step: Step, repair: Repair) -> bool:
    return step.detail.get("provider") == repair.provider.name


def _key(case: Case, step: Step) -> str:
    """By the fence of its beginning: whoever sends it again sends the same."""
    return f"{case.id}/{step.fence}/{step.name}"


def _request(
    case: Case, step: Step | None, repair: Repair, node: Node, boot_id: str
) -> RepairRequest:
    return RepairRequest(
        key=_key(case, step) if step is not None else f"{case.id}/{case.fence}/{repair.step}",
        case_id=case.id,
        step=repair.step,
        action=repair.action,
        node=node,
        boot_id=boot_id,
        gpus=repair.gpus,
        evidence=repair.evidence,
    )


def _prepared(request: RepairRequest, repair: Repair) -> dict[str, Any]:
    try:
        found = repair.provider.prepare(request)
    except CircuitOpen:
        raise  # nothing is begun: it is asked again when the circuit lets somebody through
    except RepairError as e:
        text = f"{repair.provider.name} cannot prepare {request.action}: {e}"
        raise Refused(RefusalReason.UNSUPPORTED, text) from e
    return {
        "action": request.action.value,
        "provider": repair.provider.name,
        "boot_id": request.boot_id,
        "gpus": list(request.gpus),
        **found,
    }


def _send(acting: Acting, case: Case, repair: Repair, request: RepairRequest, step: Step) -> Step:
    """The effect, and the note that it was sent: from then on what is not there has come and gone.

    What was certainly not taken is FAILED; what may have been is waited for like what was.
    """
    note: dict[str, Any] = {IS_SENT: True}
    try:
        note |= repair.provider.dispatch(request, step.detail)
    except RepairError as e:
        if isinstance(e, CircuitOpen) and repair.provider.can_compare:
            raise  # not sent: whoever looks next sends it
        if not e.is_unclear:
            detail = {"text": f"{repair.action} was not taken: {e}"}
            return steps.finish(acting, case, step.name, StepStatus.FAILED, detail)
        note |= {"unclear": str(e), "text": f"asked for, without a clear answer: {e}"}
    return _note(acting, case, step, note)


def _note(acting: Acting, case: Case, step: Step, detail: Mapping[str, Any]) -> Step:
    now = acting.clock.now()
    return acting.ledger.finish_step(
        case.id, case.fence, step.name, StepStatus.DISPATCHED, detail=detail, now=now
    )


def restart_device_plugin(
    acting: Acting, case: Case, expected: Expected, settings: PodSettings, *, nth: int = 1
) -> Step:
    """Delete the node's device-plugin pod by its uid; its DaemonSet brings another one."""
    return dispatch(acting, case, expected, _restart(acting, case, settings, nth))


def settle_device_plugin(acting: Acting, case: Case, settings: PodSettings, *, nth: int) -> None:
    """What became of that restart, if there was one, once nobody waits for it any more."""
    repair = _restart(acting, case, settings, nth)
    step = steps.step_named(acting.ledger.steps(case.id), repair.step)
    if step is not None and settle(acting, case, step, repair) is None:
        give_up(acting, case, step, "the check ended before a new plugin pod was Ready")


def _restart(acting: Acting, case: Case, settings: PodSettings, nth: int) -> Repair:
    name = step_name(acting, case, f"{steps.REPAIR}-{Action.RESTART_DEVICE_PLUGIN}", nth)
    return Repair(Action.RESTART_DEVICE_PLUGIN, PodRepairs(acting.cluster, settings), name)


# --------------------------------------------------------------------------- what became of it


def settle(acting: Acting, case: Case, step: Step, repair: Repair) -> Step | None:
    """What became of the repair, by what the node shows; None while nothing can be said.

    A repair that boots the node is DONE when the node runs another boot and is Ready, whatever the
    far side says of it. For the others its word is what there is; the validation comes after it.
    """
    if step.status not in _PENDING:
        return step
    if repair.action in BOOTS:
        return _settle_boot(acting, case, step, repair)
    look = _look(repair, step)
    if look.status is RepairStatus.UNKNOWN:
        return give_up(acting, case, step, look.text)
    if look.status is RepairStatus.RUNNING:
        return None
    return _finished(acting, case, step, look)


def _look(repair: Repair, step: Step) -> RepairLook:
    """A far side that cannot be asked now is no verdict: it is asked again until the deadline."""
    if not _is_his(step, repair):
        asked, now = step.detail.get("provider"), repair.provider.name
        text = f"it was asked of {asked}, and settings name {now} now: it cannot be asked about"
        return RepairLook(RepairStatus.RUNNING, text)
    try:
        return repair.provider.look(repair.action, step.detail)
    except RepairError as e:
        log.warning("step=%s %s cannot be asked: %s", step.name, repair.provider.name, e)
        return RepairLook(RepairStatus.RUNNING, f"{repair.provider.name} cannot be asked: {e}")


def _finished(acting: Acting, case: Case, step: Step, look: RepairLook) -> Step:
    is_done = look.status is RepairStatus.DONE
    status = StepStatus.DONE if is_done else StepStatus.FAILED
    return steps.finish(acting, case, step.name, status, {**look.detail, "text": look.text})


def _settle_boot(acting: Acting, case: Case, step: Step, repair: Repair) -> Step | None:
    node = acting.cluster.node(case.node)
    if node.boot_id and node.boot_id != step.detail["boot_id"]:
        return _booted(acting, case, step, node)
    look = _look(repair, step)
    if look.status is RepairStatus.FAILED:
        return _finished(acting, case, step, look)
    seen = f"{look.text}; the node runs the boot it ran before"
    if look.status is not RepairStatus.RUNNING and step.detail.get("seen") != seen:
        _note(acting, case, step, {"seen": seen})
    return None


def _booted(acting: Acting, case: Case, step: Step, node: Node) -> Step | None:
    if not node.is_ready:
        if step.detail.get(BOOTED) != node.boot_id:
            seen = "boot id changed, the node is not Ready yet"
            _note(acting, case, step, {BOOTED: node.boot_id, "seen": seen})
        return None
    detail = {BOOTED: node.boot_id, "text": "boot id changed, node Ready"}
    return steps.finish(acting, case, step.name, StepStatus.DONE, detail)


def overdue(acting: Acting, case: Case, step: Step) -> Step:
    """The deadline passed: FAILED where the node shows what is wrong, else UNKNOWN, never done."""
    now_known = steps.step_named(acting.ledger.steps(case.id), step.name) or step
    detail = now_known.detail
    if now_known.status not in _PENDING:
        return now_known  # another task of this run has settled it meanwhile
    if detail.get(BOOTED):
        text = "the node has booted, and was not Ready until the deadline"
        return steps.finish(acting, case, step.name, StepStatus.FAILED, {"text": text})
    why = "no effect was seen until the deadline: a person must look"
    said = detail.get("seen") or detail.get("text") or ""
    if not detail.get(IS_SENT):
        said = "whether it was sent is not known"
    return give_up(acting, case, now_known, f"{why} ({said})" if said else why)


def give_up(acting: Acting, case: Case, step: Step, why: str) -> Step:
    """The deadline passed without evidence: the step is UNKNOWN, never done."""
    if step.status not in _PENDING:
        return step
    return steps.finish(acting, case, step.name, StepStatus.UNKNOWN, {"text": why})


# --------------------------------------------------------------------------- pods taken back


def withdraw_pods(acting: Acting, case: Case) -> list[str]:
    """Delete our pods of steps that were never seen to their end; the names of those deleted.

    A pod whose image comes late would else reboot a node whose case is over. Every ending calls
    this before the case ends. Raises StaleFence when somebody else has the case, and transient
    ClusterErrors, so that it is tried again; what the cluster forbids is audited and left.
    """
    current = acting.ledger.case(case.id)
    if current.fence != case.fence or not current.is_open:
        raise StaleFence(f"case {case.id} is at fence {current.fence}, or over")
    acting.check_ownership()
    waiting = [s for s in acting.ledger.steps(case.id) if s.status in _MAY_FIRE]
    gone = [_withdraw(acting, case, step) for step in waiting if "pod" in step.detail]
    return [name for name in gone if name]


def _withdraw(acting: Acting, case: Case, step: Step) -> str:
    """The name of the pod that was deleted; empty when there was nothing to delete, or no way."""
    namespace, name = pod_of(step)
    try:
        pod = acting.cluster.pod(namespace, name)
        if pod.is_finished or pod.labels.get(marks.CASE) != case.id:
            return ""  # its log may tell more; or it is the pod of a device plugin
        _audit_pod(acting, case, step, "pod.withdrawing", pod.uid)
        acting.cluster.delete_pod(namespace, name, pod.uid, grace_s=0)
    except NotFound:
        return ""
    except ClusterError as e:
        if e.is_transient:
            raise
        log.warning("case=%s step=%s pod %s stays: %s", case.id, step.name, name, e)
        _audit_pod(acting, case, step, "pod.not_withdrawn", str(e)[:300])
        return ""
    return name


def _audit_pod(acting: Acting, case: Case, step: Step, event: str, text: str) -> None:
    detail = {"step": step.name, "pod": str(step.detail["pod"]), "text": text}
    acting.ledger.audit(event, case.id, actor=case.run_id, detail=detail, now=acting.clock.now())
