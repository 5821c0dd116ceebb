"""The simulated fleet's Kubernetes API with so many nodes, and nothing else that takes its time.

    python -m benchmarks.acting_server NODES KUBECONFIG

Two pods with GPUs on each node. It is ready once the kubeconfig is there.
"""

from __future__ import annotations

import sys
import threading
from pathlib import Path
from typing import Any

from benchmarks.fleet import Fleet, fleet_now
from benchmarks.kube_server import node_json
from simfleet.kube import SimKube

PODS_PER_NODE = 2


def pod_json(node: str, i: int) -> dict[str, Any]:
    """A running pod with half of the node's GPUs."""
    container = {
        "name": "main",
        "image": "registry.example/job:1",
        "resources": {"requests": {"nvidia.com/gpu": "4"}, "limits": {"nvidia.com/gpu": "4"}},
    }
    return {
        "metadata": {
            "name": f"{node}-job-{i}",
            "namespace": "default",
            "labels": {"app": f"job-{i}"},
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": node, "uid": node}
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
    with SimKube(nodes=nodes) as kube:

        def fill() -> None:
            for node in nodes:
                for i in range(PODS_PER_NODE):
                    kube.store.create("Pod", pod_json(node["metadata"]["name"], i))

        kube.call(fill)
        made = Path(sys.argv[2])
        kube.kubeconfig(made.with_suffix(".part")).rename(made)
        threading.Event().wait()


if __name__ == "__main__":
    main()
