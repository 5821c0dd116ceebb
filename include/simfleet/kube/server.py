"""The HTTP side: one aiohttp application; every request passes `KubeApi.handle` from top to bottom.

faults -> who is it -> what is asked -> may they -> the verb -> the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
from aiohttp import web

from simfleet.kube import (
    discovery,
    errors,
    podlogs,
    reads,
    requests,
    reviews,
    subresources,
    watches,
)
from simfleet.kube.auth import Tokens, User, authorize, impersonate
from simfleet.kube.errors import ApiError
from simfleet.kube.faults import Faults
from simfleet.kube.forms import JSON, Answer, Form, negotiate
from simfleet.kube.kinds import BY_RESOURCE, GROUPS, REVIEWS, Kind
from simfleet.kube.podlogs import LogOptions, PodLog
from simfleet.kube.removals import remove_collection, remove_one
from simfleet.kube.requests import Incoming, ListOptions, RequestInfo
from simfleet.kube.store import Obj, Store
from simfleet.kube.watches import Watch
from simfleet.kube.writes import Write

NO_CONTENT = 204
MAX_BODY_BYTES = 3 * 1024 * 1024
_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
_encode = msgspec.json.encode


def no_log(pod: Obj, container: str) -> PodLog:
    """The log of a pod when no kubelet runs. Raises ApiError 500 as a dead kubelet does."""
    node, metadata = pod["spec"]["nodeName"], pod["metadata"]
    url = f"https://{node}:10250/containerLogs/{metadata['namespace']}/{metadata['name']}/"
    text = f'Get "{url}{container}": dial tcp: lookup {node}: no such host'
    raise errors.internal_error(text)


@dataclass(frozen=True, slots=True)
class LogAnswer:
    """A log to be streamed."""

    log: PodLog
    options: LogOptions


Reply = Answer | Watch | LogAnswer


@dataclass(slots=True)
class KubeApi:
    """The API over a store. `future_wait_s` is how long a version of the future is waited for."""

    store: Store
    tokens: Tokens = field(default_factory=Tokens)
    faults: Faults = field(default_factory=Faults)
    read_log: subresources.LogReader = no_log
    future_wait_s: float = reads.FUTURE_WAIT_S
    requests_served: int = 0

    def application(self) -> web.Application:
        """The aiohttp application."""
        app = web.Application(client_max_size=MAX_BODY_BYTES)
        app.router.add_route("*", "/{path:.*}", self.handle)
        return app

    async def handle(self, raw: web.Request) -> web.StreamResponse:
        """Answer one request."""
        self.requests_served += 1
        effect = self.faults.effect(raw.method, raw.path)
        if effect.latency_s:
            await asyncio.sleep(effect.latency_s)
        if effect.drop:
            return _drop(raw)
        try:
            if effect.error:
                raise effect.error
            answer = await self._answer(raw)
        except ApiError as error:
            return _error_response(raw, error)
        if isinstance(answer, Watch):
            answer.silent = effect.stale_watch
            return await _stream(raw, answer.lines(), JSON)
        if isinstance(answer, LogAnswer):
            return await _stream(raw, podlogs.stream(answer.log, answer.options), "text/plain")
        return _response(answer)

    async def _answer(self, raw: web.Request) -> Reply:
        request = requests.parse(raw.method, raw.path, raw.query)
        user = self._user(raw, request)
        authorize(user, request)
        if not request.is_resource:
            accept = raw.headers.get("Accept", "")
            return discovery.answer(raw.path, accept, raw.host)
        kind = BY_RESOURCE.get((request.group, request.version, request.resource))
        if kind is None:
            known = request.group in ("", *GROUPS)
            raise errors.no_such_resource() if known else errors.no_such_path()
        if raw.method not in _METHODS:
            raise errors.method_not_allowed()
        return await self._dispatch(raw, request, kind, user)

    def _user(self, raw: web.Request, request: RequestInfo) -> User:
        user = self.tokens.user_of(raw.headers.get("Authorization"))
        if user is None:
            raise errors.unauthorized()
        return impersonate(self.tokens, user, raw.headers.get("Impersonate-User"), request)

    async def _dispatch(
        self, raw: web.Request, request: RequestInfo, kind: Kind, user: User
    ) -> Reply:
        if request.subresource not in ("", "status"):
            return await self._subresource(raw, request, kind)
        if request.subresource == "status" and not kind.has_status:
            raise errors.no_such_resource()
        form = negotiate(raw.headers.get("Accept", ""))
        if kind in REVIEWS:
            if request.verb != "create":
                raise errors.method_not_allowed()
            incoming = await _incoming(raw, request)
            return reviews.review(self.store, self.tokens, user, kind, incoming)
        if request.verb in ("list", "watch"):
            return await self._collection(kind, request, form, raw.query)
        if request.verb == "get":
            obj = await reads.get_object(self.store, kind, request, raw.query, self.future_wait_s)
            return reads.show(self.store, kind, obj, form, raw.query)
        if request.verb not in kind.verbs or not _fits(request):
            raise errors.method_not_allowed()
        return await self._change(raw, request, kind)

    async def _collection(
        self, kind: Kind, request: RequestInfo, form: Form, query: Mapping[str, str]
    ) -> Answer | Watch:
        is_watch = request.verb == "watch"
        options = requests.list_options(query, watch=is_watch)
        namespace = request.namespace if kind.namespaced else ""
        if is_watch:
            return self._watch(kind, namespace, options, form, query)
        page = await reads.list_page(self.store, kind, namespace, options, self.future_wait_s)
        return reads.show_page(self.store, kind, page, form, query)

    def _watch(
        self,
        kind: Kind,
        namespace: str,
        options: ListOptions,
        form: Form,
        query: Mapping[str, str],
    ) -> Answer | Watch:
        opened = watches.open_watch(self.store, kind, namespace, options, form=form, query=query)
        if isinstance(opened, ApiError):
            return Answer(watches.error_line(opened))
        return opened

    async def _change(self, raw: web.Request, request: RequestInfo, kind: Kind) -> Answer:
        incoming = await _incoming(raw, request)
        if request.verb == "delete":
            return remove_one(self.store, kind, incoming)
        if request.verb == "deletecollection":
            return await remove_collection(self.store, kind, incoming)
        write = Write(self.store, kind, incoming)
        acts = {"create": write.create, "update": write.update, "patch": write.patch}
        return acts[request.verb]()

    async def _subresource(self, raw: web.Request, request: RequestInfo, kind: Kind) -> Reply:
        known = next((sub for sub in kind.subresources if sub.name == request.subresource), None)
        if known is None:
            raise errors.no_such_resource()
        if request.verb not in known.verbs:
            raise errors.method_not_allowed()
        incoming = await _incoming(raw, request)
        match request.subresource:
            case "eviction":
                return subresources.evict(self.store, incoming)
            case "binding":
                return subresources.post_binding(self.store, incoming)
            case "log":
                found = subresources.log(self.store, request, raw.query, self.read_log)
                return LogAnswer(*found) if found else Answer(b"", NO_CONTENT)
            case "token":
                return subresources.request_token(self.store, self.tokens, incoming)
        return subresources.refuse_upgrade()


def _fits(request: RequestInfo) -> bool:
    """POST goes to a collection, the others to one object."""
    if request.verb == "create":
        return not request.name
    return bool(request.name) or request.verb == "deletecollection"


async def _incoming(raw: web.Request, request: RequestInfo) -> Incoming:
    """The request's query and body. Never the parsed content type: patches name theirs."""
    dry_run = raw.query.getall("dryRun", [])
    content_type = raw.headers.get("Content-Type")
    return Incoming(request, raw.query, dry_run, content_type, await raw.read())


def _drop(raw: web.Request) -> web.StreamResponse:
    """Close the connection without an answer."""
    if raw.transport is not None:
        raw.transport.abort()
    return web.Response(status=500)


def _error_response(raw: web.Request, error: ApiError) -> web.Response:
    if raw.method == "HEAD":
        return web.Response(status=error.code, content_type=JSON)
    if error.plain_text is not None:
        response = web.Response(text=error.plain_text, status=error.code)
    else:
        response = web.Response(body=_encode(error.status()), status=error.code, content_type=JSON)
    response.headers.update(error.headers)
    _add_warnings(response, error.warnings)
    return response


def _response(answer: Answer) -> web.Response:
    body = answer.body if isinstance(answer.body, bytes) else _encode(answer.body)
    response = web.Response(body=body, status=answer.code)
    if answer.code != NO_CONTENT:
        response.headers["Content-Type"] = answer.content_type
    response.headers.update(answer.headers)
    _add_warnings(response, answer.warnings)
    return response


def _add_warnings(response: web.Response, warnings: Sequence[str]) -> None:
    for warning in warnings:
        quoted = warning.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{quoted}"')


async def _stream(
    raw: web.Request, lines: AsyncIterator[bytes], content_type: str
) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": content_type})
    response.enable_chunked_encoding()
    try:
        await response.prepare(raw)
        async for line in lines:
            await response.write(line)
        await response.write_eof()
    except ConnectionError:
        # The client has hung up: the ordinary end of a watch.
        pass
    return response
