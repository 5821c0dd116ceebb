"""The three patch formats the API takes: strategic merge, merge and JSON patch."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from simfleet.kube import schema

# Lists that a strategic patch merges, by (model, field): the key of their items; "" for lists
# of plain values, merged as sets. All other lists are replaced, `spec.taints` among them.
MERGE_KEYS = {
    ("V1ObjectMeta", "ownerReferences"): "uid",
    ("V1ObjectMeta", "finalizers"): "",
    ("V1NodeStatus", "conditions"): "type",
    ("V1NodeStatus", "addresses"): "type",
    ("V1NodeSpec", "podCIDRs"): "",
    ("V1PodStatus", "conditions"): "type",
    ("V1PodStatus", "podIPs"): "ip",
    ("V1PodStatus", "hostIPs"): "ip",
    ("V1PodSpec", "containers"): "name",
    ("V1PodSpec", "initContainers"): "name",
    ("V1PodSpec", "ephemeralContainers"): "name",
    ("V1PodSpec", "volumes"): "name",
    ("V1PodSpec", "imagePullSecrets"): "name",
    ("V1PodSpec", "hostAliases"): "ip",
    ("V1PodSpec", "topologySpreadConstraints"): "topologyKey",
    ("V1Container", "env"): "name",
    ("V1Container", "ports"): "containerPort",
    ("V1Container", "volumeMounts"): "mountPath",
    ("V1Container", "volumeDevices"): "devicePath",
    ("V1ReplicaSetStatus", "conditions"): "type",
    ("V1DaemonSetStatus", "conditions"): "type",
    ("V1PodDisruptionBudgetStatus", "conditions"): "type",
    ("V1NamespaceStatus", "conditions"): "type",
    ("V1ServiceAccount", "secrets"): "name",
}


class PatchFailed(Exception):
    """A JSON patch operation could not be done."""


class PatchMalformed(Exception):
    """The patch is not what its content type says; the text is for the client."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7386: objects merge, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    made = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            made.pop(key, None)
        else:
            made[key] = merge_patch(made.get(key), value)
    return made


def strategic_patch(kind: str, target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Merge with the merge keys of a kind; `$patch`, `$retainKeys` and friends understood."""
    return _strategic(schema.root_model(kind), target, patch)


def _strategic(model: str, target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    if patch.get("$patch") == "replace":
        return {key: value for key, value in patch.items() if key != "$patch"}
    if patch.get("$patch") == "delete":
        return {}
    made = dict(target)
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            name = key.split("/", 1)[1]
            made[name] = [item for item in made.get(name, []) if item not in value]
        elif key.startswith("$"):
            continue
        elif value is None:
            made.pop(key, None)
        else:
            made[key] = _strategic_field(model, key, made.get(key), value)
    if "$retainKeys" in patch:
        made = {key: value for key, value in made.items() if key in patch["$retainKeys"]}
    return made


def _strategic_field(model: str, name: str, target: Any, patch: Any) -> Any:
    known = schema.fields_of(model).get(name) if model else None
    inner = known.type if known else ""
    if isinstance(patch, dict):
        nested = inner if inner.startswith("V1") else ""
        return _strategic(nested, target if isinstance(target, dict) else {}, patch)
    merge_key = MERGE_KEYS.get((model, name))
    if not isinstance(patch, list) or merge_key is None:
        return patch
    have = list(target or [])
    if merge_key == "":
        return have + [item for item in patch if item not in have]
    return _merge_list(inner[5:-1], merge_key, have, patch)


def _merge_list(model: str, key: str, target: list[Any], patch: list[Any]) -> list[Any]:
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if item.get("$patch") != "replace"]
    made = list(target)
    fresh: list[Any] = []
    for item in patch:
        at = next((i for i, old in enumerate(made) if old.get(key) == item.get(key)), None)
        if item.get("$patch") == "delete":
            if at is not None:
                made.pop(at)
        elif at is None:
            fresh.append(_strategic(model, {}, item))
        else:
            made[at] = _strategic(model, made[at], item)
    # New items stand before those the server had, in the order of the patch.
    return fresh + made


def json_patch(target: Any, operations: list[Any]) -> Any:
    """RFC 6902, with the one liberty the API server takes: `replace` of an absent member adds it.

    Raises PatchFailed when an operation cannot be done or a test fails.
    """
    made = copy.deepcopy(target)
    for operation in operations:
        made = _operate(made, operation)
    return made


def _operate(doc: Any, operation: Any) -> Any:
    if not isinstance(operation, dict):
        raise PatchFailed("an operation is not an object")
    act = _OPERATIONS.get(str(operation.get("op")))
    if act is None:
        raise PatchFailed(f"unknown operation {operation.get('op')}")
    return act(doc, _pointer(operation.get("path")), operation)


def _test(doc: Any, path: list[str], operation: Any) -> Any:
    if _read(doc, path, absent_is_null=True) != operation.get("value"):
        raise PatchFailed("test failed")
    return doc


def _copy(doc: Any, path: list[str], operation: Any) -> Any:
    return _add(doc, path, copy.deepcopy(_read(doc, _pointer(operation.get("from")))))


def _move(doc: Any, path: list[str], operation: Any) -> Any:
    source = _pointer(operation.get("from"))
    value = _read(doc, source)
    return _add(_remove(doc, source), path, value)


_OPERATIONS: dict[str, Callable[[Any, list[str], Any], Any]] = {
    "test": _test,
    "add": lambda doc, path, operation: _add(doc, path, operation.get("value")),
    "remove": lambda doc, path, _: _remove(doc, path),
    "replace": lambda doc, path, operation: _replace(doc, path, operation.get("value")),
    "copy": _copy,
    "move": _move,
}


def _pointer(text: Any) -> list[str]:
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise PatchFailed(f"bad path {text}")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _parent(doc: Any, path: list[str]) -> Any:
    return _read(doc, path[:-1])


def _read(doc: Any, path: list[str], *, absent_is_null: bool = False) -> Any:
    for at, part in enumerate(path):
        last = at == len(path) - 1
        if isinstance(doc, list):
            doc = doc[_index(part, len(doc) - 1)]
        elif isinstance(doc, dict) and part in doc:
            doc = doc[part]
        elif isinstance(doc, dict) and last and absent_is_null:
            return None
        else:
            raise PatchFailed(f"no such path at {part}")
    return doc


def _index(part: str, highest: int) -> int:
    if not part.isdigit() or int(part) > highest:
        raise PatchFailed(f"bad index {part}")
    return int(part)


def _add(doc: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _parent(doc, path)
    if isinstance(parent, list):
        at = len(parent) if path[-1] == "-" else _index(path[-1], len(parent))
        parent.insert(at, value)
    elif isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        raise PatchFailed("the parent is no container")
    return doc


def _replace(doc: Any, path: list[str], value: Any) -> Any:
    parent = _parent(doc, path) if path else None
    if isinstance(parent, list):
        parent[_index(path[-1], len(parent) - 1)] = value
        return doc
    return _add(doc, path, value)


def _remove(doc: Any, path: list[str]) -> Any:
    if not path:
        raise PatchFailed("cannot remove the document")
    parent = _parent(doc, path)
    if isinstance(parent, list):
        parent.pop(_index(path[-1], len(parent) - 1))
    elif isinstance(parent, dict) and path[-1] in parent:
        del parent[path[-1]]
    else:
        raise PatchFailed(f"no such path {path}")
    return doc
