"""Drains some nodes at once, each with many pods: bound by the rate of evictions, or by ourselves?

    python -m benchmarks.drain_case KUBECONFIG DATABASE_URL NODES SERVER_PID

Each node is drained as by its own task: the flow's passes, the real adapters, the rate shared
through the ledger, a check before every eviction, two audit entries for each.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor

from benchmarks.measure import tell, timed
from breakfix.adapters.ledger import migrate
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.case import put_in_quarantine
from breakfix.flow.draining import Overdue, drain_node
from breakfix.flow.services import Services
from breakfix.model import Case, FailureClass
from breakfix.policy import parse_policy
from breakfix.settings import load_settings
from breakfix.wiring import build_services, default_policy_text

NODES = 4
PODS_PER_NODE = 100
PER_S = 20.0  # four times the default: what is not the rate shows
_POLICY = f"""
version: bench
limits:
  out: {{fleet: {{share: 0.8}}, pool: {{nodes: 9}}, sku: {{nodes: 9}}, rack: {{nodes: 9}}}}
  headroom_gpus: 0
drain: {{evictions_per_s: {PER_S}, poll: 1s}}
"""
_POLL_S = 0.1


def drained(services: Services, case: Case) -> float:
    """Pass after pass until nothing is left; seconds since the epoch at its end."""
    while True:
        outcome = drain_node(services, case)
        if isinstance(outcome, Overdue):
            raise TimeoutError(outcome.text)
        if outcome is None:
            return time.time()
        time.sleep(_POLL_S)


def main() -> None:
    kubeconfig, url, count, server_pid = sys.argv[1:]
    migrate(url)
    settings = load_settings(kubeconfig=kubeconfig, database_url=url, cluster_name="bench")
    policy = parse_policy(default_policy_text(), _POLICY)
    services = build_services(settings, needs_ledger=True, needs_metrics=False, policy=policy)
    cases = [_opened(services, n.name) for n in services.cluster.nodes()[: int(count)]]
    with ThreadPoolExecutor(len(cases)) as tasks:
        _, cost = timed(
            lambda: list(tasks.map(lambda c: drained(services, c), cases)),
            server_pid=int(server_pid),
        )
    entries = [e for e in services.book.audit_entries() if e.event == "pod.evicted"]
    left = sum(len(services.cluster.pods(c.node)) for c in cases)
    tell(cost, evicted=len({e.detail["uid"] for e in entries}), left=left, per_s=PER_S)


def _opened(services: Services, node: str) -> Case:
    opened = open_by_hand(
        services, node, FailureClass.MANUAL, requester="cli:bench", reason="benchmark"
    )
    assert isinstance(opened, Case), f"{node}: {opened.text}"
    put_in_quarantine(services, opened, is_fresh=True)
    return opened


if __name__ == "__main__":
    main()
