"""Lists all nodes once, by the product's adapter or by the official client's typed list."""

from __future__ import annotations

import sys

from kubernetes import client

from benchmarks.kube_server import PAGE
from benchmarks.measure import tell, timed
from breakfix.adapters.kubernetes.cluster import KubernetesCluster
from breakfix.adapters.kubernetes.transport import Transport

WAYS = ("product", "official")


def main() -> None:
    way, url = sys.argv[1:]
    settings = client.Configuration(host=url)
    api = client.ApiClient(settings)
    if way == "product":
        cluster = KubernetesCluster(Transport(api, timeout_s=60.0))
        names, cost = timed(lambda: [n.name for n in cluster.nodes()])
    else:
        core = client.CoreV1Api(api)
        names, cost = timed(lambda: _listed(core))
    tell(cost, nodes=len(set(names)))


def _listed(core: client.CoreV1Api) -> list[str]:
    """Page by page, the fairest way to use it: a whole list at once takes more of everything."""
    names: list[str] = []
    token = ""
    while True:
        page = core.list_node(limit=PAGE, _continue=token or None, _request_timeout=60)
        names += [n.metadata.name for n in page.items]
        token = page.metadata._continue  # noqa: SLF001 - the client's name
        if not token:
            return names


if __name__ == "__main__":
    main()
