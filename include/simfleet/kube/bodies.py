"""Reading request bodies: JSON or YAML, of the right kind, known fields."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from simfleet.kube import errors, schema
from simfleet.kube.errors import Causes
from simfleet.kube.kinds import Kind
from simfleet.kube.protobuf import CONTENT_TYPE as PROTOBUF
from simfleet.kube.store import Obj

_KNOWN = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
VALIDATION = ("", "Ignore", "Strict", "Warn")


class _Members(dict[str, Any]):
    """An object that remembers which of its keys came twice."""

    twice: list[str]


def _members(pairs: list[tuple[str, Any]]) -> _Members:
    made = _Members(pairs)
    seen: set[str] = set()
    made.twice = [key for key, _ in pairs if key in seen or seen.add(key)]  # type: ignore[func-returns-value]
    return made


def _duplicates(value: Any, path: str = "") -> list[str]:
    found: list[str] = []
    if isinstance(value, _Members):
        prefix = f"{path}." if path else ""
        found += [prefix + key for key in value.twice]
        for key, item in value.items():
            found += _duplicates(item, prefix + key)
    elif isinstance(value, list):
        for at, item in enumerate(value):
            found += _duplicates(item, f"{path}[{at}]")
    return found


@dataclass(slots=True)
class Parsed:
    """A JSON value and the keys that came twice in it."""

    value: Any
    duplicates: list[str] = field(default_factory=list)


def parse_json(body: bytes) -> Parsed:
    """Read JSON. Raises ValueError with the words of Go's decoder."""
    if not body.strip():
        raise ValueError("unexpected end of JSON input")
    try:
        value = json.loads(body, object_pairs_hook=_members)
    except json.JSONDecodeError as error:
        at = min(error.pos, len(body) - 1)
        character = body[at : at + 1].decode("latin-1")
        place = "object key string" if "property name" in error.msg else "value"
        raise ValueError(
            f"invalid character '{character}' looking for beginning of {place}"
        ) from error
    return Parsed(value, _duplicates(value))


def _object(parsed: Parsed) -> Parsed:
    if not isinstance(parsed.value, dict):
        raise ValueError("json: cannot unmarshal into Go value of type struct")  # noqa: TRY004
    return parsed


def media_type(content_type: str | None) -> str:
    """`application/json` of `application/json; charset=utf-8`."""
    return (content_type or "").partition(";")[0].strip()


def read(kind: Kind, content_type: str | None, body: bytes) -> Parsed:
    """The object in the body of a POST or PUT. Raises ApiError 400 or 415."""
    media = media_type(content_type)
    if media in ("application/yaml", "application/x-yaml"):
        return Parsed(yaml.safe_load(body))
    if media not in ("", "application/json", "*/*"):
        text = "the body of the request was in an unknown format"
        raise errors.unsupported_media(f"{text} - accepted media types include: {_KNOWN}")
    try:
        return _object(parse_json(body))
    except ValueError as error:
        shown = body.decode("utf-8", "replace") or "<empty>"
        text = f"couldn't get version/kind; json parse error: {error} ({shown})"
        message = f"the object provided is unrecognized (must be of type {kind.kind}): {text}"
        raise errors.bad_request(message) from error


def check_type(kind: Kind, obj: Mapping[str, Any], *, package: str = "core") -> None:
    """Raise ApiError 400 unless the body is of the kind the path names."""
    sent, version = obj.get("kind") or kind.kind, obj.get("apiVersion") or kind.api_version
    if sent != kind.kind:
        text = f"converting ({version}.{sent}) to ({package}.{kind.kind}): unknown conversion"
        version_text = f'{sent} in version "{version}" cannot be handled as a {kind.kind}: '
        raise errors.bad_request(version_text + text)
    if version != kind.api_version and version not in _also_known(kind):
        text = f'no kind "{sent}" is registered for version "{version}" in scheme '
        version_text = f'{sent} in version "{version}" cannot be handled as a {kind.kind}: '
        raise errors.bad_request(version_text + text + '"pkg/api/legacyscheme/scheme.go:30"')


def _also_known(kind: Kind) -> tuple[str, ...]:
    return ("policy/v1beta1",) if kind.kind == "Eviction" else ()


def field_validation(query: Mapping[str, str], options: str) -> str:
    """The checked `fieldValidation`, "Warn" by default. Raises ApiError 422."""
    wanted = query.get("fieldValidation", "")
    if wanted not in VALIDATION:
        causes = Causes()
        causes.unsupported("fieldValidation", f'"{wanted}"', VALIDATION)
        raise errors.invalid_options(options, causes.found)
    return wanted or "Warn"


def complaints(unknown: list[str], duplicates: list[str]) -> list[str]:
    """What strict decoding complains of."""
    found = [f'duplicate field "{path}"' for path in duplicates]
    return found + [f'unknown field "{path}"' for path in unknown]


def typed(kind: Kind, parsed: Parsed, validation: str) -> tuple[Obj, list[str]]:
    """The object of a POST or PUT, canonical, and warnings. Raises ApiError 400."""
    obj, reading = schema.canonical(kind.kind, parsed.value)
    prefix = f'{kind.kind} in version "{kind.version}" cannot be handled as a {kind.kind}: '
    if reading.wrong:
        raise errors.bad_request(prefix + reading.wrong[0])
    found = complaints(reading.unknown, parsed.duplicates)
    if found and validation == "Strict":
        raise errors.bad_request(f"{prefix}strict decoding error: {', '.join(found)}")
    return obj, found if validation == "Warn" else []


def is_protobuf(content_type: str | None) -> bool:
    """Whether the body is protobuf."""
    return media_type(content_type) == PROTOBUF
