"""A fake BMC for every node: enough of Redfish to log in, read a system and reset it.

All nodes are systems of one service, `/redfish/v1/Systems/<node>`. A reset really power-cycles the
simulated machine, unless the node's BMC is told to lie, hang or fail.
"""

from __future__ import annotations

import secrets
from base64 import b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from simfleet.live import LiveFleet
from simfleet.trouble import Mode, acts, trouble

USER, PASSWORD = "bmc-admin", "bmc-password"
_ROOT = "/redfish/v1"
_RESETS = ["On", "ForceOff", "ForceRestart", "GracefulRestart", "PowerCycle"]

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Bmcs:
    """The BMCs of a fleet. `modes`: node -> how its BMC behaves."""

    def __init__(self, fleet: LiveFleet) -> None:
        self.fleet = fleet
        self.modes: dict[str, Mode] = {}
        self.resets: list[tuple[str, str]] = []  # (node, kind), each that was asked for
        self._last_reset: dict[str, str] = {}
        self._sessions: set[str] = set()

    def routes(self) -> list[web.RouteDef]:
        """Redfish, and under /sim the switch of a BMC's behaviour."""
        return [
            web.post(f"{_ROOT}/SessionService/Sessions", self._log_in),
            web.delete(f"{_ROOT}/SessionService/Sessions/{{id}}", self._known(self._log_out)),
            web.get(f"{_ROOT}/Systems", self._known(self._list)),
            web.get(f"{_ROOT}/Systems/{{node}}", self._known(self._system)),
            web.post(
                f"{_ROOT}/Systems/{{node}}/Actions/ComputerSystem.Reset", self._known(self._reset)
            ),
            web.put("/sim/bmc/{node}", self._set_mode),
        ]

    def _known(self, view: Handler) -> Handler:
        """Only for a session or the password."""
        basic = "Basic " + b64encode(f"{USER}:{PASSWORD}".encode()).decode()

        async def guarded(request: web.Request) -> web.StreamResponse:
            is_known = request.headers.get("X-Auth-Token") in self._sessions
            if not is_known and request.headers.get("Authorization") != basic:
                return web.json_response({"error": {"message": "log in first"}}, status=401)
            return await view(request)

        return guarded

    async def _log_in(self, request: web.Request) -> web.Response:
        data = await request.json()
        if (data.get("UserName"), data.get("Password")) != (USER, PASSWORD):
            return web.json_response({"error": {"message": "wrong password"}}, status=401)
        token = secrets.token_hex(16)
        self._sessions.add(token)
        place = f"{_ROOT}/SessionService/Sessions/{token[:8]}"
        headers = {"X-Auth-Token": token, "Location": place}
        return web.json_response({"@odata.id": place}, status=201, headers=headers)

    async def _log_out(self, request: web.Request) -> web.Response:
        self._sessions = {t for t in self._sessions if t[:8] != request.match_info["id"]}
        return web.Response(status=204)

    async def _list(self, request: web.Request) -> web.Response:
        del request
        members = [{"@odata.id": f"{_ROOT}/Systems/{name}"} for name in self.fleet.machines]
        return web.json_response({"Members": members, "Members@odata.count": len(members)})

    async def _system(self, request: web.Request) -> web.Response:
        name = request.match_info["node"]
        if name not in self.fleet.machines:
            return web.json_response({"error": {"message": "no such system"}}, status=404)
        return web.json_response(self._describe(name))

    def _describe(self, name: str) -> dict[str, Any]:
        path = f"{_ROOT}/Systems/{name}"
        return {
            "@odata.id": path,
            "Id": name,
            "HostName": name,
            "UUID": name,  # as the kubelet shows it here
            "PowerState": "On",
            "LastResetTime": self._last_reset.get(name, ""),
            "Actions": {
                "#ComputerSystem.Reset": {
                    "target": f"{path}/Actions/ComputerSystem.Reset",
                    "ResetType@Redfish.AllowableValues": _RESETS,
                }
            },
        }

    async def _reset(self, request: web.Request) -> web.Response:
        name, kind = request.match_info["node"], str((await request.json()).get("ResetType", ""))
        if name not in self.fleet.machines or kind not in _RESETS:
            return web.json_response({"error": {"message": f"no reset {kind!r}"}}, status=400)
        mode = self.modes.get(name, Mode.OBEY)
        self.resets.append((name, kind))
        self.fleet.world.note(name, "bmc_reset", kind=kind, mode=mode.value)
        if acts(mode):
            self._last_reset[name] = datetime.now(UTC).isoformat()
            self.fleet.power_cycle(name)
        return await trouble(mode, request) or web.Response(status=204)

    async def _set_mode(self, request: web.Request) -> web.Response:
        data = await request.json()
        try:
            self.modes[request.match_info["node"]] = Mode(data.get("mode", ""))
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)
        return web.json_response({"mode": data["mode"]})
