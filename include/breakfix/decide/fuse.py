"""From findings to one class with a confidence, and whether that is enough to act. Pure.

Within an independence group the strongest finding counts; groups add up as 1 - (1-a)(1-b)...: two
signs of 0.7 that do not depend on each other make 0.91. Findings speak for a class when they are of
it or of a related class, on the same GPU or about the whole node. Findings that may never be a
reason, and those held back, do not count at all. docs/decide.md has the model with examples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from breakfix.model import FailureClass, Finding, SignalMode
from breakfix.policy import ClassRule, Policy

_C = FailureClass

#: Whose findings back a class: the same trouble usually shows so too. Not symmetric: an XID 79
#: explains a device
#: that the plugin withholds; a withheld device alone explains nothing.
RELATED: Mapping[FailureClass, frozenset[FailureClass]] = {
    _C.GPU_OFF_BUS: frozenset(
        {_C.GPU_MISSING, _C.PCIE_DEGRADED, _C.DEVICE_PLUGIN, _C.GPU_RECOVERY}
    ),
    _C.GPU_MISSING: frozenset({_C.GPU_OFF_BUS, _C.PCIE_DEGRADED, _C.DEVICE_PLUGIN}),
    _C.ECC_UNCORRECTABLE: frozenset(
        {_C.ECC_CONTAINED, _C.ROW_REMAP_PENDING, _C.ROW_REMAP_FAILED, _C.GPU_RECOVERY}
    ),
    _C.ECC_CONTAINED: frozenset({_C.ROW_REMAP_PENDING, _C.ECC_UNCORRECTABLE, _C.GPU_RECOVERY}),
    _C.ROW_REMAP_PENDING: frozenset({_C.ECC_CONTAINED, _C.ECC_UNCORRECTABLE, _C.GPU_RECOVERY}),
    _C.ROW_REMAP_FAILED: frozenset(
        {_C.ECC_UNCORRECTABLE, _C.ECC_CONTAINED, _C.ROW_REMAP_PENDING, _C.GPU_RECOVERY}
    ),
    _C.NVLINK_DOWN: frozenset({_C.FABRIC, _C.GPU_RECOVERY}),
    _C.FABRIC: frozenset({_C.NVLINK_DOWN}),
    _C.GPU_RECOVERY: frozenset(
        {_C.GSP, _C.ECC_UNCORRECTABLE, _C.NVLINK_DOWN, _C.ROW_REMAP_PENDING}
    ),
    _C.GSP: frozenset({_C.GPU_RECOVERY, _C.GPU_MISSING}),
    _C.PCIE_DEGRADED: frozenset({_C.GPU_OFF_BUS}),
}

#: A link has two ends, so findings on any GPU of the node speak of the same trouble.
NODE_WIDE = frozenset({_C.NVLINK_DOWN, _C.FABRIC, _C.NODE_NOT_READY, _C.DISK, _C.NETWORK_PORT})

#: Classes that say what to do, but not what is wrong: they give way to a proven class that their
#: evidence speaks for as well.
_GENERIC = frozenset({_C.GPU_RECOVERY, _C.UNCLASSIFIED})

#: Which class names the trouble when several are equally sure: the one that costs more to get
#: wrong comes first.
SEVERITY: tuple[FailureClass, ...] = (
    _C.ROW_REMAP_FAILED,
    _C.GPU_OFF_BUS,
    _C.GPU_MISSING,
    _C.ECC_UNCORRECTABLE,
    _C.FABRIC,
    _C.NVLINK_DOWN,
    _C.GSP,
    _C.GPU_RECOVERY,
    _C.NODE_NOT_READY,
    _C.DISK,
    _C.NETWORK_PORT,
    _C.PCIE_DEGRADED,
    _C.ECC_CONTAINED,
    _C.ROW_REMAP_PENDING,
    _C.THERMAL,
    _C.DEVICE_PLUGIN,
    _C.STRAGGLER,
    _C.UNCLASSIFIED,
    _C.APP_LEVEL,
)


@dataclass(frozen=True, slots=True)
class Assessment:
    """One class, how sure, and whether the evidence may carry an action."""

    failure_class: FailureClass
    confidence: float
    is_proven: bool
    is_context: bool  # only findings that may never be a reason
    evidence: tuple[Finding, ...]


def best_assessment(
    findings: Sequence[Finding], policy: Policy, *, is_changed: bool = False
) -> Assessment | None:
    """The class that names the node's trouble: proven before unproven, then by confidence, then by
    severity.

    `is_changed`: the node was changed just now, or stands in a crowd. Classes that a bad change
    looks like are then not proven, and an XID needs a finding of another group beside it.
    """
    free = [f for f in findings if not f.held]
    counting = [f for f in free if f.mode is not SignalMode.NEVER]
    if not counting:
        return _context(free, policy)
    found = [
        assess(c, counting, policy, is_changed=is_changed)
        for c in sorted({f.failure_class for f in counting})
    ]
    return max((a for a in found if not _gives_way(a, found)), key=_rank)


def _gives_way(generic: Assessment, found: Sequence[Assessment]) -> bool:
    """Whether a class that names the trouble is proven by all of this one's evidence, or more."""
    return generic.failure_class in _GENERIC and any(
        a.is_proven
        and a.failure_class not in _GENERIC
        and all(f in a.evidence for f in generic.evidence)
        for a in found
    )


def assess(
    failure_class: FailureClass,
    findings: Sequence[Finding],
    policy: Policy,
    *,
    is_changed: bool = False,
) -> Assessment:
    """How sure the findings make one class: the GPU with the best case for it decides."""
    speaking = [f for f in findings if f.failure_class in {failure_class, *related(failure_class)}]
    gpus = {""} if failure_class in NODE_WIDE else {f.gpu for f in speaking}
    cases = [
        _case(
            failure_class,
            [f for f in speaking if _is_about(f, gpu, failure_class)],
            policy,
            is_changed=is_changed,
        )
        for gpu in sorted(gpus)
    ]
    return max((c for c in cases if c is not None), key=_rank)


def related(failure_class: FailureClass) -> frozenset[FailureClass]:
    """The classes whose findings back that one."""
    return RELATED.get(failure_class, frozenset())


def _is_about(finding: Finding, gpu: str, failure_class: FailureClass) -> bool:
    return failure_class in NODE_WIDE or finding.gpu in {gpu, ""}


def _case(
    failure_class: FailureClass, findings: Sequence[Finding], policy: Policy, *, is_changed: bool
) -> Assessment | None:
    own = [f for f in findings if f.failure_class is failure_class]
    if not own:
        return None
    confidence = fuse(findings)
    rule = policy.class_rule(failure_class)
    is_corroborated = len({f.group for f in findings}) > 1
    doubted = {r.group for r in policy.signals if r.is_xid} if is_changed else set()
    is_alone = any(f.mode is SignalMode.ALONE and f.group not in doubted for f in own)
    is_proven = (
        confidence >= rule.min_confidence
        and (is_alone or is_corroborated)
        and not (is_changed and rule.is_change_sensitive)
    )
    return Assessment(
        failure_class,
        confidence if is_proven else min(confidence, unproven_cap(rule)),
        is_proven,
        is_context=False,
        evidence=tuple(findings),
    )


def fuse(findings: Sequence[Finding]) -> float:
    """1 - product of what each group leaves in doubt."""
    strongest: dict[str, float] = {}
    for f in findings:
        strongest[f.group] = max(f.weight, strongest.get(f.group, 0.0))
    return 1.0 - math.prod(1.0 - w for w in sorted(strongest.values()))


def unproven_cap(rule: ClassRule) -> float:
    """What is not proven never looks as sure as what may act."""
    return max(0.0, rule.min_confidence - 0.01)


def _context(findings: Sequence[Finding], policy: Policy) -> Assessment | None:
    if not findings:
        return None
    strongest = max(findings, key=lambda f: (f.weight, -_severity(f.failure_class)))
    same = [f for f in findings if f.failure_class is strongest.failure_class]
    confidence = min(fuse(same), unproven_cap(policy.class_rule(strongest.failure_class)))
    return Assessment(
        strongest.failure_class, confidence, is_proven=False, is_context=True, evidence=tuple(same)
    )


def _severity(failure_class: FailureClass) -> int:
    return SEVERITY.index(failure_class) if failure_class in SEVERITY else len(SEVERITY)


def _rank(a: Assessment) -> tuple[bool, float, int]:
    return (a.is_proven, round(a.confidence, 9), -_severity(a.failure_class))
