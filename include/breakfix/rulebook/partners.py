"""What proves a class: which findings do so alone, and which need which others beside them.

Nothing is computed here: invented nodes, each with one or two findings, go through `judge` itself,
so that the answer is true of the model of confidence that is in force. Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from breakfix.decide import judge
from breakfix.model import (
    Condition,
    Coverage,
    FailureClass,
    Node,
    Observation,
    Reading,
    RefusalReason,
    SignalMode,
    Verdict,
)
from breakfix.policy import Policy, SignalRule

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_LONG_AGO = _NOW - timedelta(days=9)
_GPU = "GPU-0"
_UNSURE = frozenset({RefusalReason.NOT_CORROBORATED, RefusalReason.TELEMETRY})


@dataclass(frozen=True, slots=True)
class Voice:
    """One thing that can speak: a signal, or an XID by the first signal that tells XIDs."""

    name: str  # the signal's, or xid:79
    rule: SignalRule
    key: str
    group: str
    mode: SignalMode
    weight: float
    failure_class: FailureClass

    def reading(self, node: str) -> Reading:
        """It speaks on that node, of a value beyond its threshold."""
        gpu = _GPU if self.rule.per == "gpu" else ""
        return Reading(self.rule.name, node, gpu, _beyond(self.rule), self.key)


@dataclass(frozen=True, slots=True)
class Proof:
    """What is proven when these speak together on one GPU (or node)."""

    voices: tuple[str, ...]
    groups: tuple[str, ...]
    failure_class: FailureClass
    confidence: float
    action: str


def voices(policy: Policy) -> tuple[Voice, ...]:
    """Every signal and every XID of the policy that may be a reason."""
    return tuple(v for v in _all(policy) if v.mode is not SignalMode.NEVER)


def _all(policy: Policy) -> Iterator[Voice]:
    carrier = next((s for s in policy.signals if s.is_xid), None)
    for rule in policy.signals:
        if not rule.is_xid:
            yield Voice(rule.name, rule, "", rule.group, rule.mode, rule.weight, rule.failure_class)
    if carrier is None:
        return
    for xid, known in policy.xids.items():
        yield Voice(
            f"xid:{xid}",
            carrier,
            str(xid),
            carrier.group,
            known.mode,
            known.weight,
            known.failure_class,
        )


def proof_alone(voice: Voice, policy: Policy) -> Proof | None:
    """What this one proves by itself; None when it proves nothing."""
    return next(iter(_proofs([(voice,)], policy)), None)


def proofs_with_one_more(voice: Voice, policy: Policy) -> tuple[Proof, ...]:
    """What it proves beside each single other voice of another group, where it is needed for it:
    its own class, or one that the other does not prove by itself.
    """
    others = [v for v in voices(policy) if v.group != voice.group]
    enough = {p.voices[0] for p in _proofs([(other,) for other in others], policy)}
    return tuple(
        p
        for p in _proofs([(voice, other) for other in others], policy)
        if p.failure_class is voice.failure_class or p.voices[1] not in enough
    )


def _proofs(sets: Sequence[tuple[Voice, ...]], policy: Policy) -> Iterator[Proof]:
    verdicts = _judged({f"node-{i}": spoken for i, spoken in enumerate(sets)}, policy)
    for i, spoken in enumerate(sets):
        verdict = verdicts[f"node-{i}"]
        if is_proven(verdict) and verdict.failure_class is not None:
            yield Proof(
                tuple(v.name for v in spoken),
                tuple(v.group for v in spoken),
                verdict.failure_class,
                verdict.confidence,
                str(verdict.recommended_action),
            )


def is_proven(verdict: Verdict) -> bool:
    """Whether the verdict is sure enough of its class to act, whatever the class then allows."""
    return verdict.confidence > 0 and verdict.refusal not in _UNSURE


def _judged(spoken: Mapping[str, Iterable[Voice]], policy: Policy) -> Mapping[str, Verdict]:
    names = frozenset(spoken)
    observation = Observation(
        at=_NOW,
        nodes=tuple(_node(n) for n in names),
        readings=tuple(v.reading(n) for n, found in spoken.items() for v in found),
        coverage={s.name: Coverage(s.name, names, len(names), 1.0) for s in policy.signals},
    )
    return {v.node: v for v in judge(observation, _each_alone(policy), {}, _NOW).verdicts}


def _each_alone(policy: Policy) -> Policy:
    """Invented nodes share no cause, however many they are."""
    alone = policy.common_cause.model_copy(update={"scopes": (), "facts": ()})
    return policy.model_copy(update={"common_cause": alone})


def _node(name: str) -> Node:
    return Node(
        name=name,
        uid=name,
        resource_version="1",
        conditions=(Condition("Ready", "True", since=_LONG_AGO),),
        created_at=_LONG_AGO,
        gpus_allocatable=8,
        gpus_capacity=8,
    )


def _beyond(rule: SignalRule) -> float:
    """A value that speaks by this rule."""
    match rule.op:
        case ">":
            return rule.threshold + 1
        case "<":
            return rule.threshold - 1
        case "!=":
            return rule.threshold + 1
        case _:
            return rule.threshold
