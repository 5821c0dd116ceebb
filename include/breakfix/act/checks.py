"""Load on a repaired node: diagnostic and bandwidth tests, each a pod of ours that takes all GPUs.

A pod is found again by the name of its step, so that it is started once; what it proved is read
from its log and exit status, not from any task.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from breakfix.act import guard, pods, steps
from breakfix.act.guard import Acting, Expected
from breakfix.act.pods import PodSettings
from breakfix.model import Case, Node, Step, StepStatus


class LoadKind(StrEnum):
    """What can be run on all GPUs of a node."""

    DIAG = "diag"
    NCCL = "nccl"
    NVBANDWIDTH = "nvbandwidth"


@dataclass(frozen=True, slots=True)
class Load:
    """One run over so many GPUs: of a diagnostic at `level`, or of `tests` of nvbandwidth."""

    kind: LoadKind
    gpus: int
    level: int = 0
    tests: tuple[str, ...] = ()
    deadline_s: int = 900  # of the bandwidth pods; a diagnostic's is that of its level


def start_load(
    acting: Acting, case: Case, expected: Expected, settings: PodSettings, *, load: Load, name: str
) -> Step:
    """Begin the step, then create its pod unless it is there; a settled step is returned as it is.

    Raises Refused as every act does; a halt of disruption does not hold it.
    """
    node = guard.check(acting, case, name, replace(expected, is_recovery=True))
    manifest = _manifest(case, name, node, load, settings)
    meta = manifest["metadata"]
    pod = f"{meta['namespace']}/{meta['name']}"
    detail: dict[str, Any] = {"gpus": load.gpus, "boot_id": node.boot_id, "pod": pod}
    if load.level:
        detail["level"] = load.level
    step, _ = steps.begin(acting, case, name, detail)
    if step.status is StepStatus.DISPATCHED:
        acting.cluster.ensure_namespace(meta["namespace"])
        acting.cluster.create_pod(manifest)
    return step


def _manifest(
    case: Case, name: str, node: Node, load: Load, settings: PodSettings
) -> Mapping[str, Any]:
    gpus = load.gpus
    match load.kind:
        case LoadKind.DIAG:
            return pods.diag_pod(case, name, node, level=load.level, gpus=gpus, settings=settings)
        case LoadKind.NCCL:
            return pods.nccl_pod(
                case, name, node, gpus=gpus, deadline_s=load.deadline_s, settings=settings
            )
        case LoadKind.NVBANDWIDTH:
            return pods.nvbandwidth_pod(
                case,
                name,
                node,
                gpus=gpus,
                tests=load.tests,
                deadline_s=load.deadline_s,
                settings=settings,
            )
