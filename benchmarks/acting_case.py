"""Takes so many nodes out of service in one sweep: admission, quarantine and audit of each.

    python -m benchmarks.acting_case KUBECONFIG DATABASE_URL NODES SERVER_PID

The judging is left out (it is measured elsewhere); the intents are those that a sweep would have,
and what happens to them is what a sweep does: its own code, the real adapters, Postgres.
"""

from __future__ import annotations

import sys

from benchmarks.measure import tell, timed
from breakfix.act import marks
from breakfix.act.ownership import check_ownership
from breakfix.adapters.clock import SystemClock
from breakfix.adapters.ledger import migrate
from breakfix.flow.looking import look
from breakfix.flow.services import Services
from breakfix.flow.sweep import take_out
from breakfix.model import Action, FailureClass, Impact, Intent, Node, StepStatus
from breakfix.policy import parse_policy
from breakfix.settings import load_settings
from breakfix.wiring import build_services, default_policy_text

NODES = 1500  # of which half: 750
#: Limits that allow it: what they cost is measured, not whether they say no.
_POLICY = """
version: bench
limits:
  out:
    fleet: {share: 0.8}
    pool: {share: 0.8, nodes: 9999}
    sku: {share: 0.8, nodes: 9999}
    rack: {share: 0.8, nodes: 9999}
    fabric: {nodes: 9999}
  headroom_gpus: 0
  breaker:
    most:
      fleet: {share: 1.0, nodes: 9999}
      pool: {share: 1.0, nodes: 9999}
      sku: {share: 1.0, nodes: 9999}
      rack: {share: 1.0, nodes: 9999}
      fabric: {share: 1.0, nodes: 9999}
classes:
  gpu_off_bus: {mode: auto}
"""


def intent_of(node: Node) -> Intent:
    return Intent(
        node=node.name,
        node_uid=node.uid,
        boot_id=node.boot_id,
        failure_class=FailureClass.GPU_OFF_BUS,
        action=Action.REBOOT_NODE,
        confidence=0.97,
        reason="XID 79 on GPU 3",
        impact=Impact(pods_evicted=2, gpus_stopped=8, gpus_free_after=0),
        scopes=tuple(node.scopes()),
        policy_hash="bench",
    )


def main() -> None:
    kubeconfig, url, count, server_pid = sys.argv[1:]
    migrate(url)
    settings = load_settings(kubeconfig=kubeconfig, database_url=url, cluster_name="bench")
    policy = parse_policy(default_policy_text(), _POLICY)
    services = build_services(settings, needs_ledger=True, needs_metrics=False, policy=policy)
    check_ownership(services.cluster, services.book, settings.namespace, now=SystemClock().now())
    world = look(services)
    chosen = [n for i, n in enumerate(world.fleet) if i % 4][: int(count)]  # three of four a rack
    intents = [intent_of(n) for n in chosen]
    (cases, refusals), cost = timed(
        lambda: take_out(services, intents, world, requester="bench"), server_pid=int(server_pid)
    )
    found = _checked(services, {n.name for n in chosen})
    tell(cost, cases=len(cases), refused=len(refusals), **found)


def _checked(services: Services, wanted: set[str]) -> dict[str, int]:
    """What the cluster and the ledger have of it afterwards."""
    out = [n for n in services.cluster.nodes() if n.name in wanted]
    steps = [services.book.steps(c.id) for c in services.book.cases(open_only=True)]
    return {
        "quarantined": sum(n.is_unschedulable and marks.has_taint(n) for n in out),
        "recorded": sum(any(s.status is StepStatus.DONE for s in of) for of in steps),
        "audit_faults": int(bool(services.book.verify_audit()[1])),
    }


if __name__ == "__main__":
    main()
