"""After the repair: is it a good node? Ready, all GPUs there, signals clear for a while, the
diagnostic passed.

Every check fails closed: what cannot be read or proved is not passed.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from breakfix.act import guard, repair, steps
from breakfix.errors import NotFound, Refused
from breakfix.flow.assessment import assess
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.providers import pod_settings
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Case, Node, Outcome, RefusalReason, Step, StepStatus
from breakfix.observe.expected import expected_gpus
from breakfix.verify import diag_outcome, gpus_outcome, signals_outcome

_POLL_S = 10.0

log = logging.getLogger(__name__)


def check_gpus(services: Services, case: Case) -> Go | Wait:
    """Ready, and as many GPUs allocatable as the SKU has; the device plugin is restarted once for
    that.

    A device that the plugin has called unhealthy stays so until the plugin restarts (device plugin
    up to v0.20).
    """
    node, step = _open(services, case, "check_gpus")
    expected = _gpus_due(services, case, node)
    outcome = gpus_outcome(node, expected)
    text = f"{node.gpus_allocatable} of {expected} GPUs allocatable" + _unready(node)
    if outcome is Outcome.FIXED:
        return _passed(services, case, step, text, Stage.CHECK_SIGNALS)
    deadline = step.started_at + timedelta(seconds=services.policy.timing.gpus_back_s)
    if services.clock.now() >= deadline:
        stays_down = not node.is_ready
        found = Outcome.NOT_FIXED if stays_down else outcome
        return _failed(services, case, step, text, found)
    if node.is_ready:
        _restart_plugin(services, case)
    return Wait(WaitKind.GPUS_BACK, case.id, case.node, deadline, gpus=expected)


def _gpus_due(services: Services, case: Case, node: Node) -> int:
    """As many as are expected of the node now, and no fewer than when its case was opened: a GPU
    that fell off the bus may have left the labels, too.
    """
    known = int(case.detail.get("gpus_expected", 0))
    return max(expected_gpus(node, services.policy), known)


def _unready(node: Node) -> str:
    return "" if node.is_ready else ", the node is not Ready"


def required_signals(services: Services) -> frozenset[str]:
    """The signals without which a node cannot be called clear; opt-in fields nobody collects are
    not among them.
    """
    return frozenset(s.name for s in services.policy.signals if s.is_required)


def _restart_plugin(services: Services, case: Case) -> None:
    """Once a fence. While the node has no plugin pod, its DaemonSet is about to bring one."""
    try:
        repair.restart_device_plugin(
            acting(services),
            case,
            RECOVERY,
            pod_settings(services.settings),
            nth=case.fence + 1,  # the repair of that name, if there was one, is the first
        )
    except Refused as e:
        if e.reason is not RefusalReason.REASON_GONE:
            raise
        log.info("case=%s node=%s no plugin to restart: %s", case.id, case.node, e)


def check_signals(services: Services, case: Case) -> Go | Wait:
    """No finding since the repair, for as long as policy says, and the telemetry that could tell is
    there.
    """
    _, step = _open(services, case, "check_signals")
    timing, now = services.policy.timing, services.clock.now()
    deadline = step.started_at + timedelta(seconds=timing.signals_s)
    clear_at = (case.repaired_at or step.started_at) + timedelta(seconds=timing.clear_s)
    if now < clear_at:
        return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=clear_at)
    verdict = assess(services).judgement.verdict(case.node)
    outcome = signals_outcome(verdict, required=required_signals(services))
    text = f"{outcome}: {verdict.reason if verdict else 'the node was not judged'}"
    if outcome is Outcome.FIXED:
        return _passed(services, case, step, text, Stage.RUN_DIAG)
    if now >= deadline:
        return _failed(services, case, step, text, outcome)
    again = now + timedelta(seconds=_POLL_S)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=again)


def run_diag(services: Services, case: Case) -> Go | Wait | None:
    """The DCGM diagnostic as a pod that takes all GPUs of the node; None when it passed."""
    act = acting(services)
    name = repair.step_name(act, case, steps.DIAG, case.fence)
    step = steps.step_named(services.book.steps(case.id), name)
    if step is None:
        step = _dispatch_diag(services, case)
    if step.status is not StepStatus.DISPATCHED:
        return _diag_said(step)
    namespace, pod_name = repair.pod_of(step)
    deadline = step.started_at + timedelta(seconds=services.policy.timing.diag_s)
    try:
        is_finished = services.cluster.pod(namespace, pod_name).is_finished
    except NotFound:
        step = _dispatch_diag(services, case)  # cut short before its pod: the name is the same
        is_finished = False
    if is_finished:
        return _diag_said(_settle_diag(services, case, step))
    if services.clock.now() >= deadline:
        return _diag_said(repair.give_up(act, case, step, "the diagnostic did not end in time"))
    return Wait(WaitKind.POD_FINISHED, case.id, case.node, deadline, pod=f"{namespace}/{pod_name}")


def _dispatch_diag(services: Services, case: Case) -> Step:
    act = acting(services)
    return repair.run_diag(
        act,
        case,
        RECOVERY,
        pod_settings(services.settings),
        level=services.policy.class_rule(case.failure_class).diag_level,
        gpus=_gpus_due(services, case, services.cluster.node(case.node)),
        nth=case.fence,
    )


def _settle_diag(services: Services, case: Case, step: Step) -> Step:
    namespace, name = repair.pod_of(step)
    log = services.cluster.pod_log(namespace, name)
    exit_code = services.cluster.pod_exit_code(namespace, name)
    level, gpus = int(step.detail.get("level", 1)), int(step.detail.get("gpus", 0))
    outcome, summary = diag_outcome(log, exit_code, level=level, gpus=gpus)
    boot_id, text = services.cluster.node(case.node).boot_id, summary.text
    is_same_boot = boot_id == step.detail.get("boot_id", boot_id)
    if not is_same_boot:
        text = f"the node rebooted during the diagnostic ({text})"
    is_proved = outcome is Outcome.FIXED and is_same_boot
    status = StepStatus.VERIFIED if is_proved else StepStatus.FAILED
    known = outcome if is_same_boot else Outcome.CANNOT_TELL
    detail = {"text": text, "exit_code": exit_code, "boot_id": boot_id, "outcome": known.value}
    settled = steps.finish(acting(services), case, step.name, status, detail)
    pod = services.cluster.pod(namespace, name)  # its result is in the ledger now
    services.cluster.delete_pod(namespace, name, pod.uid, grace_s=0)
    return settled


def _diag_said(step: Step) -> Go | None:
    if step.status is StepStatus.VERIFIED:
        return None
    return Go(Stage.ESCALATE, str(step.detail.get("text", "the diagnostic did not pass")))


def doubt_about_return(services: Services, case: Case) -> str:
    """Why a validation of this fence does not carry a return now; an empty string when it does.

    Hours may lie between the validation and the answer: evidence grows old, and a node can break
    meanwhile.
    """
    node = guard.check(acting(services), case, "return", RECOVERY)
    proof = proof_at_this_fence(services, case)
    if proof is None or proof.ended_at is None:
        return "the node was not validated at this fence"
    if not node.boot_id or proof.detail.get("boot_id") != node.boot_id:
        return "the node has rebooted since its validation"
    age_s = (services.clock.now() - proof.ended_at).total_seconds()
    if age_s > services.policy.timing.evidence_max_age_s:
        return f"the validation is {age_s:.0f} s old"
    expected = _gpus_due(services, case, node)
    if gpus_outcome(node, expected) is not Outcome.FIXED:
        return f"{node.gpus_allocatable} of {expected} GPUs allocatable" + _unready(node)
    verdict = assess(services).judgement.verdict(case.node)
    if signals_outcome(verdict, required=required_signals(services)) is not Outcome.FIXED:
        return verdict.reason if verdict else "the node was not judged"
    return ""


def proof_at_this_fence(services: Services, case: Case) -> Step | None:
    """The diagnostic that passed at this fence: the last check of a validation."""
    name = repair.step_name(acting(services), case, steps.DIAG, case.fence)
    step = steps.step_named(services.book.steps(case.id), name)
    return step if step is not None and step.status is StepStatus.VERIFIED else None


def _open(services: Services, case: Case, what: str) -> tuple[Node, Step]:
    """The node, as the guard of a recovery read it, and this check's step at this fence."""
    act = acting(services)
    name = repair.step_name(act, case, what, case.fence)
    node = guard.check(act, case, name, RECOVERY)
    step, _ = steps.begin(act, case, name, {"text": "begun"})
    return node, step


def _passed(services: Services, case: Case, step: Step, text: str, to: Stage) -> Go:
    steps.finish(acting(services), case, step.name, StepStatus.VERIFIED, {"text": text})
    return Go(to, text)


def _failed(services: Services, case: Case, step: Step, text: str, outcome: Outcome) -> Go:
    """`outcome` is kept: another repair follows what is not fixed, never what cannot be told."""
    detail = {"text": text, "outcome": outcome.value}
    steps.finish(acting(services), case, step.name, StepStatus.FAILED, detail)
    return Go(Stage.ESCALATE, text)
