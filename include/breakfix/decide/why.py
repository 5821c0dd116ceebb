"""Why a verdict is what it is, as data: a sentence, how the confidence came about, what is missing
to be sure, and what was not counted. Pure.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from breakfix.decide.fuse import Assessment, assess, best_assessment, fuse, related
from breakfix.decide.sentences import missed, shown, texts
from breakfix.model import FailureClass, Finding, RefusalReason, SignalMode, Verdict
from breakfix.policy import Policy

_MAX_NAMED = 8  # signals that are named as what could make it sure


@dataclass(frozen=True, slots=True)
class Row:
    """One independence group: its strongest finding counts, the others say the same."""

    group: str
    signals: tuple[str, ...]
    gpus: tuple[str, ...]
    weight: float  # of the strongest
    confidence: float  # of this group and those before it
    text: str
    peers: str = ""  # what its value was compared with


@dataclass(frozen=True, slots=True)
class Uncounted:
    """A finding that adds nothing, and why."""

    signal: str
    gpu: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class Why:
    """One verdict, explained."""

    node: str
    sentence: str
    failure_class: FailureClass | None  # that the evidence speaks for
    rows: tuple[Row, ...]
    confidence: float
    wanted: float | None  # to act; None where no class is named
    is_proven: bool
    missing: tuple[str, ...]  # what would have to be so to be sure, or to act
    uncounted: tuple[Uncounted, ...]
    unknown: tuple[str, ...]  # signals that could not be judged


def explain(verdict: Verdict, policy: Policy) -> Why:
    """The verdict explained by its own findings; needs nothing but them and the policy."""
    best = _evidence(verdict, policy)
    return Why(
        node=verdict.node,
        sentence=_sentence(verdict, best, policy),
        failure_class=best.failure_class if best else verdict.failure_class,
        rows=_rows(best, policy) if best else (),
        confidence=best.confidence if best else verdict.confidence,
        wanted=policy.class_rule(best.failure_class).min_confidence if best else None,
        is_proven=best is not None and best.is_proven,
        missing=tuple(_missing(verdict, best, policy)),
        uncounted=tuple(_uncounted(verdict, best)),
        unknown=verdict.unknown,
    )


def _evidence(verdict: Verdict, policy: Policy) -> Assessment | None:
    """What the findings say for the class that the verdict names; where it names none of theirs
    (a change, lost telemetry), for the class that they name.
    """
    is_changed = verdict.refusal is RefusalReason.RECENT_CHANGE
    counting = [f for f in verdict.findings if not f.held and f.mode is not SignalMode.NEVER]
    named = verdict.failure_class
    if named is not None and any(f.failure_class is named for f in counting):
        return assess(named, counting, policy, is_changed=is_changed)
    return best_assessment(counting, policy, is_changed=is_changed)


def _sentence(verdict: Verdict, best: Assessment | None, policy: Policy) -> str:
    if best is None:
        why = str(verdict.failure_class) if verdict.failure_class else "nothing that may count"
        return f"{verdict.node} is {verdict.state}: {why}; recommended: {_doing(verdict)}."
    groups = len({f.group for f in best.evidence})
    wanted = policy.class_rule(best.failure_class).min_confidence
    where = _gpus(best.evidence)
    named = str(best.failure_class)
    if verdict.failure_class is not None and verdict.failure_class is not best.failure_class:
        named = f"{verdict.failure_class}, which looks like {named}"
    return (
        f"{verdict.node} is {verdict.state}: {named}"
        f"{f' on GPU {shown(where[0])}' if len(where) == 1 else ''}"
        f" with confidence {best.confidence:.2f} of {wanted:.2f} wanted, by {groups} independent"
        f" {'source' if groups == 1 else 'sources'}; recommended: {_doing(verdict)}."
    )


def _doing(verdict: Verdict) -> str:
    refusal = f" ({verdict.refusal})" if verdict.refusal else ""
    return f"{verdict.recommended_action}{refusal}"


def _gpus(findings: Iterable[Finding]) -> tuple[str, ...]:
    return tuple(sorted({f.gpu for f in findings if f.gpu}))


def _rows(best: Assessment, policy: Policy) -> tuple[Row, ...]:
    """The groups, the strongest first."""
    groups: dict[str, list[Finding]] = {}
    for finding in sorted(best.evidence, key=lambda f: (-f.weight, f.group, f.signal, f.gpu)):
        groups.setdefault(finding.group, []).append(finding)
    compared = {r.name: r.peers for r in policy.signals if r.peers is not None}
    rows: list[Row] = []
    counted: list[Finding] = []
    for group, findings in groups.items():
        counted += findings
        peers = next((compared[f.signal] for f in findings if f.signal in compared), None)
        rows.append(
            Row(
                group=group,
                signals=tuple(dict.fromkeys(f.signal for f in findings)),
                gpus=_gpus(findings),
                weight=findings[0].weight,
                confidence=fuse(counted),
                text=texts(findings),
                peers=f"median of its {' and '.join(peers.by)}" if peers else "",
            )
        )
    return tuple(rows)


def _missing(verdict: Verdict, best: Assessment | None, policy: Policy) -> Iterable[str]:
    """What stands between this verdict and an action."""
    if verdict.refusal in _GUARDS:
        yield _GUARDS[verdict.refusal]
    silent = [missed(f) for f in verdict.open_findings if f.missed_at is not None]
    if silent:
        yield f"a report of what spoke: {'; '.join(silent[:_MAX_NAMED])}"
    elif verdict.failure_class is FailureClass.TELEMETRY_LOST:
        yield "telemetry of the node: " + ", ".join(verdict.unknown[:_MAX_NAMED])
    if best is None:
        return
    rule = policy.class_rule(best.failure_class)
    if rule.mode == "off":
        yield f"a policy that acts on {best.failure_class}: its mode is off"
    is_doubted = verdict.refusal is RefusalReason.RECENT_CHANGE and rule.is_change_sensitive
    if not best.is_proven and not is_doubted:
        yield from _second_source(best, policy)


#: What has to pass, whatever the findings say.
_GUARDS = {
    RefusalReason.OTHER_OWNER: "the other owner has to let go of the node",
    RefusalReason.MAINTENANCE: "the maintenance has to be over",
    RefusalReason.COOLDOWN: "the grace after the boot has to pass, and the finding to stay",
    RefusalReason.COMMON_CAUSE: "the incident of its scope has to be settled by a person",
    RefusalReason.RECENT_CHANGE: "evidence that a change does not bring about, or time since it",
}


def _second_source(best: Assessment, policy: Policy) -> Iterable[str]:
    """Signals of other groups, any of which would do."""
    rule = policy.class_rule(best.failure_class)
    speaking = {best.failure_class, *related(best.failure_class)}
    groups = {f.group for f in best.evidence}
    doubt = math.prod(1.0 - r.weight for r in _rows(best, policy))
    enough = sorted(
        s.name
        for s in policy.signals
        if s.group not in groups
        and s.failure_class in speaking
        and s.mode is not SignalMode.NEVER
        and not s.is_xid
        and 1.0 - doubt * (1.0 - s.weight) >= rule.min_confidence
    )
    own = any(x.failure_class in speaking for x in policy.xids.values())
    xids = {s.group for s in policy.signals if s.is_xid}
    if own and not xids & groups:
        enough.insert(0, f"an XID of {best.failure_class}")
    if enough:
        more = f" or {len(enough) - _MAX_NAMED} more" if len(enough) > _MAX_NAMED else ""
        yield f"one finding of another source, any of: {', '.join(enough[:_MAX_NAMED])}{more}"
    else:
        yield f"findings of other sources up to a confidence of {rule.min_confidence:.2f}"


def _uncounted(verdict: Verdict, best: Assessment | None) -> Iterable[Uncounted]:
    counted = best.evidence if best else ()
    strongest: dict[str, Finding] = {}
    for f in sorted(counted, key=lambda f: (-f.weight, f.signal, f.gpu, f.key)):
        strongest.setdefault(f.group, f)
    for f in verdict.findings:
        why = _why_not(f, best)
        if not why and strongest.get(f.group) is not f and f.group in strongest:
            lead = strongest[f.group]
            why = f"says the same as {lead.signal}: one source ({f.group}) counts once"
        if why:
            yield Uncounted(f.signal, f.gpu, f.text, why)


def _why_not(finding: Finding, best: Assessment | None) -> str:
    if finding.held:
        return finding.held
    if finding.mode is SignalMode.NEVER:
        return "may never be a reason"
    if best is None or finding in best.evidence:
        return ""
    if finding.failure_class in {best.failure_class, *related(best.failure_class)}:
        return "on another GPU"
    return f"speaks of another trouble ({finding.failure_class})"
