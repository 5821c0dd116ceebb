"""What every check of a validation does alike: its step, its evidence, and where it leads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from breakfix.act import guard, repair, steps
from breakfix.flow.guarding import RECOVERY, acting
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage
from breakfix.model import Action, Case, Node, Outcome, Step, StepStatus
from breakfix.observe.expected import expected_gpus
from breakfix.verify import Remedy

#: Keys of a step's detail: what the check proved, and what it asks for when it was not passed.
OUTCOME, REMEDY = "outcome", "remedy"

_STATUS = {
    Outcome.FIXED: StepStatus.VERIFIED,
    Outcome.NOT_FIXED: StepStatus.FAILED,
    Outcome.CANNOT_TELL: StepStatus.UNKNOWN,
}


def step_name(services: Services, case: Case, what: str) -> str:
    """`<what>-<round>.<fence>`: a validation at another fence is another validation."""
    return repair.step_name(acting(services), case, what, case.fence)


def step_of(services: Services, case: Case, what: str) -> Step | None:
    """The step of that check at this fence, if it was begun."""
    return steps.step_named(services.book.steps(case.id), step_name(services, case, what))


def open_gate(services: Services, case: Case, what: str) -> tuple[Node, Step]:
    """The node, as the guard of a recovery read it, and this check's step at this fence."""
    act, name = acting(services), step_name(services, case, what)
    node = guard.check(act, case, name, RECOVERY)
    before = {"boot_id_before": case.boot_id, "gpus_before": case.detail.get("gpus_expected", 0)}
    step, _ = steps.begin(act, case, name, {"text": "begun", "before": before})
    return node, step


def passed(
    services: Services,
    case: Case,
    step: Step,
    text: str,
    *,
    to: Stage,
    evidence: Mapping[str, Any] | None = None,
) -> Go:
    """The check was passed: recorded with its evidence, on to the next."""
    settle(services, case, step, Outcome.FIXED, text, evidence=evidence)
    return Go(to, text)


def skipped(services: Services, case: Case, step: Step, why: str, to: Stage) -> Go:
    """The check was not run, and says so: done, not verified."""
    text = f"not run: {why}"
    steps.finish(acting(services), case, step.name, StepStatus.DONE, {"text": text})
    return Go(to, text)


def settle(
    services: Services,
    case: Case,
    step: Step,
    outcome: Outcome,
    text: str,
    *,
    remedy: Remedy | None = None,
    evidence: Mapping[str, Any] | None = None,
) -> Step:
    """Record what a check proved: verified, failed, or unknown when nothing can be told."""
    detail: dict[str, Any] = {"text": text, OUTCOME: outcome.value, **(evidence or {})}
    if remedy is not None:
        detail[REMEDY] = remedy.value
    return steps.finish(acting(services), case, step.name, _STATUS[outcome], detail)


def failed(
    services: Services,
    case: Case,
    step: Step,
    outcome: Outcome,
    text: str,
    *,
    remedy: Remedy,
    evidence: Mapping[str, Any] | None = None,
) -> Go:
    """The check was not passed: recorded with what it asks for, and the node stays out."""
    settled = settle(services, case, step, outcome, text, remedy=remedy, evidence=evidence)
    return after_failure(settled)


def after_failure(step: Step) -> Go:
    """Where a case goes whose validation was not passed; the step says what it asks for."""
    text = str(step.detail.get("text", "the validation was not passed"))
    return Go(Stage.NEXT_RUNG, text)


def remedy_asked(step: Step) -> Remedy:
    """What a check that was not passed asks for; a person where it says nothing."""
    try:
        return Remedy(str(step.detail.get(REMEDY, "")))
    except ValueError:
        return Remedy.PERSON


def gpus_due(services: Services, case: Case, node: Node) -> int:
    """As many as are expected of the node now, and no fewer than when its case was opened: a GPU
    that fell off the bus may have left the labels, too.
    """
    known = int(case.detail.get("gpus_expected", 0))
    return max(expected_gpus(node, services.policy), known)


def repairs_of(services: Services, case: Case) -> Sequence[Step]:
    """The repairs of this case that were sent, oldest first; a validation's own restart of the
    device plugin is none.
    """
    own = [s for s in services.book.steps(case.id) if _repair_action(s) is not None]
    return sorted(own, key=lambda s: s.started_at)


def repairs_done(services: Services, case: Case) -> Sequence[Action]:
    """What was tried in this case so far, oldest first."""
    return [action for s in repairs_of(services, case) if (action := _repair_action(s))]


def last_repair(services: Services, case: Case) -> Step | None:
    """The repair that this validation is about."""
    own = repairs_of(services, case)
    return own[-1] if own else None


def _repair_action(step: Step) -> Action | None:
    """Of `repair-<action>-<round>[.<nth>]`. A ladder restarts the plugin once; again is ours."""
    prefix, _, rest = step.name.partition("-")
    action, _, number = rest.rpartition("-")
    if prefix != steps.REPAIR or action not in set(Action):
        return None
    is_again = "." in number and ".r" not in number
    is_of_validation = action == Action.RESTART_DEVICE_PLUGIN and is_again
    return None if is_of_validation else Action(action)
