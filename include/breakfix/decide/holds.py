"""What holds findings back whatever they say: a fresh boot, a fresh change. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from breakfix.decide.sentences import shown
from breakfix.model import Finding, Node, SignalKind, SignalMode, boot_time
from breakfix.policy import Policy


def is_fresh(node: Node, facts: Mapping[str, str], policy: Policy, now: datetime) -> bool:
    """Created or booted so recently that missing GPUs and the like are still normal.

    When the boot is known, becoming Ready says nothing: a node that goes to and fro would else be
    fresh for ever, and its states never judged. Where nobody tells the boot (no node exporter, or
    it is not up again itself), Ready stands in: the age of the Node object is no word on it.
    """
    booted = boot_time(facts)
    since = [node.created_at, booted]
    ready = node.condition("Ready")
    if booted is None and ready is not None and node.is_ready:
        since.append(ready.since)
    ages = [(now - t).total_seconds() for t in since if t is not None]
    return any(0 <= age < policy.timing.boot_grace_s for age in ages)


def hold_states(findings: Sequence[Finding], grace_s: float) -> tuple[Finding, ...]:
    """On a node that just came up, states do not count yet; what happened since the boot does."""
    why = f"the node came up less than {grace_s:.0f} s ago"
    return tuple(
        replace(f, held=why) if f.kind is SignalKind.STATE and f.mode is not SignalMode.NEVER else f
        for f in findings
    )


def fresh_changes(facts: Mapping[str, str], policy: Policy) -> str:
    """What was just changed on the node, as a clause; "" when nothing was."""
    names = [n for n in policy.common_cause.changes if facts.get(n)]
    return ", ".join(f"{n.removeprefix('changed_')} ({shown(facts[n])})" for n in names)
