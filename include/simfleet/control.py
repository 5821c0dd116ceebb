"""The control API under /sim: break, mend, look at the truth. For people, demo and tests only."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from aiohttp import web
from pydantic import ValidationError

from simfleet.faults import FAULTS, FaultOptions
from simfleet.fleet import BudgetConfig
from simfleet.live import LiveFleet
from simfleet.scenario import Player

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class ApiFaults(Protocol):
    """Trouble of the Kubernetes API itself, as a list of rules."""

    def add(self, rule: dict[str, Any]) -> None:
        """Add a rule; ValueError when it makes no sense."""

    def clear(self) -> None:
        """Drop all rules."""

    def rules(self) -> list[dict[str, Any]]:
        """The rules in force."""


def control_routes(
    fleet: LiveFleet, player: Player, api_faults: ApiFaults, kubeconfig: Callable[[str], str]
) -> list[web.RouteDef]:
    """Routes of the control API; `kubeconfig` makes one for a user (ValueError when unknown)."""
    views = _Control(fleet, player, api_faults, kubeconfig)
    return [
        web.get("/sim/status", views.status),
        web.get("/sim/faults", views.faults),
        web.get("/sim/nodes/{node}", _clear_errors(views.node)),
        web.post("/sim/nodes/{node}/break", _clear_errors(views.break_node)),
        web.post("/sim/nodes/{node}/heal", _clear_errors(views.heal)),
        web.post("/sim/nodes/{node}/power-cycle", _clear_errors(views.power_cycle)),
        web.post("/sim/nodes/{node}/cordon", _clear_errors(views.cordon)),
        web.post("/sim/racks/{rack}/break", _clear_errors(views.break_rack)),
        web.post("/sim/racks/{rack}/roll-back", _clear_errors(views.roll_back)),
        web.post("/sim/workloads/{namespace}/{name}/scale", _clear_errors(views.scale)),
        web.post("/sim/workloads/{namespace}/{name}/budget", _clear_errors(views.budget)),
        web.get("/sim/speed", views.speed),
        web.put("/sim/speed", _clear_errors(views.set_speed)),
        web.get("/sim/events", views.events),
        web.get("/sim/scenario", views.scenario),
        web.post("/sim/scenario/start", views.start),
        web.get("/sim/kubeconfig/{user}", _clear_errors(views.kubeconfig)),
        web.get("/sim/api-faults", views.api_fault_rules),
        web.post("/sim/api-faults", _clear_errors(views.add_api_fault)),
        web.delete("/sim/api-faults", views.clear_api_faults),
    ]


def _clear_errors(view: Handler) -> Handler:
    """Answer 400 with one clear line instead of a traceback when the request is wrong."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        try:
            return await view(request)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            return web.json_response({"error": "; ".join(lines)}, status=400)
        except (ValueError, KeyError, TypeError) as error:
            return web.json_response({"error": str(error)}, status=400)

    return guarded


async def _body(request: web.Request) -> dict[str, Any]:
    data = await request.json() if request.can_read_body else {}
    if not isinstance(data, dict):
        raise TypeError("the body must be a JSON object")
    return data


class _Control:
    def __init__(
        self,
        fleet: LiveFleet,
        player: Player,
        api_faults: ApiFaults,
        kubeconfig: Callable[[str], str],
    ) -> None:
        self.fleet = fleet
        self.player = player
        self.rules = api_faults
        self.kubeconfig_for = kubeconfig

    async def kubeconfig(self, request: web.Request) -> web.Response:
        return web.Response(text=self.kubeconfig_for(request.match_info["user"]))

    async def status(self, request: web.Request) -> web.Response:
        del request
        world = self.fleet.world
        about = {"fleet": self.fleet.config.name, "at": world.now(), "speed": world.speed}
        return web.json_response(about | {"nodes": self.fleet.status()})

    async def faults(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(
            [
                {
                    "name": k.name,
                    "what": k.what,
                    "scope": k.scope,
                    "cleared_by": sorted(k.cleared_by),
                }
                for k in FAULTS.values()
            ]
        )

    async def node(self, request: web.Request) -> web.Response:
        return web.json_response(self.fleet.node_status(request.match_info["node"]))

    async def break_node(self, request: web.Request) -> web.Response:
        data = await _body(request)
        fault = str(data.pop("fault", ""))
        options = FaultOptions.model_validate(data)
        hit = self.fleet.break_node(request.match_info["node"], fault, options)
        return web.json_response({"fault": fault, "nodes": hit})

    async def break_rack(self, request: web.Request) -> web.Response:
        data = await _body(request)
        fault = str(data.pop("fault", "bad_driver_rollout"))
        options = FaultOptions.model_validate(data)
        hit = self.fleet.break_rack(request.match_info["rack"], fault, options)
        return web.json_response({"fault": fault, "nodes": hit})

    async def roll_back(self, request: web.Request) -> web.Response:
        return web.json_response({"nodes": self.fleet.roll_back(request.match_info["rack"])})

    async def heal(self, request: web.Request) -> web.Response:
        fault = (await _body(request)).get("fault")
        ended = self.fleet.heal(request.match_info["node"], fault)
        return web.json_response({"ended": ended})

    async def power_cycle(self, request: web.Request) -> web.Response:
        self.fleet.power_cycle(request.match_info["node"])
        return web.json_response({})

    async def cordon(self, request: web.Request) -> web.Response:
        cordoned = bool((await _body(request)).get("cordoned", True))
        self.fleet.cordon(request.match_info["node"], cordoned=cordoned)
        return web.json_response({"cordoned": cordoned})

    async def scale(self, request: web.Request) -> web.Response:
        where = request.match_info
        replicas = int((await _body(request))["replicas"])
        self.fleet.scale(where["namespace"], where["name"], replicas)
        return web.json_response({"replicas": replicas})

    async def budget(self, request: web.Request) -> web.Response:
        where = request.match_info
        budget = BudgetConfig.model_validate(await _body(request))
        self.fleet.set_budget(where["namespace"], where["name"], budget)
        return web.json_response(budget.model_dump(exclude_none=True))

    async def speed(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"speed": self.fleet.world.speed})

    async def set_speed(self, request: web.Request) -> web.Response:
        self.fleet.world.speed = float((await _body(request))["speed"])
        return await self.speed(request)

    async def events(self, request: web.Request) -> web.Response:
        query = request.query
        found = self.fleet.world.truth.since(
            int(query.get("since", "0")), node=query.get("node"), what=query.get("what")
        )
        return web.json_response([event.as_dict() for event in found])

    async def scenario(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self.player.progress())

    async def start(self, request: web.Request) -> web.Response:
        self.player.start()
        return await self.scenario(request)

    async def api_fault_rules(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self.rules.rules())

    async def add_api_fault(self, request: web.Request) -> web.Response:
        self.rules.add(await _body(request))
        return await self.api_fault_rules(request)

    async def clear_api_faults(self, request: web.Request) -> web.Response:
        self.rules.clear()
        return await self.api_fault_rules(request)
