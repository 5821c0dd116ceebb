"""Intents, limits and short ways through a case's life, for the ledger's tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from breakfix.model import (
    Action,
    Case,
    FailureClass,
    Impact,
    Intent,
    NodeState,
    Scope,
    ScopeKind,
)
from breakfix.ports import Limit

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
FLEET = Scope(ScopeKind.FLEET, "")
RACK = Scope(ScopeKind.RACK, "r1")


def later(seconds):
    return NOW + timedelta(seconds=seconds)


def an_intent(node, *, rack="r1", pool="train"):
    return Intent(
        node=node,
        node_uid=f"uid-{node}",
        boot_id="b1",
        failure_class=FailureClass.GPU_OFF_BUS,
        action=Action.REBOOT_NODE,
        confidence=0.97,
        reason="XID 79 on GPU 3",
        impact=Impact(pods_evicted=1, gpus_stopped=8, gpus_free_after=16),
        scopes=(FLEET, Scope(ScopeKind.POOL, pool), Scope(ScopeKind.RACK, rack)),
        policy_hash="policy-1",
    )


def limits(*, fleet=100, rack=100, out=(), rack_name="r1"):
    return [
        Limit(FLEET, fleet, frozenset(out)),
        Limit(Scope(ScopeKind.RACK, rack_name), rack, frozenset(out)),
    ]


def admit(ledger, node, *, now=NOW):
    case = ledger.admit(an_intent(node), limits(), requester="sweep", now=now)
    assert isinstance(case, Case)
    return case


def to_validating(ledger, case, *, repaired_at=None):
    ledger.move(case.id, case.fence, NodeState.REPAIRING, actor="a", reason="r", now=later(10))
    return ledger.move(
        case.id,
        case.fence,
        NodeState.VALIDATING,
        actor="a",
        reason="r",
        now=later(11),
        repaired_at=repaired_at,
    )


def to_returning(ledger, case, *, repaired_at=None):
    to_validating(ledger, case, repaired_at=repaired_at)
    return ledger.move(
        case.id, case.fence, NodeState.RETURNING, actor="a", reason="r", now=later(12)
    )


def events(ledger):
    return [e.event for e in ledger.audit_entries()]
