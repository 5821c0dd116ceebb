"""One rule in words: what is asked, when it speaks, how far it may go, and with what. Pure but for
the vendor's catalogue, which is package data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from breakfix.decide.fuse import RELATED
from breakfix.model import FailureClass, SignalKind, SignalMode
from breakfix.observe.promql import coverage_query, fact_query, signal_query
from breakfix.policy import ClassRule, Policy, SignalRule
from breakfix.rulebook.catalogue import xid_catalogue
from breakfix.rulebook.names import Kind, Named, numbers
from breakfix.rulebook.notes import note_of
from breakfix.rulebook.partners import Proof, Voice, proof_alone, proofs_with_one_more, voices
from breakfix.rulebook.words import COMPARED, seconds

#: What a node with so many GPUs should have, where a query needs a number to be shown.
GPUS_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Explanation:
    """A rule, explained: `title`, `sentences` in order, and labelled `facts` (text or lists)."""

    kind: str
    name: str
    title: str
    sentences: tuple[str, ...]
    facts: dict[str, Any] = field(default_factory=dict)


def explain(named: Named, policy: Policy, default_text: str = "") -> Explanation:
    """The rule of that name. `default_text`: the default policy's YAML, for its comments."""
    match named.kind:
        case Kind.SIGNAL:
            return _signal(next(s for s in policy.signals if s.name == named.name), policy)
        case Kind.XID:
            return _xid(int(named.name), policy)
        case Kind.CLASS:
            return _class(FailureClass(named.name), policy)
        case Kind.FACT:
            return _fact(named.name, policy)
        case Kind.NUMBER:
            return _number(named.name, policy, default_text)


# --------------------------------------------------------------------------- signals


def _signal(rule: SignalRule, policy: Policy) -> Explanation:
    facts: dict[str, Any] = {"says": rule.text, "input": rule.input}
    facts |= _queries(rule, policy)
    facts |= {
        "window": seconds(rule.window_s),
        "speaks when": f"{rule.op} {rule.threshold:g}",
        "weight": rule.weight,
        "group": rule.group,
        "shares its group with": [
            s.name for s in policy.signals if s.group == rule.group and s.name != rule.name
        ],
        "mode": str(rule.mode),
        "kind": str(rule.kind),
    }
    voice = Voice(rule.name, rule, "", rule.group, rule.mode, rule.weight, rule.failure_class)
    facts |= _class_facts(rule.failure_class, policy, start_at=str(rule.start_at or ""))
    facts |= _proofs(voice, policy)
    facts["source"] = rule.source
    return Explanation("signal", rule.name, rule.text, tuple(_said(rule, policy)), facts)


def _queries(rule: SignalRule, policy: Policy) -> dict[str, Any]:
    if rule.is_kubernetes:
        return {"asks the API server": rule.query}
    asked = {
        "PromQL": str(signal_query(rule, policy.names, most_gpus=GPUS_SHOWN)),
        "coverage": coverage_query(rule, policy.names, stale_s=policy.timing.stale_sample_s),
    }
    if rule.expects:
        asked["note"] = f"{GPUS_SHOWN} stands for the most GPUs that a node should have"
    return asked


def _said(rule: SignalRule, policy: Policy) -> Iterable[str]:
    yield from _when(rule)
    yield _how_far(rule.mode, rule.weight)
    yield _how_long(rule.kind, policy)
    if not rule.is_kubernetes:
        yield "A node that coverage does not name is unknown, not healthy."
    if rule.is_required:
        yield "It is required: a node that does not report it has lost its telemetry."
    if rule.absence_weight:
        yield f"Its silence backs a node that is NotReady, with weight {rule.absence_weight:g}."
    if rule.is_xid:
        yield "The key is an XID: class, mode and weight come from `xids` (explain xid:79)."


def _when(rule: SignalRule) -> Iterable[str]:
    where = "each GPU" if rule.per == "gpu" else "each node"
    compared = COMPARED[rule.op].format(limit=f"{rule.threshold:g}")
    yield f"It looks at {where} over {seconds(rule.window_s)} and speaks when the value {compared}."
    if rule.expects:
        yield "The value is how many GPUs are missing of those that the node should have."
    if rule.peers:
        crowd = " and ".join(rule.peers.by)
        yield (
            f"The value is its ratio to the median of the nodes of the same {crowd}; it must also"
            f" be {rule.peers.z:g} robust standard deviations away, and {rule.peers.min_nodes}"
            " nodes must report it."
        )
    if rule.also_window_s:
        yield f"It must be so over {seconds(rule.also_window_s)} as well."
    if rule.hold_s:
        yield f"It must have been so for {seconds(rule.hold_s)}, asked each minute."
    if rule.clear_threshold is not None:
        yield (
            f"Once it spoke, it speaks for up to {seconds(rule.clear_window_s)} until the value is"
            f" back at {rule.clear_threshold:g}."
        )


def _how_far(mode: SignalMode, weight: float) -> str:
    match mode:
        case SignalMode.ALONE:
            return f"With weight {weight:g} it may be the only reason for an action."
        case SignalMode.CORROBORATE:
            return f"With weight {weight:g} it needs a finding of another group beside it."
        case SignalMode.NEVER:
            return "It is context: never a reason, whatever else is seen."


def _how_long(kind: SignalKind, policy: Policy) -> str:
    if kind is SignalKind.EVENT:
        return "It is an event: it stands until a repair or a boot."
    grace = seconds(policy.timing.boot_grace_s)
    return f"It is a state: it must be true now, and does not count for {grace} after a boot."


# --------------------------------------------------------------------------- XIDs


def _xid(xid: int, policy: Policy) -> Explanation:
    vendor = dict(xid_catalogue().get(xid, {}))
    rule = policy.xids.get(xid)
    carriers = [s for s in policy.signals if s.is_xid]
    facts: dict[str, Any] = {"told by": [s.name for s in carriers], "vendor": vendor}
    title = vendor.get("description") or "not in the vendor's catalogue"
    if rule is None:
        return Explanation("xid", str(xid), title, (_unclassified(xid, policy),), facts)
    sentences = [_how_far(rule.mode, rule.weight), "It is an event: it stands until a repair."]
    if rule.follows:
        causes = ", ".join(map(str, rule.follows))
        sentences.append(f"On the same GPU it follows XID {causes}, and then only backs that one.")
    leads = sorted(x for x, r in policy.xids.items() if xid in r.follows)
    facts |= {
        "weight": rule.weight,
        "mode": str(rule.mode),
        "group": carriers[0].group if carriers else "",
        "follows": list(rule.follows),
        "is followed by": leads,
    }
    facts |= _class_facts(rule.failure_class, policy)
    voice = next((v for v in voices(policy) if v.name == f"xid:{xid}"), None)
    if voice is not None:
        facts |= _proofs(voice, policy)
    facts["source"] = rule.source
    return Explanation("xid", str(xid), rule.text or title, tuple(sentences), facts)


def _unclassified(xid: int, policy: Policy) -> str:
    if xid in policy.app_xids:
        return "The policy calls it the application's (app_xids): context, never a reason."
    return "The policy does not classify it: it is shown to a person (class unclassified)."


# --------------------------------------------------------------------------- classes


_MODES = {
    "off": "Nothing is planned: people look.",
    "recommend": "What should be done is planned and shown, never done.",
    "approve": "The node is quarantined; drain and repair wait for a person's yes.",
    "auto": "The node is quarantined, drained and repaired without a question.",
}


def _class(failure_class: FailureClass, policy: Policy) -> Explanation:
    rule = policy.class_rule(failure_class)
    speaking = [v for v in voices(policy) if v.failure_class is failure_class]
    facts: dict[str, Any] = _class_facts(failure_class, policy)
    facts |= {
        "told by": [f"{v.name} ({v.mode}, {v.weight:g}, group {v.group})" for v in speaking],
        "backed by classes": sorted(map(str, RELATED.get(failure_class, ()))),
        "proven alone by": [v.name for v in speaking if proof_alone(v, policy)],
        "proven together by": sorted(
            {
                " + ".join(sorted(p.voices))
                for v in speaking
                for p in proofs_with_one_more(v, policy)
                if p.failure_class is failure_class and not proof_alone(v, policy)
            }
        ),
        "source": rule.source,
    }
    sentences = (_MODES[rule.mode], *_ladder_said(rule, policy))
    return Explanation("class", str(failure_class), str(failure_class), sentences, facts)


def _ladder_said(rule: ClassRule, policy: Policy) -> Iterable[str]:
    rungs = ", then ".join(rule.ladder)
    window = seconds(policy.limits.attempts_window_s)
    yield f"Attempts within {window}: {rungs}; past the end the node is held for hardware."
    yield f"A confidence of {rule.min_confidence:g} is wanted."
    if rule.is_change_sensitive:
        yield "After a fresh change of the node nothing proves it: a bad change looks like it."
    yield f"A return needs diagnostics of level {rule.diag_level}."


def _class_facts(
    failure_class: FailureClass, policy: Policy, *, start_at: str = ""
) -> dict[str, Any]:
    rule = policy.class_rule(failure_class)
    facts: dict[str, Any] = {
        "class": str(failure_class),
        "class mode": rule.mode,
        "ladder": [str(a) for a in rule.ladder],
        "min_confidence": rule.min_confidence,
        "diag_level": rule.diag_level,
    }
    return facts | ({"begins at": start_at} if start_at else {})


def _proofs(voice: Voice, policy: Policy) -> dict[str, Any]:
    if voice.mode is SignalMode.NEVER or (voice.rule.is_xid and not voice.key):
        return {"acts alone": False}
    alone = proof_alone(voice, policy)
    if alone is not None:
        return {"acts alone": True, "alone it proves": _proof_said(alone)}
    return {"acts alone": False, "acts with one of": _by_group(voice, policy)}


def _by_group(voice: Voice, policy: Policy) -> list[str]:
    """A line per group and class: which of its voices suffice, and how sure they then make it."""
    found = sorted(
        proofs_with_one_more(voice, policy), key=lambda p: (p.groups[1], p.failure_class)
    )
    lines = []
    for (group, failure_class), made in groupby(found, lambda p: (p.groups[1], p.failure_class)):
        lines.append(_group_said(group, failure_class, list(made)))
    return lines


def _group_said(group: str, failure_class: FailureClass, made: Sequence[Proof]) -> str:
    low, high = min(p.confidence for p in made), max(p.confidence for p in made)
    sure = f"{low:.2f}" if f"{low:.2f}" == f"{high:.2f}" else f"{low:.2f} to {high:.2f}"
    names = ", ".join(p.voices[1] for p in made)
    return f"group {group} ({names}): {failure_class} at {sure}"


def _proof_said(proof: Proof) -> str:
    return f"{proof.failure_class} at {proof.confidence:.2f}: {proof.action}"


# --------------------------------------------------------------------------- facts and numbers


def _fact(name: str, policy: Policy) -> Explanation:
    rule = policy.facts[name]
    facts: dict[str, Any] = {"PromQL": fact_query(rule, policy.names)}
    facts["value"] = f"label {rule.label}" if rule.label else "the sample's value"
    used = "It tells parts of the fleet apart: " + (
        "nodes that share it may be one common cause."
        if name in policy.common_cause.facts
        else "it is no ground for a common cause."
    )
    return Explanation("fact", name, f"fact {name}", (used,), facts)


def _number(name: str, policy: Policy, default_text: str) -> Explanation:
    value = numbers(policy)[name]
    note = note_of(name, default_text)
    return Explanation(
        "number",
        name,
        note.description or name,
        tuple(s for s in (note.description,) if s),
        {"value": value, "default": note.default, "comment": note.comment, "type": note.type},
    )
