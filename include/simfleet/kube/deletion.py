"""How objects end: grace periods, finalizers, preconditions, dependents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from simfleet.clock import rfc3339
from simfleet.kube import errors, validation
from simfleet.kube.kinds import BY_NAME, NAMESPACE, POD, Kind
from simfleet.kube.store import Obj, Store

FINISHED = ("Succeeded", "Failed")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """The options of a delete, from its query and body."""

    grace_s: int | None = None
    uid: str | None = None
    version: str | None = None
    propagation: str = "Background"
    dry_run: bool = False


def read_options(raw: Mapping[str, Any], *, dry_run: bool) -> DeleteOptions:
    """Check raw delete options. Raises ApiError 422."""
    causes = validation.check_delete_options(raw)
    if causes:
        raise errors.invalid_options("DeleteOptions", causes)
    wanted = raw.get("preconditions") or {}
    grace = raw.get("gracePeriodSeconds")
    return DeleteOptions(
        grace_s=None if grace is None else int(grace),
        uid=wanted.get("uid"),
        version=wanted.get("resourceVersion"),
        propagation=raw.get("propagationPolicy") or "Background",
        dry_run=dry_run,
    )


def check_preconditions(kind: Kind, obj: Obj, options: DeleteOptions) -> None:
    """Raise ApiError 409 when the object is not the one that was meant."""
    metadata = obj["metadata"]
    if options.uid is not None and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record "
            f"({metadata['uid']}). The object might have been deleted and then recreated"
        )
        raise errors.precondition_failed(kind, metadata["name"], why)
    if options.version is not None and options.version != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.version}) does not match the "
            f"ResourceVersion in record ({metadata['resourceVersion']}). "
            "The object might have been modified"
        )
        raise errors.precondition_failed(kind, metadata["name"], why)


def delete(store: Store, kind: Kind, obj: Obj, options: DeleteOptions) -> Obj:
    """Delete an object, or mark it where grace or finalizers hold it. Returns its new state."""
    check_preconditions(kind, obj, options)
    if kind is POD:
        return _delete_pod(store, obj, options)
    if kind is NAMESPACE:
        return _mark_namespace(store, obj, options)
    finalizers = list(obj["metadata"].get("finalizers", []))
    if options.propagation == "Orphan":
        finalizers.append("orphan")
    if finalizers:
        if options.dry_run or "deletionTimestamp" in obj["metadata"]:
            return obj
        return store.replace(kind, obj, _marked(store, obj, 0))
    return obj if options.dry_run else store.remove(kind, obj, obj)


def _marked(store: Store, obj: Obj, grace_s: int) -> Obj:
    when = store.clock.now() + timedelta(seconds=grace_s)
    marks = {"deletionTimestamp": rfc3339(when), "deletionGracePeriodSeconds": grace_s}
    return obj | {"metadata": obj["metadata"] | marks}


def _mark_namespace(store: Store, obj: Obj, options: DeleteOptions) -> Obj:
    if "deletionTimestamp" in obj["metadata"]:
        return obj
    metadata = obj["metadata"] | {"deletionTimestamp": store.timestamp()}
    status = obj.get("status", {}) | {"phase": "Terminating"}
    marked = obj | {"metadata": metadata, "status": status}
    return marked if options.dry_run else store.replace(NAMESPACE, obj, marked)


def grace_of(pod: Obj, asked_s: int | None) -> int:
    """The grace a pod gets: none when it is unbound or finished, 1 second for a negative one."""
    if not pod.get("spec", {}).get("nodeName") or pod["status"].get("phase") in FINISHED:
        return 0
    wanted = pod["spec"].get("terminationGracePeriodSeconds", 30) if asked_s is None else asked_s
    return 1 if wanted < 0 else int(wanted)


def _delete_pod(store: Store, pod: Obj, options: DeleteOptions) -> Obj:
    grace_s = grace_of(pod, options.grace_s)
    left_s = pod["metadata"].get("deletionGracePeriodSeconds")
    if left_s is not None and grace_s >= left_s and grace_s > 0:
        return pod
    marked = _marked(store, pod, grace_s)
    if options.dry_run:
        return store.successor(POD, pod, marked)
    if grace_s > 0 or pod["metadata"].get("finalizers"):
        return store.replace(POD, pod, marked)
    # The API server writes the end of the grace first and removes the pod then: two events.
    last = store.mark(POD, pod, marked)
    return store.remove(POD, last, last)


def finish_pod(store: Store, namespace: str, name: str, uid: str) -> None:
    """The kubelet confirms that a pod's containers have ended; a pod gone or new is left alone."""
    pod = store.find("Pod", namespace, name)
    if pod is not None and pod["metadata"]["uid"] == uid:
        delete(store, POD, pod, DeleteOptions(grace_s=0))


def dependents(store: Store, uid: str) -> list[tuple[Kind, Obj]]:
    """Objects owned by a uid."""
    return [
        (kind, obj)
        for kind in (BY_NAME["Pod"], BY_NAME["ReplicaSet"])
        for obj in list(store.objects(kind.kind))
        if any(one["uid"] == uid for one in obj["metadata"].get("ownerReferences", []))
    ]
