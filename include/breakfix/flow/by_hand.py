"""What a person starts: a case, or the drain of a node, through the same guards and the same
admission.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from breakfix.act.ownership import check_ownership
from breakfix.errors import NotFound, Refused
from breakfix.flow.case import put_in_quarantine, run_stage
from breakfix.flow.draining import drain_step
from breakfix.flow.holds import is_ours, let_go_on
from breakfix.flow.looking import look
from breakfix.flow.replaced import replaced_step
from breakfix.flow.services import Services
from breakfix.flow.stages import Go, Stage, Wait, WaitKind
from breakfix.flow.sweep import admit
from breakfix.model import (
    Action,
    Case,
    FailureClass,
    Intent,
    PodDecision,
    Refusal,
    Step,
    StepStatus,
)
from breakfix.plan.drain_ladder import decide_drain
from breakfix.plan.planning import plan_one
from breakfix.plan.world import World
from breakfix.policy import Policy
from breakfix.ports import Cluster


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What became of one node's drain."""

    node: str
    case_id: str
    is_done: bool
    evicted: int
    left: int
    text: str


def intent_by_hand(
    services: Services, world: World, name: str, failure_class: FailureClass, *, reason: str
) -> Intent | Refusal:
    """What a case by hand would do; also its dry run. Raises NotFound for a node that is no GPU
    node.
    """
    node = next((n for n in world.fleet if n.name == name), None)
    if node is None:
        selector = services.settings.gpu_node_selector
        raise NotFound(f"no GPU node named {name!r} (BREAKFIX_GPU_NODE_SELECTOR is {selector!r})")
    action = Action.DRAIN_ONLY
    if failure_class is not FailureClass.MANUAL:
        record = world.records.get(name)
        action = services.policy.class_rule(failure_class).action_for(
            1, record.repairs if record is not None else {}
        )
    return plan_one(node, failure_class, action, world, reason=reason, now=services.clock.now())


def open_by_hand(
    services: Services, node: str, failure_class: FailureClass, *, requester: str, reason: str
) -> Case | Refusal:
    """Open a case because a person says so. A refusal is recorded, and opens none."""
    now = services.clock.now()
    check_ownership(services.cluster, services.book, services.settings.namespace, now=now)
    world = look(services)
    intent = intent_by_hand(services, world, node, failure_class, reason=reason)
    if isinstance(intent, Refusal):
        detail = {"reason": intent.reason, "text": intent.text}
        services.book.audit("refused", node, actor=requester, detail=detail, now=now)
        return intent
    return admit(services, intent, world, requester=requester)


def pods_of(cluster: Cluster, policy: Policy, nodes: Sequence[str]) -> dict[str, list[PodDecision]]:
    """What a drain would do with each pod of each node. Raises NotFound for an unknown node."""
    daemon_sets = cluster.daemon_sets()
    by_node: dict[str, list[PodDecision]] = {}
    for name in nodes:
        cluster.node(name)
        by_node[name] = decide_drain(
            cluster.pods(name), daemon_sets=daemon_sets, drain=policy.drain
        )
    return by_node


def drain_by_hand(
    services: Services, node: str, *, requester: str, reason: str, tell: Callable[[str], None]
) -> DrainReport:
    """Cordon and drain one node now, waiting for budgets until policy's deadline.

    A drain that was interrupted goes on with its case. The node stays out until the case is
    aborted.
    """
    case = _own_drain(services, node)
    if case is None:
        outcome = open_by_hand(
            services, node, FailureClass.MANUAL, requester=requester, reason=reason
        )
        if isinstance(outcome, Refusal):
            return DrainReport(node, "", False, 0, 0, f"{outcome.reason}: {outcome.text}")
        case = outcome
    else:
        tell(f"{node}: going on with case {case.id}")
        if is_ours(case):
            case = let_go_on(services, case, actor=requester, reason=reason)
    try:
        put_in_quarantine(services, case, is_fresh=True)
    except Refused as e:
        return DrainReport(node, case.id, False, 0, 0, f"{e.reason}: {e}")
    tell(f"{node}: cordoned (case {case.id})")
    return _drain_to_the_end(services, case, tell)


def _own_drain(services: Services, node: str) -> Case | None:
    cases = services.book.cases(open_only=True, node=node)
    return next((c for c in cases if c.action is Action.DRAIN_ONLY), None)


def _drain_to_the_end(services: Services, case: Case, tell: Callable[[str], None]) -> DrainReport:
    """Run the drain stage until it goes somewhere; each Wait of it has a deadline, so this ends."""
    said = ""
    while True:
        result = run_stage(services, Stage.DRAIN, case.id, case.fence)
        step = drain_step(services, case)
        text = str(step.detail.get("text", "")) if step else ""
        if isinstance(result, Wait) and result.kind is WaitKind.PODS_READY:
            text = "drained; waiting until what ran there is Ready elsewhere"
        if text and text != said:
            tell(f"{case.node}: {text}")
            said = text
        if isinstance(result, Go):
            return _report(services, case, step, result.note or text)
        services.clock.sleep(services.policy.drain.poll_s)


def _report(services: Services, case: Case, step: Step | None, note: str) -> DrainReport:
    detail = step.detail if step else {}
    evicted, left = int(detail.get("evicted", 0)), int(detail.get("left", 0))
    if step is None or step.status is not StepStatus.DONE:
        return DrainReport(case.node, case.id, False, evicted, left, note)
    after = replaced_step(services, case)
    is_whole = after is None or after.status is StepStatus.VERIFIED
    text = "drained" if is_whole or after is None else f"drained; {after.detail.get('text', '')}"
    return DrainReport(case.node, case.id, True, evicted, left, text)
