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


_OF_HOSTS = ("node_load", "node_memory_Mem", "node_vmstat", "node_filesystem_", "node_infiniband_")


def has_baseline(metric: str) -> bool:
    """Whether a healthy fleet shows it anyway, so that it can be changed by degrees."""
    return metric in _GROUP_OF or metric.startswith((*_OF_HOSTS, "node_boot_time"))
