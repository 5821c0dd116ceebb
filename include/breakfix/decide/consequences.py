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
    """As sure as before, and of the class of the first signal that explains it on the same GPU.

    What speaks for that class by itself has one witness more, not an independent one: what is slow
    because it is hot confirms no other sign of heat.
    """
    named = {r.name: r.explained_by for r in policy.signals if r.explained_by}
    spoken = {(f.signal, f.gpu): f.failure_class for f in findings}
    classes = [
        next((spoken[s, f.gpu] for s in named.get(f.signal, ()) if (s, f.gpu) in spoken), None)
        for f in findings
    ]
    own = sorted(
        (f for f, cause in zip(findings, classes, strict=True) if cause is None),
        key=lambda f: (f.weight, f.group),
    )
    groups = {f.failure_class: f.group for f in own if f.weight > 0}  # of the strongest
    return tuple(
        f if cause is None else replace(f, failure_class=cause, group=groups.get(cause, f.group))
        for f, cause in zip(findings, classes, strict=True)
    )


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
