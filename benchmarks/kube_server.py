"""An API server that has only nodes: every page is ready before it is asked for, so that what a
client measures is the client.
"""

from __future__ import annotations

import json
import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from benchmarks.fleet import Fleet, fleet_now

PAGE = 500
_NOTHING = b'{"kind":"List","apiVersion":"v1","metadata":{},"items":[]}'
_IMAGES = 45  # what makes a node of a GPU cluster 8.7 kB


def node_json(fleet: Fleet, i: int) -> dict[str, Any]:
    """A node as the API server writes it: our labels, a kubelet's status, a list of images."""
    (node,) = fleet.nodes(range(i, i + 1))
    labels = {f"feature.node.kubernetes.io/cpu-cpuid.FLAG{k}": "true" for k in range(20)}
    return {
        "metadata": {
            "name": node.name,
            "uid": f"8c3f0c1e-0000-4000-8000-{i:012d}",
            "resourceVersion": str(900000 + i),
            "creationTimestamp": "2026-01-05T10:00:00Z",
            "labels": {**labels, **node.labels},
            "annotations": {
                "node.alpha.kubernetes.io/ttl": "0",
                "volumes.kubernetes.io/controller-managed-attach-detach": "true",
            },
        },
        "spec": {"podCIDR": "10.0.0.0/24", "providerID": f"metal://{node.name}"},
        "status": {
            "capacity": {"cpu": "192", "memory": "2113513896Ki", "nvidia.com/gpu": "8"},
            "allocatable": {"cpu": "191", "memory": "2011513896Ki", "nvidia.com/gpu": "8"},
            "conditions": [
                {
                    "type": c.type,
                    "status": c.status,
                    "lastHeartbeatTime": "2026-03-01T11:59:00Z",
                    "lastTransitionTime": "2026-01-05T10:01:00Z",
                    "reason": c.reason,
                    "message": c.message,
                }
                for c in node.conditions
            ],
            "addresses": [
                {"type": "InternalIP", "address": f"10.{i >> 16}.{i >> 8 & 255}.{i & 255}"},
                {"type": "Hostname", "address": node.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": f"{i:032x}",
                "systemUUID": f"{i:08x}-0000-1000-8000-000000000000",
                "bootID": f"{i:08x}-1111-4000-8000-000000000000",
                "kernelVersion": "6.8.0-1030-gcp",
                "osImage": "Ubuntu 24.04.2 LTS",
                "containerRuntimeVersion": "containerd://1.7.27",
                "kubeletVersion": "v1.33.4",
                "kubeProxyVersion": "",
                "operatingSystem": "linux",
                "architecture": "amd64",
            },
            "images": [
                {"names": [f"registry.example/team/image-{k}@sha256:{k:064x}"], "sizeBytes": 9**9}
                for k in range(_IMAGES)
            ],
        },
    }


def pages(fleet: Fleet) -> list[bytes]:
    """The whole list, PAGE nodes at a time."""
    made = []
    for start in range(0, fleet.size, PAGE):
        end = min(start + PAGE, fleet.size)
        more = {"continue": str(end)} if end < fleet.size else {}
        body = {
            "kind": "NodeList",
            "apiVersion": "v1",
            "metadata": {"resourceVersion": "900000", **more},
            "items": [node_json(fleet, i) for i in range(start, end)],
        }
        made.append(json.dumps(body, separators=(",", ":")).encode())
    return made


def main() -> None:
    """Serve `nodes` nodes on a free port of the loopback; the port is the first line of output."""
    ready = pages(fleet_now(int(sys.argv[1])))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            start = parse_qs(asked.query).get("continue", ["0"])[0]
            body = ready[int(start) // PAGE] if asked.path == "/api/v1/nodes" else _NOTHING
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, sum(map(len, ready)), flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
