"""GET: one object, or a list with selectors, pages and versions."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import yaml

from simfleet.kube import errors, events, selectors, tables
from simfleet.kube.forms import JSON, Answer, Form
from simfleet.kube.kinds import NEW_EVENT, POD, Kind
from simfleet.kube.requests import ListOptions, RequestInfo
from simfleet.kube.store import Key, Obj, Store

FUTURE_WAIT_S = 3.0
ON_NODE = re.compile(r"spec\.nodeName==?([^,=!]+)")
_INCONSISTENT = (
    "The provided continue parameter is too old to display a consistent list result. You can "
    "start a new list without the continue parameter, or use the continue token in this response "
    "to retrieve the remainder of the results. Continuing with the provided token results in an "
    "inconsistent list - objects that were created, modified, or deleted between the time the "
    "first chunk was returned and now may show up in the list."
)
_encode = msgspec.json.encode


def stored_name(kind: Kind) -> str:
    """Under which name the store keeps a kind (both Event groups are one)."""
    return kind.kind


def view(kind: Kind, obj: Obj) -> Obj:
    """An object as its group shows it."""
    return events.as_new(obj) if kind is NEW_EVENT else obj


def full(kind: Kind, obj: Obj) -> Obj:
    """The object with kind and apiVersion."""
    return {"kind": kind.kind, "apiVersion": kind.api_version} | view(kind, obj)


def parse_version(text: str) -> int:
    """A resourceVersion as a number. Raises ValueError with the words of the server."""
    if not text.isdigit():
        raise ValueError(
            f'resourceVersion: Invalid value: "{text}": '
            f'strconv.ParseUint: parsing "{text}": invalid syntax'
        )
    return int(text)


async def wait_for_version(store: Store, wanted: int, wait_s: float) -> None:
    """Wait a little for a version that lies in the future. Raises ApiError 504."""
    deadline = asyncio.get_running_loop().time() + wait_s
    while store.version < wanted:
        if asyncio.get_running_loop().time() >= deadline:
            raise errors.version_too_large(wanted, store.version)
        await asyncio.sleep(min(0.05, wait_s))


async def get_object(
    store: Store, kind: Kind, request: RequestInfo, query: Mapping[str, str], wait_s: float
) -> Obj:
    """One object. Raises ApiError 404, 500 or 504."""
    if version := query.get("resourceVersion"):
        try:
            await wait_for_version(store, parse_version(version), wait_s)
        except ValueError as error:
            raise errors.internal_error(str(error)) from error
    found = store.find(
        stored_name(kind), request.namespace if kind.namespaced else "", request.name
    )
    if found is None:
        raise errors.not_found(kind, request.name)
    return found


def show(store: Store, kind: Kind, obj: Obj, form: Form, query: Mapping[str, str]) -> Answer:
    """An object in the form that was asked for. Raises ApiError 406 or 400."""
    match form:
        case Form.TABLE:
            include = included(query)
            made = tables.row(kind.kind, kind.api_version, obj, include, store.clock.now())
            version = {"resourceVersion": obj["metadata"].get("resourceVersion", "")}
            return Answer(tables.table(version, [made], kind.kind))
        case Form.PARTIAL:
            return Answer(tables.partial(tables.PARTIAL, obj))
        case Form.PARTIAL_LIST:
            raise errors.not_acceptable(
                "you requested PartialObjectMetadataList, but the requested object is not a list "
                f"(*core.{kind.kind})"
            )
        case Form.YAML:
            text = yaml.safe_dump(full(kind, obj), sort_keys=True).encode()
            return Answer(text, content_type="application/yaml")
    return Answer(full(kind, obj))


def included(query: Mapping[str, str]) -> str:
    """The checked `includeObject` of a Table request. Raises ApiError 400."""
    include = query.get("includeObject", "")
    if include not in ("", "Metadata", "Object", "None"):
        text = f'includeObject: Invalid value: "{include}": must be '
        text += "'Metadata', 'Object', 'None', or empty"
        raise errors.bad_request(f"Unable to convert to Table as requested: {text}")
    return include


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list: its objects, its version, and how to go on."""

    items: list[Obj]
    version: int
    continue_token: str = ""
    remaining: int | None = None

    def metadata(self) -> dict[str, Any]:
        """ListMeta."""
        made: dict[str, Any] = {"resourceVersion": str(self.version)}
        if self.continue_token:
            made["continue"] = self.continue_token
        if self.remaining is not None:
            made["remainingItemCount"] = self.remaining
        return made


def _token(version: int, start: Key) -> str:
    raw = {"v": "meta.k8s.io/v1", "rv": version, "start": list(start)}
    return base64.urlsafe_b64encode(json.dumps(raw).encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, Key]:
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except (binascii.Error, ValueError):
        raw = b"?"
    try:
        read = json.loads(raw)
        namespace, name = read["start"]
        return int(read["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError):
        first = raw[:1].decode("latin-1")
        text = f"invalid character '{first}' looking for beginning of value"
        message = f"invalid continue token: continue key is not valid: {text}"
        raise errors.bad_request(message) from None


async def list_page(
    store: Store, kind: Kind, namespace: str, options: ListOptions, wait_s: float
) -> Page:
    """One page of a list. Raises ApiError 400, 410 or 504."""
    version, start, from_cache = await _origin(store, options, wait_s)
    current = version == store.version
    if current:
        rows: Iterable[tuple[Key, Obj]] = _current(store, kind, namespace, options)
    else:
        rows = _then(store, kind, version, start)
    chosen = _select(kind, rows, namespace, options, start)
    if options.limit <= 0 or from_cache or len(chosen) <= options.limit:
        return Page([obj for _, obj in chosen], version)
    kept = chosen[: options.limit]
    has_selector = options.label_selector or options.field_selector
    remaining = None if has_selector else len(chosen) - len(kept)
    return Page([obj for _, obj in kept], version, _token(version, kept[-1][0]), remaining)


def _current(
    store: Store, kind: Kind, namespace: str, options: ListOptions
) -> list[tuple[Key, Obj]]:
    """The objects now, by namespace and name; pods of one node from their index."""
    on_node = ON_NODE.match(options.field_selector) if kind is POD else None
    found = store.pods_on(on_node[1]) if on_node else store.objects(stored_name(kind))
    keyed = [
        ((metadata.get("namespace", ""), metadata["name"]), obj)
        for obj in found
        for metadata in (obj["metadata"],)
        if not namespace or metadata.get("namespace") == namespace
    ]
    return sorted(keyed, key=lambda pair: pair[0])


async def _origin(
    store: Store, options: ListOptions, wait_s: float
) -> tuple[int, Key | None, bool]:
    """At which version to list, after which key, and whether limits are ignored."""
    if options.continue_token:
        if options.version not in ("", "0"):
            text = "specifying resource version is not allowed when using continue"
            raise errors.bad_request(text)
        version, start = _read_token(options.continue_token)
        return (store.version if version < 0 else version), start, False
    if not options.version:
        return store.version, None, False
    try:
        wanted = parse_version(options.version)
    except ValueError as error:
        raise errors.bad_request(f"invalid resource version: {error}") from error
    await wait_for_version(store, wanted, wait_s)
    exact = options.version_match == "Exact"
    return (wanted if exact else store.version), None, wanted == 0


def _then(store: Store, kind: Kind, version: int, start: Key | None) -> list[tuple[Key, Obj]]:
    try:
        return store.objects_at(stored_name(kind), version)
    except errors.ApiError as error:
        if start is None:
            raise
        again = errors.expired(_INCONSISTENT)
        again.continue_token = _token(-1, start)
        raise again from error


def _select(
    kind: Kind,
    rows: Iterable[tuple[Key, Obj]],
    namespace: str,
    options: ListOptions,
    start: Key | None,
) -> list[tuple[Key, Obj]]:
    labels = selectors.parse_labels(options.label_selector)
    fields = selectors.parse_fields(options.field_selector, kind.kind)
    return [
        (key, obj)
        for key, obj in rows
        if (not namespace or key[0] == namespace)
        and (start is None or key > start)
        and (not labels or selectors.labels_match(labels, obj["metadata"].get("labels")))
        and (not fields or selectors.fields_match(fields, obj))
    ]


def show_page(store: Store, kind: Kind, page: Page, form: Form, query: Mapping[str, str]) -> Answer:
    """A page in the form that was asked for. Raises ApiError 406 or 400."""
    match form:
        case Form.TABLE:
            include, now = included(query), store.clock.now()
            rows = [tables.row(kind.kind, kind.api_version, o, include, now) for o in page.items]
            return Answer(tables.table(page.metadata(), rows, kind.kind))
        case Form.PARTIAL_LIST:
            base = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1"}
            items = [tables.partial(tables.PARTIAL, obj) for obj in page.items]
            return Answer(base | {"metadata": page.metadata(), "items": items})
        case Form.PARTIAL:
            raise errors.not_acceptable(
                "you requested PartialObjectMetadata, but the requested object is a list "
                f"(*core.{kind.kind}List)"
            )
        case Form.YAML:
            text = yaml.safe_dump(_list_object(kind, page), sort_keys=True).encode()
            return Answer(text, content_type="application/yaml")
    return Answer(list_bytes(store, kind, page), content_type=JSON)


def _list_object(kind: Kind, page: Page) -> Obj:
    base = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version}
    items = [view(kind, obj) for obj in page.items]
    return base | {"metadata": page.metadata(), "items": items}


def list_bytes(store: Store, kind: Kind, page: Page) -> bytes:
    """The list's JSON, put together from the JSON of its objects."""
    if kind is NEW_EVENT:
        return _encode(_list_object(kind, page))
    head = _list_object(kind, Page([], page.version, page.continue_token, page.remaining))
    items = b",".join(store.encoded(obj) for obj in page.items)
    return _encode(head)[:-2] + items + b"]}"
