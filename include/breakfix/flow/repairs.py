"""The repair of one case: dispatched once, and done only when the world shows its effect."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from breakfix.act import guard, repair, steps
from breakfix.act.guard import Expected
from breakfix.act.quarantine import set_state_label
from breakfix.act.repair import Repair
from breakfix.errors import NotFound, Refused
from breakfix.flow.bundle import bundle
from breakfix.flow.draining import drain_step, left_to_drain
from breakfix.flow.guarding import acting, disruption
from breakfix.flow.providers import provider_for
from breakfix.flow.replaced import is_still_looking
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import (
    BOOTS,
    Action,
    Case,
    Node,
    NodeState,
    Refusal,
    RefusalReason,
    Step,
    StepStatus,
)
from breakfix.policy import Timing

ACTOR = "node_case"
_POLL_S = 10.0


def run_repair(services: Services, case: Case) -> Go | Wait:
    """Dispatch if nobody has, then look. Raises Refused when a guardrail holds the dispatch."""
    step = current_step(services, case)
    if _uid_now(services, case) != case.node_uid:
        _note_replaced(services, case, step)
        raise NotFound(f"{case.node} is another machine now, or gone")
    return _begin(services, case) if step is None else _go_on(services, case, step)


def _uid_now(services: Services, case: Case) -> str:
    try:
        return services.cluster.node(case.node).uid
    except NotFound:
        return ""


def _begin(services: Services, case: Case) -> Go | Wait:
    not_drained = _why_not_drained(services, case)
    if not_drained is not None:
        return not_drained
    try:
        step = _first_dispatch(services, case)
    except Refused as e:
        is_over = e.reason is RefusalReason.REASON_GONE and is_new_rung(services, case)
        if not is_over:
            raise
        return _check_again(services, case, str(e))
    return _go_on(services, case, step)


def is_new_rung(services: Services, case: Case) -> bool:
    """Whether the case has climbed to a rung that nobody has begun."""
    is_climbed = case.state is NodeState.REPAIRING and "climbed_because" in case.detail
    return is_climbed and current_step(services, case) is None


def _check_again(services: Services, case: Case, why: str) -> Go:
    """What the last validation found is not there any more: the node is validated once more."""
    _validating(services, case, why, repaired_at=None)
    return Go(Stage.CHECK_GPUS, f"{why}: validated again instead")


def _why_not_drained(services: Services, case: Case) -> Go | None:
    """A repair wants a drained node: its drain is recorded as done. Whether it is empty still is
    looked at right before the effect.
    """
    drained = drain_step(services, case)
    if drained is None or drained.status is not StepStatus.DONE:
        return Go(Stage.SETTLE_RUN, "the node is not drained: the next run of the case drains it")
    if case.state is NodeState.QUARANTINED and is_still_looking(services, case, drained):
        return Go(Stage.SETTLE_RUN, "the pods' successors are not looked at: the next run does")
    return None


def current_step(services: Services, case: Case) -> Step | None:
    """The step of the rung that the case is at, if it was begun."""
    name = repair.rung_name(acting(services), case)
    return steps.step_named(services.book.steps(case.id), name)


def _repair_of(services: Services, case: Case) -> Repair:
    return Repair(
        action=case.action,
        provider=provider_for(services, case.action),
        step=repair.rung_name(acting(services), case),
        evidence=bundle(services, case),
    )


def _first_dispatch(services: Services, case: Case) -> Step:
    """The state says `repairing` before the effect can begin, and only once the guard agreed."""
    wanted = _repair_of(services, case)
    guard.check(acting(services), case, steps.REPAIR, _emptied(services, case))
    services.book.move(
        case.id,
        case.fence,
        NodeState.REPAIRING,
        actor=ACTOR,
        reason=str(case.action),
        now=services.clock.now(),
    )
    set_state_label(acting(services), case, NodeState.REPAIRING)
    return repair.dispatch(acting(services), case, _emptied(services, case), wanted)


def _emptied(services: Services, case: Case) -> Expected:
    """As for any disruption, and that nothing runs there: asked last, as the limits take time."""
    expected = disruption(services, case)

    def broken(node: Node) -> Refusal | None:
        limit = expected.limit_broken(node) if expected.limit_broken is not None else None
        return limit or _occupied(services, case)

    return replace(expected, limit_broken=broken)


def _occupied(services: Services, case: Case) -> Refusal | None:
    """Who came after the drain, past the scheduler: people get the case."""
    left = left_to_drain(services, case)
    if left:
        text = f"pods are on the node after its drain: {', '.join(left[:3])}"
        return Refusal(case.node, RefusalReason.POD_REFUSED, text, case.failure_class, case.action)
    return None


def _go_on(services: Services, case: Case, step: Step) -> Go | Wait:
    """Look; a dispatch that was cut short is made good where the far side compares."""
    act = acting(services)
    if step.status is StepStatus.DISPATCHED:
        wanted, deadline = _repair_of(services, case), _deadline(services, case, step)
        is_overdue = services.clock.now() >= deadline
        was_cut_short = repair.IS_SENT not in step.detail
        if was_cut_short and repair.can_send_again(step, wanted) and not is_overdue:
            step = repair.dispatch(act, case, _emptied(services, case), wanted)
        settled = repair.settle(act, case, step, wanted)
        if settled is None and not is_overdue:
            return _wait(services, case, step, deadline)
        step = settled or repair.overdue(act, case, step)
    if step.status is StepStatus.DONE:
        return _repaired(services, case, step)
    return Go(Stage.NEXT_RUNG, str(step.detail.get("text", "the repair failed")))


def _deadline(services: Services, case: Case, step: Step) -> datetime:
    return step.started_at + timedelta(seconds=_longest_s(services.policy.timing, case.action))


def _longest_s(timing: Timing, action: Action) -> float:
    match action:
        case Action.REBOOT_NODE:
            return timing.reboot_s
        case Action.POWER_CYCLE:
            return timing.power_cycle_s
        case Action.REPLACE_NODE:
            return timing.replace_s
        case _:
            return timing.repair_pod_s


def _wait(services: Services, case: Case, step: Step, deadline: datetime) -> Wait:
    """For what the cluster shows where that says all; else the far side is asked again soon."""
    provider = str(step.detail.get("provider", "pod"))
    if case.action in BOOTS and provider in {"pod", "redfish"}:
        boot_id = str(step.detail["boot_id"])
        return Wait(WaitKind.BOOTED, case.id, case.node, deadline, boot_id=boot_id)
    if case.action is Action.RESET_GPU and provider == "pod":
        pod = str(step.detail["pod"])
        return Wait(WaitKind.POD_FINISHED, case.id, case.node, deadline, pod=pod)
    soon = services.clock.now() + timedelta(seconds=_POLL_S)
    return Wait(WaitKind.TIME, case.id, case.node, deadline, not_before=soon)


def _repaired(services: Services, case: Case, step: Step) -> Go:
    text = str(step.detail.get("text", "repaired"))
    if case.action is Action.OPEN_VENDOR_CASE:
        return Go(Stage.ESCALATE, f"held for hardware; {text}")
    _validating(services, case, text, repaired_at=step.ended_at)
    return Go(Stage.CHECK_GPUS, text)


def _validating(services: Services, case: Case, why: str, *, repaired_at: datetime | None) -> None:
    services.book.move(
        case.id,
        case.fence,
        NodeState.VALIDATING,
        actor=ACTOR,
        reason=why,
        now=services.clock.now(),
        repaired_at=repaired_at,
    )
    set_state_label(acting(services), case, NodeState.VALIDATING)


def _note_replaced(services: Services, case: Case, step: Step | None) -> None:
    """A machine that is gone while it was to be replaced was replaced; the case ends so."""
    is_pending = step is not None and step.status is StepStatus.DISPATCHED
    if step is None or not is_pending or case.action is not Action.REPLACE_NODE:
        return
    detail = {"text": "the machine of then is no longer in the cluster"}
    steps.finish(acting(services), case, step.name, StepStatus.DONE, detail)
