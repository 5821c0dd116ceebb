"""The disruption controller: counts for each budget how many pods may go."""

from __future__ import annotations

import math
from datetime import timedelta

from simfleet.clock import parse_time
from simfleet.kube import evictions, selectors
from simfleet.kube.kinds import BUDGET
from simfleet.kube.store import Change, Obj, Store

# How long an evicted pod that did not go is still counted as going (the API server's value).
DISRUPTED_FOR = timedelta(minutes=2)


class BudgetCounter:
    """Recounts the budgets of every namespace where a pod, budget or ReplicaSet changed."""

    kinds = ("Pod", "PodDisruptionBudget", "ReplicaSet")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: set[str] = set()

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        self._dirty.add(change.namespace)

    def sync(self) -> None:
        """Recount what changed."""
        dirty, self._dirty = self._dirty, set()
        if not dirty:
            return
        for budget in list(self._store.objects("PodDisruptionBudget")):
            if budget["metadata"]["namespace"] in dirty:
                self.recount(budget)

    def recount(self, budget: Obj) -> None:
        """Write the status of one budget."""
        wanted = selectors.from_label_selector(budget["spec"].get("selector"))
        namespace = budget["metadata"]["namespace"]
        pods = [
            pod
            for pod in self._store.objects("Pod")
            if wanted is not None
            and pod["metadata"]["namespace"] == namespace
            and selectors.labels_match(wanted, pod["metadata"].get("labels"))
        ]
        self._write(budget, pods)

    def _write(self, budget: Obj, pods: list[Obj]) -> None:
        expected, desired, known = self._goal(budget["spec"], pods)
        disrupted = self._still_going(budget, pods)
        healthy = sum(
            1
            for pod in pods
            if evictions.is_ready(pod)
            and "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["name"] not in disrupted
        )
        allowed = max(0, healthy - desired) if known and expected > 0 else 0
        status = {
            "observedGeneration": budget["metadata"]["generation"],
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "conditions": [self._condition(budget, allowed)],
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        self._store.replace(BUDGET, budget, budget | {"status": status})

    def _goal(self, spec: Obj, pods: list[Obj]) -> tuple[int, int, bool]:
        """Pods expected, pods that must be healthy, and whether that could be worked out.

        A share or maxUnavailable needs the controllers' replica counts: over bare pods
        nothing is ever allowed.
        """
        floor = spec.get("minAvailable")
        if isinstance(floor, int):
            return len(pods), floor, True
        expected = self._replicas_behind(pods)
        if expected is None:
            return 0, 0, False
        if floor is not None:
            return expected, _share(floor, expected), True
        away = spec.get("maxUnavailable", 0)
        away = away if isinstance(away, int) else _share(away, expected)
        return expected, max(0, expected - away), True

    def _replicas_behind(self, pods: list[Obj]) -> int | None:
        owners: dict[str, int] = {}
        for pod in pods:
            name = next(
                (
                    one["name"]
                    for one in pod["metadata"].get("ownerReferences", [])
                    if one.get("controller") and one["kind"] == "ReplicaSet"
                ),
                "",
            )
            owner = self._store.find("ReplicaSet", pod["metadata"]["namespace"], name)
            if owner is None:
                return None
            owners[owner["metadata"]["uid"]] = owner["spec"].get("replicas", 1)
        return sum(owners.values())

    def _still_going(self, budget: Obj, pods: list[Obj]) -> dict[str, str]:
        now = self._store.clock.now()
        alive = {
            pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
        }
        return {
            name: since
            for name, since in budget["status"].get("disruptedPods", {}).items()
            if name in alive and now - parse_time(since) < DISRUPTED_FOR
        }

    def _condition(self, budget: Obj, allowed: int) -> Obj:
        status = "True" if allowed else "False"
        have: Obj = next(iter(budget["status"].get("conditions", [])), {})
        since = have.get("lastTransitionTime") if have.get("status") == status else None
        return {
            "type": "DisruptionAllowed",
            "status": status,
            "observedGeneration": budget["metadata"]["generation"],
            "lastTransitionTime": since or self._store.timestamp(),
            "reason": "SufficientPods" if allowed else "InsufficientPods",
            "message": "",
        }


def _share(text: str, whole: int) -> int:
    """`30%` of a number, rounded up."""
    return math.ceil(int(str(text).rstrip("%")) * whole / 100)
