"""Reviews: who am I, what may I, whose token is this."""

from __future__ import annotations

from typing import Any

from simfleet.kube import bodies, errors
from simfleet.kube.auth import Tokens, User
from simfleet.kube.errors import Causes
from simfleet.kube.forms import Answer
from simfleet.kube.kinds import Kind
from simfleet.kube.requests import Incoming
from simfleet.kube.store import Store
from simfleet.kube.subresources import AUDIENCE


def review(store: Store, tokens: Tokens, user: User, kind: Kind, incoming: Incoming) -> Answer:
    """Answer the POST of a review. Raises ApiError 400 or 422."""
    obj = bodies.read(kind, incoming.content_type, incoming.body).value
    base: dict[str, Any] = {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": {}}
    match kind.kind:
        case "SelfSubjectReview":
            base["metadata"] = {"creationTimestamp": store.timestamp()}
            return Answer(base | {"status": {"userInfo": user.info()}}, 201)
        case "TokenReview":
            return Answer(base | _token_review(tokens, obj.get("spec") or {}), 201)
    return Answer(base | _access_review(user, obj.get("spec") or {}), 201)


def _token_review(tokens: Tokens, spec: dict[str, Any]) -> dict[str, Any]:
    user = tokens.users.get(spec.get("token", ""))
    if user is None:
        return {"spec": spec, "status": {"user": {}}}
    status = {"authenticated": True, "user": user.info(), "audiences": [AUDIENCE]}
    return {"spec": spec, "status": status}


def _access_review(user: User, spec: dict[str, Any]) -> dict[str, Any]:
    wanted = spec.get("resourceAttributes")
    if wanted is None and spec.get("nonResourceAttributes") is None:
        causes = Causes()
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        causes.invalid("spec.resourceAttributes", "null", text)
        raise errors.invalid_options("", causes.found, group="authorization.k8s.io")
    wanted = wanted or {}
    resource = wanted.get("resource", "")
    if wanted.get("subresource"):
        resource += f"/{wanted['subresource']}"
    verb, namespace = wanted.get("verb", ""), wanted.get("namespace", "")
    allowed = user.may(verb, wanted.get("group", ""), resource, namespace)
    status: dict[str, Any] = {"allowed": allowed}
    if allowed and user.reason:
        status["reason"] = user.reason
    return {"spec": spec, "status": status}
