"""`dcgmi diag`: which tests a level runs, what they find, as the JSON of DCGM 4.

Shape: `DCGM Diagnostic` > `test_categories` > `tests` > `results` per entity, a `test_summary`,
`entity_groups`, `metadata`; `runtime_error` alone when nothing ran (DCGM 4.6.0 result schema).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from simfleet.faults import Finding, Scope

if TYPE_CHECKING:
    from simfleet.machine import SimMachine

DCGM_VERSION = "4.6.0"
GPU_GROUP = 1
ISOLATE = 2
# Shell statuses of dcgmi: DCGM's own status below zero, modulo 256.
EXIT_OK = 0
EXIT_FAILED = 226  # NVVS_ERROR -30
EXIT_BUSY = 217  # DIAG_ALREADY_RUNNING -39
EXIT_ISOLATE = 205  # NVVS_ISOLATE_ERROR -51
EXIT_NO_HOST_ENGINE = 215  # DIAG_BAD_LAUNCH -41
IN_USE = Finding(2, "memory", 56, 4, 8, "GPU {gpu} is in use: not enough memory could be allocated")
# (level from which a test runs, category, test)
TESTS = (
    (1, "Deployment", "software"),
    (2, "Hardware", "memory"),
    (3, "Hardware", "diagnostic"),
    (3, "Hardware", "nvbandwidth"),
    (2, "Integration", "pcie"),
    (3, "Stress", "memory_bandwidth"),
    (3, "Stress", "targeted_stress"),
    (3, "Stress", "targeted_power"),
    (4, "Hardware", "memtest"),
    (4, "Hardware", "pulse_test"),
)
LEVELS = {
    "1": 1,
    "quick": 1,
    "short": 1,
    "2": 2,
    "medium": 2,
    "3": 3,
    "long": 3,
    "4": 4,
    "xlong": 4,
}


def findings_of(
    machine: SimMachine, level: int, own_uid: str = ""
) -> dict[tuple[str, int], Finding]:
    """What is found at this level: (test, GPU index) -> finding, from the faults that exist.

    GPUs held by the pod that runs the diagnostic itself (`own_uid`) are free for it.
    """
    found: dict[tuple[str, int], Finding] = {}
    if level >= IN_USE.level:
        others = (index for index, pod in machine.holders.items() if pod.uid != own_uid)
        found |= {("memory", index): IN_USE for index in others}
    for fault in machine.faults:
        finding = fault.kind.finding
        if finding is not None and finding.level <= level:
            on_card = fault.kind.scope is Scope.GPU
            found[finding.test, fault.options.gpu if on_card else 0] = finding
    return found


def run_diag(machine: SimMachine, level: int, own_uid: str = "") -> tuple[int, str]:
    """Exit code and JSON text of a diagnostic run on this machine now."""
    found = findings_of(machine, level, own_uid)
    categories: dict[str, list[dict[str, Any]]] = {}
    for from_level, category, test in TESTS:
        if level >= from_level:
            categories.setdefault(category, []).append(_test(machine, test, found))
    answer = {
        "DCGM Diagnostic": {
            "test_categories": [
                {"category": category, "tests": tests}
                for category, tests in sorted(categories.items())
            ]
        },
        "entity_groups": [_entities(machine)],
        "metadata": {
            "Driver Version Detected": machine.driver_version,
            "version": DCGM_VERSION,
        },
    }
    return exit_code(found), json.dumps(answer, indent=1)


def exit_code(found: Mapping[tuple[str, int], Finding]) -> int:
    """Shell status of dcgmi for these findings."""
    if not found:
        return EXIT_OK
    return EXIT_ISOLATE if any(f.severity == ISOLATE for f in found.values()) else EXIT_FAILED


def runtime_error(text: str) -> str:
    """The answer when no test could be run."""
    return json.dumps({"DCGM Diagnostic": {"runtime_error": text}}, indent=1)


def _test(
    machine: SimMachine, test: str, found: Mapping[tuple[str, int], Finding]
) -> dict[str, Any]:
    entities = {gpu.index for gpu in machine.gpus if gpu.on_bus}
    entities |= {index for name, index in found if name == test}
    results = [_result(index, found.get((test, index))) for index in sorted(entities)]
    warnings = [w for result in results for w in result.get("warnings", [])]
    summary: dict[str, Any] = {"status": "Fail" if warnings else "Pass"}
    if warnings:
        summary["warnings"] = warnings
    return {"name": test, "results": results, "test_summary": summary}


def _result(index: int, finding: Finding | None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "entity_group": "GPU",
        "entity_group_id": GPU_GROUP,
        "entity_id": index,
        "status": "Pass" if finding is None else "Fail",
    }
    if finding is not None:
        result["warnings"] = [
            {
                "error_category": finding.category,
                "error_id": finding.error_id,
                "error_severity": finding.severity,
                "warning": finding.text.format(gpu=index),
            }
        ]
    return result


def _entities(machine: SimMachine) -> dict[str, Any]:
    return {
        "entities": [
            {"device_id": gpu.sku.device_id, "entity_id": gpu.index, "serial_num": gpu.serial}
            for gpu in machine.gpus
            if gpu.on_bus
        ],
        "entity_group": "GPU",
        "entity_group_id": GPU_GROUP,
    }
