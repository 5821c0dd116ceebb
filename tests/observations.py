"""Observations by hand: what a sweep saw, for tests of what is made of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from breakfix.decide import judge
from breakfix.model import (
    Condition,
    Coverage,
    Judgement,
    Node,
    NodeRecord,
    NodeState,
    Observation,
    OpenFinding,
    Reading,
    Verdict,
)
from breakfix.policy import Policy, parse_policy
from breakfix.wiring import default_policy_text
from tests.fakes_cluster import make_node

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(days=9)
POLICY = parse_policy(default_policy_text())
GPU = "GPU-aaaa"


def ready_node(name: str = "gpu-1", **changes: Any) -> Node:
    """A node that has been Ready for days."""
    conditions = (Condition("Ready", "True", since=LONG_AGO),)
    return make_node(name, **{"conditions": conditions, "created_at": LONG_AGO, **changes})


def down_node(name: str = "gpu-1", **changes: Any) -> Node:
    """A node that Kubernetes has called NotReady for a quarter of an hour."""
    since = NOW - timedelta(minutes=15)
    return ready_node(name, conditions=(Condition("Ready", "Unknown", since=since),), **changes)


def xid(code: int | str, gpu: str = GPU, node: str = "gpu-1", signal: str = "xid_last") -> Reading:
    return Reading(signal, node, gpu, 1.0, key=str(code))


def reading(
    signal: str, value: float = 1.0, gpu: str | None = None, node: str = "gpu-1", key: str = ""
) -> Reading:
    """On GPU `GPU` unless the signal is the node's."""
    rule = next(s for s in POLICY.signals if s.name == signal)
    return Reading(signal, node, gpu if gpu is not None else GPU * (rule.per == "gpu"), value, key)


def observation(
    readings: Iterable[Reading] = (),
    nodes: Iterable[Node] = (),
    *,
    unseen: Mapping[str, Iterable[str]] | None = None,
    uncollected: Iterable[str] = (),
    errors: Mapping[str, str] | None = None,
    facts: Mapping[str, Mapping[str, str]] | None = None,
    unreported: Mapping[str, tuple[OpenFinding, ...]] | None = None,
    policy: Policy = POLICY,
) -> Observation:
    """Everything is covered but what `unseen` (signal -> nodes), `uncollected`, `errors` say."""
    fleet = tuple(nodes) or (ready_node(),)
    names = frozenset(n.name for n in fleet)
    coverage = {s.name: Coverage(s.name, names, len(names), 5.0) for s in policy.signals}
    for signal, gone in (unseen or {}).items():
        coverage[signal] = replace(coverage[signal], nodes_seen=names - set(gone))
    for signal in uncollected:
        coverage[signal] = Coverage(signal, frozenset(), len(names))
    for signal, error in (errors or {}).items():
        coverage[signal] = Coverage(signal, frozenset(), len(names), error=error)
    return Observation(
        NOW,
        fleet,
        readings=tuple(readings),
        coverage=coverage,
        facts=facts or {},
        unreported=unreported or {},
    )


def judged(
    *readings: Reading,
    records: Mapping[str, NodeRecord] | None = None,
    policy: Policy = POLICY,
    **how: Any,
) -> Judgement:
    return judge(observation(readings, policy=policy, **how), policy, records or {}, NOW)


def verdict(*readings: Reading, node: str = "gpu-1", **how: Any) -> Verdict:
    found = judged(*readings, **how).verdict(node)
    assert found is not None
    return found


def record(state: NodeState, node: str = "gpu-1", *, attempts: int = 0) -> NodeRecord:
    return NodeRecord(node, state, since=NOW - timedelta(minutes=5), attempts=attempts)
