"""Repairs and validation on the node itself. A step is dispatched here and settled on evidence.

Dispatching twice finds the first pod by its name. `dispatched` says that the pod was asked for, no
more; `settle_*` say what became of it, or None while nothing can be said.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from breakfix.act import guard, marks, pods, steps
from breakfix.act.guard import Acting, Expected
from breakfix.act.ownership import check_ownership
from breakfix.act.pods import PodSettings
from breakfix.errors import ClusterError, NotFound, Refused, StaleFence
from breakfix.model import Action, Case, Node, Pod, RefusalReason, Step, StepStatus

_PENDING = frozenset({StepStatus.DISPATCHED})
#: Nobody knows that their pod did its work, so it may yet do it.
_MAY_FIRE = frozenset({StepStatus.DISPATCHED, StepStatus.UNKNOWN})

log = logging.getLogger(__name__)


def step_name(acting: Acting, case: Case, what: str, nth: int = 1) -> str:
    """`<what>-<round>`, and `.<nth>` when the same thing is done again within a round."""
    number = steps.current_round(acting.ledger.steps(case.id))
    return f"{what}-{number}" + (f".{nth}" if nth > 1 else "")


def reset_gpus(
    acting: Acting,
    case: Case,
    expected: Expected,
    settings: PodSettings,
    *,
    gpus: Sequence[str] = (),
    nth: int = 1,
) -> Step:
    """Dispatch a reset of these GPUs (none named: all) and return the step.

    As for a reboot: for the boot that the case knows, and Refused (NODE_CHANGED) in another.
    """
    name = step_name(acting, case, f"{steps.REPAIR}-{Action.RESET_GPU}", nth)
    step = steps.step_named(acting.ledger.steps(case.id), name)
    if step is not None and step.status not in _PENDING:
        return step
    boot_id = known_boot_id(acting, case)
    node = guard.check(acting, case, name, replace(expected, boot_id=boot_id))
    manifest = pods.reset_pod(case, name, node, boot_id=boot_id, gpus=gpus, settings=settings)
    return _dispatch(acting, case, name, manifest, {"gpus": list(gpus), "boot_id": boot_id})


def reboot(
    acting: Acting, case: Case, expected: Expected, settings: PodSettings, *, nth: int = 1
) -> Step:
    """Dispatch a reboot of the boot that the case knows (see `known_boot_id`).

    Refused (NODE_CHANGED) when the node runs another boot: it has rebooted already. The pod on the
    node compares once more.
    """
    name = step_name(acting, case, f"{steps.REPAIR}-{Action.REBOOT_NODE}", nth)
    step = steps.step_named(acting.ledger.steps(case.id), name)
    if step is not None and step.status not in _PENDING:
        return step
    boot_id = str(step.detail["boot_id"]) if step is not None else known_boot_id(acting, case)
    if step is not None and acting.cluster.node(case.node).boot_id != boot_id:
        return step  # it has happened; `settle_reboot` says so
    node = guard.check(acting, case, name, replace(expected, boot_id=boot_id))
    manifest = pods.reboot_pod(case, name, node, boot_id, settings)
    return _dispatch(acting, case, name, manifest, {"boot_id": boot_id})


def known_boot_id(acting: Acting, case: Case) -> str:
    """The boot after the case's last reboot, or the one it was opened for."""
    rebooted = [s for s in acting.ledger.steps(case.id) if s.detail.get("boot_id_after")]
    if not rebooted:
        return case.boot_id
    return str(max(rebooted, key=lambda s: s.started_at).detail["boot_id_after"])


def run_diag(
    acting: Acting,
    case: Case,
    expected: Expected,
    settings: PodSettings,
    *,
    level: int,
    gpus: int,
    nth: int = 1,
) -> Step:
    """Dispatch DCGM's diagnostic at that level (1-4) over all `gpus` GPUs of the node."""
    name = step_name(acting, case, steps.DIAG, nth)
    node = guard.check(acting, case, name, replace(expected, is_recovery=True))
    manifest = pods.diag_pod(case, name, node, level=level, gpus=gpus, settings=settings)
    detail = {"level": level, "gpus": gpus, "boot_id": node.boot_id}
    return _dispatch(acting, case, name, manifest, detail)


def restart_device_plugin(
    acting: Acting, case: Case, expected: Expected, settings: PodSettings, *, nth: int = 1
) -> Step:
    """Delete the node's device-plugin pod by its uid; its DaemonSet brings another one."""
    name = step_name(acting, case, f"{steps.REPAIR}-{Action.RESTART_DEVICE_PLUGIN}", nth)
    node = guard.check(acting, case, name, expected)
    step = steps.step_named(acting.ledger.steps(case.id), name)
    if step is None:
        plugin = _plugin(acting, node, settings)
        detail = {"pod": f"{plugin.namespace}/{plugin.name}", "uid": plugin.uid}
        step, _ = steps.begin(acting, case, name, detail)
    if step.status in _PENDING:
        namespace, pod = str(step.detail["pod"]).split("/", 1)
        acting.cluster.delete_pod(namespace, pod, str(step.detail["uid"]), grace_s=None)
    return step


def _plugin(acting: Acting, node: Node, settings: PodSettings) -> Pod:
    found = [p for p in acting.cluster.pods(node.name) if _is_plugin(p, settings)]
    if not found:
        labels = " or ".join(f"{k}={v}" for k, v in settings.plugin_labels)
        raise Refused(
            RefusalReason.REASON_GONE, f"no device-plugin pod ({labels}) on node {node.name}"
        )
    return found[0]


def _is_plugin(pod: Pod, settings: PodSettings) -> bool:
    """Only a pod that its DaemonSet brings back."""
    owner = pod.controller
    labelled = any(pod.labels.get(k) == v for k, v in settings.plugin_labels)
    return labelled and owner is not None and owner.kind == "DaemonSet" and not pod.is_terminating


def _dispatch(
    acting: Acting, case: Case, name: str, manifest: Mapping[str, Any], detail: Mapping[str, Any]
) -> Step:
    """Begin, then create the pod unless it is there; a settled step is returned as it is."""
    namespace, pod = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
    step, _ = steps.begin(acting, case, name, {**detail, "pod": f"{namespace}/{pod}"})
    if step.status in _PENDING:
        acting.cluster.ensure_namespace(namespace)
        acting.cluster.create_pod(manifest)
    return step


def pod_of(step: Step) -> tuple[str, str]:
    """(namespace, name) of the step's pod."""
    namespace, name = str(step.detail["pod"]).split("/", 1)
    return namespace, name


def settle_reboot(acting: Acting, case: Case, step: Step) -> Step | None:
    """DONE once the node runs another boot and is Ready; None before. Its pod proves nothing."""
    if step.status not in _PENDING:
        return step
    node = acting.cluster.node(case.node)
    if node.boot_id == step.detail["boot_id"] or not node.is_ready:
        return None
    text = "boot id changed, node Ready"
    detail = {"boot_id_after": node.boot_id, "text": text}
    return steps.finish(acting, case, step.name, StepStatus.DONE, detail)


def settle_pod(acting: Acting, case: Case, step: Step) -> Step | None:
    """DONE or FAILED by the pod's exit code, UNKNOWN when it is gone; None while it runs."""
    if step.status not in _PENDING:
        return step
    namespace, name = pod_of(step)
    try:
        pod = acting.cluster.pod(namespace, name)
        if not pod.is_finished:
            return None
        code = acting.cluster.pod_exit_code(namespace, name)
    except NotFound:
        return give_up(acting, case, step, f"pod {name} is gone: what it did is not known")
    is_done = pod.phase == "Succeeded" and code in (0, None)
    status = StepStatus.DONE if is_done else StepStatus.FAILED
    detail: dict[str, Any] = {"exit_code": code, "text": f"pod {pod.phase}, exit code {code}"}
    return steps.finish(acting, case, step.name, status, detail)


def settle_device_plugin(
    acting: Acting, case: Case, step: Step, settings: PodSettings
) -> Step | None:
    """DONE once another plugin pod is Ready on the node; None before."""
    if step.status not in _PENDING:
        return step
    fresh = [
        p
        for p in acting.cluster.pods(case.node)
        if _is_plugin(p, settings) and p.uid != step.detail["uid"] and p.is_ready
    ]
    if not fresh:
        return None
    detail = {"new_uid": fresh[0].uid, "text": "a new device-plugin pod is Ready"}
    return steps.finish(acting, case, step.name, StepStatus.DONE, detail)


def give_up(acting: Acting, case: Case, step: Step, why: str) -> Step:
    """The deadline passed without evidence: the step is UNKNOWN, never done."""
    if step.status not in _PENDING:
        return step
    return steps.finish(acting, case, step.name, StepStatus.UNKNOWN, {"text": why})


def withdraw_pods(acting: Acting, case: Case) -> list[str]:
    """Delete our pods of steps that were never seen to their end; the names of those deleted.

    A pod whose image comes late would else reboot a node whose case is over. Every ending calls
    this before the case ends. Raises StaleFence when somebody else has the case, and transient
    ClusterErrors, so that it is tried again; what the cluster forbids is audited and left.
    """
    current = acting.ledger.case(case.id)
    if current.fence != case.fence or not current.is_open:
        raise StaleFence(f"case {case.id} is at fence {current.fence}, or over")
    check_ownership(acting.cluster, acting.ledger, acting.namespace, now=acting.clock.now())
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
