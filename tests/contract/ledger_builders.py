"""Intents, limits, short ways through a case's life, and many hands at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import psycopg

from breakfix.model import (
    Action,
    Answer,
    Case,
    Decision,
    FailureClass,
    Impact,
    Intent,
    NodeState,
    Purpose,
    Scope,
    ScopeKind,
    Settlement,
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


def ask(ledger, case, *, now=None, expires_at=None, plan_hash="p", needed=1):
    return ledger.ask(
        case.id,
        case.fence,
        Purpose.REPAIR,
        plan_hash=plan_hash,
        expires_at=expires_at or later(100),
        now=now or later(1),
        needed=needed,
    )


def decide(
    ledger, case, decision, *, approver="ann", now=None, plan_hash="p", fence=None, settle=None
):
    """One person's answer, which decides by itself unless `settle` says otherwise."""
    now = now or later(5)
    answered = ledger.answer(
        case.id,
        case.fence if fence is None else fence,
        Purpose.REPAIR,
        [Answer(approver, decision is Decision.ALLOWED, "cli", now, note="ok")],
        plan_hash=plan_hash,
        settle=settle or deciding(decision, approver),
        now=now,
    )
    return answered.approval


def deciding(decision, approver="ann"):
    """A settling that says this of a question that is open, whatever was answered."""

    def settle(case, asked, answers):
        if asked.decision is not Decision.PENDING:
            return Settlement(asked.decision, objections=("decided before",) * len(answers))
        return Settlement(decision, approver, "cli", "ok", ("",) * len(answers))

    return settle


def together(calls):
    """Run the calls at the same moment, each in a thread; their results, errors included."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        barrier.wait(timeout=30)
        return call()

    with ThreadPoolExecutor(len(calls)) as pool:
        futures = [pool.submit(run, call) for call in calls]
    return [future.exception() or future.result() for future in futures]


def connect(url):
    """A connection beside the ledger's own, as the database's superuser."""
    dsn = url.replace("postgresql+psycopg", "postgresql")
    return psycopg.connect(dsn, autocommit=True, connect_timeout=10)
