"""The objects of the cluster, in memory, with versions and history. No HTTP in here.

All calls are synchronous and belong on the one event loop thread. Objects are plain dicts as in
JSON, without `kind` and `apiVersion`, and are never changed in place: a write puts a new dict in
the place of the old one. Whoever reads must not change what it got.
"""

from __future__ import annotations

import bisect
import copy
import random
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from simfleet.clock import Clock, rfc3339
from simfleet.kube import errors, selectors
from simfleet.kube.changes import Change, Key, Obj, Snapshot, Subscription
from simfleet.kube.kinds import BY_NAME, STORED_KINDS, Kind

_Rows = list[tuple[Key, Obj]]
_Objects = list[Obj]
HISTORY_LENGTH = 20_000
_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
_encode = msgspec.json.encode

__all__ = ["Change", "Key", "Obj", "Snapshot", "Store", "Subscription"]


@dataclass(slots=True)
class _Shelf:
    """The objects of one kind, their history and their index by node (pods only)."""

    objects: dict[Key, Obj]
    history: deque[Change]
    by_node: dict[str, set[Key]]


class Store:
    """Objects by kind, namespace and name, under one rising resourceVersion."""

    def __init__(self, clock: Clock | None = None, *, seed: int | None = None) -> None:
        self.clock = clock or Clock()
        self.version = 1
        self.oldest_version = 0
        self._random = random.Random(seed)
        self._shelves = {kind.kind: _Shelf({}, deque(), {}) for kind in STORED_KINDS}
        self._subscriptions: list[Subscription] = []
        self._encoded: dict[int, tuple[Obj, bytes]] = {}

    # reading

    def get(self, kind: str, namespace: str, name: str) -> Obj:
        """One object; namespace "" for cluster-scoped kinds. Raises ApiError 404."""
        found = self.find(kind, namespace, name)
        if found is None:
            raise errors.not_found(BY_NAME[kind], name)
        return found

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """One object, or None."""
        return self._shelves[kind].objects.get((namespace, name))

    def list(
        self,
        kind: str,
        namespace: str | None = None,
        label_selector: str = "",
        field_selector: str = "",
    ) -> list[Obj]:
        """Objects of a kind by namespace and name; selectors as in the API."""
        labels = selectors.parse_labels(label_selector)
        fields = selectors.parse_fields(field_selector, kind)
        return [
            obj
            for (in_namespace, _), obj in sorted(self._shelves[kind].objects.items())
            if (namespace is None or in_namespace == namespace)
            and selectors.labels_match(labels, obj["metadata"].get("labels"))
            and selectors.fields_match(fields, obj)
        ]

    def objects(self, kind: str) -> Iterable[Obj]:
        """Every object of a kind, in no order: the cheapest read."""
        return self._shelves[kind].objects.values()

    def pods_on(self, node: str) -> _Objects:
        """The pods bound to a node."""
        shelf = self._shelves["Pod"]
        return [shelf.objects[key] for key in sorted(shelf.by_node.get(node, ()))]

    def objects_at(self, kind: str, version: int) -> _Rows:
        """All objects as they were at a version, sorted by key. Raises ApiError 410."""
        if version < self.oldest_version:
            raise errors.expired("The resourceVersion for the provided list is too old.")
        shelf = self._shelves[kind]
        then = dict(shelf.objects)
        for change in reversed(shelf.history):
            if change.version <= version:
                break
            key = (change.namespace, change.name)
            if change.previous is None:
                then.pop(key, None)
            else:
                then[key] = change.previous
        return sorted(then.items())

    def changes_since(self, kind: str, version: int) -> Iterator[Change]:
        """Changes of a kind after a version, oldest first."""
        history = self._shelves[kind].history
        start = bisect.bisect_right(history, version, key=lambda change: change.version)
        return iter([history[at] for at in range(start, len(history))])

    def encoded(self, obj: Obj) -> bytes:
        """The object's JSON without kind and apiVersion; kept as long as it is current."""
        kept = self._encoded.get(id(obj))
        if kept is not None and kept[0] is obj:
            return kept[1]
        data = _encode(obj)
        if len(self._encoded) > 4 * HISTORY_LENGTH:
            self._encoded.clear()
        self._encoded[id(obj)] = (obj, data)
        return data

    # writing

    def create(self, kind: str, obj: Obj) -> Obj:
        """Store a new object; the store adds uid, creationTimestamp, generation and version.

        A uid or creationTimestamp already in the metadata is kept. Raises ApiError 409.
        """
        about = BY_NAME[kind]
        obj = self.prepared(about, obj)
        key = _key(obj)
        if key in self._shelves[kind].objects:
            raise errors.already_exists(about, key[1])
        return self._write("ADDED", about, obj, None)

    def prepared(self, about: Kind, obj: Obj) -> Obj:
        """What `create` would store, without storing it (a dry run)."""
        metadata = dict(obj.get("metadata") or {})
        prefix = metadata.get("generateName")
        if not metadata.get("name") and prefix:
            metadata["name"] = prefix + self.suffix()
        metadata.setdefault("uid", str(uuid.UUID(int=self._random.getrandbits(128), version=4)))
        metadata.setdefault("creationTimestamp", self.timestamp())
        metadata.pop("resourceVersion", None)
        if about.counts_generations:
            metadata.setdefault("generation", 1)
        rest = {key: value for key, value in obj.items() if key not in ("kind", "apiVersion")}
        return rest | {"metadata": metadata}

    def update(self, kind: str, obj: Obj) -> Obj:
        """Replace an object. A resourceVersion in it must be the current one (ApiError 409)."""
        about = BY_NAME[kind]
        namespace, name = _key(obj)
        old = self.get(kind, namespace, name)
        wanted = obj["metadata"].get("resourceVersion")
        if wanted and wanted != old["metadata"]["resourceVersion"]:
            raise errors.conflict(about, name)
        return self.replace(about, old, obj)

    def replace(self, about: Kind, old: Obj, new: Obj) -> Obj:
        """Put `new` in the place of `old`; nothing is written when nothing changed."""
        new = {key: value for key, value in new.items() if key not in ("kind", "apiVersion")}
        new = new | {"metadata": self._successor(about, old, new)}
        if new == old:
            return old
        if _is_finished_deletion(new):
            self._write("DELETED", about, new, old)
            return new
        return self._write("MODIFIED", about, new, old)

    def mark(self, about: Kind, old: Obj, new: Obj) -> Obj:
        """Like `replace`, but an object whose grace is over stays, for `remove` to take away."""
        return self._write("MODIFIED", about, self.successor(about, old, new), old)

    def rewrite(self, about: Kind, old: Obj, new: Obj) -> Obj:
        """Like `replace`, but the generation stays: for what the server itself fills in."""
        metadata = new["metadata"] | {"generation": old["metadata"].get("generation", 1)}
        return self._write("MODIFIED", about, new | {"metadata": metadata}, old)

    def successor(self, about: Kind, old: Obj, new: Obj) -> Obj:
        """What `replace` would store, with the old resourceVersion (a dry run)."""
        return new | {"metadata": self._successor(about, old, new)}

    def mutate(
        self, kind: str, namespace: str, name: str, change: Callable[[Obj], Obj | None]
    ) -> Obj:
        """Apply a function to a private copy of an object and store the outcome.

        The function may change its argument or return another dict. Raises ApiError 404.
        """
        old = self.get(kind, namespace, name)
        private = copy.deepcopy(old)
        return self.replace(BY_NAME[kind], old, change(private) or private)

    def patch_status(self, kind: str, namespace: str, name: str, status: Mapping[str, Any]) -> Obj:
        """Set the given top-level fields of an object's status. Raises ApiError 404."""
        old = self.get(kind, namespace, name)
        merged = old.get("status", {}) | dict(status)
        return self.replace(BY_NAME[kind], old, old | {"status": merged})

    def delete(self, kind: str, namespace: str, name: str) -> Obj:
        """Remove an object at once, whatever its grace or finalizers. Raises ApiError 404."""
        old = self.get(kind, namespace, name)
        return self._write("DELETED", BY_NAME[kind], old, old)

    def remove(self, about: Kind, old: Obj, final: Obj) -> Obj:
        """Remove an object, with its last state as the watchers shall see it."""
        return self._write("DELETED", about, final, old)

    # following

    def subscribe(self, *kinds: str) -> Subscription:
        """Follow changes of the named kinds, or of all."""
        subscription = Subscription(frozenset(kinds), self.unsubscribe)
        self._subscriptions.append(subscription)
        return subscription

    def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription; a second time does nothing."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def compact(self, version: int) -> None:
        """Forget the history up to a version: older watches and lists get 410."""
        self.oldest_version = max(self.oldest_version, version)
        for shelf in self._shelves.values():
            while shelf.history and shelf.history[0].version <= version:
                shelf.history.popleft()

    def bump(self) -> int:
        """Raise the version without a change, as writes elsewhere in a cluster do."""
        self.version += 1
        return self.version

    def snapshot(self) -> Snapshot:
        """The content now."""
        shelves = {name: dict(shelf.objects) for name, shelf in self._shelves.items()}
        return Snapshot(self.version, shelves)

    def load(self, snapshot: Snapshot) -> None:
        """Take over the content of a snapshot, dropping history: watches must begin anew."""
        self.version = max(self.version, snapshot.version) + 1
        self.oldest_version = self.version
        for name, objects in snapshot.objects.items():
            self._shelves[name] = _Shelf({}, deque(), {})
            for key, obj in objects.items():
                self._put(name, key, obj)

    # inside

    def timestamp(self) -> str:
        """Now, as the API writes it."""
        return rfc3339(self.clock.now())

    def suffix(self, length: int = 5) -> str:
        """Random letters for a generated name."""
        return "".join(self._random.choice(_SUFFIX_ALPHABET) for _ in range(length))

    def _successor(self, about: Kind, old: Obj, new: Obj) -> Obj:
        before = old["metadata"]
        metadata = dict(new["metadata"])
        for field in ("uid", "creationTimestamp", "resourceVersion", "generation", "selfLink"):
            if field in before:
                metadata[field] = before[field]
            else:
                metadata.pop(field, None)
        spec_changed = new.get("spec") != old.get("spec")
        ends = "deletionTimestamp" in metadata.keys() - before.keys()
        if about.counts_generations and (spec_changed or ends):
            metadata["generation"] = before.get("generation", 1) + 1
        return metadata

    def _write(self, change: str, about: Kind, obj: Obj, previous: Obj | None) -> Obj:
        self.version += 1
        obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self.version)}}
        namespace, name = key = _key(obj)
        shelf = self._shelves[about.kind]
        if change == "DELETED":
            self._drop(about.kind, key)
        else:
            self._put(about.kind, key, obj)
        record = Change(self.version, change, about.kind, namespace, name, obj, previous)
        shelf.history.append(record)
        if len(shelf.history) > HISTORY_LENGTH:
            self.oldest_version = max(self.oldest_version, shelf.history.popleft().version)
        for subscription in tuple(self._subscriptions):
            subscription.offer(record)
        return obj

    def _put(self, kind: str, key: Key, obj: Obj) -> None:
        shelf = self._shelves[kind]
        self._encoded.pop(id(shelf.objects.get(key)), None)
        shelf.objects[key] = obj
        if kind == "Pod" and (node := obj.get("spec", {}).get("nodeName")):
            shelf.by_node.setdefault(node, set()).add(key)

    def _drop(self, kind: str, key: Key) -> None:
        shelf = self._shelves[kind]
        gone = shelf.objects.pop(key)
        self._encoded.pop(id(gone), None)
        if kind == "Pod" and (node := gone.get("spec", {}).get("nodeName")):
            shelf.by_node[node].discard(key)


def _key(obj: Obj) -> Key:
    metadata = obj["metadata"]
    return metadata.get("namespace", ""), metadata["name"]


def _is_finished_deletion(obj: Obj) -> bool:
    """A terminating object without finalizers and without grace left goes away."""
    metadata = obj["metadata"]
    return (
        "deletionTimestamp" in metadata
        and not metadata.get("finalizers")
        and not metadata.get("deletionGracePeriodSeconds", 0)
        and not (obj.get("spec") or {}).get("finalizers")
    )
