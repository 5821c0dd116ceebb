"""Consequences follow their cause: an XID that another one brings along is no trouble of its own.
Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from breakfix.model import Finding, SignalMode
from breakfix.policy import Policy

_REACH = {SignalMode.NEVER: 0, SignalMode.CORROBORATE: 1, SignalMode.ALONE: 2}


def follow_causes(findings: Sequence[Finding], policy: Policy) -> tuple[Finding, ...]:
    """A consequence takes its cause's class when the cause is on the same GPU and says at least as
    much.

    It then supports the cause (as one more view within the same group, so without adding
    confidence).
    """
    xids = {r.name for r in policy.signals if r.is_xid}
    causes = [f for f in findings if f.signal in xids and f.mode is not SignalMode.NEVER]
    if len(causes) < 2:  # noqa: PLR2004 - one XID has no cause
        return tuple(findings)
    return tuple(_follow(f, causes, policy) if f.signal in xids else f for f in findings)


def _follow(finding: Finding, causes: Sequence[Finding], policy: Policy) -> Finding:
    rule = policy.xids.get(int(finding.key)) if finding.key.isdecimal() else None
    if rule is None or finding.mode is SignalMode.NEVER:
        return finding
    follows = {str(x) for x in rule.follows}
    cause = next((c for c in causes if c.key in follows and _leads(c, finding)), None)
    if cause is None:
        return finding
    text = f"{finding.text}; follows XID {cause.key}"
    return replace(finding, failure_class=cause.failure_class, action=cause.action, text=text)


def _leads(cause: Finding, finding: Finding) -> bool:
    return (
        cause.gpu == finding.gpu
        and cause.weight >= finding.weight
        and _REACH[cause.mode] >= _REACH[finding.mode]
    )
