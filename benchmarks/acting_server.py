"""The simulated fleet's Kubernetes API with so many nodes, and nothing else that takes its time.

    python -m benchmarks.acting_server NODES KUBECONFIG [PODS]

Two pods with a GPU on each node; or so many, and kubelets that let them go. It is ready once the
kubeconfig is there.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet, fleet_now
from benchmarks.kube_server import node_json
from simfleet.kube import SimKube
from simfleet.kube.live import LiveSettings

PODS_PER_NODE = 2
_SPEED = 20.0  # of kubelets: pods stop in a twentieth of a second


def pod_json(node: str, i: int, gpus: int) -> dict[str, Any]:
    """A running pod with so many of the node's GPUs."""
    container = {
        "name": "main",
        "image": "registry.example/job:1",
        "resources": {k: {"nvidia.com/gpu": str(gpus)} for k in ("requests", "limits")},
    }
    return {
        "metadata": {
            "name": f"{node}-job-{i}",
            "namespace": "default",
            "labels": {"app": f"job-{i}"},
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1",
                    "kind": "Job",
                    "name": node,
                    "uid": node,
                    "controller": True,
                }
            ],
        },
        "spec": {"nodeName": node, "containers": [container]},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


def served_node(fleet: Fleet, i: int) -> dict[str, Any]:
    """A node without the images that make a real one large, and with what a server sets itself."""
    node = node_json(fleet, i)
    node["status"].pop("images")
    node["metadata"].pop("resourceVersion")
    return node


def main() -> None:
    """Serve until we are ended."""
    fleet = fleet_now(int(sys.argv[1]))
    nodes = [served_node(fleet, i) for i in range(fleet.size)]
    pods = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    settings = LiveSettings(frozenset({"kubelet"}))
    with SimKube(nodes=nodes, live=bool(pods), settings=settings, speed=_SPEED) as kube:

        def fill() -> None:
            for node in nodes:
                gpus = 0 if pods else 1  # what must move finds room on the nodes that stay
                for i in range(pods or PODS_PER_NODE):
                    kube.store.create("Pod", pod_json(node["metadata"]["name"], i, gpus))

        kube.call(fill)
        made = Path(sys.argv[2])
        kube.kubeconfig(made.with_suffix(".part")).rename(made)
        threading.Event().wait()


if __name__ == "__main__":
    main()
