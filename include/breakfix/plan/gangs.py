"""Pods that stop together: a training job on many nodes dies when one of them is drained. Pure.

A gang is known by the label or annotation that its controller puts on each pod, else by an owner
whose replicas only work together. Deployments are no gangs: each of their pods serves alone.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from breakfix.model import Pod

#: (name people know it by, label of its pods, second label that splits it into groups). In the
#: order they are believed: the widest thing that dies together first. Sources: the projects' own
#: API references (JobSet, Kubeflow training operator, LeaderWorkerSet, Kueue plain pod groups,
#: Grove, scheduler-plugins coscheduling, Volcano, KubeRay).
_LABELS = (
    ("JobSet", "jobset.sigs.k8s.io/jobset-name", ""),
    ("training job", "training.kubeflow.org/job-name", ""),
    ("MPIJob", "training.kubeflow.org/mpi-job-name", ""),
    ("PyTorchJob", "pytorch-job-name", ""),
    (
        "LeaderWorkerSet",
        "leaderworkerset.sigs.k8s.io/name",
        "leaderworkerset.sigs.k8s.io/group-index",
    ),
    ("Volcano job", "volcano.sh/job-name", ""),
    ("Kueue pod group", "kueue.x-k8s.io/pod-group-name", ""),
    ("PodGang", "grove.io/podgang", ""),
    ("pod group", "scheduling.x-k8s.io/pod-group", ""),
    ("pod group", "pod-group.scheduling.sigs.k8s.io", ""),  # coscheduling before v0.24
    ("Ray cluster", "ray.io/cluster", ""),
)
#: Volcano (and what speaks its API) and KAI name the PodGroup in an annotation; Kueue the Workload
#: that it admitted, and would suspend, as a whole.
_ANNOTATIONS = (
    ("pod group", "scheduling.k8s.io/group-name"),
    ("pod group", "scheduling.volcano.sh/group-name"),
    ("Kueue workload", "kueue.x-k8s.io/workload"),
    ("pod group", "pod-group-name"),
)
#: Controllers of which one pod's end is the end, or the halt, of all: the training operators', and
#: the replica group of a StatefulSet, whose members know each other by name.
_OWNERS = frozenset(
    {
        *("Job", "StatefulSet", "JobSet", "LeaderWorkerSet", "RayCluster", "PodClique"),
        *("PyTorchJob", "MPIJob", "TFJob", "JAXJob", "XGBoostJob", "PaddleJob", "TrainJob"),
    }
)


@dataclass(frozen=True, slots=True)
class Gang:
    """Live pods that stop together, wherever they run."""

    kind: str
    namespace: str
    name: str
    pods: int
    gpus: int
    nodes: frozenset[str]

    def __str__(self) -> str:
        return (
            f"{self.kind} {self.namespace}/{self.name}"
            f" ({self.pods} pods, {self.gpus} GPUs on {len(self.nodes)} nodes)"
        )


GangKey = tuple[str, str, str]  # kind, namespace, name


def gang_of(pod: Pod) -> GangKey | None:
    """Which gang a pod belongs to; None for one that serves alone."""
    for kind, label, split in _LABELS:
        if name := pod.labels.get(label):
            group = pod.labels.get(split, "") if split else ""
            return kind, pod.namespace, f"{name}-{group}" if group else name
    for kind, annotation in _ANNOTATIONS:
        if name := pod.annotations.get(annotation):
            return kind, pod.namespace, name
    owner = pod.controller
    if owner is not None and owner.kind in _OWNERS:
        return owner.kind, pod.namespace, owner.name
    return None


def gangs_by_key(pods: Iterable[Pod]) -> Mapping[GangKey, Gang]:
    """Every gang of the cluster that has a live pod. Pods that wait for a node count: they wait
    for the others.
    """
    members: dict[GangKey, list[Pod]] = defaultdict(list)
    for pod in pods:
        key = None if pod.is_finished else gang_of(pod)
        if key is not None:
            members[key].append(pod)
    return {
        key: Gang(
            *key,
            pods=len(of_key),
            gpus=sum(p.gpus for p in of_key),
            nodes=frozenset(p.node for p in of_key if p.node),
        )
        for key, of_key in members.items()
    }
