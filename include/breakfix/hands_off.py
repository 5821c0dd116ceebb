"""Whether somebody else has a node in their hands now: another tool, the cloud, people at work.
Pure.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from breakfix.model import Node, RefusalReason
from breakfix.policy import Limits, Maintenance

_UNIX_MAX = 1e11  # seconds since 1970 that a datetime can still tell


@dataclass(frozen=True, slots=True)
class HandsOff:
    """Why the node is left alone."""

    reason: RefusalReason  # OTHER_OWNER or MAINTENANCE
    text: str  # a clause


CORDONED_BY_US = "breakfix.dev/cordoned-by-us"


def is_cordoned_by_others(node: Node) -> bool:
    """Unschedulable, and not by us: somebody has a plan for this node."""
    return node.is_unschedulable and node.annotations.get(CORDONED_BY_US) != "true"


def hands_off(node: Node, limits: Limits, now: datetime) -> HandsOff | None:
    """Who has the node; None when nobody has. People's windows are named first."""
    planned = _window(node, limits, now) or _condition(node, limits) or _time(node, limits, now)
    if planned:
        return HandsOff(RefusalReason.MAINTENANCE, planned)
    owner = _label(node, limits) or _annotation(node, limits) or _taint(node, limits)
    return HandsOff(RefusalReason.OTHER_OWNER, owner) if owner else None


def _window(node: Node, limits: Limits, now: datetime) -> str:
    for window in limits.maintenance:
        if window.start <= now < window.end and _is_meant(node, window):
            until = window.end.astimezone(UTC)
            return f"maintenance until {until:%Y-%m-%d %H:%M} UTC: {window.reason}"
    return ""


def _is_meant(node: Node, window: Maintenance) -> bool:
    if window.nodes and node.name not in window.nodes:
        return False
    own = {s.kind: s.value for s in node.scopes()}
    return all(own.get(k) == v for k, v in window.scope.items()) and all(
        node.labels.get(k) == v for k, v in window.labels.items()
    )


def _condition(node: Node, limits: Limits) -> str:
    wanted = limits.hands_off_conditions
    for found in node.conditions:
        if wanted.get(found.type) == found.status:
            return f"its condition {found.type} is {found.status}"
    return ""


def _time(node: Node, limits: Limits, now: datetime) -> str:
    for key in limits.hands_off_times:
        text = node.labels.get(key) or node.annotations.get(key)
        begins = _moment(text) if text else None
        if begins is not None and _is_near(begins, limits, now):
            return f"{key} says that maintenance begins at {begins:%Y-%m-%d %H:%M} UTC"
    return ""


def _is_near(begins: datetime, limits: Limits, now: datetime) -> bool:
    before = timedelta(seconds=limits.maintenance_before_s)
    return begins - before <= now < begins + timedelta(seconds=limits.maintenance_after_s)


def _moment(text: str) -> datetime | None:
    """A time from Unix seconds or RFC 3339; None of anything else."""
    try:
        seconds = float(text)
    except ValueError:
        return _from_iso(text)
    return datetime.fromtimestamp(seconds, UTC) if 0 < seconds < _UNIX_MAX else None


def _from_iso(text: str) -> datetime | None:
    try:
        value = datetime.fromisoformat(text)
    except ValueError:
        return None
    return value.astimezone(UTC) if value.tzinfo is not None else None


def _label(node: Node, limits: Limits) -> str:
    for label, values in limits.hands_off_labels.items():
        if node.labels.get(label) in values:
            return f"its label {label} is {node.labels[label]}"
    for label, harmless in limits.hands_off_unless.items():
        if node.labels.get(label, "") not in {"", *harmless}:
            return f"its label {label} is {node.labels[label]}"
    return ""


def _annotation(node: Node, limits: Limits) -> str:
    for annotation in limits.hands_off_annotations:
        if annotation in node.annotations:
            return f"it has the annotation {annotation}"
    return ""


def _taint(node: Node, limits: Limits) -> str:
    keys = {t.key for t in node.taints} if node.taints else set()
    return next((f"it has the taint {k}" for k in limits.hands_off_taints if k in keys), "")
