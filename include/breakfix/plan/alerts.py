"""Which firing alerts hold which nodes. Pure; what cannot be told holds all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from breakfix.model import FiringAlerts, Node
from breakfix.policy_limits import AlertRule, Alerts

_OF_NODE = {"pool": "pool", "rack": "rack", "sku": "sku", "fabric": "fabric"}


@dataclass(frozen=True, slots=True)
class AlertHolds:
    """Why the fleet is held, and what of it else: (kind, value) -> why."""

    fleet: str = ""
    parts: Mapping[tuple[str, str], str] = field(default_factory=dict)

    def hold(self, node: Node) -> str:
        """Why this node is held; an empty string when it is not."""
        if self.fleet or not self.parts:
            return self.fleet
        own = [("node", node.name), *((k, getattr(node, name)) for k, name in _OF_NODE.items())]
        return next((self.parts[key] for key in own if key in self.parts), "")


def alert_holds(
    firing: FiringAlerts | None, rules: Alerts, node_labels: Sequence[str]
) -> AlertHolds:
    """What the firing alerts hold. `node_labels`: labels that name a node, the likeliest first."""
    if not rules.block:
        return AlertHolds()
    if firing is None or firing.error:
        why = firing.error if firing else "they were not asked for"
        return AlertHolds(f"cannot tell which alerts fire: {why}")
    names = {a.get("alertname", "") for a in firing.labels}
    if rules.watchdog and rules.watchdog not in names:
        text = f"cannot tell which alerts fire: {rules.watchdog} does not, which always should"
        return AlertHolds(text)
    parts: dict[tuple[str, str], str] = {}
    for rule in rules.block:
        for alert in firing.labels:
            if not _matches(rule.match, alert) or any(_matches(i, alert) for i in rules.ignore):
                continue
            value = _named(rule, alert, node_labels)
            if not value:
                return AlertHolds(_told(rule, alert))
            parts.setdefault((rule.by, value), _told(rule, alert))
    return AlertHolds(parts=parts)


def _matches(patterns: Mapping[str, str], alert: Mapping[str, str]) -> bool:
    return all(re.fullmatch(p, alert.get(label, "")) for label, p in patterns.items())


def _named(rule: AlertRule, alert: Mapping[str, str], node_labels: Sequence[str]) -> str:
    """The node, rack or the like that the alert names; empty: the whole fleet."""
    if rule.by == "fleet":
        return ""
    if rule.label:
        value = alert.get(rule.label, "")
    elif rule.by == "node":
        value = next((alert[x] for x in node_labels if alert.get(x)), "")
    else:
        value = alert.get(rule.by, "")
    return value.partition(":")[0] if rule.by == "node" else value  # `instance` may have a port


def _told(rule: AlertRule, alert: Mapping[str, str]) -> str:
    where = {k: v for k, v in sorted(alert.items()) if k in ("node", "instance", "pool", "rack")}
    told = ", ".join(f"{k}={v}" for k, v in where.items())
    why = f": {rule.reason}" if rule.reason else ""
    return f"alert {alert.get('alertname', '?')} fires" + (f" ({told})" if told else "") + why
