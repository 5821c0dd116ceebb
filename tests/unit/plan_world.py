"""Fleets, verdicts and policies for tests of the plan."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from breakfix.model import (
    Action,
    Case,
    FailureClass,
    HaltLevel,
    Judgement,
    NodeRecord,
    NodeState,
    Observation,
    Verdict,
)
from breakfix.plan import make_plan
from breakfix.policy import parse_policy
from breakfix.wiring import default_policy_text
from tests.fakes_cluster import make_node

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
BASE = parse_policy(default_policy_text(), "limits: {cooldown: 10m}")


def policy(**limits):
    """The default policy; `out` maps a scope to its Share's fields, others are not limited."""
    out = limits.pop("out", {})
    raw = BASE.model_dump(mode="json", by_alias=True)
    raw["limits"] |= {"out": out, **limits}
    return type(BASE).model_validate(raw)


def verdict(
    node,
    confidence=0.97,
    *,
    failure_class=FailureClass.GPU_OFF_BUS,
    action=Action.REBOOT_NODE,
    refusal=None,
):
    return Verdict(
        node, NodeState.SUSPECT, failure_class, confidence, (), (), action, "it broke", refusal
    )


def healthy(node):
    return verdict(node, 0.0, failure_class=None, action=Action.NONE)


def record(node, state=NodeState.HEALTHY, **changes):
    return NodeRecord(node, state, NOW - timedelta(hours=1), **changes)


def case(node, state=NodeState.QUARANTINED):
    return Case(
        id=f"c-{node}",
        cluster="test",
        node=node,
        node_uid=f"uid-{node}",
        fence=1,
        state=state,
        failure_class=FailureClass.GPU_OFF_BUS,
        action=Action.REBOOT_NODE,
        confidence=0.97,
        plan_hash="h",
        reason="r",
        opened_at=NOW,
        updated_at=NOW,
        boot_id="b",
    )


def fleet(count=4, **changes):
    return tuple(make_node(f"n{i}", rack=f"r{i}", **changes) for i in range(count))


def plan(
    broken=("n0",),
    *,
    nodes=None,
    rules=None,
    records=(),
    cases=(),
    halt=HaltLevel.NONE,
    verdicts=None,
    confirmed=None,
    brakes=None,
    **seen,
):
    """A plan for nodes of which `broken` have an XID 79; everything else is fine."""
    nodes = fleet() if nodes is None else tuple(nodes)
    if verdicts is None:
        verdicts = [verdict(n.name) if n.name in broken else healthy(n.name) for n in nodes]
    rules = rules or policy()
    return make_plan(
        Observation(NOW, nodes, **seen),
        Judgement(NOW, rules.version, rules.hash, tuple(verdicts)),
        rules,
        records={r.node: r for r in records},
        cases=cases,
        halt=halt,
        now=NOW,
        brakes=brakes,
        confirmed={n.name: "two labels" for n in nodes} if confirmed is None else confirmed,
    )


def said(made):
    """What the plan says of the first candidate: `admitted`, a refusal's reason, or nothing."""
    if made.intents:
        return "admitted"
    return str(made.refusals[0].reason) if made.refusals else "nothing"
