"""`all_reduce_perf` and `nvbandwidth`: what they print of a machine's links, as it is now.

Shapes: nccl-tests' table (its text output), nvbandwidth's `-j`. Healthy values are those that
others have published for eight GPUs of a SKU; one that nobody has is given what its links allow.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from simfleet.faults import Link

if TYPE_CHECKING:
    from simfleet.machine import SimMachine
    from simfleet.skus import Sku

NCCL_VERSION = "2.27.3+cuda12.9"
EXIT_FAILED = 1
# GB/s: bus bandwidth of an all-reduce over eight GPUs, and of a copy between two of them.
_MEASURED = {"h100": (481.3, 391.2), "h200": (480.1, 391.4), "a100": (234.9, 258.6)}
_OF_ONE_NVLINK = 21.0  # GB/s of all-reduce bus bandwidth that one link of the others adds
_OF_PCIE = {4: 24.6, 5: 55.1}  # copies between host and GPU on 16 lanes
_GENERATIONS_BY_LANES = 0.62  # of PCIe: what an all-reduce without NVLink gets


def all_reduce_perf(machine: SimMachine, gpus: int) -> tuple[int, str]:
    """Exit code and text of `all_reduce_perf -b 16G -e 16G -g <gpus>` on this machine now."""
    visible = [gpu for gpu in machine.gpus if gpu.on_bus]
    if gpus > len(visible):
        text = f"Invalid number of GPUs: {gpus} requested but only {len(visible)} were found."
        return EXIT_FAILED, f"{text}\nPlease check the number of processes and GPUs per process.\n"
    bus = _all_reduce(visible[0].sku) * machine.slowed(Link.NVLINK)
    algorithm = bus / (2 * (gpus - 1) / gpus) if gpus > 1 else bus
    size = 16 << 30
    took_us = size / (algorithm * 1000)
    has_nvls = visible[0].sku.key in {"h100", "h200", "b200", "gb200"}
    ranks = "".join(
        f"#  Rank {n:2d} Group  0 Pid     41 on {machine.spec.name} device {n:2d}"
        f" [{gpu.pci_bus_id}] {gpu.sku.model_name}\n"
        for n, gpu in enumerate(visible[:gpus])
    )
    side = f"{took_us:9.0f}  {algorithm:7.2f}  {bus:7.2f}      0"
    is_there = "available" if has_nvls else "not available"
    return 0, (
        f"# nThread 1 nGpus {gpus} minBytes {size} maxBytes {size} step: 2(factor)\n#\n"
        f"# Using devices\n{ranks}NCCL version {NCCL_VERSION}\n"
        f"{machine.spec.name}:41:58 [0] NCCL INFO NVLS multicast support is {is_there} on dev 0\n"
        "#\n#       size         count      type   redop    root     time   algbw   busbw #wrong\n"
        f" {size}    {size // 4}     float     sum      -1  {side}  {side}\n"
        f"# Out of bounds values : 0 OK\n# Avg bus bandwidth    : {bus:.2f}\n#\n"
    )


def _all_reduce(sku: Sku) -> float:
    if sku.key in _MEASURED:
        return _MEASURED[sku.key][0]
    if sku.nvlinks:
        return sku.nvlinks * _OF_ONE_NVLINK
    return _OF_PCIE[sku.pcie_gen] * _GENERATIONS_BY_LANES


def nvbandwidth(machine: SimMachine, tests: Sequence[str]) -> tuple[int, str]:
    """Exit code and JSON of `nvbandwidth -j -t <tests>` on this machine now."""
    visible = [gpu for gpu in machine.gpus if gpu.on_bus]
    if not visible:
        error = {"nvbandwidth": {"error": "No CUDA-capable device is detected"}}
        return EXIT_FAILED, json.dumps(error)
    host = [
        f"{_OF_PCIE[gpu.sku.pcie_gen] * machine.slowed(Link.PCIE, gpu.index):.2f}"
        for gpu in visible
    ]
    between = _between(machine)
    cases = [
        {
            "name": test,
            "status": "Passed",
            "bandwidth_description": "memcpy CE bandwidth (GB/s)",
            "bandwidth_matrix": between if test.startswith("device_to_device") else [host],
        }
        for test in tests
    ]
    found = {"Driver Version": machine.driver_version, "git_version": "v0.8", "testcases": cases}
    return 0, json.dumps({"nvbandwidth": found}, indent=1) + "\n"


def _between(machine: SimMachine) -> list[list[str]]:
    visible = [gpu for gpu in machine.gpus if gpu.on_bus]
    sku = visible[0].sku
    healthy = _MEASURED[sku.key][1] if sku.key in _MEASURED else _all_reduce(sku) * 0.8
    slow = {gpu.index: machine.slowed(Link.NVLINK, gpu.index) for gpu in visible}
    return [
        ["N/A" if a is b else f"{healthy * min(slow[a.index], slow[b.index]):.2f}" for b in visible]
        for a in visible
    ]
