"""The repair of one case: dispatched once, and done only when the world shows its effect.

Dispatched is not done: a reboot is done when the boot id has changed and the node is Ready, a reset when its pod
has ended well on that node, a restart of the device plugin when another plugin pod is ready there.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from breakfix.act import repair as act
from breakfix.act.quarantine import set_state_label
from breakfix.errors import NotFound
from breakfix.flow.guarding import guarded
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Action, Case, Node, NodeState, Outcome, Step, StepStatus
from breakfix.verify import pod_outcome, reboot_outcome

ACTOR = "node_case"


def repair(services: Services, case: Case) -> Go | Wait:
    """Dispatch if nobody has, then look. Raises Refused when a guardrail holds the dispatch."""
    step = _find(services, case)
    if step is None:
        step = _dispatch(services, case)
    if step.status is StepStatus.DISPATCHED:
        step = _look(services, case, step)
    match step.status:
        case StepStatus.VERIFIED:
            return _repaired(services, case, step)
        case StepStatus.DISPATCHED:
            return _wait(case, step)
        case _:
            return Go(Stage.ESCALATE, str(step.detail.get("text", "the repair failed")))


def step_name(case: Case) -> str:
    """One repair of a kind per attempt, whoever runs it."""
    return f"repair.{case.attempt}.{case.action}"


def _find(services: Services, case: Case) -> Step | None:
    name = step_name(case)
    return next((s for s in services.book.steps(case.id) if s.name == name), None)


def _dispatch(services: Services, case: Case) -> Step:
    node = guarded(services, case)
    now = services.clock.now()
    services.book.move(
        case.id, case.fence, NodeState.REPAIRING, actor=ACTOR, reason=str(case.action), now=now
    )
    wait_s = services.policy.timing.reboot_s
    if case.action is not Action.REBOOT_NODE:
        wait_s = services.policy.timing.repair_pod_s
    until = now + timedelta(seconds=wait_s)
    step, _ = services.book.begin_step(
        case.id,
        case.fence,
        step_name(case),
        detail={"deadline": until.isoformat(), "boot_id": node.boot_id, "text": "dispatched"},
        now=now,
    )
    set_state_label(services.cluster, case, NodeState.REPAIRING)
    _act(services, case)
    return step


def _act(services: Services, case: Case) -> None:
    """The effect itself; each is idempotent by its pod's name, or by the uid of what it deletes."""
    cluster, settings = services.cluster, services.settings
    match case.action:
        case Action.REBOOT_NODE:
            act.reboot(cluster, case, settings)
        case Action.RESET_GPU:
            act.reset_gpus(cluster, case, settings)
        case Action.RESTART_DEVICE_PLUGIN:
            act.restart_device_plugin(cluster, case.node)
        case _:
            pass


def _look(services: Services, case: Case, step: Step) -> Step:
    """What the world says of a dispatched repair; an effect that never began is dispatched again."""
    node, now = services.cluster.node(case.node), services.clock.now()
    outcome, text = _outcome(services, case, step, node)
    if outcome is Outcome.FIXED:
        return _finish(services, case, StepStatus.VERIFIED, text)
    if outcome is Outcome.NOT_FIXED:
        return _finish(services, case, StepStatus.FAILED, text)
    if now >= datetime.fromisoformat(str(step.detail["deadline"])):
        overdue = f"no effect seen until the deadline: {text}"
        return _finish(services, case, StepStatus.UNKNOWN, overdue)
    if text == _NEVER_BEGAN:
        guarded(services, case)
        _act(services, case)
    return step


_NEVER_BEGAN = "the repair pod is not there"


def _outcome(services: Services, case: Case, step: Step, node: Node) -> tuple[Outcome, str]:
    if case.action is Action.REBOOT_NODE:
        outcome, text = reboot_outcome(str(step.detail["boot_id"]), node)
        if outcome is Outcome.CANNOT_TELL and node.is_ready and not _has_pod(services, case):
            return outcome, _NEVER_BEGAN
        return outcome, text
    if case.action is Action.RESTART_DEVICE_PLUGIN:
        return act.plugin_outcome(services.cluster, case.node, since=step.started_at)
    try:
        pod = services.cluster.pod(services.settings.namespace, act.pod_name(case))
    except NotFound:
        return Outcome.CANNOT_TELL, _NEVER_BEGAN
    exit_code = services.cluster.pod_exit_code(pod.namespace, pod.name)
    return pod_outcome(pod.phase, exit_code)


def _has_pod(services: Services, case: Case) -> bool:
    try:
        services.cluster.pod(services.settings.namespace, act.pod_name(case))
    except NotFound:
        return False
    return True


def _finish(services: Services, case: Case, status: StepStatus, text: str) -> Step:
    return services.book.finish_step(
        case.id,
        case.fence,
        step_name(case),
        status,
        detail={"text": text},
        now=services.clock.now(),
    )


def _repaired(services: Services, case: Case, step: Step) -> Go:
    services.book.move(
        case.id,
        case.fence,
        NodeState.VALIDATING,
        actor=ACTOR,
        reason=str(step.detail.get("text", "repaired")),
        now=services.clock.now(),
        repaired_at=step.ended_at,
    )
    set_state_label(services.cluster, case, NodeState.VALIDATING)
    return Go(Stage.CHECK_GPUS, str(step.detail.get("text", "")))


def _wait(case: Case, step: Step) -> Wait:
    deadline = datetime.fromisoformat(str(step.detail["deadline"]))
    if case.action is Action.REBOOT_NODE:
        boot_id = str(step.detail["boot_id"])
        return Wait(WaitKind.BOOTED, case.id, case.node, deadline, boot_id=boot_id)
    if case.action is Action.RESET_GPU:
        pod = f"{act.namespace_of(case)}/{act.pod_name(case)}"
        return Wait(WaitKind.POD_FINISHED, case.id, case.node, deadline, pod=pod)
    soon = step.started_at + timedelta(seconds=10)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=soon)
