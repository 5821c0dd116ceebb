"""After the repair: is it a good node? Ready, all GPUs there, signals clear for a while, the diagnostic passed.

Every check fails closed: what cannot be read or proved is not passed.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from breakfix.act import repair as act
from breakfix.errors import NotFound
from breakfix.flow.assessment import assess
from breakfix.flow.guarding import guarded
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Case, Node, Outcome, Pod, Step, StepStatus
from breakfix.verify import diag_outcome, gpus_outcome, signals_outcome

_POLL_S = 10.0


def check_gpus(services: Services, case: Case) -> Go | Wait:
    """Ready, and as many GPUs allocatable as the SKU has; the device plugin is restarted once for that.

    A device that the plugin has called unhealthy stays so until the plugin restarts (device plugin up to v0.20).
    """
    node = guarded(services, case, is_recovery=True)
    step = _begin(services, case, f"check_gpus.{case.fence}", services.policy.timing.gpus_back_s)
    expected = services.policy.expected_gpus.get(node.sku, node.gpus_capacity)
    outcome, text = gpus_outcome(node, expected)
    if outcome is Outcome.FIXED:
        _finish(services, case, step, StepStatus.VERIFIED, text)
        return Go(Stage.CHECK_SIGNALS, text)
    deadline = _deadline(step)
    if services.clock.now() >= deadline:
        _finish(services, case, step, StepStatus.FAILED, text)
        return Go(Stage.ESCALATE, text)
    if node.is_ready:
        _restart_plugin(services, case, node)
    return Wait(WaitKind.GPUS_BACK, case.id, case.node, deadline, gpus=expected)


def _restart_plugin(services: Services, case: Case, node: Node) -> None:
    step = _begin(services, case, f"restart_plugin.{case.fence}", 0.0)
    if step.status is StepStatus.DISPATCHED:
        count = act.restart_device_plugin(services.cluster, node.name)
        text = f"{count} device plugin pods restarted"
        _finish(services, case, step, StepStatus.DONE, text)


def check_signals(services: Services, case: Case) -> Go | Wait:
    """No finding since the repair, for as long as policy says, and the telemetry that could tell is there."""
    guarded(services, case, is_recovery=True)
    step = _begin(services, case, f"check_signals.{case.fence}", services.policy.timing.signals_s)
    now, deadline = services.clock.now(), _deadline(step)
    since = case.repaired_at or step.started_at
    clear_at = since + timedelta(seconds=services.policy.timing.clear_s)
    if now < clear_at:
        return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=clear_at)
    verdict = assess(services).judgement.verdict(case.node)
    outcome, text = signals_outcome(verdict)
    if outcome is Outcome.FIXED:
        _finish(services, case, step, StepStatus.VERIFIED, text)
        return Go(Stage.RUN_DIAG, text)
    if now >= deadline:
        _finish(services, case, step, StepStatus.FAILED, text)
        return Go(Stage.ESCALATE, text)
    again = now + timedelta(seconds=_POLL_S)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=again)


def run_diag(services: Services, case: Case) -> Go | Wait | None:
    """The DCGM diagnostic as a pod that takes all GPUs of the node; None when it passed."""
    node = guarded(services, case, is_recovery=True)
    step = _begin(services, case, f"diag.{case.fence}", services.policy.timing.diag_s)
    if step.status is StepStatus.VERIFIED:
        return None
    pod = _diag_pod(services, case, node)
    deadline = _deadline(step)
    if not pod.is_finished and services.clock.now() < deadline:
        name = f"{pod.namespace}/{pod.name}"
        return Wait(WaitKind.POD_FINISHED, case.id, case.node, deadline, pod=name)
    outcome, text = _judge_diag(services, pod)
    status = StepStatus.VERIFIED if outcome is Outcome.FIXED else StepStatus.FAILED
    _finish(services, case, step, status, text)
    services.cluster.delete_pod(pod.namespace, pod.name, pod.uid, grace_s=0)
    return None if outcome is Outcome.FIXED else Go(Stage.ESCALATE, text)


def _diag_pod(services: Services, case: Case, node: Node) -> Pod:
    level = services.policy.class_rule(case.failure_class).diag_level
    return act.start_diag(services.cluster, case, node, services.settings, level=level)


def _judge_diag(services: Services, pod: Pod) -> tuple[Outcome, str]:
    if not pod.is_finished:
        return Outcome.CANNOT_TELL, "the diagnostic did not end in time"
    try:
        log = services.cluster.pod_log(pod.namespace, pod.name)
        exit_code = services.cluster.pod_exit_code(pod.namespace, pod.name)
    except NotFound:
        return Outcome.CANNOT_TELL, "the diagnostic's pod is gone, and its result with it"
    outcome, summary = diag_outcome(log, exit_code)
    return outcome, summary.text


def _begin(services: Services, case: Case, name: str, wait_s: float) -> Step:
    now = services.clock.now()
    until = now + timedelta(seconds=wait_s)
    step, _ = services.book.begin_step(
        case.id,
        case.fence,
        name,
        detail={"deadline": until.isoformat()},
        now=now,
    )
    return step


def _deadline(step: Step) -> datetime:
    return datetime.fromisoformat(str(step.detail["deadline"]))


def _finish(services: Services, case: Case, step: Step, status: StepStatus, text: str) -> None:
    services.book.finish_step(
        case.id,
        case.fence,
        step.name,
        status,
        detail={"text": text},
        now=services.clock.now(),
    )
