"""What the API says about itself: groups, resources, version."""

from __future__ import annotations

from typing import Any

from simfleet.kube.errors import ApiError, no_such_path, no_such_resource
from simfleet.kube.forms import AGGREGATED, Answer, wants_aggregated
from simfleet.kube.kinds import GROUPS, SERVED_KINDS, Kind

# The version of the recorded server; what it was built from stays in the recordings.
VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "0000000000000000000000000000000000000000",
    "gitTreeState": "clean",
    "buildDate": "2026-01-01T00:00:00Z",
    "goVersion": "go1.26.6",
    "compiler": "gc",
    "platform": "linux/amd64",
}
_BINDING = {
    "name": "bindings",
    "singularName": "binding",
    "namespaced": True,
    "kind": "Binding",
    "verbs": ["create"],
}


def _kinds(group: str) -> list[Kind]:
    found = [kind for kind in SERVED_KINDS if kind.group == group]
    return sorted(found, key=lambda kind: kind.plural)


def _entries(kind: Kind) -> list[dict[str, Any]]:
    main: dict[str, Any] = {
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.namespaced,
        "kind": kind.kind,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        main["shortNames"] = list(kind.short_names)
    if kind.categories:
        main["categories"] = list(kind.categories)
    if kind.storage_hash:
        main["storageVersionHash"] = kind.storage_hash
    made = [main]
    for sub in kind.subresources:
        entry: dict[str, Any] = {"name": f"{kind.plural}/{sub.name}", "singularName": ""}
        entry["namespaced"] = kind.namespaced
        if sub.group:
            entry |= {"group": sub.group, "version": sub.version}
        made.append(entry | {"kind": sub.kind, "verbs": list(sub.verbs)})
    return made


def resource_list(group: str) -> dict[str, Any]:
    """The resources of one group version."""
    version = f"{group}/v1" if group else "v1"
    base: dict[str, Any] = {"kind": "APIResourceList"}
    if group:
        base["apiVersion"] = "v1"
    resources = [entry for kind in _kinds(group) for entry in _entries(kind)]
    return base | {"groupVersion": version, "resources": resources}


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _aggregated_resource(kind: Kind) -> dict[str, Any]:
    made: dict[str, Any] = {
        "resource": kind.plural,
        "responseKind": {"group": "", "version": "", "kind": kind.kind},
        "scope": "Namespaced" if kind.namespaced else "Cluster",
        "singularResource": kind.singular,
        "verbs": list(kind.verbs),
    }
    if kind.short_names:
        made["shortNames"] = list(kind.short_names)
    if kind.categories:
        made["categories"] = list(kind.categories)
    if kind.subresources:
        made["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": list(sub.verbs),
            }
            for sub in kind.subresources
        ]
    return made


def _aggregated(groups: tuple[str, ...]) -> Answer:
    items = [
        {
            "metadata": {"name": group} if group else {},
            "versions": [
                {
                    "version": "v1",
                    "resources": [_aggregated_resource(kind) for kind in _kinds(group)],
                    "freshness": "Current",
                }
            ],
        }
        for group in groups
    ]
    body = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2"}
    return Answer(body | {"metadata": {}, "items": items}, content_type=AGGREGATED)


def answer(path: str, accept: str, host: str) -> Answer:
    """Answer a request for a path that is no resource. Raises ApiError 404."""
    parts = [part for part in path.split("/") if part]
    match parts:
        case ["version"]:
            return Answer(VERSION)
        case ["healthz" | "livez" | "readyz"]:
            return Answer(b"ok", content_type="text/plain; charset=utf-8")
        case ["api"]:
            return _aggregated(("",)) if wants_aggregated(accept) else Answer(_core(host))
        case ["apis"]:
            return _aggregated(GROUPS) if wants_aggregated(accept) else Answer(_group_list())
        case ["api", "v1"]:
            return Answer(resource_list(""))
        case ["apis", group] if group in GROUPS:
            return Answer({"kind": "APIGroup", "apiVersion": "v1"} | _group(group))
        case ["apis", group, "v1"] if group in GROUPS:
            return Answer(resource_list(group))
    raise _missing(parts)


def _missing(parts: list[str]) -> ApiError:
    known = parts[:1] == ["api"] or (parts[:1] == ["apis"] and parts[1:2] and parts[1] in GROUPS)
    return no_such_resource() if known else no_such_path()


def _core(host: str) -> dict[str, Any]:
    address = {"clientCIDR": "0.0.0.0/0", "serverAddress": host}
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [address]}


def _group_list() -> dict[str, Any]:
    groups = [_group(name) for name in GROUPS]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
