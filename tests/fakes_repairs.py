"""Somebody who repairs from outside the node, in memory: the `RepairProvider` port, with moods."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from breakfix.errors import Refused, RepairError
from breakfix.model import BOOTS, Action, RefusalReason
from breakfix.ports import RepairLook, RepairStatus


@dataclass
class FakeProvider:
    """`mood`: obeys, lies (says done, does nothing), is unclear (with or without doing it), does
    not take it, knows nothing later, or has no way to that node.
    """

    world: Any
    name: str = "webhook"
    can_compare: bool = True
    mood: str = "obeys"
    crashes: list[str] = field(default_factory=list)  # "before" or "after" the effect, once each
    sent: list[Any] = field(default_factory=list)  # every request that was sent
    acted: list[str] = field(default_factory=list)  # keys that were acted on
    is_out_of_reach: bool = False  # look() cannot ask

    def prepare(self, request):
        if self.mood == "has no way":
            raise Refused(RefusalReason.UNSUPPORTED, f"{request.node.name} has no BMC address")
        return {"asked_of": self.name}

    def dispatch(self, request, handle):
        crash = self.crashes.pop(0) if self.crashes else ""
        if crash == "before":
            raise WorkerDied
        self.sent.append(request)
        if self.mood == "does not take it":
            raise RepairError("HTTP 403")
        acts = self.mood in {"obeys", "unclear, and acts", "forgets"}
        is_new = request.key not in self.acted
        if acts and (is_new or not self.can_compare):
            self.acted.append(request.key)
            if request.action in BOOTS:
                self.world.cluster.reboot(request.node.name)
                self.world._clear(request.node.name, True)
        if crash == "after":
            raise WorkerDied
        if self.mood.startswith("unclear"):
            raise RepairError("no answer within 10 s", is_unclear=True)
        return {"key": request.key}

    def look(self, action, handle):
        if self.is_out_of_reach:
            raise RepairError("cannot be reached", is_transient=True)
        key = handle.get("key", "")
        if self.mood == "forgets":
            return RepairLook(RepairStatus.UNKNOWN, "the webhook does not know the request")
        if self.mood == "says it failed":
            return RepairLook(RepairStatus.FAILED, "the webhook says failed")
        if self.mood == "never ends":
            return RepairLook(RepairStatus.RUNNING, "the webhook says running")
        if key in self.acted or self.mood == "lies":
            ticket = "RMA-1 " if action is Action.OPEN_VENDOR_CASE else ""
            return RepairLook(RepairStatus.DONE, f"the webhook says done {ticket}".rstrip())
        return RepairLook(RepairStatus.RUNNING, "the webhook says running")


class WorkerDied(BaseException):
    """The process is gone: nothing that it would have done next is done."""


def with_providers(world, **providers):
    """The world in which these do these rungs; returns the first of them."""
    made = {Action(a): p for a, p in providers.items()}
    world.services = replace(world.services, providers=made)
    world.road.services = world.services
    return next(iter(providers.values()))
