"""The common-cause veto: many nodes of one scope in trouble together are one incident, not many
repairs. Pure.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from breakfix.decide.crowds import CHANGE, FACT, Crowd, Trouble, crowds
from breakfix.decide.fuse import Assessment, best_assessment
from breakfix.decide.sentences import shown, texts
from breakfix.decide.verdicts import action_for
from breakfix.model import (
    DISRUPTIVE,
    Action,
    FailureClass,
    Incident,
    NodeRecord,
    NodeState,
    Observation,
    RefusalReason,
    SignalMode,
    Verdict,
)
from breakfix.policy import CommonCause, Policy

_OUT = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})
_FEW = 0.5  # a fact explains trouble when less than half of the other nodes share it (ours)
_TWO = 2  # sources that agree on a fault of the part itself

#: What unlike faults have in common: the plugin withholds the device, the driver wants a reset.
_CONSEQUENCES = frozenset(
    {FailureClass.DEVICE_PLUGIN, FailureClass.GPU_RECOVERY, FailureClass.UNCLASSIFIED}
)

#: What nodes of one scope share beside its name.
_SHARED = {
    "rack": "power, cooling or network of the rack",
    "fabric": "a switch or the manager of their fabric",
    "pool": "a change of the pool, or its monitoring",
    "sku": "driver, firmware or monitoring of that product",
    "fleet": "the monitoring, or a change of the whole fleet",
}


@dataclass(frozen=True, slots=True)
class _Found:
    """A crowd, the nodes of it that it speaks for, and those with a fault of their own."""

    crowd: Crowd
    nodes: frozenset[str]
    exempt: Mapping[str, Assessment]


def veto_common_causes(
    verdicts: Sequence[Verdict],
    observation: Observation,
    policy: Policy,
    records: Mapping[str, NodeRecord],
    now: datetime,
) -> tuple[tuple[Verdict, ...], tuple[Incident, ...]]:
    """(verdicts with those of an incident made harmless, the incidents)."""
    rule = policy.common_cause
    by_name = {v.node: v for v in verdicts}
    trouble = _trouble(verdicts, records, rule, now)
    facts = _FactCounts(observation, rule)
    incidents = []
    vetoed: dict[str, Verdict] = {}
    for found in _choose(crowds(trouble, observation, rule), by_name, policy):
        explained = facts.explain(found)
        incident = _incident(found, explained, by_name)
        incidents.append(incident)
        vetoed |= {n: _harmless(by_name[n], incident, explained, rule) for n in found.nodes}
        for node, own in found.exempt.items():
            if node not in vetoed:
                record = records.get(node)
                vetoed[node] = _apart(by_name[node], own, found.crowd, record, policy)
    return tuple(vetoed.get(v.node, v) for v in verdicts), tuple(incidents)


def _trouble(
    verdicts: Iterable[Verdict],
    records: Mapping[str, NodeRecord],
    rule: CommonCause,
    now: datetime,
) -> Trouble:
    """Suspects count as well as what would be acted on, and what was begun within the window. A
    node counts for each class that speaks on it, not only for the one that its verdict names, but
    not for what that one brings along.
    """
    by_class: dict[FailureClass, set[str]] = defaultdict(set)
    disruptive: set[str] = set()
    begun = now - timedelta(seconds=rule.window_s)
    for verdict in verdicts:
        record = records.get(verdict.node)
        is_out = record is not None and record.state in _OUT and record.since >= begun
        if verdict.recommended_action in DISRUPTIVE or is_out:
            disruptive.add(verdict.node)
        for failure_class in _classes(verdict):
            by_class[failure_class].add(verdict.node)
    return Trouble({c: frozenset(n) for c, n in by_class.items()}, frozenset(disruptive))


def _classes(verdict: Verdict) -> set[FailureClass]:
    if verdict.failure_class is None:
        return set()
    is_lost = verdict.failure_class is FailureClass.TELEMETRY_LOST
    if verdict.recommended_action is Action.NONE and not is_lost:
        return set()
    return {verdict.failure_class, *(_speaking(verdict) - _CONSEQUENCES)}


def _speaking(verdict: Verdict) -> set[FailureClass]:
    return {
        f.failure_class for f in verdict.findings if not f.held and f.mode is not SignalMode.NEVER
    }


def _choose(
    found: Iterable[Crowd], verdicts: Mapping[str, Verdict], policy: Policy
) -> Iterable[_Found]:
    """Each node in one incident: that of the most telling crowd which has it.

    What is left of another crowd is one of its own when it is large enough by itself; else its
    nodes go with the incident that it overlaps, so that people are told of one thing once.
    """
    chosen: list[_Found] = []
    spoken: set[str] = set()
    excused: set[str] = set()
    for crowd in found:
        rest = crowd.nodes - spoken
        if len(rest) < policy.common_cause.min_nodes:
            rest -= excused
            if rest and chosen:
                _join(chosen, crowd, rest)
            spoken |= rest
            continue
        exempt = _exempt(crowd, rest, verdicts, policy)
        if rest - exempt.keys():
            chosen.append(_Found(crowd, rest - exempt.keys(), exempt))
            excused = (excused - rest) | exempt.keys()
            spoken |= rest - exempt.keys()
    return chosen


def _join(chosen: list[_Found], crowd: Crowd, rest: frozenset[str]) -> None:
    """The remainder of a crowd joins the incident that took most of it."""
    most = max(range(len(chosen)), key=lambda i: (len(chosen[i].nodes & crowd.nodes), -i))
    chosen[most] = replace(chosen[most], nodes=chosen[most].nodes | rest)


def _exempt(
    crowd: Crowd, nodes: frozenset[str], verdicts: Mapping[str, Verdict], policy: Policy
) -> Mapping[str, Assessment]:
    """Nodes of the crowd with a fault of their own. So many that they are a crowd are none."""
    found = {n: _own_fault(verdicts[n], crowd, policy) for n in sorted(nodes)}
    own = {n: best for n, best in found.items() if best is not None}
    return own if len(own) < policy.common_cause.min_nodes else {}


def _own_fault(verdict: Verdict, crowd: Crowd, policy: Policy) -> Assessment | None:
    """Another fault than the crowd's, proven without the crowd's evidence, as sceptically as right
    after a change. Where unlike faults count together it must be one of a part itself, by two
    sources.
    """
    if verdict.recommended_action not in DISRUPTIVE or not crowd.classes:
        return None
    own = [f for f in verdict.findings if f.failure_class not in crowd.classes]
    best = best_assessment(own, policy, is_changed=True)
    if best is None or not best.is_proven:
        return None
    is_of_a_part = best.failure_class in policy.common_cause.part_classes
    is_sure = is_of_a_part and len({f.group for f in best.evidence}) >= _TWO
    return best if is_sure or not crowd.is_mixed else None


def _apart(
    verdict: Verdict, own: Assessment, crowd: Crowd, record: NodeRecord | None, policy: Policy
) -> Verdict:
    """A node of the crowd, judged by its own evidence alone."""
    action, refusal = action_for(own, record, policy)
    attempts = record.attempts if record is not None else 0
    reason = (
        f"{own.failure_class} with confidence {own.confidence:.2f} by evidence of its own, apart"
        f" from the incident of {crowd.name}: {texts(own.evidence)}."
        f" Recommended: {action}, repair {attempts + 1}"
    )
    return replace(
        verdict,
        failure_class=own.failure_class,
        confidence=own.confidence,
        recommended_action=action,
        refusal=refusal,
        reason=reason,
    )


class _FactCounts:
    """How often each value of each fact is there in the fleet: counted once, when first asked."""

    def __init__(self, observation: Observation, rule: CommonCause) -> None:
        self._observation = observation
        self._names = (*rule.changes, *rule.facts)
        self._fleet: dict[str, Counter[str]] = {}

    def explain(self, found: _Found) -> str:
        """The driver, kernel, change, ... that these nodes share and the others mostly lack, as a
        clause; "" if none.
        """
        crowd = found.crowd
        if crowd.kind == CHANGE:
            what = crowd.scope[1].removeprefix("changed_")
            value = f" ({shown(crowd.scope[2])})" if crowd.scope[2] else ""
            return f"their {what} was changed just now{value}"
        if crowd.kind == FACT:
            return f"they have {crowd.scope[1]} {shown(crowd.scope[2])}{self._others(found)}"
        for fact in self._names:
            mine = self._count(fact, found.nodes)
            rest = self._count(fact, None) - mine
            value = next(iter(mine))
            if len(mine) == 1 and value and self._is_rare(rest, value, mine[value]):
                return f"they have {fact} {shown(value)}, most others {_most(rest)}"
        return ""

    def _others(self, found: _Found) -> str:
        fact = found.crowd.scope[1]
        rest = self._count(fact, None) - self._count(fact, found.nodes)
        del rest[found.crowd.scope[2]]
        return f", most others {_most(rest)}" if rest else ""

    def _is_rare(self, rest: Counter[str], value: str, hit: int) -> bool:
        """Few of the others have it, and few that have it are well."""
        return bool(rest) and rest[value] / rest.total() < _FEW and rest[value] <= hit

    def _count(self, fact: str, nodes: Iterable[str] | None) -> Counter[str]:
        facts = self._observation.facts
        if nodes is not None:
            return Counter(facts.get(n, {}).get(fact, "") for n in nodes)
        if fact not in self._fleet:
            names = (n.name for n in self._observation.judged)
            self._fleet[fact] = Counter(facts.get(n, {}).get(fact, "") for n in names)
        return self._fleet[fact]


def _most(values: Counter[str]) -> str:
    return shown(values.most_common(1)[0][0]) or "none that is known"


def _incident(found: _Found, explained: str, verdicts: Mapping[str, Verdict]) -> Incident:
    classes = sorted({c for n in found.nodes for c in _named(verdicts[n])})
    crowd = found.crowd
    cause = explained or _SHARED.get(crowd.kind, "what they share")
    reason = (
        f"{len(crowd.nodes)} nodes ({len(crowd.nodes) / crowd.size:.0%}) of {crowd.name} are in"
        f" trouble together ({', '.join(classes)}): one cause is likelier than so many faults,"
        f" so none of them is touched; suspected: {cause}"
    )
    if found.exempt:
        reason += f"; with a fault of their own besides: {', '.join(sorted(found.exempt))}"
    return Incident(crowd.name, tuple(sorted(found.nodes)), tuple(classes), reason, cause)


def _named(verdict: Verdict) -> set[FailureClass]:
    """What the node's trouble is called; under a change, what it looked like."""
    if verdict.failure_class is FailureClass.CHANGE_INDUCED:
        return _speaking(verdict) or {FailureClass.CHANGE_INDUCED}
    return {verdict.failure_class} if verdict.failure_class else set()


def _harmless(verdict: Verdict, incident: Incident, explained: str, rule: CommonCause) -> Verdict:
    """No node of an incident is disrupted; a person looks at the incident. What so many show is
    surer than what one shows.
    """
    if verdict.recommended_action is Action.NONE:
        return verdict
    return replace(
        verdict,
        failure_class=FailureClass.CHANGE_INDUCED if explained else verdict.failure_class,
        confidence=max(verdict.confidence, rule.confidence),
        recommended_action=Action.REVIEW,
        refusal=RefusalReason.COMMON_CAUSE,
        reason=f"{incident.reason}. This node: {verdict.reason}",
    )
