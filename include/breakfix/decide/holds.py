"""What holds a verdict back whatever the findings say: another owner, a fresh boot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from breakfix.model import Node
from breakfix.policy import Policy

_LATEST = 1e11  # seconds: no boot is later, and datetime can still tell it


def other_owner(node: Node, policy: Policy) -> str:
    """Why another owner has the node now, as a clause; "" when none has."""
    for label, values in policy.limits.hands_off_labels.items():
        if node.labels.get(label) in values:
            return f"its label {label} is {node.labels[label]}"
    for annotation in policy.limits.hands_off_annotations:
        if annotation in node.annotations:
            return f"it has the annotation {annotation}"
    return ""


def is_fresh(node: Node, facts: Mapping[str, str], policy: Policy, now: datetime) -> bool:
    """Created, booted or Ready so recently that missing GPUs and the like are still normal."""
    ready = node.condition("Ready")
    since = [node.created_at, _boot_time(facts)]
    if ready is not None and node.is_ready:
        since.append(ready.since)
    ages = [(now - t).total_seconds() for t in since if t is not None]
    return any(0 <= age < policy.timing.boot_grace_s for age in ages)


def _boot_time(facts: Mapping[str, str]) -> datetime | None:
    try:
        seconds = float(facts.get("boot_time", "nan"))
    except ValueError:
        return None
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < _LATEST else None
