"""The scrape side over HTTP: exporters and the service discovery that names them.

One process answers for every exporter; `__metrics_path__` says which one. Targets of the
dcgm-exporter carry namespace, pod and container of the exporter itself, so that with
`honor_labels: false` the workload's arrive as exported_namespace, exported_pod and
exported_container, as under the GPU operator's ServiceMonitor.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from aiohttp import web

from simfleet.exposition import CONTENT_TYPE
from simfleet.live import LiveFleet, Unavailable
from simfleet.objects import EXPORTER, OPERATOR_NAMESPACE
from simfleet.prometheus import JOBS

# Longer than any scrape timeout: the scraper gives up first.
HANG_S = 120.0


def scrape_routes(fleet: LiveFleet) -> list[web.RouteDef]:
    """Routes of the exporters and of http_sd."""
    views = _Scrape(fleet)
    return [
        web.get("/metrics/dcgm/{node}", views.dcgm),
        web.get("/metrics/node/{node}", views.node),
        web.get("/metrics/ksm", views.ksm),
        web.get("/sd", views.sd_all),
        web.get("/sd/{kind:dcgm|node|ksm}", views.sd_one),
    ]


class _Scrape:
    def __init__(self, fleet: LiveFleet) -> None:
        self.fleet = fleet

    async def dcgm(self, request: web.Request) -> web.StreamResponse:
        return await _answer(lambda: self.fleet.dcgm(request.match_info["node"]))

    async def node(self, request: web.Request) -> web.StreamResponse:
        return await _answer(lambda: self.fleet.node_exporter(request.match_info["node"]))

    async def ksm(self, request: web.Request) -> web.StreamResponse:
        del request
        return await _answer(self.fleet.kube_state)

    async def sd_all(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            [target for kind in JOBS for target in self._targets(request, kind)]
        )

    async def sd_one(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._targets(request, request.match_info["kind"]))

    def _targets(self, request: web.Request, kind: str) -> list[dict[str, object]]:
        if kind == "dcgm":
            found = self._dcgm_targets()
        elif kind == "node":
            found = [
                (f"/metrics/node/{node}", {"instance": f"{node}:9100"})
                for node in self.fleet.machines
            ]
        else:
            found = [("/metrics/ksm", {"instance": "kube-state-metrics:8080"})]
        return [
            {
                "targets": [request.host],
                "labels": {"__metrics_path__": path, "job": JOBS[kind], **labels},
            }
            for path, labels in found
        ]

    def _dcgm_targets(self) -> list[tuple[str, dict[str, str]]]:
        pods = self.fleet.exporter_pods()
        return [
            (
                f"/metrics/dcgm/{node}",
                {
                    "node": node,
                    "instance": f"{node}:9400",
                    "namespace": OPERATOR_NAMESPACE,
                    "pod": pods.get(node, EXPORTER),
                    "container": EXPORTER,
                },
            )
            for node in self.fleet.gpu_nodes()
        ]


async def _answer(render: Callable[[], str]) -> web.Response:
    try:
        return web.Response(text=render(), headers={"Content-Type": CONTENT_TYPE})
    except KeyError as error:
        raise web.HTTPNotFound(text=f"no such node: {error}\n") from error
    except Unavailable as error:
        if error.hangs:
            await asyncio.sleep(HANG_S)
        raise web.HTTPServiceUnavailable(text=f"{error}\n") from error
