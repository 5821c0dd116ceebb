"""A request's path and query, taken apart as the API server does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from simfleet.kube.errors import Causes, bad_request, invalid_options

_VERBS = {"GET": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """What is asked: a verb on a resource, or on a path that is none."""

    verb: str
    path: str
    is_resource: bool
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    watch_prefix: bool = False

    @property
    def full_resource(self) -> str:
        """`pods/eviction`: the resource as rules name it."""
        return f"{self.resource}/{self.subresource}" if self.subresource else self.resource


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request that changes something: what is asked, with its query and body."""

    request: RequestInfo
    query: Mapping[str, str]
    dry_run: list[str]
    content_type: str | None
    body: bytes


def is_true(text: str | None) -> bool:
    """Booleans of a query: `1`, `true`, `True`; an empty value counts as true."""
    return text is not None and text.lower() in ("1", "true", "")


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """Take a path apart."""
    parts = [part for part in path.split("/") if part]
    verb = _VERBS.get(method, method.lower())
    match parts:
        case ["api", version, _, *_]:
            group, rest = "", parts[2:]
        case ["apis", group, version, _, *_]:
            rest = parts[3:]
        case _:
            return RequestInfo(verb, path, is_resource=False)
    watch_prefix = rest[0] == "watch" and len(rest) > 1
    rest = rest[1:] if watch_prefix else rest
    namespace = ""
    if rest[0] == "namespaces" and rest[2:] and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource, name, subresource = (*rest, "", "", "")[:3]
    if resource == "namespaces" and name:
        namespace = name
    watch = watch_prefix or is_true(query.get("watch"))
    verb = _collection_verb(verb, name, watch=watch)
    return RequestInfo(
        verb, path, True, group, version, resource, subresource, namespace, name, watch_prefix
    )


def _collection_verb(verb: str, name: str, *, watch: bool) -> str:
    if verb == "get" and not name:
        return "watch" if watch else "list"
    return "deletecollection" if verb == "delete" and not name else verb


@dataclass(frozen=True, slots=True)
class ListOptions:
    """The query of a list or watch, checked."""

    label_selector: str = ""
    field_selector: str = ""
    limit: int = 0
    continue_token: str = ""
    version: str = ""
    version_match: str = ""
    timeout_s: float | None = None
    bookmarks: bool = False
    send_initial_events: bool | None = None


def list_options(query: Mapping[str, str], *, watch: bool) -> ListOptions:
    """Read and check the query. Raises ApiError 400 or 422."""
    initial = query.get("sendInitialEvents")
    options = ListOptions(
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        limit=_integer(query.get("limit", "0") or "0"),
        continue_token=query.get("continue", ""),
        version=query.get("resourceVersion", ""),
        version_match=query.get("resourceVersionMatch", ""),
        timeout_s=_timeout(query.get("timeoutSeconds")),
        bookmarks=is_true(query.get("allowWatchBookmarks")),
        send_initial_events=None if initial is None else is_true(initial),
    )
    _check_match(options, watch=watch)
    return options


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None


def _timeout(text: str | None) -> float | None:
    return float(_integer(text)) if text else None


def _check_match(options: ListOptions, *, watch: bool) -> None:
    causes, match = Causes(), options.version_match
    where = "resourceVersionMatch"
    if watch and options.send_initial_events is not None and match != "NotOlderThan":
        text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        causes.forbidden(where, text)
    elif watch and match and options.send_initial_events is None:
        text = f"{where} is forbidden for watch unless sendInitialEvents is provided"
        causes.forbidden(where, text)
    elif not watch and match:
        _check_list_match(options, causes)
    if causes.found:
        raise invalid_options("ListOptions", causes.found)


def _check_list_match(options: ListOptions, causes: Causes) -> None:
    where, match = "resourceVersionMatch", options.version_match
    if not options.version:
        causes.forbidden(where, f"{where} is forbidden unless resourceVersion is provided")
    elif match not in ("Exact", "NotOlderThan"):
        causes.unsupported(where, f'"{match}"', ("Exact", "NotOlderThan", ""))
    elif match == "Exact" and options.version == "0":
        causes.forbidden(where, f'{where} "exact" is forbidden for resourceVersion "0"')


def is_dry_run(values: list[str], options: str) -> bool:
    """Whether `dryRun=All` was asked. Raises ApiError 422 on another value."""
    if not values:
        return False
    if values != ["All"]:
        causes = Causes()
        listed = "[" + ",".join(f'"{one}"' for one in values) + "]"
        causes.unsupported("dryRun", listed, ("All",))
        raise invalid_options(options, causes.found)
    return True
