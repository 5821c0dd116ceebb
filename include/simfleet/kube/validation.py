"""The rules an object must keep, with the API server's words for what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from simfleet.kube import defaults
from simfleet.kube.errors import ApiError, Cause, Causes, invalid
from simfleet.kube.kinds import Kind
from simfleet.kube.store import Obj

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_NAME_PART = re.compile(r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]")
_CONFIG_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_BAD_NAME = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_BAD_LABEL = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value', "
    " or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_BAD_NAME_PART = (
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for "
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
_BAD_CONFIG_KEY = (
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
    "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')"
)
_POD_UPDATE = (
    "pod updates may not change fields other than `spec.containers[*].image`,"
    "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only "
    "additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set "
    "to 1 if it was previously negative)"
)


def _quoted(value: Any) -> str:
    return json.dumps(value)


def check_create(kind: Kind, obj: Obj) -> None:
    """Raise ApiError 422 when a new object breaks a rule."""
    causes = Causes()
    _name(obj["metadata"], causes)
    _labels(obj["metadata"], causes)
    if kind.kind in _RULES:
        _RULES[kind.kind](obj, None, causes)
    if causes.found:
        raise invalid(kind, obj["metadata"].get("name", ""), causes.found)


def check_update(kind: Kind, old: Obj, new: Obj) -> None:
    """Raise ApiError 422 when a change breaks a rule."""
    causes = Causes()
    before, after = old["metadata"], new["metadata"]
    if after.get("uid") not in (None, before["uid"]):
        _twice(causes, "metadata.uid", _quoted(after["uid"]), "field is immutable")
    added = [one for one in after.get("finalizers", []) if one not in before.get("finalizers", [])]
    if "deletionTimestamp" in before and added:
        listed = ", ".join(_quoted(one) for one in added)
        text = (
            "no new finalizers can be added if the object is being deleted, "
            f"found new finalizers []string{{{listed}}}"
        )
        causes.forbidden("metadata.finalizers", text)
    # The server validates labels for the object and once more for its change.
    _labels(after, causes)
    _labels(after, causes)
    if kind.kind in _RULES:
        _RULES[kind.kind](new, old, causes)
    # The generic and the specific strategy of the server both validate metadata of updates.
    found = causes.found
    doubled = [
        one for one in found if one.field.startswith("metadata.") and "[kub" not in one.field
    ]
    if causes.found:
        raise invalid(kind, before["name"], [*found, *doubled] if len(doubled) > 0 else found)


def _twice(causes: Causes, path: str, value: str, text: str) -> None:
    causes.invalid(path, value, text)


def _name(metadata: Obj, causes: Causes) -> None:
    name = metadata.get("name", "")
    if not name and not metadata.get("generateName"):
        causes.required("metadata.name", "name or generateName is required")
    elif name and not _SUBDOMAIN.fullmatch(name):
        causes.invalid("metadata.name", _quoted(name), _BAD_NAME)


def _labels(metadata: Obj, causes: Causes) -> None:
    for value in (metadata.get("labels") or {}).values():
        if not _LABEL_VALUE.fullmatch(value):
            causes.invalid("metadata.labels", _quoted(value), _BAD_LABEL)


def _node(obj: Obj, _old: Obj | None, causes: Causes) -> None:
    seen: set[tuple[str, str]] = set()
    for at, taint in enumerate(obj.get("spec", {}).get("taints", [])):
        # The server reports taints under metadata, though they live in the spec.
        path = f"metadata.taints[{at}]"
        key, effect = taint.get("key", ""), taint.get("effect", "")
        _qualified_name(f"{path}.key", key, causes)
        if not effect:
            causes.required(f"{path}.effect")
        elif effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
            effects = ("NoSchedule", "PreferNoSchedule", "NoExecute")
            causes.unsupported(f"{path}.effect", _quoted(effect), effects)
        if (key, effect) in seen:
            shown = {"Key": key, "Value": taint.get("value", ""), "Effect": effect}
            text = json.dumps(shown | {"TimeAdded": taint.get("timeAdded")}, separators=(",", ":"))
            causes.duplicate(path, f"{text}: taints must be unique by key and effect pair")
        seen.add((key, effect))


def _qualified_name(path: str, name: str, causes: Causes) -> None:
    part = name.rpartition("/")[2]
    if not part:
        causes.invalid(path, _quoted(name), "name part must be non-empty")
    if not _NAME_PART.fullmatch(part):
        causes.invalid(path, _quoted(name), _BAD_NAME_PART)


def _pod(obj: Obj, old: Obj | None, causes: Causes) -> None:
    if old is not None:
        _pod_update(obj, old, causes)
        return
    containers = obj.get("spec", {}).get("containers", [])
    if not containers:
        causes.required("spec.containers")
    for at, container in enumerate(containers):
        resources = container.get("resources", {})
        limits = resources.get("limits", {})
        for name, value in resources.get("requests", {}).items():
            if "/" in name and value != limits.get(name):
                text = f"must be equal to {name} limit of {limits.get(name)}"
                causes.invalid(f"spec.containers[{at}].resources.requests", _quoted(value), text)


def _pod_update(obj: Obj, old: Obj, causes: Causes) -> None:
    mirror = defaults.MIRROR
    before, after = ((one["metadata"].get("annotations") or {}) for one in (old, obj))
    if before.get(mirror) != after.get(mirror):
        path = f"metadata.annotations[{mirror}]"
        causes.forbidden(path, "may not remove or update mirror pod annotation")
    if _fixed_part(obj["spec"]) != _fixed_part(old["spec"]):
        causes.forbidden("spec", _POD_UPDATE + _spec_difference(old["spec"], obj["spec"]))


def _fixed_part(spec: Obj) -> Obj:
    changeable = ("activeDeadlineSeconds", "tolerations", "containers", "initContainers")
    rest = {key: value for key, value in spec.items() if key not in changeable}
    for field in ("containers", "initContainers"):
        rest[field] = [
            {key: value for key, value in one.items() if key != "image"}
            for one in spec.get(field, [])
        ]
    return rest


def _spec_difference(old: Obj, new: Obj) -> str:
    changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    lines = [
        f"- {_quoted(key)}: {_quoted(old.get(key))}\n+ {_quoted(key)}: {_quoted(new.get(key))}"
        for key in changed
    ]
    return "\n" + "\n".join(lines) + "\n"


def _budget(obj: Obj, _old: Obj | None, causes: Causes) -> None:
    spec = obj.get("spec", {})
    if "minAvailable" in spec and "maxUnavailable" in spec:
        shown = {
            "MinAvailable": spec["minAvailable"],
            "Selector": spec.get("selector"),
            "MaxUnavailable": spec["maxUnavailable"],
            "UnhealthyPodEvictionPolicy": spec.get("unhealthyPodEvictionPolicy"),
        }
        text = json.dumps(shown, separators=(",", ":"))
        causes.invalid("spec", text, "minAvailable and maxUnavailable cannot be both set")
    policy = spec.get("unhealthyPodEvictionPolicy")
    known = ("AlwaysAllow", "IfHealthyBudget")
    if policy is not None and policy not in known:
        causes.unsupported("spec.unhealthyPodEvictionPolicy", _quoted(policy), known)


def _config_map(obj: Obj, old: Obj | None, causes: Causes) -> None:
    for field in ("data", "binaryData"):
        for key in obj.get(field, {}):
            if not _CONFIG_KEY.fullmatch(key):
                causes.invalid(f"{field}[{key}]", _quoted(key), _BAD_CONFIG_KEY)
    if old is None or not old.get("immutable"):
        return
    for field in ("immutable", "data", "binaryData"):
        if obj.get(field) != old.get(field):
            causes.forbidden(field, "field is immutable when `immutable` is set")


def _lease(obj: Obj, _old: Obj | None, causes: Causes) -> None:
    duration = obj.get("spec", {}).get("leaseDurationSeconds")
    if duration is not None and duration <= 0:
        causes.invalid("spec.leaseDurationSeconds", str(duration), "must be greater than 0")


def _event(obj: Obj, _old: Obj | None, causes: Causes) -> None:
    about = obj.get("involvedObject", {}).get("namespace", "")
    home = obj["metadata"].get("namespace", "")
    if about != (home if home != "default" or about else ""):
        text = "does not match event.namespace"
        causes.invalid("involvedObject.namespace", _quoted(about), text)


def _replica_set(obj: Obj, _old: Obj | None, causes: Causes) -> None:
    spec = obj.get("spec", {})
    labels = spec.get("template", {}).get("metadata", {}).get("labels") or {}
    wanted = (spec.get("selector") or {}).get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        text = "`selector` does not match template `labels`"
        shown = json.dumps(labels, separators=(",", ":"))
        causes.invalid("spec.template.metadata.labels", shown, text)


_RULES = {
    "Node": _node,
    "Pod": _pod,
    "PodDisruptionBudget": _budget,
    "ConfigMap": _config_map,
    "Lease": _lease,
    "Event": _event,
    "ReplicaSet": _replica_set,
    "DaemonSet": _replica_set,
}

PROPAGATION = ("Foreground", "Background", "Orphan", "nil")


def check_delete_options(options: Mapping[str, Any]) -> list[Cause]:
    """What is wrong with delete options."""
    causes = Causes()
    policy = options.get("propagationPolicy")
    if policy is not None and options.get("orphanDependents") is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        causes.invalid("propagationPolicy", _quoted(policy), text)
    elif policy is not None and policy not in PROPAGATION:
        causes.unsupported("propagationPolicy", _quoted(policy), PROPAGATION)
    return causes.found


__all__ = ["ApiError", "check_create", "check_delete_options", "check_update"]
