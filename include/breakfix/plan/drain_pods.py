"""Which pods a drain takes: `kubectl drain --ignore-daemonsets`, pod by pod, every reason kept.

The order of the questions is kubectl's (1.36): DaemonSet, mirror, local storage, no controller. It
matters: a finished pod of a DaemonSet is evicted, a mirror pod is skipped whatever its volumes. Two
differences, both on purpose:

- kubectl refuses any emptyDir without `--delete-emptydir-data`, whatever its medium. Memory-backed
  ones are lost at any restart of the node anyway, so they may go; the decision warns of it.
- kubectl stops at the first filter that refuses, and drops all but the last warning. Here all stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from breakfix.model import Owner, Pod, PodAction, PodDecision


@dataclass(frozen=True, slots=True)
class _Rules:
    daemon_sets: frozenset[tuple[str, str]]
    allow_disk_empty_dir: bool
    allow_unmanaged: bool


def decide_pods(
    pods: Iterable[Pod],
    *,
    daemon_sets: frozenset[tuple[str, str]],
    allow_disk_empty_dir: bool,
    allow_unmanaged: bool,
) -> list[PodDecision]:
    """One decision per pod, in the order given.

    `daemon_sets` are the (namespace, name) that exist. The two `allow_` flags are kubectl's
    `--delete-emptydir-data` and `--force`.
    """
    rules = _Rules(daemon_sets, allow_disk_empty_dir, allow_unmanaged)
    return [_decide(pod, rules) for pod in pods]


def _decide(pod: Pod, rules: _Rules) -> PodDecision:
    refusals: list[str] = []
    warnings: list[str] = []
    owner = pod.controller
    if owner is not None and owner.kind == "DaemonSet" and not pod.is_finished:
        if (pod.namespace, owner.name) in rules.daemon_sets:
            return _decision(pod, PodAction.SKIP, "managed by a DaemonSet", warnings)
        _orphan(pod, owner, rules, refusals, warnings)
    if pod.is_mirror and not refusals:
        return _decision(pod, PodAction.SKIP, "static pod of the kubelet", warnings)
    if not pod.is_finished:
        _local_storage(pod, rules, refusals, warnings)
        _no_controller(owner, rules, refusals, warnings)
    if pod.is_terminating:
        warnings.append("is terminating already")
    if refusals:
        return _decision(pod, PodAction.REFUSE, "; ".join(refusals), warnings)
    reason = "finished" if pod.is_finished else "; ".join(warnings) or "recreated by its controller"
    return _decision(pod, PodAction.EVICT, reason, warnings)


def _orphan(
    pod: Pod, owner: Owner, rules: _Rules, refusals: list[str], warnings: list[str]
) -> None:
    """Its DaemonSet is gone: nothing brings it back, so it goes only by force."""
    text = f"its DaemonSet {pod.namespace}/{owner.name} does not exist"
    if rules.allow_unmanaged:
        warnings.append(text)
    else:
        refusals.append(f"{text} (--force evicts it)")


def _local_storage(pod: Pod, rules: _Rules, refusals: list[str], warnings: list[str]) -> None:
    if pod.has_disk_empty_dir:
        if rules.allow_disk_empty_dir:
            warnings.append("loses the data of its emptyDir")
        else:
            refusals.append("has data in an emptyDir on disk (--delete-emptydir-data evicts it)")
    if pod.has_memory_empty_dir:
        text = "loses a memory-backed emptyDir"
        if not rules.allow_disk_empty_dir:
            text += " (kubectl would ask for --delete-emptydir-data)"
        warnings.append(text)


def _no_controller(
    owner: Owner | None, rules: _Rules, refusals: list[str], warnings: list[str]
) -> None:
    if owner is not None:
        return
    if rules.allow_unmanaged:
        warnings.append("has no controller: nothing recreates it")
    else:
        refusals.append("has no controller that would recreate it (--force evicts it)")


def _decision(pod: Pod, action: PodAction, reason: str, warnings: list[str]) -> PodDecision:
    return PodDecision(
        pod.namespace,
        pod.name,
        pod.uid,
        action,
        reason,
        gpus=0 if pod.is_finished else pod.gpus,  # a finished pod holds none
        warnings=tuple(warnings),
    )
