"""What is really so, kept apart from what the product believes: who cordoned, who said what."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from breakfix.model import NodeState

OURS = "breakfix.dev/"
CORDON_TAINT = "node.kubernetes.io/unschedulable"
GPU_NODE = ("nvidia.com/gpu.present", "true")
EXCLUDE = ("breakfix.dev/exclude", "true")
SKIP = ("remediation.medik8s.io/exclude-from-remediation", "true")
CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
UPGRADE = ("nvidia.com/gpu-driver-upgrade-state", "drain-required")
KURED = "weave.works/kured-reboot-in-progress"
AUTOSCALER = "ToBeDeletedByClusterAutoscaler"
EVENT = "VMEventScheduled"
AIRFLOW = {"app.kubernetes.io/name": "airflow"}
OUT = frozenset({NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING})

ANNOTATION = "node_annotation"  # the channel that names nobody


@dataclass
class Said:
    """One answer of a person to a question."""

    case_id: str
    purpose: str
    plan_hash: str
    who: str
    is_yes: bool
    at: datetime
    asked_at: datetime
    expires_at: datetime
    channel: str = "cli"


@dataclass
class Truth:
    """What the world keeps of itself. The rules compare the product's doings with it."""

    cordon: dict[str, str] = field(default_factory=dict)  # node -> "ours" | "theirs"
    foreign: dict[str, tuple] = field(default_factory=dict)  # node -> labels, annotations, taints
    taken_back: dict[str, datetime] = field(default_factory=dict)
    said: list[Said] = field(default_factory=list)
    repairs: list[tuple[str, str, str]] = field(default_factory=list)  # case, step, node
    rebooted: dict[str, list[str]] = field(default_factory=dict)  # node -> boot ids that we made
    diags: list[tuple[str, str, datetime, bool, str]] = field(default_factory=list)
    admitted: dict[str, tuple[str, datetime]] = field(default_factory=dict)  # case -> boot id, at
    ended: dict[str, datetime] = field(default_factory=dict)  # node -> last end of a case
    ownerless: dict[str, int] = field(default_factory=dict)  # node -> whole reconciliations since

    def note_foreign(self, node):
        """Keep all that is not ours on the node, as it is now."""
        self.foreign[node.name] = foreign_of(node)


def foreign_of(node):
    """(labels, annotations, taints) of others."""
    return (
        {k: v for k, v in node.labels.items() if not _is_ours(k)},
        {k: v for k, v in node.annotations.items() if not _is_ours(k)},
        frozenset(t for t in node.taints if not _is_ours(t.key) and t.key != CORDON_TAINT),
    )


def _is_ours(key):
    return key.startswith(OURS) and key != EXCLUDE[0]


def is_gpu_node(node):
    return node.labels.get(GPU_NODE[0]) == GPU_NODE[1]


def is_excluded(node):
    return any(node.labels.get(k) == v for k, v in (EXCLUDE, SKIP))


def hands_on(node):
    """Which other owner has the node; an empty string when none has."""
    if node.labels.get(UPGRADE[0]) == UPGRADE[1]:
        return "driver upgrade"
    if KURED in node.annotations:
        return "kured"
    if any(t.key == AUTOSCALER for t in node.taints):
        return "autoscaler"
    if any(c.type == EVENT and c.status == "True" for c in node.conditions):
        return "cloud event"
    return ""


def is_protected(node, pods):
    """A control-plane node, or one that runs Airflow. `pods`: all that were last read."""
    if CONTROL_PLANE in node.labels:
        return True
    mine = [p for p in pods if p.node == node.name and p.phase not in {"Succeeded", "Failed"}]
    return any(AIRFLOW.items() <= p.labels.items() for p in mine)


def kinds_of(node):
    """(kind, value) of every scope the node counts in."""
    return [
        ("fleet", ""),
        ("pool", node.pool),
        ("rack", node.rack),
        ("sku", node.sku),
        *([("fabric", node.fabric)] if node.fabric else []),
    ]


def most_out(limits, kind, size):
    """How many of `size` nodes may be out: (share, nodes) as the overlay says; None: no limit."""
    share, nodes = limits.get(kind, (None, None))
    by_share = size
    if share is not None:
        by_share = int(size * share + 1e-9)
        if by_share == 0 and share > 0 and size > 1:
            by_share = 1
    return by_share if nodes is None else min(by_share, nodes)


def is_out(node):
    ready = [c.status for c in node.conditions if c.type == "Ready"]
    return node.is_unschedulable or ready != ["True"]


def is_in_hours(site, now):
    """Whether nodes may be taken out at that time of the day."""
    return site.hours is None or site.hours[0] <= f"{now:%H:%M}" < site.hours[1]


def alert_over(site, firing, node):
    """The alert that holds this node; an empty string when none does."""
    if not site.heeds_alerts:
        return ""
    if firing is None or {"alertname": "Watchdog"} not in firing:
        return "nobody can tell which alerts fire"
    racks = [a.get("rack", "") for a in firing if a["alertname"] == "NodesHot"]
    return "NodesHot fires" if {"", node.rack} & set(racks) else ""


def moves(node, pods):
    """Pods that a drain of the node would have to move."""
    return [
        p
        for p in pods
        if p.node == node.name
        and "breakfix.dev/case" not in p.labels
        and p.phase not in {"Succeeded", "Failed"}
        and not any(o.kind == "DaemonSet" for o in p.owners)
    ]


def is_at(moment, now, length_s):
    return moment is not None and now < moment + timedelta(seconds=length_s)
