"""The repair of one case: dispatched once, and done only when the world shows its effect."""

from __future__ import annotations

from datetime import datetime, timedelta

from breakfix.act import guard, repair, steps
from breakfix.act.quarantine import set_state_label
from breakfix.errors import NotFound
from breakfix.flow.draining import drain_step, left_to_drain
from breakfix.flow.guarding import acting, disruption, pod_settings
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Action, Case, NodeState, Step, StepStatus

ACTOR = "node_case"
_PLUGIN_POLL_S = 10.0
_SENT = "is_sent"  # in a step's detail


def run_repair(services: Services, case: Case) -> Go | Wait:
    """Dispatch if nobody has, then look. Raises Refused when a guardrail holds the dispatch."""
    step = _find(services, case)
    if step is None:
        not_empty = _why_not_empty(services, case)
        if not_empty is not None:
            return not_empty
        step = _first_dispatch(services, case)
    settled = _settle(services, case, step)
    if settled is None:
        return _not_settled(services, case, step)
    if settled.status is StepStatus.DONE:
        return _repaired(services, case, settled)
    return Go(Stage.ESCALATE, str(settled.detail.get("text", "the repair failed")))


def _why_not_empty(services: Services, case: Case) -> Go | None:
    """A repair wants a drained node: its drain is recorded as done, and it is empty still."""
    drained = drain_step(services, case)
    if drained is None or drained.status is not StepStatus.DONE:
        return Go(Stage.SETTLE_RUN, "the node is not drained: the next run of the case drains it")
    left = left_to_drain(services, case)
    if left:
        return Go(Stage.ESCALATE, f"pods are on the node after its drain: {', '.join(left[:3])}")
    return None


def _find(services: Services, case: Case) -> Step | None:
    name = repair.step_name(acting(services), case, f"{steps.REPAIR}-{case.action}")
    return steps.step_named(services.book.steps(case.id), name)


def _first_dispatch(services: Services, case: Case) -> Step:
    """The state says `repairing` before the effect can begin, and only once the guard agreed."""
    expected = disruption(services, case)
    guard.check(acting(services), case, steps.REPAIR, expected)
    services.book.move(
        case.id,
        case.fence,
        NodeState.REPAIRING,
        actor=ACTOR,
        reason=str(case.action),
        now=services.clock.now(),
    )
    set_state_label(acting(services), case, NodeState.REPAIRING)
    return _dispatch(services, case)


def _dispatch(services: Services, case: Case) -> Step:
    """Send it, and note that it was sent: from then on a pod that is not there has come and
    gone.
    """
    step = _send(services, case)
    if step.status is not StepStatus.DISPATCHED or _SENT in step.detail:
        return step
    now = services.clock.now()
    return services.book.finish_step(
        case.id, case.fence, step.name, step.status, detail={_SENT: True}, now=now
    )


def _send(services: Services, case: Case) -> Step:
    """The effect; each is idempotent by its pod's name, the boot id, or the uid of what it
    deletes.
    """
    act, expected = acting(services), disruption(services, case)
    settings = pod_settings(services.settings)
    match case.action:
        case Action.REBOOT_NODE:
            return repair.reboot(act, case, expected, settings)
        case Action.RESET_GPU:
            return repair.reset_gpus(act, case, expected, settings)
        case _:
            return repair.restart_device_plugin(act, case, expected, settings)


def _settle(services: Services, case: Case, step: Step) -> Step | None:
    act = acting(services)
    if step.status is not StepStatus.DISPATCHED:
        return step
    match case.action:
        case Action.REBOOT_NODE:
            return repair.settle_reboot(act, case, step)
        case Action.RESET_GPU:
            is_there = _SENT in step.detail or _pod_exists(services, step)
            return repair.settle_pod(act, case, step) if is_there else None
        case _:
            return repair.settle_device_plugin(act, case, step, pod_settings(services.settings))


def _pod_exists(services: Services, step: Step) -> bool:
    try:
        services.cluster.pod(*repair.pod_of(step))
    except NotFound:
        return False
    return True


def _not_settled(services: Services, case: Case, step: Step) -> Go | Wait:
    """Wait on, until the deadline; a dispatch that was cut short before its effect is made good."""
    deadline = _deadline(services, case, step)
    if services.clock.now() >= deadline:
        why = "no effect was seen until the deadline: a person must look"
        repair.give_up(acting(services), case, step, why)
        return Go(Stage.ESCALATE, why)
    if _was_cut_short(services, case, step):
        _dispatch(services, case)
    return _wait(case, step, deadline)


def _deadline(services: Services, case: Case, step: Step) -> datetime:
    timing = services.policy.timing
    wait_s = timing.reboot_s if case.action is Action.REBOOT_NODE else timing.repair_pod_s
    return step.started_at + timedelta(seconds=wait_s)


def _was_cut_short(services: Services, case: Case, step: Step) -> bool:
    """Recorded as begun, but nothing was sent, and the node still runs the boot it ran then."""
    if _SENT in step.detail:
        return False
    if case.action is not Action.RESTART_DEVICE_PLUGIN and _pod_exists(services, step):
        return False
    node = services.cluster.node(case.node)
    return node.is_ready and node.boot_id == case.boot_id


def _wait(case: Case, step: Step, deadline: datetime) -> Wait:
    match case.action:
        case Action.REBOOT_NODE:
            boot_id = str(step.detail["boot_id"])
            return Wait(WaitKind.BOOTED, case.id, case.node, deadline, boot_id=boot_id)
        case Action.RESET_GPU:
            pod = str(step.detail["pod"])
            return Wait(WaitKind.POD_FINISHED, case.id, case.node, deadline, pod=pod)
        case _:
            soon = step.started_at + timedelta(seconds=_PLUGIN_POLL_S)
            return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=soon)


def _repaired(services: Services, case: Case, step: Step) -> Go:
    text = str(step.detail.get("text", "repaired"))
    services.book.move(
        case.id,
        case.fence,
        NodeState.VALIDATING,
        actor=ACTOR,
        reason=text,
        now=services.clock.now(),
        repaired_at=step.ended_at,
    )
    set_state_label(acting(services), case, NodeState.VALIDATING)
    return Go(Stage.CHECK_GPUS, text)
