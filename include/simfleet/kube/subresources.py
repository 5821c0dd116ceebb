"""What is done through subresources other than status: evict, bind, log, token."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from simfleet.clock import rfc3339
from simfleet.kube import bodies, defaults, deletion, errors, evictions, podlogs
from simfleet.kube.auth import Tokens
from simfleet.kube.errors import Causes
from simfleet.kube.forms import Answer
from simfleet.kube.kinds import NAMESPACE, POD, Kind
from simfleet.kube.podlogs import LogOptions, PodLog
from simfleet.kube.requests import Incoming, RequestInfo, is_dry_run
from simfleet.kube.store import Obj, Store

EVICTION = Kind(kind="Eviction", plural="evictions", singular="eviction", group="policy")
BINDING = Kind(kind="Binding", plural="bindings", singular="binding")
TOKEN_REQUEST = Kind(
    kind="TokenRequest",
    plural="tokenrequests",
    singular="tokenrequest",
    group="authentication.k8s.io",
)
SHORTEST_TOKEN_S = 600
AUDIENCE = "https://kubernetes.default.svc.cluster.local"
LogReader = Callable[[Obj, str], PodLog]


def evict(store: Store, incoming: Incoming) -> Answer:
    """POST of an Eviction. Raises ApiError 400, 404, 409, 429, 500."""
    request = incoming.request
    parsed = bodies.read(EVICTION, incoming.content_type, incoming.body)
    obj: Mapping[str, Any] = parsed.value
    bodies.check_type(EVICTION, obj, package="policy")
    metadata = obj.get("metadata") or {}
    if metadata.get("namespace", request.namespace) != request.namespace:
        raise errors.bad_request(errors.OTHER_NAMESPACE)
    if store.find("Namespace", "", request.namespace) is None:
        raise errors.not_found(NAMESPACE, request.namespace)
    if metadata.get("name") != request.name:
        raise errors.bad_request("name in URL does not match name in Eviction object")
    raw = obj.get("deleteOptions") or {}
    dry = is_dry_run(incoming.dry_run or raw.get("dryRun") or [], "DeleteOptions")
    pod = store.get("Pod", request.namespace, request.name)
    evictions.evict(store, pod, deletion.read_options(raw, dry_run=dry))
    return Answer(evictions.SUCCESS, 201)


def bind(store: Store, namespace: str, name: str, node: str) -> Obj:
    """Bind a pod to a node, as a scheduler does. Raises ApiError 404 or 409."""
    pod = store.get("Pod", namespace, name)
    if already := pod["spec"].get("nodeName"):
        text = f'pod {name} is already assigned to node "{already}"'
        message = f'Operation cannot be fulfilled on pods/binding "{name}": {text}'
        details = {"name": name, "kind": "pods/binding"}
        raise errors.ApiError(409, "Conflict", message, details=details)
    metadata = dict(pod["metadata"])
    if target := store.find("Node", "", node):
        defaults.copy_topology(metadata, target)
    kept = [one for one in pod["status"].get("conditions", []) if one["type"] != "PodScheduled"]
    scheduled = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": store.timestamp(),
    }
    status = pod["status"] | {"conditions": [*kept, scheduled]}
    # A binding changes the spec without raising the generation.
    spec = pod["spec"] | {"nodeName": node}
    return store.rewrite(POD, pod, pod | {"metadata": metadata, "spec": spec, "status": status})


def post_binding(store: Store, incoming: Incoming) -> Answer:
    """POST of a Binding. Raises ApiError 400, 404, 409."""
    request = incoming.request
    parsed = bodies.read(BINDING, incoming.content_type, incoming.body)
    bodies.check_type(BINDING, parsed.value)
    bind(store, request.namespace, request.name, parsed.value["target"]["name"])
    return Answer(evictions.SUCCESS, 201)


def log(
    store: Store, request: RequestInfo, query: Mapping[str, str], read: LogReader
) -> tuple[PodLog, LogOptions] | None:
    """The log that is asked for; None for a pod without a node. Raises ApiError 400, 404, 422."""
    pod = store.get("Pod", request.namespace, request.name)
    tail = _tail(pod, query.get("tailLines"))
    names = [one["name"] for one in pod["spec"]["containers"]]
    container = query.get("container") or names[0]
    if container not in names:
        message = f"container {container} is not valid for pod {request.name}"
        raise errors.bad_request(message)
    if not pod["spec"].get("nodeName"):
        return None
    options = podlogs.read_options(query, tail, store.clock.now())
    return read(pod, container), options


def _tail(pod: Obj, text: str | None) -> int | None:
    if text is None:
        return None
    lines = int(text)
    if lines < 0:
        causes = Causes()
        causes.invalid("tailLines", text, "must be greater than or equal to 0")
        options = Kind(kind="PodLogOptions", plural="podlogoptions", singular="podlogoptions")
        raise errors.invalid(options, pod["metadata"]["name"], causes.found)
    return lines


def refuse_upgrade() -> Answer:
    """Exec and attach: there is no container to run anything in."""
    raise errors.bad_request("Upgrade request required")


def request_token(store: Store, tokens: Tokens, incoming: Incoming) -> Answer:
    """POST of a TokenRequest. Raises ApiError 404 or 422."""
    request = incoming.request
    account = store.get("ServiceAccount", request.namespace, request.name)
    spec = bodies.read(TOKEN_REQUEST, incoming.content_type, incoming.body).value.get("spec") or {}
    seconds = spec.get("expirationSeconds", 3600)
    if seconds < SHORTEST_TOKEN_S:
        causes = Causes()
        text = "may not specify a duration less than 10 minutes"
        causes.invalid("spec.expirationSeconds", str(seconds), text)
        group = TOKEN_REQUEST.group
        raise errors.invalid_options("TokenRequest", causes.found, group=group)
    uid, now = account["metadata"]["uid"], store.clock.now()
    token = tokens.issue(request.namespace, request.name, uid, str(uuid.uuid4()))
    ends = rfc3339(now + timedelta(seconds=seconds))
    made = {
        "kind": TOKEN_REQUEST.kind,
        "apiVersion": TOKEN_REQUEST.api_version,
        "metadata": {
            "name": request.name,
            "namespace": request.namespace,
            "uid": uid,
            "creationTimestamp": rfc3339(now),
        },
        "spec": {
            "audiences": spec.get("audiences") or [AUDIENCE],
            "expirationSeconds": seconds,
            "boundObjectRef": None,
        },
        "status": {"token": token, "expirationTimestamp": ends},
    }
    return Answer(made, 201)
