"""What must exist before an object may: its namespace, a pod's ServiceAccount."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from simfleet.kube import defaults, errors
from simfleet.kube.errors import Cause
from simfleet.kube.kinds import BY_NAME, Kind
from simfleet.kube.store import Obj, Store


def check_namespace(store: Store, kind: Kind, namespace: str, metadata: Mapping[str, Any]) -> None:
    """Raise ApiError 404 or 403 unless the namespace takes new objects."""
    if not kind.namespaced:
        return
    home = store.find("Namespace", "", namespace)
    if home is None:
        raise errors.not_found(BY_NAME["Namespace"], namespace)
    if "deletionTimestamp" in home["metadata"]:
        name = metadata.get("name", "")
        text = (
            f"unable to create new content in namespace {namespace} because it is being terminated"
        )
        details = {"name": name, "kind": kind.plural, "causes": [_terminating(namespace)]}
        message = f'{kind.qualified_plural} "{name}" is forbidden: {text}'
        raise errors.ApiError(403, "Forbidden", message, details=details)


def _terminating(namespace: str) -> dict[str, str]:
    text = f"namespace {namespace} is being terminated"
    return Cause("metadata.namespace", text, "NamespaceTerminating").as_dict()


def check_account(store: Store, namespace: str, pod: Obj) -> None:
    """Raise ApiError 403 when the pod's ServiceAccount does not exist."""
    if defaults.MIRROR in (pod["metadata"].get("annotations") or {}):
        return
    account = pod.get("spec", {}).get("serviceAccountName", "default")
    if store.find("ServiceAccount", namespace, account) is not None:
        return
    name = pod["metadata"].get("name", "")
    text = f"error looking up service account {namespace}/{account}: "
    message = f'pods "{name}" is forbidden: {text}serviceaccount "{account}" not found'
    details = {"name": name, "kind": "pods"}
    raise errors.ApiError(403, "Forbidden", message, details=details)
