"""Event objects: the two shapes the API shows, and writing them."""

from __future__ import annotations

from typing import Any

from simfleet.clock import rfc3339_micro
from simfleet.kube.store import Obj, Store

# core/v1 name -> events.k8s.io/v1 name
_NEW_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_OLD_NAMES = {new: old for old, new in _NEW_NAMES.items()}
_MAY_BE_EMPTY = ("reportingController", "reportingInstance", "action", "note")


def as_new(obj: Obj) -> Obj:
    """A stored (core/v1) Event as events.k8s.io/v1 shows it."""
    made = {_NEW_NAMES.get(key, key): value for key, value in obj.items()}
    return {key: value for key, value in made.items() if value != "" or key not in _MAY_BE_EMPTY}


def as_core(obj: Obj) -> Obj:
    """An events.k8s.io/v1 Event as it is stored."""
    return {_OLD_NAMES.get(key, key): value for key, value in obj.items()}


def record(
    store: Store,
    kind: str,
    about: Obj,
    *,
    reason: str,
    message: str,
    component: str,
    warning: bool = False,
) -> Obj:
    """Write an Event about an object, as controllers do. Cluster-scoped ones go to `default`."""
    metadata = about["metadata"]
    namespace = metadata.get("namespace", "")
    involved = {"kind": kind, "namespace": namespace, "name": metadata["name"]}
    involved |= {
        "uid": metadata.get("uid", ""),
        "apiVersion": "apps/v1" if kind.endswith("Set") else "v1",
    }
    now = store.clock.now()
    obj: dict[str, Any] = {
        "metadata": {
            "name": f"{metadata['name']}.{int(now.timestamp() * 1e9) + store.version:x}",
            "namespace": namespace or "default",
        },
        "involvedObject": {key: value for key, value in involved.items() if value},
        "reason": reason,
        "message": message,
        "source": {"component": component},
        "firstTimestamp": store.timestamp(),
        "lastTimestamp": store.timestamp(),
        "count": 1,
        "type": "Warning" if warning else "Normal",
        "eventTime": None,
        "reportingComponent": component,
        "reportingInstance": "",
    }
    if component.endswith("scheduler"):
        stamps: Obj = {"firstTimestamp": None, "lastTimestamp": None, "source": {}}
        action = "Binding" if reason == "Scheduled" else "Scheduling"
        obj |= stamps | {"eventTime": rfc3339_micro(now), "action": action}
        obj["reportingInstance"] = f"{component}-simfleet"
        obj["involvedObject"] |= {"resourceVersion": metadata["resourceVersion"]}
        del obj["count"]
    return store.create("Event", obj)
