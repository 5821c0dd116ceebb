"""What was read before and is still the same: an object of one version is made once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, Protocol, TypeVar
from weakref import WeakValueDictionary


class _Meta(Protocol):
    uid: str
    resource_version: str


class _Object(Protocol):
    @property
    def metadata(self) -> _Meta: ...


K = TypeVar("K", bound=_Object)
V = TypeVar("V")


class Known(Generic[K, V]):
    """Ours of theirs, by uid and resourceVersion, while anybody holds it: a sweep that looks at the
    cluster again before each act holds all that it saw, and most of it has not changed.
    """

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make
        self._known: WeakValueDictionary[tuple[str, str], V] = WeakValueDictionary()

    def of(self, it: K) -> V:
        """Ours; the very same object for the same version of the same object."""
        key = (it.metadata.uid, it.metadata.resource_version)
        found = self._known.get(key) if all(key) else None
        if found is None:
            found = self._make(it)
            if all(key):
                self._known[key] = found
        return found
