"""node-exporter of one machine: the series that tell a sick host from a sick GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from simfleet.exposition import header, labels
from simfleet.gpu import wobble

if TYPE_CHECKING:
    from simfleet.machine import SimMachine

_GIB = 1024**3
IB_ACTIVE, IB_LINK_UP = 4, 5
IB_RATE_BYTES = 50_000_000_000  # 400 Gb/s


def render_node(machine: SimMachine) -> str:
    """The exporter's answer now."""
    now = machine.world.now()
    busy = bool(machine.holders)
    uptime = max(1.0, now - machine.boot_time)
    load = (40.0 if busy else 0.4) * (0.9 + 0.2 * wobble(machine.spec.name, now))
    used = 0.6 if busy else 0.04
    root = labels({"device": "/dev/nvme0n1p2", "fstype": "ext4", "mountpoint": "/"})
    families = [
        _family("node_boot_time_seconds", "gauge", "Node boot time, in unixtime.",
                {"": round(machine.boot_time, 3)}),
        _family("node_uname_info", "gauge", "Labeled system information.", {_uname(machine): 1}),
        _family("node_time_seconds", "gauge", "System time in seconds since epoch.", {"": now}),
        _family("node_load1", "gauge", "1m load average.", {"": load}),
        _family("node_memory_MemTotal_bytes", "gauge", "MemTotal_bytes.", {"": 2048 * _GIB}),
        _family("node_memory_MemAvailable_bytes", "gauge", "MemAvailable_bytes.",
                {"": int(2048 * _GIB * (1 - used))}),
        _family("node_memory_HardwareCorrupted_bytes", "gauge", "HardwareCorrupted_bytes.",
                {"": 0}),
        _family("node_filesystem_readonly", "gauge", "Filesystem read-only status.", {root: 0}),
        _family("node_filesystem_device_error", "gauge", "Error getting statistics.", {root: 0}),
        _family("node_filesystem_size_bytes", "gauge", "Size in bytes.", {root: 3500 * _GIB}),
        _family("node_filesystem_avail_bytes", "gauge", "Available bytes.", {root: 2600 * _GIB}),
        _family("node_cpu_seconds_total", "counter", "Seconds the CPUs spent in each mode.",
                {'cpu="0",mode="idle"': uptime * 0.7, 'cpu="0",mode="user"': uptime * 0.25}),
        _family("node_vmstat_oom_kill", "counter", "OOM kills.", {"": 0}),
        _family("node_edac_uncorrectable_errors_total", "counter",
                "Total uncorrectable memory errors.", {'controller="0"': 0}),
        _family("node_network_carrier", "gauge", "Network device carrier.", {'device="eth0"': 1}),
    ]  # fmt: skip
    return "".join([*families, *_infiniband(machine)])


def _uname(machine: SimMachine) -> str:
    return labels(
        {
            "domainname": "(none)",
            "machine": "x86_64",
            "nodename": machine.spec.name,
            "release": machine.spec.kernel_version,
            "sysname": "Linux",
            "version": "#1 SMP",
        }
    )


def _infiniband(machine: SimMachine) -> list[str]:
    if machine.spec.sku is None or not machine.spec.sku.nvlinks:
        return []
    ports = [f'device="mlx5_{i}",port="1"' for i in range(len(machine.gpus))]
    return [
        _family("node_infiniband_state_id", "gauge", "State of the port (4 = ACTIVE).",
                dict.fromkeys(ports, IB_ACTIVE)),
        _family("node_infiniband_physical_state_id", "gauge", "Physical state (5 = LinkUp).",
                dict.fromkeys(ports, IB_LINK_UP)),
        _family("node_infiniband_rate_bytes_per_second", "gauge", "Maximum signal rate.",
                dict.fromkeys(ports, IB_RATE_BYTES)),
        _family("node_infiniband_link_downed_total", "counter", "Link down events.",
                dict.fromkeys(ports, 0)),
    ]  # fmt: skip


def _family(name: str, kind: str, text: str, samples: dict[str, float]) -> str:
    lines = [
        f"{name}{{{pairs}}} {value}" if pairs else f"{name} {value}"
        for pairs, value in samples.items()
    ]
    return header(name, kind, text) + "\n".join(lines) + "\n"
