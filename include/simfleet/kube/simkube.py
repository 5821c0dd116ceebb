"""Running the API: inside a program's loop, or whole in a thread of its own for tests."""

from __future__ import annotations

import asyncio
import base64
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import yaml
from aiohttp import web

from simfleet.clock import Clock
from simfleet.kube.auth import Tokens, admin
from simfleet.kube.faults import Faults
from simfleet.kube.live import EVERYTHING_LIVE, Live, LiveSettings
from simfleet.kube.machines import Machine
from simfleet.kube.seeds import seed_cluster
from simfleet.kube.server import KubeApi
from simfleet.kube.store import Obj, Snapshot, Store
from simfleet.kube.tls import make_certificate

T = TypeVar("T")
ADMIN_TOKEN = "admin-token"  # noqa: S105 - of a simulation on loopback
START_TIMEOUT_S = 20.0
CALL_TIMEOUT_S = 30.0


async def run_server(
    api: KubeApi,
    host: str = "127.0.0.1",
    port: int = 0,
    *,
    ssl_context: ssl.SSLContext | None = None,
) -> web.AppRunner:
    """Serve the API; port 0 takes a free one. Stop it with `await runner.cleanup()`.

    With `ssl_context` (see `tls.make_certificate`) it speaks HTTPS: kubectl sends bearer tokens
    over nothing else.
    """
    # A watch ends with its client, not with the next event it cannot deliver.
    app = api.application()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, host, port, ssl_context=ssl_context).start()
    return runner


def url_of(runner: web.AppRunner, *, tls: bool = False) -> str:
    """The URL a runner serves at."""
    host, port = runner.addresses[0][:2]
    return f"{'https' if tls else 'http'}://{host}:{port}"


def kubeconfig(
    url: str, token: str, *, namespace: str = "default", certificate: str = ""
) -> dict[str, Any]:
    """A kubeconfig for the API, as a dict; `certificate` is the PEM to trust."""
    server = {"server": url}
    if certificate:
        server["certificate-authority-data"] = base64.b64encode(certificate.encode()).decode()
    cluster = {"name": "simfleet", "cluster": server}
    user = {"name": "simfleet", "user": {"token": token}}
    names = {"cluster": "simfleet", "user": "simfleet", "namespace": namespace}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [cluster],
        "users": [user],
        "contexts": [{"name": "simfleet", "context": names}],
        "current-context": "simfleet",
    }


class SimKube:
    """A simulated cluster's API in a background thread: `with SimKube(nodes=[...]) as kube:`.

    Attributes: `url`, `store`, `tokens`, `faults`, `api`. The store belongs to the background
    loop: reach it through `call`. `tls` makes it HTTPS, as kubectl wants. `live` starts
    controllers and kubelets beside the API. `snapshot` is the content of another store to begin
    with.
    """

    def __init__(
        self,
        *,
        nodes: Sequence[Obj] = (),
        live: bool = False,
        speed: float = 1.0,
        tokens: Tokens | None = None,
        machines: Mapping[str, Machine] | None = None,
        settings: LiveSettings = EVERYTHING_LIVE,
        future_wait_s: float = 3.0,
        seed: int | None = None,
        tls: bool = False,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.tokens = tokens or Tokens({ADMIN_TOKEN: admin()})
        self.faults = Faults()
        self.store = Store(Clock(speed), seed=seed)
        self.api = KubeApi(self.store, self.tokens, self.faults, future_wait_s=future_wait_s)
        self.url, self.certificate, self._tls = "", "", tls
        self.live: Live | None = None
        self._nodes, self._is_live, self._snapshot = list(nodes), live, snapshot
        self._machines, self._settings = machines, settings
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="simkube", daemon=True)
        self._runner: web.AppRunner | None = None
        self._started: Future[None] = Future()

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.result(START_TIMEOUT_S)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(CALL_TIMEOUT_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(CALL_TIMEOUT_S)
        self._loop.close()

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the API's thread and give back what it returns."""

        async def on_loop() -> T:
            return function()

        return asyncio.run_coroutine_threadsafe(on_loop(), self._loop).result(CALL_TIMEOUT_S)

    def kubeconfig(self, path: Path, token: str = ADMIN_TOKEN) -> Path:
        """Write a kubeconfig file for a token."""
        config = kubeconfig(self.url, token, certificate=self.certificate)
        path.write_text(yaml.safe_dump(config))
        return path

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        task = self._loop.create_task(self._start())
        task.add_done_callback(self._report_start)
        self._loop.run_forever()

    def _report_start(self, task: asyncio.Task[None]) -> None:
        if error := task.exception():
            self._started.set_exception(error)
        else:
            self._started.set_result(None)

    async def _start(self) -> None:
        if self._snapshot is not None:
            self.store.load(self._snapshot)
        seed_cluster(self.store, self._nodes)
        if self._is_live:
            self.live = Live(self.store, machines=self._machines, settings=self._settings)
            if "kubelet" in self._settings.controllers:
                self.api.read_log = self.live.kubelet.log_of
            self.live.start()
        context = None
        if self._tls:
            context, self.certificate = make_certificate("127.0.0.1")
        self._runner = await run_server(self.api, ssl_context=context)
        self.url = url_of(self._runner, tls=self._tls)

    async def _stop(self) -> None:
        if self.live is not None:
            await self.live.stop()
        if self._runner is not None:
            _abort_connections(self._runner)
            await self._runner.cleanup()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        # Aborted transports close in a later round of the loop.
        await asyncio.sleep(0.01)


def _abort_connections(runner: web.AppRunner) -> None:
    """Clients that keep connections or watches open are not waited for."""
    for handler in runner.server.connections if runner.server else ():
        if handler.transport is not None:
            handler.transport.abort()
