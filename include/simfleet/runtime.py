"""The whole simulation in one process: API, controllers, machines, exporters, control.

One plain HTTP port answers for everything; kubectl, which sends tokens over HTTPS only, gets a
second port with a throw-away certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import yaml
from aiohttp import web

from simfleet.bmc import Bmcs
from simfleet.clock import Clock
from simfleet.control import control_routes
from simfleet.hooks import Hooks
from simfleet.kube import (
    ADMIN_TOKEN,
    READ_ONLY,
    ApiFault,
    Faults,
    KubeApi,
    Store,
    Tokens,
    User,
    admin,
    kubeconfig,
    seed_cluster,
)
from simfleet.kube import FaultKind as ApiFaultKind
from simfleet.kube.defaults import for_create
from simfleet.kube.live import EVERYTHING_LIVE, Live
from simfleet.kube.seeds import add_namespace
from simfleet.kube.tls import make_certificate
from simfleet.live import LiveFleet
from simfleet.objects import fleet_objects, node_object
from simfleet.scenario import Player, Scenario
from simfleet.scrape import scrape_routes
from simfleet.world import World

log = logging.getLogger(__name__)
TICK_S = 0.2
# A silent kubelet is waited for this long (kube-controller-manager's default); in a fast fleet
# less, so that a reboot still shows as NotReady, but never so little that a busy loop does.
NODE_GRACE_S = 40.0
MIN_GRACE_S = 4.0
VIEWER_TOKEN = "viewer-token"  # noqa: S105 - of a simulation on loopback
STOP_TIMEOUT_S = 0.5


class ApiFaultRules:
    """The API's rule list, as the control API speaks of it."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def add(self, rule: dict[str, Any]) -> None:
        """Add `{kind, method, path, latency_s, times}`; ValueError when it makes no sense."""
        known = {"kind", "method", "path", "latency_s", "times"}
        if stray := rule.keys() - known:
            raise ValueError(
                f"unknown {', '.join(sorted(stray))}; known: {', '.join(sorted(known))}"
            )
        kind = ApiFaultKind(rule.get("kind", ""))
        self._faults.add(ApiFault(**{**rule, "kind": kind}))

    def clear(self) -> None:
        """Drop all rules."""
        self._faults.clear()

    def rules(self) -> list[dict[str, Any]]:
        """The rules in force, with how often each has hit."""
        return [
            {
                "kind": rule.kind.value,
                "method": rule.method,
                "path": rule.path,
                "latency_s": rule.latency_s,
                "times": rule.times,
                "hits": rule.hits,
            }
            for rule in self._faults.rules
        ]


@dataclass(frozen=True, slots=True)
class Ports:
    """Where to listen; port 0 takes a free one, `tls` None opens no HTTPS port."""

    host: str = "127.0.0.1"
    http: int = 0
    tls: int | None = 0


class Simulation:
    """A scenario's fleet, served. `await start()`, then `url`; `await stop()` in the end."""

    def __init__(self, scenario: Scenario, ports: Ports | None = None) -> None:
        fleet = scenario.fleet
        self.ports = ports or Ports()
        self.tokens = Tokens(
            {ADMIN_TOKEN: admin(), VIEWER_TOKEN: User("viewer", rules=(READ_ONLY,))}
        )
        self.faults = Faults()
        self.store = Store(Clock(), seed=fleet.seed)
        self.api = KubeApi(self.store, self.tokens, self.faults)
        self.world = World(speed=fleet.speed, seed=fleet.seed)
        self.fleet = LiveFleet(fleet, self.world, self.store)
        rules = ApiFaultRules(self.faults)
        self.player = Player(scenario, self.fleet, rules.add, rules.clear)
        settings = replace(
            EVERYTHING_LIVE, node_grace_s=max(NODE_GRACE_S / fleet.speed, MIN_GRACE_S)
        )
        self.live = Live(self.store, machines=self.fleet.machines, settings=settings)
        self.api.read_log = self.live.kubelet.log_of
        self.bmcs, self.hooks = Bmcs(self.fleet), Hooks(self.fleet)
        self.app = self._application(rules)
        self.url = self.tls_url = self.certificate = ""
        self._runner: web.AppRunner | None = None
        self._ticking: asyncio.Task[None] | None = None

    def _application(self, rules: ApiFaultRules) -> web.Application:
        app = web.Application(client_max_size=8 * 1024 * 1024)
        app.add_routes(scrape_routes(self.fleet))
        app.add_routes(control_routes(self.fleet, self.player, rules, self.kubeconfig_of))
        app.add_routes([*self.bmcs.routes(), *self.hooks.routes()])
        app.router.add_route("*", "/{path:.*}", self.api.handle)
        return app

    async def start(self, *, hold: bool = False) -> None:
        """Fill the cluster, listen, and begin the timeline unless it is on hold."""
        self._fill()
        self.live.start()
        self._runner = web.AppRunner(self.app, access_log=None, shutdown_timeout=STOP_TIMEOUT_S)
        await self._runner.setup()
        host = self.ports.host
        await web.TCPSite(self._runner, host, self.ports.http).start()
        self.url = f"http://{host}:{self._runner.addresses[0][1]}"
        if self.ports.tls is not None:
            context, self.certificate = make_certificate(host)
            await web.TCPSite(self._runner, host, self.ports.tls, ssl_context=context).start()
            self.tls_url = f"https://{host}:{self._runner.addresses[1][1]}"
        self._ticking = asyncio.create_task(self._tick_forever())
        if not hold:
            self.player.start()

    def _fill(self) -> None:
        now = self.store.timestamp()
        machines = self.fleet.machines.values()
        nodes = [node_object(machine, number, now) for number, machine in enumerate(machines)]
        seed_cluster(self.store, nodes)
        for kind, obj in fleet_objects(self.fleet.config):
            if kind == "Namespace":
                add_namespace(self.store, obj["metadata"]["name"])
            else:
                self.store.create(kind, for_create(kind, obj, self.store))

    async def _tick_forever(self) -> None:
        while True:
            try:
                self.fleet.tick()
            except Exception:
                # One bad happening must not stop the world; it is shown and time goes on.
                log.exception("a happening failed")
            await asyncio.sleep(TICK_S)

    async def stop(self) -> None:
        """Stop listening, ticking and controlling."""
        if self._ticking is not None:
            self._ticking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticking
        await self.live.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    def kubeconfig_of(self, user: str) -> str:
        """A kubeconfig for `admin` or `viewer`; ValueError for anybody else."""
        known = {"admin": ADMIN_TOKEN, "viewer": VIEWER_TOKEN}
        if user not in known:
            raise ValueError(f"no user {user!r}; known: {', '.join(known)}")
        return self.kubeconfig_text(known[user])

    def kubeconfig_text(self, token: str = ADMIN_TOKEN) -> str:
        """A kubeconfig for the running API: HTTPS when there is an HTTPS port."""
        url = self.tls_url or self.url
        return yaml.safe_dump(kubeconfig(url, token, certificate=self.certificate))


async def serve_until_stopped(sim: Simulation, *, hold: bool, ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; `ready` is called once everything listens."""
    stopping = asyncio.Event()
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    try:
        await sim.start(hold=hold)
        ready()
        await stopping.wait()
    finally:
        await sim.stop()
