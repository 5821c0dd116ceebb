"""Content negotiation: in which form an answer goes out."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from simfleet.kube.errors import not_acceptable

JSON = "application/json"
_SERVED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
_WATCHED = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class Form(StrEnum):
    """The forms of an object or list."""

    OBJECT = "object"
    YAML = "yaml"
    TABLE = "table"
    PARTIAL = "partial"
    PARTIAL_LIST = "partial list"


@dataclass(slots=True)
class Answer:
    """What a handler gives back: a body as JSON value or as bytes, and headers."""

    body: Any
    code: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    content_type: str = JSON


def negotiate(accept: str) -> Form:
    """The first form asked for that is served. Raises ApiError 406.

    Protobuf alone is not served; asked together with JSON, clients get JSON.
    """
    transforms = False
    for offer in (accept or "*/*").split(","):
        media, *parameters = [part.strip() for part in offer.split(";")]
        wanted = dict(one.split("=", 1) for one in parameters if "=" in one)
        if media not in (JSON, "application/yaml", "*/*", "application/*"):
            continue
        if "as" not in wanted:
            return Form.YAML if media == "application/yaml" else Form.OBJECT
        transforms = True
        if form := _transform(wanted):
            return form
    if transforms:
        raise not_acceptable(f"only the following media types are accepted: {_SERVED}")
    text = f"406: Not Acceptable\n\nAvailable representations: {_SERVED}, {_WATCHED}"
    raise not_acceptable(text, details=True)


def _transform(wanted: dict[str, str]) -> Form | None:
    if wanted.get("g") == "apidiscovery.k8s.io":
        return Form.OBJECT
    if wanted.get("g") != "meta.k8s.io" or wanted.get("v") not in ("v1", "v1beta1"):
        return None
    return {
        "Table": Form.TABLE,
        "PartialObjectMetadata": Form.PARTIAL,
        "PartialObjectMetadataList": Form.PARTIAL_LIST,
    }.get(wanted["as"])


def wants_aggregated(accept: str) -> bool:
    """Whether a client asks for aggregated discovery."""
    return "as=APIGroupDiscoveryList" in accept and "v=v2" in accept
