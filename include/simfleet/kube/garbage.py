"""What follows a deletion: dependents of a gone owner, content of a terminating namespace."""

from __future__ import annotations

from simfleet.kube import deletion, seeds
from simfleet.kube.deletion import DeleteOptions
from simfleet.kube.kinds import NAMESPACE, STORED_KINDS
from simfleet.kube.store import Change, Store


class GarbageCollector:
    """Deletes the pods of ReplicaSets and DaemonSets that are gone."""

    kinds = ("ReplicaSet", "DaemonSet")

    def __init__(self, store: Store) -> None:
        self._store = store
        self._gone: list[str] = []

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        if change.type == "DELETED":
            self._gone.append(change.obj["metadata"]["uid"])

    def sync(self) -> None:
        """Delete what belonged to the gone."""
        gone, self._gone = self._gone, []
        for uid in gone:
            for kind, obj in deletion.dependents(self._store, uid):
                deletion.delete(self._store, kind, obj, DeleteOptions())


class NamespaceKeeper:
    """Fills new namespaces and empties terminating ones."""

    kinds = ("Namespace",)

    def __init__(self, store: Store) -> None:
        self._store = store
        self._dirty: set[str] = set()

    def changed(self, change: Change) -> None:
        """Take note of a change."""
        if change.type != "DELETED":
            self._dirty.add(change.name)

    def sync(self) -> None:
        """Bring namespaces further; those that still hold something are looked at again."""
        again: set[str] = set()
        for name in sorted(self._dirty):
            namespace = self._store.find("Namespace", "", name)
            if namespace is None:
                continue
            if "deletionTimestamp" not in namespace["metadata"]:
                seeds.fill_namespace(self._store, name)
            elif self._empty(name):
                self._store.remove(NAMESPACE, namespace, namespace)
            else:
                again.add(name)
        self._dirty = again

    def _empty(self, name: str) -> bool:
        """Delete everything in a namespace; True when nothing is left."""
        for kind in STORED_KINDS:
            if kind.namespaced:
                for obj in self._store.list(kind.kind, name):
                    deletion.delete(self._store, kind, obj, DeleteOptions())
        return not any(
            self._store.list(kind.kind, name) for kind in STORED_KINDS if kind.namespaced
        )
