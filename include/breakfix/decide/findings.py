"""Readings beyond a threshold become findings: what they mean, how sure, and how far they may go.
Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from breakfix.decide.sentences import shown
from breakfix.model import Action, FailureClass, Finding, Reading, SignalMode
from breakfix.policy import Policy, SignalRule

_XID = re.compile(r"[0-9]{1,4}", re.ASCII)
_APP_WEIGHT = 0.3  # ours: it says something, about the workload


@dataclass(frozen=True, slots=True)
class _Meaning:
    failure_class: FailureClass
    mode: SignalMode
    weight: float
    source: str
    text: str = ""


def findings_by_node(
    readings: Iterable[Reading], policy: Policy
) -> Mapping[str, tuple[Finding, ...]]:
    """The findings of each node that has any, in an order that does not depend on the readings'
    order.
    """
    rules = {r.name: r for r in policy.signals}
    found: dict[str, list[Finding]] = defaultdict(list)
    for reading in _once(readings):
        found[reading.node].append(_finding(reading, rules[reading.signal], policy))
    return {node: tuple(sorted(fs, key=_order)) for node, fs in found.items()}


def _once(readings: Iterable[Reading]) -> Iterable[Reading]:
    """One reading of each thing: of duplicates the newest, then the larger."""
    kept: dict[tuple[str, str, str, str], Reading] = {}
    for reading in readings:
        key = (reading.node, reading.signal, reading.gpu, reading.key)
        known = kept.get(key)
        if known is None or (-reading.age_s, reading.value) > (-known.age_s, known.value):
            kept[key] = reading
    return kept.values()


def _order(finding: Finding) -> tuple[float, str, str, str, float]:
    return (-finding.weight, finding.signal, finding.gpu, finding.key, finding.value)


def _finding(reading: Reading, rule: SignalRule, policy: Policy) -> Finding:
    meaning = _meaning(reading, rule, policy)
    ladder = policy.class_rule(meaning.failure_class).ladder
    return Finding(
        signal=rule.name,
        node=reading.node,
        gpu=reading.gpu,
        value=reading.value,
        threshold=rule.threshold,
        window_s=rule.window_s,
        age_s=reading.age_s,
        weight=meaning.weight,
        group=rule.group,
        mode=meaning.mode,
        kind=rule.kind,
        failure_class=meaning.failure_class,
        action=Action.NONE if meaning.mode is SignalMode.NEVER else rule.start_at or ladder[0],
        source=meaning.source,
        text=_text(reading, rule, meaning),
        key=reading.key,
    )


def _text(reading: Reading, rule: SignalRule, meaning: _Meaning) -> str:
    return rule.text.format(
        value=f"{reading.value:.4g}",
        threshold=f"{rule.threshold:g}",
        key=shown(reading.key) or "without a code",
        gpu=shown(reading.gpu) or "?",
        node=reading.node,
        meaning=f" ({meaning.text})" if meaning.text else "",
    )


def _meaning(reading: Reading, rule: SignalRule, policy: Policy) -> _Meaning:
    if not rule.is_xid:
        return _Meaning(rule.failure_class, rule.mode, rule.weight, rule.source)
    xid = int(reading.key) if _XID.fullmatch(reading.key) else None
    if xid in policy.app_xids:
        return _Meaning(
            FailureClass.APP_LEVEL,
            SignalMode.NEVER,
            _APP_WEIGHT,
            "NVIDIA Xid catalogue: an application's, or the trace of another XID",
            "an application's error, not the GPU's",
        )
    known = policy.xids.get(xid) if xid is not None else None
    if known is None:  # nobody classified it: the signal's own words, which ask for a person
        return _Meaning(rule.failure_class, rule.mode, rule.weight, rule.source, "not classified")
    return _Meaning(known.failure_class, known.mode, known.weight, known.source, known.text)
