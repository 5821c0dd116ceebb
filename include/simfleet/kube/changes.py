"""What happens to the objects of a store: changes, those who follow them, copies of it all."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Obj = dict[str, Any]
Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Change:
    """One write: `type` is ADDED, MODIFIED or DELETED; `previous` is None for ADDED."""

    version: int
    type: str
    kind: str
    namespace: str
    name: str
    obj: Obj
    previous: Obj | None


class Subscription:
    """Changes since the subscription began, for controllers: `async for change in sub`."""

    def __init__(self, kinds: frozenset[str], leave: Callable[[Subscription], None]) -> None:
        self._leave = leave
        self._kinds = kinds
        self._waiting: deque[Change] = deque()
        self._ready = asyncio.Event()

    def offer(self, change: Change) -> None:
        """Called by the store for every write."""
        if not self._kinds or change.kind in self._kinds:
            self._waiting.append(change)
            self._ready.set()

    async def get(self) -> Change:
        """The next change; waits for one."""
        while not self._waiting:
            self._ready.clear()
            await self._ready.wait()
        return self._waiting.popleft()

    def drain(self) -> list[Change]:
        """All changes that wait now, without waiting."""
        found = list(self._waiting)
        self._waiting.clear()
        return found

    def close(self) -> None:
        """Stop receiving."""
        self._leave(self)

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Change:
        return await self.get()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A copy of the store's content, cheap because objects are shared."""

    version: int
    objects: Mapping[str, Mapping[Key, Obj]]
