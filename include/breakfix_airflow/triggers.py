"""The trigger of a waiting case. The triggerer must be restarted when this code changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent

from breakfix.flow.services import Services
from breakfix.flow.stages import Wait
from breakfix.resilience.batching import BatchError
from breakfix_airflow import services
from breakfix_airflow.batching import Batcher, Look

#: Airflow 3.3 fails a task that is resumed before its scheduler has seen the first half end.
QUIET_S = 6.0

_batchers: WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher] = WeakKeyDictionary()


class CaseTrigger(BaseTrigger):
    """Fires once, when the wait (see `Wait.to_json`) is over or its deadline has come."""

    def __init__(self, wait: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.wait = dict(wait)

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return ("breakfix_airflow.triggers.CaseTrigger", {"wait": self.wait})

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """One event: why the stage runs again (`over` or `deadline`)."""
        wait = Wait.from_json(self.wait)
        await asyncio.sleep(QUIET_S)
        reason = await batcher().until_over(wait)
        yield TriggerEvent({"reason": reason, "kind": str(wait.kind)})  # type: ignore[no-untyped-call]


def batcher() -> Batcher:
    """The one batcher of the running loop; a triggerer has one loop for all its triggers."""
    loop = asyncio.get_running_loop()
    found = _batchers.get(loop)
    if found is None:
        found = _batchers[loop] = Batcher(Watch())
    return found


class Watch:
    """Looks at the cluster for all waits. A failure makes it build its services anew.

    A look that was given up goes on in its thread until its own timeouts end it; until then no
    other one is begun.
    """

    def __init__(self) -> None:
        self._services: Services | None = None
        self._looking: asyncio.Future[Look] | None = None

    async def __call__(self, waits: Sequence[Wait]) -> Look:
        """Raises what the ports raise, and SettingsError."""
        if self._looking is not None and not self._looking.done():
            raise BatchError("the look before this one is not back yet", is_transient=True)
        try:
            if self._services is None:
                connections = await services.aread_connections()
                self._services = await asyncio.to_thread(
                    services.build, connections, needs_ledger=False
                )
            thread = asyncio.to_thread(_look, self._services, waits)
            self._looking = asyncio.ensure_future(thread)
            return await asyncio.shield(self._looking)
        except Exception:
            self._services = None
            raise


def _look(built: Services, waits: Sequence[Wait]) -> Look:
    from breakfix.flow.waits import over

    built = built.refreshed()  # a triggerer lives for weeks
    return Look(over(built, waits), built.policy.drain.poll_s)
