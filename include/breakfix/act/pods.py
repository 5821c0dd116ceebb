"""The manifests of the pods that repair and validate: pinned to their node, bounded in time.

`spec.nodeName` goes past the scheduler (a cordoned node takes no scheduled pod); the tolerations
keep the taints that are there, ours and the node controller's, from removing the pod again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from breakfix.act import marks
from breakfix.model import Case, Node

#: nvidia-smi's names for a GPU: index, UUID or PCI bus id. Anything else could be an option.
_GPU_ID = re.compile(r"^(\d{1,3}|GPU-[0-9a-fA-F-]{8,40}|[0-9a-fA-F]{4,8}:[0-9a-fA-F:.]{4,10})$")
_ON_HOST = ["nsenter", "-t", "1", "-m", "-u", "-i", "-n", "-p", "--"]
BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"
_SHARED_MEMORY = "/dev/shm"  # noqa: S108 - a mount point in a container of ours
#: Exit code of a reboot or reset pod that found another boot id than expected: it did nothing.
REBOOTED_ALREADY = 75
#: Longest time a diag may take by level; NVIDIA gives seconds, 2 min, 15 min and 1-2 h for 8 GPUs.
DIAG_DEADLINE_S = {1: 300, 2: 900, 3: 2700, 4: 10800}


@dataclass(frozen=True, slots=True)
class PodSettings:
    """Where our pods run and what from. `plugin_labels`: any one of them marks a device plugin."""

    namespace: str = "breakfix"
    repair_image: str = "ubuntu:24.04"
    diag_image: str = "nvcr.io/nvidia/cloud-native/dcgm:4.6.0-1-ubuntu24.04"
    nccl_image: str = ""  # empty: that check is not run
    nvbandwidth_image: str = ""
    deadline_s: int = 900
    gpu_resource: str = "nvidia.com/gpu"
    plugin_labels: tuple[tuple[str, str], ...] = (
        ("app", "nvidia-device-plugin-daemonset"),
        ("app.kubernetes.io/name", "nvidia-device-plugin"),
    )


def pod_name(case_id: str, step: str) -> str:
    """The one name of a step's pod, so that a second creation finds the first."""
    return re.sub(r"[^a-z0-9-]+", "-", f"breakfix-{case_id}-{step}".lower())[:63].rstrip("-")


def check_gpus(gpus: Sequence[str]) -> None:
    """ValueError for a name that nvidia-smi could read as an option."""
    odd = [g for g in gpus if not _GPU_ID.match(g)]
    if odd:
        raise ValueError(f"not a GPU index, UUID or bus id: {odd[0]!r}")


def reset_pod(
    case_id: str,
    step: str,
    node: Node,
    *,
    boot_id: str,
    gpus: Sequence[str],
    settings: PodSettings,
) -> dict[str, Any]:
    """Resets these GPUs (none: all) with the host's nvidia-smi, unless the node runs another boot
    than the expected one. ValueError for odd ids.
    """
    check_gpus(gpus)
    command = ["nvidia-smi", "--gpu-reset", *(["-i", ",".join(gpus)] if gpus else [])]
    return _in_boot(case_id, step, node, boot_id=boot_id, command=command, settings=settings)


def reboot_pod(
    case_id: str, step: str, node: Node, boot_id: str, settings: PodSettings
) -> dict[str, Any]:
    """Reboots the node through its init, unless it runs another boot than the expected one."""
    command = ["systemctl", "reboot"]
    return _in_boot(case_id, step, node, boot_id=boot_id, command=command, settings=settings)


def diag_pod(
    case: Case, step: str, node: Node, *, level: int, gpus: int, settings: PodSettings
) -> dict[str, Any]:
    """Runs DCGM's diagnostic over all GPUs; asking for all of them proves allocation as well.

    The image brings its own host engine; the JSON goes to the log, the exit status is dcgmi's.
    """
    script = f"nv-hostengine >/dev/null 2>&1; exec dcgmi diag -r {level} -j"
    manifest = _pod(case.id, step, node, ["sh", "-c", script], settings)
    manifest["spec"]["activeDeadlineSeconds"] = DIAG_DEADLINE_S[level]
    container = manifest["spec"]["containers"][0]
    container["image"] = settings.diag_image
    container["resources"] = {"limits": {settings.gpu_resource: str(gpus)}}
    container["securityContext"] = {"capabilities": {"add": ["SYS_ADMIN"]}}  # profiling counters
    return manifest


def _in_boot(
    case_id: str,
    step: str,
    node: Node,
    *,
    boot_id: str,
    command: list[str],
    settings: PodSettings,
) -> dict[str, Any]:
    """On the host, and only in that boot: a pod whose image came late finds another world."""
    script = (
        f'grep -qFx "$EXPECTED_BOOT_ID" {BOOT_ID_FILE} || exit {REBOOTED_ALREADY}; '
        f"{shlex.join([*_ON_HOST, *command])}"
    )
    manifest = _on_host(case_id, step, node, ["sh", "-c", script], settings)
    env = [{"name": "EXPECTED_BOOT_ID", "value": boot_id}]
    manifest["spec"]["containers"][0]["env"] = env
    return manifest


def _on_host(
    case_id: str, step: str, node: Node, command: list[str], settings: PodSettings
) -> dict[str, Any]:
    manifest = _pod(case_id, step, node, command, settings)
    manifest["spec"]["hostPID"] = True
    manifest["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    return manifest


def _pod(
    case_id: str, step: str, node: Node, command: list[str], settings: PodSettings
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": pod_name(case_id, step),
            "namespace": settings.namespace,
            "labels": {
                "app.kubernetes.io/managed-by": "breakfix",
                marks.CASE: case_id,
                "breakfix.dev/step": re.sub(r"[^A-Za-z0-9_.-]", "-", step)[:63],
            },
        },
        "spec": {
            "nodeName": node.name,
            "restartPolicy": "Never",
            "activeDeadlineSeconds": settings.deadline_s,
            "terminationGracePeriodSeconds": 5,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "tolerations": _tolerations(settings),
            "containers": [
                {"name": "main", "image": settings.repair_image, "command": command},
            ],
        },
    }


def _tolerations(settings: PodSettings) -> list[dict[str, str]]:
    keys = (
        marks.TAINT,
        settings.gpu_resource,
        "node.kubernetes.io/unschedulable",
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    )
    return [{"key": key, "operator": "Exists"} for key in keys]


def nccl_pod(
    case: Case, step: str, node: Node, *, gpus: int, deadline_s: int, settings: PodSettings
) -> dict[str, Any]:
    """An all-reduce over all GPUs of the node; the log tells NCCL's version and whether it has
    NVLink SHARP.
    """
    command = ["all_reduce_perf", "-b", "16G", "-e", "16G", "-f", "2", "-g", str(gpus)]
    manifest = _pod(case.id, step, node, command, settings)
    _put_load(manifest, settings.nccl_image, gpus, deadline_s, settings.gpu_resource)
    manifest["spec"]["containers"][0]["env"] = [
        {"name": "NCCL_DEBUG", "value": "INFO"},
        {"name": "NCCL_DEBUG_SUBSYS", "value": "INIT,NVLS"},
    ]
    return manifest


def nvbandwidth_pod(
    case: Case,
    step: str,
    node: Node,
    *,
    gpus: int,
    tests: Sequence[str],
    deadline_s: int,
    settings: PodSettings,
) -> dict[str, Any]:
    """Copies between the host and each GPU, and between each pair of GPUs; its result is JSON."""
    manifest = _pod(case.id, step, node, ["nvbandwidth", "-j", "-t", *tests], settings)
    _put_load(manifest, settings.nvbandwidth_image, gpus, deadline_s, settings.gpu_resource)
    return manifest


def _put_load(
    manifest: dict[str, Any], image: str, gpus: int, deadline_s: int, gpu_resource: str
) -> None:
    """All GPUs, and shared memory of its own for what the ranks exchange through the host."""
    spec, container = manifest["spec"], manifest["spec"]["containers"][0]
    spec["activeDeadlineSeconds"] = deadline_s
    spec["volumes"] = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    container["image"] = image
    container["resources"] = {"limits": {gpu_resource: str(gpus)}}
    container["volumeMounts"] = [{"name": "shm", "mountPath": _SHARED_MEMORY}]
