"""Take a node out of service and give it back: one patch each, and nothing of anybody else."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from breakfix.act import guard, marks, steps
from breakfix.act.guard import Acting, Expected
from breakfix.act.mirror import mirrored
from breakfix.errors import ClusterError, Conflict, NotFound, Refused
from breakfix.hands_off import CORDONED_BY_US
from breakfix.model import Case, Node, NodeState, RefusalReason, StepStatus
from breakfix.ports import Cluster, NodePatch
from breakfix.resilience.breaker import urgent

_TRIES = 6  # of a patch that others' patches get in the way of
_OUT = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Change:
    """A patch worked out from the node as read, and what to record before it is sent."""

    step: str
    wanted: Callable[[Node], NodePatch | None]
    detail: Callable[[Node], dict[str, Any]] | None = None


def quarantine(acting: Acting, case: Case, expected: Expected) -> Node:
    """Cordon, taint, label and annotate the node.

    Once that is recorded as done it is not repeated: a node that is schedulable again was given
    back by a person, and stays so (Refused, OVERRIDDEN).
    """
    known = acting.ledger.steps(case.id)
    name = f"{steps.QUARANTINE}-{steps.next_round(known)}"
    step = steps.step_named(known, name)
    is_done = step is not None and step.status is StepStatus.DONE
    if is_done:
        return guard.check(acting, case, name, replace(expected, is_ours=True))
    state = acting.ledger.case(case.id).state
    if state not in _OUT:
        raise Refused(RefusalReason.REASON_GONE, f"case {case.id} is {state}: nothing to take out")
    change = _Change(
        name, lambda n: marks.quarantined(n, case), lambda n: {"was_cordoned": n.is_unschedulable}
    )
    node = _patched(acting, case, replace(expected, is_ours=False), change)
    by_us = marks.cordoned_by_us(node)
    steps.finish(acting, case, name, StepStatus.DONE, {"cordoned_by_us": by_us}, node=node)
    _tell(acting.cluster, node, "Quarantined", f"case {case.id}: {case.reason}", is_warning=True)
    return node


@urgent()
def release(
    acting: Acting, case: Case, expected: Expected, state: NodeState = NodeState.RETURNING
) -> Node:
    """Take our taint away, and the cordon if it was ours; the state label then says `state`.

    Refused (OVERRIDDEN) when somebody else uncordoned the node or took it over.
    """
    known = acting.ledger.steps(case.id)
    name = f"{steps.RELEASE}-{steps.current_round(known)}"
    step = steps.step_named(known, name)
    expected = replace(expected, is_ours=False, is_recovery=True)
    if step is not None and step.status is StepStatus.DONE:
        return guard.check(acting, case, name, expected)

    def wanted(node: Node) -> NodePatch | None:
        if not _was_released(node, case):
            guard.check_ours(case, node)
        return marks.released(node, state)

    change = _Change(name, wanted, lambda n: {"uncordons": marks.cordoned_by_us(n)})
    node = _patched(acting, case, expected, change)
    detail = {"is_schedulable": not node.is_unschedulable}
    steps.finish(acting, case, name, StepStatus.DONE, detail, node=node)
    what = "still cordoned by somebody else" if node.is_unschedulable else "back in service"
    _tell(acting.cluster, node, "Released", f"case {case.id}: {what}", is_warning=False)
    return node


def was_released(acting: Acting, case: Case) -> bool:
    """Whether our own release reached the node, be it recorded as finished or not. Raises
    NotFound.
    """
    known = acting.ledger.steps(case.id)
    if steps.step_named(known, f"{steps.RELEASE}-{steps.current_round(known)}") is None:
        return False
    return _was_released(acting.cluster.node(case.node), case)


def _was_released(node: Node, case: Case) -> bool:
    """Our own release got as far as the patch: the case's name is all that is left."""
    return (
        marks.is_of(node, case)
        and not marks.has_taint(node)
        and CORDONED_BY_US not in node.annotations
    )


@urgent()
def set_state_label(acting: Acting, case: Case, state: NodeState) -> Node:
    """Make the label say what the ledger says. No step: the ledger's own move is the record."""
    expected = Expected(is_ours=False, is_recovery=True)
    return _patched(acting, case, expected, _Change("label", lambda n: marks.labelled(n, state)))


@urgent()
def clear_marks(cluster: Cluster, case: Case) -> bool:
    """Take the rest of our labels and annotations away. False: node gone, or another case's."""
    for _ in range(_TRIES):
        try:
            node = cluster.node(case.node)
            if not marks.is_of(node, case):
                return False
            patch = mirrored(marks.cleared(node), node, is_on=False)
            if patch is not None:
                cluster.patch_node(node.name, node.resource_version, patch)
        except Conflict:
            continue
        except NotFound:
            return False
        return True
    raise _contended(case.node)


def _patched(acting: Acting, case: Case, expected: Expected, change: _Change) -> Node:
    """Check, then patch at the version that was checked; after a conflict both again."""
    for _ in range(_TRIES):
        node = guard.check(acting, case, change.step, expected)
        patch = mirrored(change.wanted(node), node, is_on=acting.mirrors_nvsentinel)
        if change.detail is not None:
            detail = {**change.detail(node), "node_before": marks.picture(node)}
            steps.begin(acting, case, change.step, detail)
        if patch is None:
            return node
        try:
            return acting.cluster.patch_node(node.name, node.resource_version, patch)
        except Conflict:
            continue
        except NotFound as e:
            raise Refused(RefusalReason.NODE_CHANGED, f"node {case.node} is gone") from e
    raise _contended(case.node)


def _contended(node: str) -> ClusterError:
    return ClusterError(f"node {node} changed {_TRIES} times while patching it", is_transient=True)


def _tell(cluster: Cluster, node: Node, reason: str, message: str, *, is_warning: bool) -> None:
    """An event for people who look at the node; the record is in the ledger, so it may fail."""
    try:
        cluster.post_event(node, reason=reason, message=message, is_warning=is_warning)
    except ClusterError as e:
        log.warning("node=%s no event %s: %s", node.name, reason, e)
