"""After a drain: are the pods' successors Ready elsewhere? Before it: what there was to replace."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from breakfix.act import steps
from breakfix.act.drain import OUR_PODS
from breakfix.flow.drain_telling import post
from breakfix.flow.guarding import acting
from breakfix.flow.holds import REPLACED_HOLD, hold
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.model import Action, Case, PodAction, Step, StepStatus
from breakfix.plan.drain_ladder import decide_drain
from breakfix.plan.replaced import Controller, Gap, Shortfall, controllers_on, shortfalls

REPLACED = "replaced"
#: A controller makes a successor within seconds, and the scheduler has looked at it by then.
_APPEARS_WITHIN_S = 60.0
_NAMED = 3


def before_drain(services: Services, case: Case) -> list[dict[str, Any]]:
    """The controllers whose Ready pods the drain will take, as plain values for its step."""
    drain = services.policy.drain
    if drain.replaced.within_s == 0:
        return []
    pods = services.cluster.pods()
    here = [p for p in pods if p.node == case.node and OUR_PODS not in p.labels]
    decisions = decide_drain(here, daemon_sets=services.cluster.daemon_sets(), drain=drain)
    leaving = frozenset(d.uid for d in decisions if d.action is PodAction.EVICT)
    return [c.to_json() for c in controllers_on(pods, leaving)]


def check_replaced(services: Services, case: Case, drain: Step) -> Wait | Go | None:
    """Wait for the successors of what `drain` took; None when the case may go on.

    Not Ready in time is a warning on the step `replaced-<round>`, on the node and to people. By
    policy the repair then waits for a person, where a successor fails elsewhere though all of its
    controller's pods were Ready before. One that finds no node does not hold the repair, which is
    what gives it a node back.
    """
    if not is_still_looking(services, case, drain):
        return None
    controllers = [Controller.from_json(c) for c in drain.detail.get("controllers", ())]
    act, name = acting(services), _name(services, case)
    step, _ = steps.begin(act, case, name, {"text": f"{len(controllers)} controllers"})
    missing = shortfalls(controllers, services.cluster.pods(), case.node)
    if not missing:
        text = f"the pods of {len(controllers)} controllers are Ready elsewhere"
        steps.finish(act, case, name, StepStatus.VERIFIED, {"text": text, "missing": []})
        return None
    until = step.started_at + timedelta(seconds=_allowed_s(services, missing))
    if services.clock.now() < until:
        wanted = {m.controller.uid: m.controller.ready for m in missing}
        return Wait(WaitKind.PODS_READY, case.id, case.node, until, ready_elsewhere=wanted)
    return _not_replaced(services, case, step, missing)


def is_still_looking(services: Services, case: Case, drain: Step) -> bool:
    """Whether it is still to be found out that the successors of what `drain` took are Ready."""
    if not drain.detail.get("controllers"):
        return False
    known = replaced_step(services, case)
    return known is None or known.status is StepStatus.DISPATCHED


def replaced_step(services: Services, case: Case) -> Step | None:
    """The look after the drain of the current round, if it was begun."""
    return steps.step_named(services.book.steps(case.id), _name(services, case))


def _name(services: Services, case: Case) -> str:
    return f"{REPLACED}-{steps.current_round(services.book.steps(case.id))}"


def is_replaced_now(services: Services, case: Case, drain: Step) -> bool:
    """Whether all successors are Ready elsewhere by now."""
    controllers = [Controller.from_json(c) for c in drain.detail.get("controllers", ())]
    return not shortfalls(controllers, services.cluster.pods(), case.node)


def _allowed_s(services: Services, missing: Sequence[Shortfall]) -> float:
    within_s = services.policy.drain.replaced.within_s
    if any(m.gap is Gap.FAILING for m in missing):
        return within_s
    return min(within_s, _APPEARS_WITHIN_S)  # nothing else holds the repair: it need not wait


def _not_replaced(
    services: Services, case: Case, step: Step, missing: Sequence[Shortfall]
) -> Go | None:
    """On record as looked at, not as verified; people are told, and may have to say go on."""
    text = "; ".join(m.text for m in missing[:_NAMED])
    if len(missing) > _NAMED:
        text += f"; and {len(missing) - _NAMED} more"
    holds = _holds(services, case, missing)
    detail = {
        "text": f"not Ready elsewhere in time: {text}",
        "missing": [{**m.controller.to_json(), "gap": m.gap, "text": m.text} for m in missing],
        "holds": holds,
    }
    post(services, case, "PodsNotReplaced", str(detail["text"]))
    if holds:  # first, so that a crash here cannot let the repair begin
        hold(services, case, REPLACED_HOLD, str(detail["text"]))
    steps.finish(acting(services), case, step.name, StepStatus.DONE, detail)
    if not holds:
        services.notifier.tell(f"pods of {case.node} are not replaced", text, case_id=case.id)
        return None
    return Go(Stage.SETTLE_RUN, f"held before the repair: {text}")


def _holds(services: Services, case: Case, missing: Sequence[Shortfall]) -> bool:
    if services.policy.drain.replaced.otherwise != "hold" or case.action is Action.DRAIN_ONLY:
        return False
    return any(m.gap is Gap.FAILING and m.controller.was_whole for m in missing)
