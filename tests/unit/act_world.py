"""One quarantinable node, a ledger that has a case for it, and a clock that only `sleep` moves."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from breakfix.act.drain import Emptying
from breakfix.act.guard import Acting, Expected
from breakfix.act.quarantine import quarantine
from breakfix.model import (
    Action,
    Case,
    FailureClass,
    Impact,
    Intent,
    NodeState,
    PodDecision,
    Scope,
    ScopeKind,
)
from breakfix.plan.drain_ladder import decide_drain
from breakfix.policy import Drain, Limits
from breakfix.ports import Limit
from tests.fakes_cluster import FakeCluster
from tests.fakes_ledger import FakeLedger

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
FLEET = Scope(ScopeKind.FLEET, "")
LIMITS = Limits(
    out={},
    exclusion_labels={"breakfix.dev/exclude": "true"},
    hands_off_labels={"example.com/upgrade": ("running",)},
    hands_off_annotations=("example.com/in-repair",),
)


@dataclass
class FakeClock:
    at: datetime = NOW
    slept: list[float] = field(default_factory=list)

    def now(self) -> datetime:
        return self.at

    def monotonic(self) -> float:
        return (self.at - NOW).total_seconds()

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at += timedelta(seconds=seconds)


@dataclass
class World:
    cluster: FakeCluster
    ledger: FakeLedger
    clock: FakeClock
    acting: Acting
    case: Case

    def move(self, *states: NodeState) -> None:
        for state in states:
            self.case = self.ledger.move(
                self.case.id, self.case.fence, state, actor="t", reason="t", now=NOW
            )

    def take_over(self) -> None:
        """Somebody else has the case now; `self.case` stays the old one."""
        self.ledger.take_over(self.case.id, self.case.fence, actor="t", reason="t", now=NOW)

    def step(self, name: str) -> Any:
        return next((s for s in self.ledger.steps(self.case.id) if s.name == name), None)

    def events(self) -> list[str]:
        return [e.event for e in self.ledger.audit_entries()]


def intent(node: str = "gpu-1", **changes: Any) -> Intent:
    defaults: dict[str, Any] = {
        "node_uid": f"uid-{node}",
        "boot_id": f"boot-{node}-1",
        "failure_class": FailureClass.GPU_OFF_BUS,
        "action": Action.REBOOT_NODE,
        "confidence": 0.97,
        "reason": "XID 79 on GPU 3",
        "impact": Impact(1, 8, 16),
        "scopes": (FLEET,),
        "policy_hash": "p1",
    }
    return Intent(node, **{**defaults, **changes})


def make_world(*, is_quarantined: bool = False, **node: Any) -> World:
    cluster, ledger, clock = FakeCluster(), FakeLedger("test"), FakeClock()
    ledger.clock, cluster.now = clock, clock.now
    cluster.add_node("gpu-1", **node)
    acting = Acting(cluster, ledger, clock, "breakfix", LIMITS)
    case = ledger.admit(intent(), [Limit(FLEET, 100, frozenset())], requester="sweep", now=NOW)
    assert isinstance(case, Case)
    claim(cluster, ledger)
    world = World(cluster, ledger, clock, acting, case)
    if is_quarantined:
        quarantine(acting, case, Expected())
        cluster.settle()
        cluster.calls.clear()
    return world


def claim(cluster: FakeCluster, ledger: FakeLedger) -> None:
    """As `check_ownership` did before the ledger's first case."""
    cluster.config_maps["breakfix", "breakfix-ledger"] = {
        "ledger": ledger.id,
        "cluster": ledger.cluster,
        "audit_seq": "0",
        "audit_hash": "",
    }


def emptying(policy: Drain, since: datetime = NOW, **detail: Any) -> Emptying:
    """A pass by this policy; every order began at `since`."""

    def decide(pods: Any, daemon_sets: frozenset[tuple[str, str]]) -> list[PodDecision]:
        return decide_drain(pods, daemon_sets=daemon_sets, drain=policy)

    return Emptying(policy, decide, lambda _turn: since, detail)
