"""A receiver of repair webhooks: `/sim/hooks/<action>`. It checks the signature, does the same key
once, and really does to the machine what it was asked for, unless it is told to lie, hang or fail.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from simfleet.live import LiveFleet
from simfleet.trouble import Mode, acts, trouble

SECRET = "simfleet-webhook-secret-of-a-simulation"  # noqa: S105 of a simulation on loopback
_MAX_AGE_S = 300.0
ACTIONS = ("reset_gpu", "reboot_node", "power_cycle", "replace_node", "open_vendor_case")


@dataclass(slots=True)
class Asked:
    """One request, however often it came."""

    action: str
    node: str
    body: dict[str, Any]
    times: int = 1
    boots_before: int = 0
    ticket: str = ""


class Hooks:
    """What was asked, by key. `modes`: action -> how the receiver behaves."""

    def __init__(self, fleet: LiveFleet) -> None:
        self.fleet = fleet
        self.modes: dict[str, Mode] = {}
        self.asked: dict[str, Asked] = {}

    def routes(self) -> list[web.RouteDef]:
        """The receiver, the switch of its behaviour, and a way to make it forget."""
        return [
            web.post("/sim/hooks/{action}", self._ask),
            web.get("/sim/hooks/{action}", self._tell),
            web.put("/sim/hooks/{action}", self._set_mode),
            web.delete("/sim/hooks/{action}", self._forget),
        ]

    async def _ask(self, request: web.Request) -> web.Response:
        body = await request.read()
        key = request.headers.get("Idempotency-Key", "")
        if not _is_signed(request, key, body):
            return web.json_response({"error": "wrong signature"}, status=401)
        action, data = request.match_info["action"], json.loads(body)
        mode = self.modes.get(action, Mode.OBEY)
        if key in self.asked:
            self.asked[key].times += 1
        elif mode in {Mode.OBEY, Mode.LIE, Mode.ACT_AND_FAIL, Mode.ACT_AND_HANG}:
            self._take(key, action, data, mode)
        return await trouble(mode, request) or web.json_response(self._word(key), status=202)

    def _take(self, key: str, action: str, data: dict[str, Any], mode: Mode) -> None:
        node = str(data["node"]["name"])
        machine = self.fleet.machine(node)
        asked = Asked(action, node, data, boots_before=machine.boots)
        self.asked[key] = asked
        self.fleet.world.note(node, "webhook", action=action, key=key, mode=mode.value)
        if not acts(mode):
            asked.boots_before = -1  # it says that it is done
            return
        match action:
            case "power_cycle" | "reboot_node":
                self.fleet.power_cycle(node)
            case "replace_node":
                machine.heal()
                self.fleet.power_cycle(node)
            case "open_vendor_case":
                asked.ticket = f"RMA-{len(self.asked):04d}"

    def _word(self, key: str) -> dict[str, str]:
        asked = self.asked.get(key)
        if asked is None:
            return {"status": "running"}
        is_booting = asked.boots_before >= self.fleet.machine(asked.node).boots
        if asked.ticket:
            return {"status": "done", "ticket": asked.ticket, "text": "the vendor has it"}
        return {"status": "running" if is_booting else "done", "text": asked.action}

    async def _tell(self, request: web.Request) -> web.Response:
        key = request.query.get("key", "")
        if not _is_signed(request, key, b""):
            return web.json_response({"error": "wrong signature"}, status=401)
        if key not in self.asked:
            return web.json_response({"error": "unknown key"}, status=404)
        return web.json_response(self._word(key))

    async def _set_mode(self, request: web.Request) -> web.Response:
        data = await request.json()
        try:
            self.modes[request.match_info["action"]] = Mode(data.get("mode", ""))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"mode": data["mode"]})

    async def _forget(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        self.asked = {k: a for k, a in self.asked.items() if a.action != action}
        return web.json_response({})


def _is_signed(request: web.Request, key: str, body: bytes) -> bool:
    stamp = request.headers.get("X-Breakfix-Timestamp", "")
    text = f"{stamp}.{request.method}.{key}.".encode() + body
    wanted = hmac.new(SECRET.encode(), text, hashlib.sha256).hexdigest()
    is_fresh = stamp.isdigit() and abs(time.time() - int(stamp)) <= _MAX_AGE_S
    given = request.headers.get("X-Breakfix-Signature", "")
    return is_fresh and hmac.compare_digest(wanted, given)
