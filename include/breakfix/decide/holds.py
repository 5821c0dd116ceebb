"""What holds a verdict back whatever the findings say: another owner, a fresh boot. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from breakfix.model import Node, boot_time
from breakfix.policy import Policy


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
