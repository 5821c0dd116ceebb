"""POST pods/NAME/eviction: deletion that respects disruption budgets."""

from __future__ import annotations

from typing import Any

from simfleet.clock import rfc3339
from simfleet.kube import deletion, errors, selectors
from simfleet.kube.deletion import DeleteOptions
from simfleet.kube.kinds import BUDGET, POD
from simfleet.kube.store import Obj, Store

_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
SUCCESS = {
    "kind": "Status",
    "apiVersion": "v1",
    "metadata": {},
    "status": "Success",
    "code": 201,
}
_TARGET = {
    "type": "DisruptionTarget",
    "status": "True",
    "lastProbeTime": None,
    "reason": "EvictionByEvictionAPI",
    "message": "Eviction API: evicting",
}


def is_ready(pod: Obj) -> bool:
    """Whether the pod's Ready condition is True."""
    conditions = pod.get("status", {}).get("conditions", [])
    return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)


def budgets_of(store: Store, pod: Obj) -> list[Obj]:
    """The budgets whose selector matches a pod."""
    metadata = pod["metadata"]
    found: list[Obj] = []
    for budget in store.list("PodDisruptionBudget", metadata["namespace"]):
        wanted = selectors.from_label_selector(budget.get("spec", {}).get("selector"))
        if wanted is not None and selectors.labels_match(wanted, metadata.get("labels")):
            found.append(budget)
    return found


def evict(store: Store, pod: Obj, options: DeleteOptions) -> None:
    """Evict a pod. Raises ApiError 409 (preconditions), 429 or 500 (two budgets)."""
    deletion.check_preconditions(POD, pod, options)
    if _is_free(pod):
        deletion.delete(store, POD, pod, options)
        return
    budgets = budgets_of(store, pod)
    if len(budgets) > 1:
        raise errors.internal_error(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource "
            "does not support."
        )
    if budgets and not _unhealthy_may_go(budgets[0], pod):
        _use_budget(store, budgets[0], pod, dry_run=options.dry_run)
    if options.dry_run:
        return
    if deletion.grace_of(pod, options.grace_s) > 0:
        pod = _mark_target(store, pod)
        # The mark is a write of ours: the caller's version check was done above.
        options = DeleteOptions(options.grace_s, options.uid, None, options.propagation)
    deletion.delete(store, POD, pod, options)


def _is_free(pod: Obj) -> bool:
    """Pending, finished and terminating pods are outside every budget."""
    phase = pod.get("status", {}).get("phase")
    return phase in ("Pending", *deletion.FINISHED) or "deletionTimestamp" in pod["metadata"]


def _unhealthy_may_go(budget: Obj, pod: Obj) -> bool:
    if is_ready(pod):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget["status"]
    desired: int = status.get("desiredHealthy", 0)
    return desired > 0 and status.get("currentHealthy", 0) >= desired


def _refusal(text: str, *, retry_after_s: int | None = None) -> errors.ApiError:
    details: dict[str, Any] = {"causes": [{"reason": "DisruptionBudget", "message": text}]}
    headers = {}
    if retry_after_s is not None:
        details["retryAfterSeconds"] = retry_after_s
        headers["Retry-After"] = str(retry_after_s)
    return errors.ApiError(429, "TooManyRequests", _REFUSED, details=details, headers=headers)


def _use_budget(store: Store, budget: Obj, pod: Obj, *, dry_run: bool) -> None:
    """Take one disruption from the budget, as the API server itself does. Raises ApiError 429."""
    name, status = budget["metadata"]["name"], budget["status"]
    if status.get("observedGeneration", 0) < budget["metadata"]["generation"]:
        text = f"The disruption budget {name} is still being processed by the server."
        raise _refusal(text, retry_after_s=10)
    if status["disruptionsAllowed"] <= 0:
        raise _refusal(_exhausted(name, status))
    if dry_run:
        return
    left = status["disruptionsAllowed"] - 1
    disrupted = status.get("disruptedPods", {}) | {
        pod["metadata"]["name"]: rfc3339(store.clock.now())
    }
    taken = status | {"disruptionsAllowed": left, "disruptedPods": disrupted}
    store.replace(BUDGET, budget, budget | {"status": taken})


def _exhausted(name: str, status: Obj) -> str:
    healthy, desired = status["currentHealthy"], status["desiredHealthy"]
    if healthy > desired:
        return f"The disruption budget {name} does not allow evicting pods currently"
    return f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"


def _mark_target(store: Store, pod: Obj) -> Obj:
    target = _TARGET | {"lastTransitionTime": store.timestamp()}
    conditions = [
        one for one in pod["status"].get("conditions", []) if one["type"] != target["type"]
    ]
    status = pod["status"] | {"conditions": [*conditions, target]}
    return store.replace(POD, pod, pod | {"status": status})
