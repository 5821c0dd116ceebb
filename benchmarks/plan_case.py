"""Plans for a fleet that has been judged already: `nodes`, five pods on each, how many percent a
verdict wants out, and whether limits are `tight` (the default) or `wide` (a fifth may go).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from datetime import UTC, datetime

from benchmarks.fleet import Fleet
from benchmarks.measure import tell, timed
from breakfix.model import (
    Action,
    Budget,
    FailureClass,
    HaltLevel,
    Judgement,
    NodeState,
    Observation,
    Owner,
    Plan,
    Pod,
    Verdict,
)
from breakfix.plan import make_plan
from breakfix.policy import Policy, parse_policy
from breakfix.wiring import default_policy_text

_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
_PODS_PER_NODE = 5
_GANG = 32  # pods of one training job
_SERVICES = 200  # with a budget each
_DAEMONS = (Owner("DaemonSet", "exporter", "ds-1"), Owner("DaemonSet", "plugin", "ds-2"))
_WIDE = """
limits:
  out: {fleet: {share: 0.2}, pool: {nodes: 99999}, sku: {nodes: 99999}, rack: {nodes: 4},
        fabric: {nodes: 99999}}
  breaker: {most: {fleet: {at_least: 99999}, pool: {at_least: 99999}, sku: {at_least: 99999},
            rack: {at_least: 99999}, fabric: {at_least: 99999}}}
"""


def _pods(names: tuple[str, ...]) -> Iterator[Pod]:
    """Two of DaemonSets, two of services, one of a job on many nodes; 5 of 8 GPUs in use."""
    for i, name in enumerate(names):
        for k, owner in enumerate(_DAEMONS):
            yield Pod("gpu", f"d{k}-{i}", f"d{k}-{i}", name, owners=(owner,))
        for k in range(2):
            service = f"s{(2 * i + k) % _SERVICES}"
            owners = (Owner("ReplicaSet", service, service),)
            own = f"w{k}-{i}"
            yield Pod("serve", own, own, name, labels={"app": service}, owners=owners, gpus=1)
        job = {"jobset.sigs.k8s.io/jobset-name": f"job-{i // _GANG}"}
        owners = (Owner("Job", f"job-{i // _GANG}", f"job-{i // _GANG}"),)
        yield Pod("train", f"t-{i}", f"t-{i}", name, labels=job, owners=owners, gpus=3)
    for i in range(max(1, len(names) // 100)):
        yield Pod("train", f"p-{i}", f"p-{i}", phase="Pending", gpus=8)


def world(nodes: int, percent: int) -> tuple[Observation, Judgement]:
    """What was observed, and what was judged of it."""
    fleet = Fleet(nodes, _AT)
    names = tuple(fleet.names)
    every = max(1, 100 // max(1, percent))
    verdicts = tuple(
        Verdict(
            name,
            NodeState.SUSPECT if i % every == 0 else NodeState.HEALTHY,
            FailureClass.GPU_OFF_BUS if i % every == 0 else None,
            0.97 if i % every == 0 else 0.0,
            (),
            (),
            Action.REBOOT_NODE if i % every == 0 else Action.NONE,
            "XID 79" if i % every == 0 else "",
        )
        for i, name in enumerate(names)
    )
    budgets = tuple(
        Budget("serve", f"s{i}", {"matchLabels": {"app": f"s{i}"}}, 1000) for i in range(_SERVICES)
    )
    seen = Observation(
        at=_AT,
        nodes=fleet.nodes(),
        pods=tuple(_pods(names)),
        budgets=budgets,
        gpu_nodes=frozenset(names),
        daemon_sets=frozenset({("gpu", "exporter"), ("gpu", "plugin")}),
    )
    return seen, Judgement(_AT, "bench", "bench", verdicts)


def main() -> None:
    nodes, percent, room = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    policy: Policy = parse_policy(default_policy_text(), _WIDE if room == "wide" else "")
    seen, judged = world(nodes, percent)
    names = {v.node: "two labels" for v in judged.verdicts}

    def work() -> Plan:
        return make_plan(
            seen,
            judged,
            policy,
            records={},
            cases=(),
            halt=HaltLevel.NONE,
            confirmed=names,
            now=_AT,
        )

    rounds = [timed(work) for _ in range(3)]
    made, cost = min(rounds, key=lambda r: r[1]["cpu_s"])
    tell(cost, pods=len(seen.pods), intents=len(made.intents), refusals=len(made.refusals))


if __name__ == "__main__":
    main()
