"""DELETE of one object and of a collection."""

from __future__ import annotations

from typing import Any

from simfleet.kube import bodies, deletion, errors, protobuf, reads, requests
from simfleet.kube.deletion import DeleteOptions
from simfleet.kube.forms import Answer
from simfleet.kube.kinds import BY_NAME, Kind
from simfleet.kube.reads import full
from simfleet.kube.requests import Incoming, is_dry_run
from simfleet.kube.store import Store


def _raw_options(content_type: str | None, body: bytes) -> dict[str, Any]:
    if not body:
        return {}
    if bodies.is_protobuf(content_type):
        return protobuf.delete_options(body)
    try:
        parsed = bodies.parse_json(body).value
    except ValueError as error:
        raise errors.bad_request(f"error decoding delete options: {error}") from error
    return dict(parsed or {})


def _options(incoming: Incoming) -> DeleteOptions:
    query = incoming.query
    raw = _raw_options(incoming.content_type, incoming.body)
    if "gracePeriodSeconds" in query:
        raw["gracePeriodSeconds"] = int(query["gracePeriodSeconds"])
    if "propagationPolicy" in query:
        raw["propagationPolicy"] = query["propagationPolicy"]
    dry = is_dry_run(incoming.dry_run or raw.get("dryRun") or [], "DeleteOptions")
    return deletion.read_options(raw, dry_run=dry)


def remove_one(store: Store, kind: Kind, incoming: Incoming) -> Answer:
    """DELETE of one object. Raises ApiError 404, 409, 422."""
    options, request = _options(incoming), incoming.request
    namespace = request.namespace if kind.namespaced else ""
    obj = store.find(kind.kind, namespace, request.name)
    if obj is None:
        raise errors.not_found(kind, request.name)
    left = deletion.delete(store, BY_NAME[kind.kind], obj, options)
    still_there = store.find(kind.kind, namespace, request.name)
    if kind.delete_returns_object or (still_there is not None and not options.dry_run):
        return Answer(full(kind, left))
    return Answer(_success(kind, request.name, obj["metadata"]["uid"]))


def _success(kind: Kind, name: str, uid: str) -> dict[str, Any]:
    details = {"name": name} | ({"group": kind.group} if kind.group else {})
    details |= {"kind": kind.plural, "uid": uid}
    base = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return base | {"details": details}


async def remove_collection(store: Store, kind: Kind, incoming: Incoming) -> Answer:
    """DELETE of what a selector matches; answers the list. Raises ApiError 400, 422."""
    options, request = _options(incoming), incoming.request
    wanted = requests.list_options(incoming.query, watch=False)
    namespace = request.namespace if kind.namespaced else ""
    page = await reads.list_page(store, kind, namespace, wanted, 0.0)
    for obj in page.items:
        deletion.delete(store, BY_NAME[kind.kind], obj, options)
    return Answer(reads.list_bytes(store, kind, page))
