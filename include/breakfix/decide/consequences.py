"""Consequences follow their cause: an XID that another one brings along is no trouble of its own,
and a GPU that is slow because it is hot is hot. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from breakfix.decide.fuse import NODE_WIDE
from breakfix.decide.sentences import shown
from breakfix.model import Action, Finding, SignalMode
from breakfix.policy import Policy

_REACH = {SignalMode.NEVER: 0, SignalMode.CORROBORATE: 1, SignalMode.ALONE: 2}


def follow_causes(findings: Sequence[Finding], policy: Policy) -> tuple[Finding, ...]:
    """XIDs under their causes, and what another signal explains (`explained_by`) in its class.

    An XID takes its cause's class when the cause is on the same GPU and says at least as much; that
    of a link, which has two ends, also when the cause is on another GPU of the node. It then
    supports the cause (as one more view within the same group, so without adding confidence). One
    that may never be a reason is none afterwards either.
    """
    return _explained(_under_causes(findings, policy), policy)


def _explained(findings: Sequence[Finding], policy: Policy) -> tuple[Finding, ...]:
    """As sure as before, and of the class of what explains it on the same GPU.

    Where only signals explain it that may never be a reason, they give it a name, no more: beside
    own evidence of that class it stays what it was, or heat would make another witness of it.
    """
    named = {r.name: r.explained_by for r in policy.signals if r.explained_by}
    own = {f.failure_class for f in findings if f.weight > 0 and f.signal not in named}
    spoken = {(f.signal, f.gpu): f for f in findings}

    def follow(f: Finding) -> Finding:
        found = [spoken[s, f.gpu] for s in named.get(f.signal, ()) if (s, f.gpu) in spoken]
        reasons = [c for c in found if c.mode is not SignalMode.NEVER]
        names = [c for c in found if c.failure_class not in own]
        cause = next(iter([*reasons, *names]), None)
        return f if cause is None else replace(f, failure_class=cause.failure_class)

    return tuple(follow(f) for f in findings)


def _under_causes(findings: Sequence[Finding], policy: Policy) -> tuple[Finding, ...]:
    xids = {r.name for r in policy.signals if r.is_xid}
    causes = [f for f in findings if f.signal in xids and f.mode is not SignalMode.NEVER]
    if not causes:
        return tuple(findings)
    return tuple(_follow(f, causes, policy) if f.signal in xids else f for f in findings)


def _follow(finding: Finding, causes: Sequence[Finding], policy: Policy) -> Finding:
    rule = policy.xids.get(int(finding.key)) if finding.key.isdecimal() else None
    if rule is None:
        return finding
    follows = {str(x) for x in rule.follows}
    cause = next((c for c in causes if c.key in follows and _leads(c, finding)), None)
    if cause is None:
        return finding
    action = Action.NONE if finding.mode is SignalMode.NEVER else cause.action
    text = f"{finding.text}; follows XID {cause.key}"
    if cause.gpu != finding.gpu:
        text += f" on GPU {shown(cause.gpu)}"
    return replace(finding, failure_class=cause.failure_class, action=action, text=text)


def _leads(cause: Finding, finding: Finding) -> bool:
    is_near = cause.gpu == finding.gpu or finding.failure_class in NODE_WIDE
    return is_near and cause.weight >= finding.weight and _REACH[cause.mode] >= _REACH[finding.mode]
