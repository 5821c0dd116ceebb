"""What is read again before every side effect, in one order. Whatever cannot be read holds the act.

Kill switch, fence, hold, ownership, the node's identity, a person's hand, the reason, the limits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

from breakfix.act import marks
from breakfix.act.ownership import check_ownership, mark_head
from breakfix.errors import ClusterError, NotFound, Refused, StaleFence
from breakfix.hands_off import hands_off
from breakfix.model import (
    Case,
    HaltLevel,
    Node,
    Refusal,
    RefusalReason,
)
from breakfix.policy import Limits
from breakfix.ports import Clock, Cluster, Ledger
from breakfix.resilience.together import Together

HALT_CONFIG_MAP = "breakfix-halt"
_LOOKS = 4  # at a node that changes each time it is looked at
_LEVELS = [HaltLevel.NONE, HaltLevel.DISRUPTION, HaltLevel.ALL]
#: Refusals that only mean "not now": asked again and again, so they are not audited each time.
_QUIET = frozenset({RefusalReason.HALTED, RefusalReason.HELD, RefusalReason.UNOWNED_CLUSTER})

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Beside:
    """What acts that run side by side read together: each answer was read after it was asked for,
    so that none rests on anything older than it would alone.
    """

    halt: Together[HaltLevel] = field(default_factory=Together)
    owner: Together[None] = field(default_factory=Together)
    mark: Together[None] = field(default_factory=Together)


@dataclass(frozen=True, slots=True)
class Acting:
    """With what an act acts: the ports, our namespace, and the policy's limits."""

    cluster: Cluster
    ledger: Ledger
    clock: Clock
    namespace: str
    limits: Limits
    beside: Beside | None = None  # the other acts of a sweep that takes out many nodes
    mirrors_nvsentinel: bool = False  # policy wants the state in NVSentinel's label, too

    def halt_level(self) -> HaltLevel:
        """The kill switch as it is now."""

        def read() -> HaltLevel:
            return halt_level(self.cluster, self.ledger, self.namespace)

        return read() if self.beside is None else self.beside.halt(read)

    def check_ownership(self) -> None:
        """Raise Refused (UNOWNED_CLUSTER) unless the ledger owns the cluster now."""

        def read() -> None:
            check_ownership(self.cluster, self.ledger, self.namespace, now=self.clock.now())

        return read() if self.beside is None else self.beside.owner(read)

    def mark_head(self) -> None:
        """Note in the cluster how far the audit is: all that was recorded before this call."""

        def write() -> None:
            mark_head(self.cluster, self.ledger, self.namespace)

        return write() if self.beside is None else self.beside.mark(write)


@dataclass(frozen=True, slots=True)
class Expected:
    """What must still be so for an act to be right.

    `boot_id`: the boot that the act was decided for (empty: any). `is_ours`: the node is cordoned
    under this case already, so that a missing cordon is a person's hand. `reason_gone` says why the
    reason no longer holds ("" while it does); `limit_broken` which limit would now be broken.
    `is_recovery`: the act gives capacity back, so that halt `disruption` and limits do not hold it.
    """

    boot_id: str = ""
    is_ours: bool = True
    is_recovery: bool = False
    reason_gone: Callable[[Node], str] | None = None
    limit_broken: Callable[[Node], Refusal | None] | None = None


def halt_level(cluster: Cluster, ledger: Ledger | None, namespace: str) -> HaltLevel:
    """The stricter of the ledger's kill switch and the cluster's (ConfigMap `breakfix-halt`).

    A level that we do not know in the ConfigMap halts everything.
    """
    config = cluster.config_map(namespace, HALT_CONFIG_MAP)
    text = (config or {}).get("level", HaltLevel.NONE.value).strip()
    in_cluster = HaltLevel(text) if text in _LEVELS else HaltLevel.ALL
    in_ledger = ledger.halt_level() if ledger is not None else HaltLevel.NONE
    return max(in_cluster, in_ledger, key=_LEVELS.index)


def check(acting: Acting, case: Case, step: str, expected: Expected) -> Node:
    """The node as it is now, when the act may go on. Raises Refused, StaleFence, or a port's error.

    A refusal that is more than "not now" is audited.
    """
    try:
        _check_case(acting, case, expected)
        node = _check_node(acting, case, expected)
        if expected.reason_gone is not None or expected.limit_broken is not None:
            node = _checked_slowly(acting, case, expected, node)
    except Refused as e:
        log.info("case=%s node=%s step=%s refused: %s", case.id, case.node, step, e)
        if e.reason not in _QUIET:
            acting.ledger.audit(
                "act.refused",
                case.id,
                actor=case.run_id,
                detail={"step": step, "reason": e.reason.value, "text": str(e)},
                now=acting.clock.now(),
            )
        raise
    return node


def _checked_slowly(acting: Acting, case: Case, expected: Expected, node: Node) -> Node:
    """Reason and limits may take seconds to ask: whoever stepped in meanwhile wins, too."""
    for _ in range(_LOOKS):
        _check_reason(node, expected)
        _check_case(acting, case, expected)
        before, node = node, _check_node(acting, case, expected)
        if node.resource_version == before.resource_version:
            return node
    raise ClusterError(f"node {case.node} changed while it was checked", is_transient=True)


def _check_case(acting: Acting, case: Case, expected: Expected) -> None:
    level = acting.halt_level()
    if level is HaltLevel.ALL or (level is HaltLevel.DISRUPTION and not expected.is_recovery):
        raise Refused(RefusalReason.HALTED, f"the kill switch is at {level}")
    current = acting.ledger.case(case.id)
    if current.fence != case.fence:
        raise StaleFence(f"case {case.id} is at fence {current.fence}, not {case.fence}")
    if not current.is_open:
        raise StaleFence(f"case {case.id} has ended: nobody acts for it any more")
    if current.held_by:
        raise Refused(RefusalReason.HELD, f"case {case.id} is held by {current.held_by}")
    acting.check_ownership()


def _check_node(acting: Acting, case: Case, expected: Expected) -> Node:
    try:
        node = acting.cluster.node(case.node)
    except NotFound as e:
        raise Refused(RefusalReason.NODE_CHANGED, f"node {case.node} is gone") from e
    if node.uid != case.node_uid:
        raise Refused(RefusalReason.NODE_CHANGED, f"node {case.node} is another machine now")
    if expected.boot_id and node.boot_id != expected.boot_id:
        raise Refused(RefusalReason.NODE_CHANGED, f"node {case.node} has rebooted meanwhile")
    _check_hands(acting, case, node, expected)
    return node


def _check_hands(acting: Acting, case: Case, node: Node, expected: Expected) -> None:
    for label, value in acting.limits.exclusion_labels.items():
        if node.labels.get(label) == value:
            raise Refused(RefusalReason.EXCLUDED, f"excluded by label {label}={value}")
    hold = hands_off(node, acting.limits, acting.clock.now())
    if hold is not None:
        raise Refused(hold.reason, f"another owner has the node: {hold.text}")
    if expected.is_ours:
        check_ours(case, node)


def check_ours(case: Case, node: Node) -> None:
    """Raise Refused (OVERRIDDEN) unless the node is still quarantined under this case."""
    if not marks.is_of(node, case):
        holder = node.annotations.get(marks.CASE, "nobody")
        text = f"the node is no longer marked as of this case, but of {holder}"
        raise Refused(RefusalReason.OVERRIDDEN, text)
    if not node.is_unschedulable:
        raise Refused(RefusalReason.OVERRIDDEN, f"somebody uncordoned node {node.name}")
    if not marks.has_taint(node):
        raise Refused(RefusalReason.OVERRIDDEN, f"somebody took our taint off node {node.name}")


def _check_reason(node: Node, expected: Expected) -> None:
    gone = expected.reason_gone(node) if expected.reason_gone else ""
    if gone:
        raise Refused(RefusalReason.REASON_GONE, gone)
    if expected.limit_broken is None or expected.is_recovery:
        return
    broken = expected.limit_broken(node)
    if broken is not None:
        raise Refused(broken.reason, broken.text)
