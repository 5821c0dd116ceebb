"""Marks of ours on a node that no open case has: taken off, or put into somebody's hands.

There is no case whose guard could be asked, so what a guard asks is asked here: the kill switch,
whose cluster it is, and whether the node is still as it was judged.
"""

from __future__ import annotations

from collections.abc import Callable

from breakfix.act import marks
from breakfix.act.guard import Acting, halt_level
from breakfix.act.mirror import mirrored
from breakfix.act.ownership import check_ownership, mark_head
from breakfix.errors import ClusterError, Conflict, NotFound, Refused
from breakfix.model import Case, HaltLevel, Node, Pod, RefusalReason
from breakfix.ports import NodePatch

_TRIES = 6  # of a patch that others' patches get in the way of


def lift(acting: Acting, judged: Node, *, with_cordon: bool, actor: str, why: str) -> Node:
    """Take every mark of ours off; `with_cordon` the cordon, too, where it says that it is ours.

    Raises Refused (HALTED, UNOWNED_CLUSTER; NODE_CHANGED when another case has it meanwhile).
    """
    wanted = marks.given_back if with_cordon else marks.cleared
    return _patched(acting, judged, wanted, event="marks.cleared", actor=actor, why=why)


def adopt(acting: Acting, judged: Node, case: Case, *, actor: str, why: str) -> Node:
    """Name the case as the one that has the node; what is on it besides stays as it is."""

    def wanted(node: Node) -> NodePatch | None:
        return marks.adopted(node, case)

    return _patched(acting, judged, wanted, event="marks.adopted", actor=actor, why=why)


def delete_pod(acting: Acting, pod: Pod, *, actor: str, why: str) -> bool:
    """Delete a pod of ours that no case waits for; False when it was gone. Raises Refused."""
    _check(acting)
    name = f"{pod.namespace}/{pod.name}"
    detail = {"pod": name, "uid": pod.uid, "node": pod.node, "why": why}
    subject = pod.labels.get(marks.CASE, "") or name
    acting.ledger.audit(
        "pod.withdrawing", subject, actor=actor, detail=detail, now=acting.clock.now()
    )
    return acting.cluster.delete_pod(pod.namespace, pod.name, pod.uid, grace_s=0)


def _patched(
    acting: Acting,
    judged: Node,
    wanted: Callable[[Node], NodePatch | None],
    *,
    event: str,
    actor: str,
    why: str,
) -> Node:
    """The audit entry is before the effect, with the node as it was; none when nothing is to do."""
    is_told = False
    for _ in range(_TRIES):
        _check(acting)
        node = _as_judged(acting, judged)
        patch = mirrored(wanted(node), node, is_on=acting.mirrors_nvsentinel)
        if patch is None:
            return node
        if not is_told:
            detail = {"node": node.name, "why": why, "before": marks.picture(node)}
            subject = node.annotations.get(marks.CASE, "") or node.name
            acting.ledger.audit(event, subject, actor=actor, detail=detail, now=acting.clock.now())
            is_told = True
        try:
            after = acting.cluster.patch_node(node.name, node.resource_version, patch)
        except Conflict:
            continue
        mark_head(acting.cluster, acting.ledger, acting.namespace)
        return after
    raise ClusterError(f"node {judged.name} changed {_TRIES} times meanwhile", is_transient=True)


def _check(acting: Acting) -> None:
    if halt_level(acting.cluster, acting.ledger, acting.namespace) is HaltLevel.ALL:
        raise Refused(RefusalReason.HALTED, "the kill switch is at all")
    check_ownership(acting.cluster, acting.ledger, acting.namespace, now=acting.clock.now())


def _as_judged(acting: Acting, judged: Node) -> Node:
    try:
        node = acting.cluster.node(judged.name)
    except NotFound as e:
        raise Refused(RefusalReason.NODE_CHANGED, f"node {judged.name} is gone") from e
    is_same = node.uid == judged.uid
    if not is_same or node.annotations.get(marks.CASE) != judged.annotations.get(marks.CASE):
        raise Refused(RefusalReason.NODE_CHANGED, f"node {judged.name} is in other hands now")
    return node
