"""The common-cause veto: many nodes of one scope in trouble together are one incident, not many
repairs. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from breakfix.model import (
    DISRUPTIVE,
    Action,
    FailureClass,
    Incident,
    NodeRecord,
    NodeState,
    Observation,
    RefusalReason,
    ScopeKind,
    Verdict,
)
from breakfix.policy import CommonCause, Policy

_OUT = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})
_FEW = 0.5  # a fact explains trouble when less than half of the other nodes share it (ours)


@dataclass(frozen=True, slots=True)
class _Cluster:
    """Nodes in trouble that lie in one scope."""

    scope: str
    nodes: frozenset[str]
    share: float
    is_fact: bool


def veto_common_causes(
    verdicts: Sequence[Verdict],
    observation: Observation,
    policy: Policy,
    records: Mapping[str, NodeRecord],
    now: datetime,
) -> tuple[tuple[Verdict, ...], tuple[Incident, ...]]:
    """(verdicts with those of an incident made harmless, the incidents)."""
    rule = policy.common_cause
    kinds, disruptive = _in_trouble(verdicts, records, rule, now)
    by_name = {v.node: v for v in verdicts}
    clusters = _clusters(kinds, disruptive, observation, rule)
    incidents = []
    vetoed: dict[str, Verdict] = {}
    for cluster in clusters:
        explained = _explained(cluster.nodes, observation, rule)
        incidents.append(_incident(cluster, explained, by_name))
        vetoed |= {n: _harmless(by_name[n], incidents[-1], explained) for n in cluster.nodes}
    return tuple(vetoed.get(v.node, v) for v in verdicts), tuple(incidents)


def _in_trouble(
    verdicts: Iterable[Verdict],
    records: Mapping[str, NodeRecord],
    rule: CommonCause,
    now: datetime,
) -> tuple[Mapping[FailureClass, set[str]], set[str]]:
    """(nodes by class, nodes with any disruptive action, recommended now or begun within the
    window).
    """
    kinds: dict[FailureClass, set[str]] = defaultdict(set)
    disruptive: set[str] = set()
    begun = now - timedelta(seconds=rule.window_s)
    for verdict in verdicts:
        record = records.get(verdict.node)
        is_out = record is not None and record.state in _OUT and record.since >= begun
        if verdict.recommended_action in DISRUPTIVE or is_out:
            disruptive.add(verdict.node)
        is_lost = verdict.failure_class is FailureClass.TELEMETRY_LOST
        if verdict.failure_class and (is_lost or verdict.recommended_action is not Action.NONE):
            kinds[verdict.failure_class].add(verdict.node)
    return kinds, disruptive


def _clusters(
    kinds: Mapping[FailureClass, set[str]],
    disruptive: set[str],
    observation: Observation,
    rule: CommonCause,
) -> list[_Cluster]:
    """Clusters that trip the rule, the most telling first, each node in one of them only."""
    found: list[_Cluster] = []
    if len(disruptive.union(*kinds.values())) < rule.min_nodes:
        return found
    for scope, members, kind in _scopes(observation, rule):
        groups = list(kinds.values())
        if isinstance(kind, ScopeKind) and kind is not ScopeKind.FLEET:
            groups.append(disruptive)  # unlike faults count together only where nodes share a place
        for group in groups:
            hit = members & group
            share = len(hit) / len(members)
            is_many = len(hit) >= rule.min_nodes and share >= rule.min_share
            if is_many and (kind is not None or _stands_out(members, group, observation)):
                found.append(_Cluster(scope, frozenset(hit), share, is_fact=kind is None))
    found.sort(key=lambda c: (-c.share, not c.is_fact, -len(c.nodes), c.scope))
    return _without_overlap(found)


def _without_overlap(found: Iterable[_Cluster]) -> list[_Cluster]:
    taken: set[str] = set()
    kept = []
    for cluster in found:
        rest = cluster.nodes - taken
        if rest:
            taken |= rest
            kept.append(replace(cluster, nodes=rest))
    return kept


def _scopes(
    observation: Observation, rule: CommonCause
) -> list[tuple[str, frozenset[str], ScopeKind | None]]:
    """(name, its nodes, kind; None for a fact). Nodes without the label are in no scope of that
    kind.
    """
    members: dict[tuple[str, ScopeKind | None], set[str]] = defaultdict(set)
    for node in observation.judged:
        for scope in node.scopes():
            if scope.kind in rule.scopes and (scope.value or scope.kind is ScopeKind.FLEET):
                members[str(scope), scope.kind].add(node.name)
        for fact in rule.facts:
            if value := observation.facts.get(node.name, {}).get(fact):
                members[f"{fact}={value}", None].add(node.name)
    return [
        (name, frozenset(nodes), kind)
        for (name, kind), nodes in sorted(members.items(), key=lambda item: item[0][0])
    ]


def _stands_out(members: frozenset[str], group: set[str], observation: Observation) -> bool:
    """Do nodes with this fact fail at least twice as often as the others? With no others it tells
    nothing.
    """
    others = {n.name for n in observation.judged} - members
    if not others:
        return False
    return len(group & members) / len(members) >= 2 * len(group & others) / len(others)


def _explained(nodes: frozenset[str], observation: Observation, rule: CommonCause) -> str:
    """The driver or kernel that these nodes share and the others mostly lack, as a clause; "" if
    none.
    """
    others = [n.name for n in observation.judged if n.name not in nodes]
    for fact in rule.facts:
        values = {observation.facts.get(n, {}).get(fact, "") for n in nodes}
        rest = Counter(v for n in others if (v := observation.facts.get(n, {}).get(fact, "")))
        value = next(iter(values))
        if len(values) == 1 and value and rest and rest[value] / rest.total() < _FEW:
            return f"they have {fact} {value}, most others {rest.most_common(1)[0][0]}"
    return ""


def _incident(cluster: _Cluster, explained: str, verdicts: Mapping[str, Verdict]) -> Incident:
    classes = sorted({c for n in cluster.nodes if (c := verdicts[n].failure_class)})
    reason = (
        f"{len(cluster.nodes)} nodes ({cluster.share:.0%}) of {cluster.scope} are in trouble"
        f" together ({', '.join(classes)}): one cause is likelier than so many faults,"
        " so none of them is touched"
    )
    if explained:
        reason += f"; {explained}"
    return Incident(cluster.scope, tuple(sorted(cluster.nodes)), tuple(classes), reason)


def _harmless(verdict: Verdict, incident: Incident, explained: str) -> Verdict:
    """No node of an incident is disrupted; a person looks at the incident."""
    if verdict.recommended_action is Action.NONE:
        return verdict
    return replace(
        verdict,
        failure_class=FailureClass.CHANGE_INDUCED if explained else verdict.failure_class,
        recommended_action=Action.REVIEW,
        refusal=RefusalReason.COMMON_CAUSE,
        reason=f"{incident.reason}. This node: {verdict.reason}",
    )
