"""WATCH: a stream of changes, as lines of JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from simfleet.kube import defaults, errors, reads, selectors, tables
from simfleet.kube.errors import ApiError
from simfleet.kube.forms import Form
from simfleet.kube.kinds import NEW_EVENT, Kind
from simfleet.kube.requests import ListOptions
from simfleet.kube.store import Change, Obj, Store, Subscription

DEFAULT_TIMEOUT_S = 1800.0
BOOKMARK_EVERY_S = 60.0
# Near the end of the time the server sends a bookmark each second.
BOOKMARK_TAIL_S = 2.0
_encode = msgspec.json.encode


@dataclass(slots=True)
class Watch:
    """One watch: what it selects and in which form it answers. Make it with `open_watch`."""

    store: Store
    kind: Kind
    namespace: str
    options: ListOptions
    form: Form
    include: str
    labels: selectors.LabelSelector
    fields: selectors.FieldSelector
    since: int
    initial: list[Obj]
    subscription: Subscription
    sent_columns: bool = False
    silent: bool = False

    def selects(self, obj: Obj | None) -> bool:
        """Whether the watch's namespace and selectors take an object."""
        if obj is None:
            return False
        metadata = obj["metadata"]
        if self.namespace and metadata.get("namespace") != self.namespace:
            return False
        return selectors.labels_match(self.labels, metadata.get("labels")) and (
            selectors.fields_match(self.fields, obj)
        )

    def event(self, change: Change) -> bytes | None:
        """The line for a change; None when the watch does not care."""
        before, after = self.selects(change.previous), self.selects(change.obj)
        if change.type == "DELETED":
            return self._line("DELETED", change.obj) if before else None
        if after:
            return self._line("MODIFIED" if before else "ADDED", change.obj)
        if before and change.previous is not None:
            # Left the selector: the old object with the version of the change.
            version = {"resourceVersion": str(change.version)}
            old = change.previous
            return self._line("DELETED", old | {"metadata": old["metadata"] | version})
        return None

    def _line(self, change: str, obj: Obj) -> bytes:
        head = b'{"type":"' + change.encode() + b'","object":'
        if self.form is Form.OBJECT and self.kind is not NEW_EVENT:
            about = f'{{"kind":"{self.kind.kind}","apiVersion":"{self.kind.api_version}",'
            return head + about.encode() + self.store.encoded(obj)[1:] + b"}\n"
        return head + _encode(self._shaped(obj)) + b"}\n"

    def _shaped(self, obj: Obj) -> dict[str, Any]:
        if self.form is Form.PARTIAL:
            return tables.partial(tables.PARTIAL, obj)
        if self.form is not Form.TABLE:
            return reads.full(self.kind, obj)
        now = self.store.clock.now()
        row = tables.row(self.kind.kind, self.kind.api_version, obj, self.include, now)
        version = {"resourceVersion": obj["metadata"]["resourceVersion"]}
        columns = None if self.sent_columns else self.kind.kind
        self.sent_columns = True
        return tables.table(version, [row], columns)

    def bookmark(self, *, initial_end: bool = False) -> bytes:
        """A BOOKMARK line: the current version, and the zero values of the kind."""
        metadata: dict[str, Any] = {"resourceVersion": str(self.store.version)}
        if initial_end:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        zero = defaults.complete(self.kind.kind, {"metadata": metadata})
        made = {"type": "BOOKMARK", "object": reads.full(self.kind, zero)}
        return _encode(made) + b"\n"

    async def lines(self) -> AsyncIterator[bytes]:
        """Everything the watch sends, until its time is over."""
        try:
            for obj in self.initial:
                yield self._line("ADDED", obj)
            if self._tells_initial_end():
                yield self.bookmark(initial_end=True)
            async for line in self._live():
                yield line
        finally:
            self.subscription.close()

    def _tells_initial_end(self) -> bool:
        """A watch from nowhere with bookmarks counts as a streamed list."""
        from_nowhere = not self.options.version and self.options.send_initial_events is None
        return self.options.bookmarks and (from_nowhere or bool(self.options.send_initial_events))

    async def _live(self) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        started = loop.time()
        end = started + (self.options.timeout_s or DEFAULT_TIMEOUT_S)
        is_short = end - started <= BOOKMARK_TAIL_S
        mark = end if is_short else self._next_bookmark(started, end)
        while (now := loop.time()) < end:
            if now >= mark and now < end:
                yield self.bookmark()
                mark = self._next_bookmark(now, end)
            try:
                change = await asyncio.wait_for(self.subscription.get(), min(mark, end) - now)
            except TimeoutError:
                continue
            is_news = change.version > self.since and not self.silent
            if is_news and (line := self.event(change)):
                yield line

    def _next_bookmark(self, now: float, end: float) -> float:
        if not self.options.bookmarks:
            return end + 1
        if now >= end - BOOKMARK_TAIL_S:
            return now + 1
        return min(now + BOOKMARK_EVERY_S, end - BOOKMARK_TAIL_S)


def open_watch(
    store: Store,
    kind: Kind,
    namespace: str,
    options: ListOptions,
    *,
    form: Form,
    query: Mapping[str, str],
) -> Watch | ApiError:
    """Begin a watch; an expired version comes back as the error to send in the stream.

    Raises ApiError 400 or 500 for what cannot be a watch at all.
    """
    labels = selectors.parse_labels(options.label_selector)
    fields = selectors.parse_fields(options.field_selector, kind.kind)
    try:
        since = reads.parse_version(options.version or "0")
    except ValueError as error:
        raise errors.internal_error(str(error)) from error
    subscription = store.subscribe(kind.kind)
    include = reads.included(query) if form is Form.TABLE else ""
    args = (store, kind, namespace, options, form, include, labels, fields)
    watch = Watch(*args, since, [], subscription)
    wants_all = since == 0 and options.send_initial_events is not False
    if wants_all or options.send_initial_events:
        watch.initial = [obj for obj in store.list(kind.kind) if watch.selects(obj)]
        watch.since = 0
    elif 0 < since < store.oldest_version:
        subscription.close()
        return _too_old(store, kind, since)
    else:
        for change in store.changes_since(kind.kind, since):
            subscription.offer(change)
    return watch


def _too_old(store: Store, kind: Kind, since: int) -> ApiError:
    if kind.kind == "Event":
        # Events are not in the watch cache: the storage itself answers.
        return errors.expired("The resourceVersion for the provided watch is too old.")
    text = f"too old resource version: {since} ({store.oldest_version + 1})"
    return errors.expired(text)


def error_line(error: ApiError) -> bytes:
    """The ERROR event that ends an expired watch."""
    return _encode({"type": "ERROR", "object": error.status()}) + b"\n"
