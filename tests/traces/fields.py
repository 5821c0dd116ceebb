"""Which fields a site exports together, and what a healthy GPU or node shows."""

from __future__ import annotations

from breakfix.replay.baseline import GROUPS, HEALTH

_GROUP_OF = {metric: group for group, metrics in GROUPS.items() for metric in metrics} | {
    HEALTH: "health",
    "DCGM_EXP_CLOCK_EVENTS_COUNT": "clock_events",
}

#: What a value returns to; any other metric to 0.
_HEALTHY = {
    "DCGM_FI_DEV_PCIE_LINK_WIDTH": 16.0,
    "DCGM_FI_DEV_PCIE_LINK_GEN": 5.0,
    "DCGM_FI_DEV_FABRIC_MANAGER_STATUS": 3.0,
    "node_infiniband_state_id": 4.0,
    "node_infiniband_physical_state_id": 5.0,
    "node_network_carrier": 1.0,
}


def group_of(metric: str) -> str | None:
    """The group of a GPU field; None: no such field, always exported."""
    return _GROUP_OF.get(metric)


def healthy(metric: str) -> float:
    """What a healthy node shows of a flag or state."""
    return _HEALTHY.get(metric, 0.0)
