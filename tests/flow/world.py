"""A small fleet with a clock that only tests move: fakes behind every port, a kubelet that obeys.

`FlowWorld.drive` is the schedulers' day: sweeps, reconciliations, runs that wait; no second of real
time passes.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from breakfix.errors import MetricsError
from breakfix.flow.assessment import assess
from breakfix.flow.reconcile import reconcile
from breakfix.flow.services import Services
from breakfix.flow.stages import Stage, Wait, WaitKind
from breakfix.model import Answer, Owner
from breakfix.observe.promql import ALL, FEW, coverage_query, signal_query
from breakfix.policy import merge_overlay, parse_policy
from breakfix.ports import QueryResult, Sample
from breakfix.settings import load_settings
from breakfix.wiring import default_policy_text
from tests.fakes_cluster import FakeCluster
from tests.fakes_ledger import FakeLedger
from tests.flow.driver import Road

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
DIAG_PASSES = (Path(__file__).parent.parent / "data" / "diag" / "r2_pass.json").read_text()
OVERLAY = """
version: flow-tests
limits:
  out: {fleet: {share: 0.5}, pool: {nodes: 9}, sku: {nodes: 9}, rack: {nodes: 1}}
  cooldown: 0s
  max_runs: 4
  breaker:  # tests of storms set it
    most: {fleet: {at_least: 99}, pool: {at_least: 99}, sku: {at_least: 99}, rack: {at_least: 99}}
drain: {timeout: 5m, poll: 5s, evictions_in_flight: 1, overdue: escalate, replaced: {within: 0s}}
timing:
  approval_repair: 30m
  approval_return: 30m
  reboot: 10m
  repair_pod: 5m
  gpus_back: 5m
  clear: 30s
  signals: 5m
  diag: 10m
  watch: 5m
classes:
  gpu_off_bus: {diag_level: 2}
  ecc_uncorrectable: {diag_level: 2}
  device_plugin: {mode: approve}
signals:
  - {name: kube_gpus_short, mode: alone, weight: 0.95}
approvals: {approvers: [oncall, second]}
canary: {watch_returned: false}  # test_soak.py turns it on
"""
TASK_STEP_S = 10.0
SWEEP_EVERY_S = 60.0
RECONCILE_EVERY_S = 300.0


@cache
def policy_with(overlay=""):
    """The default policy, the overlay of these tests, and one more on top; parsed once."""
    default = merge_overlay(yaml.safe_load(default_policy_text()), yaml.safe_load(OVERLAY))
    return parse_policy(yaml.safe_dump(default), overlay)


class Clock:
    def __init__(self):
        self.at = START

    def now(self):
        return self.at

    def monotonic(self):
        return (self.at - START).total_seconds()

    def sleep(self, seconds):
        self.at += timedelta(seconds=seconds)


@dataclass
class Notifier:
    told: list[tuple[str, str]] = field(default_factory=list)

    def tell(self, subject, text, *, case_id=""):
        self.told.append((subject, text))


class Telemetry:
    """A Prometheus in which nodes have XIDs (until a repair clears them) and may fall silent."""

    def __init__(self, policy, cluster):
        self._cluster, self.xids, self.silent, self.is_down = cluster, [], set(), False
        self.untied = set()  # nodes that no second source names
        self.mute = set()  # nodes of which one GPU tells nothing, while the others do
        self.firing = []  # labels of alerts
        self.operator = {}  # node -> what the operator's metrics say of it
        self.counters = []  # (when, node, metric, GPU, value): so from then on
        plain = [s for s in policy.signals if not s.is_kubernetes]
        self._covers = {
            coverage_query(
                s, policy.names, stale_s=policy.timing.stale_sample_s, with_ages=ages, gpus=gpus
            ): s.name
            for s in plain
            for ages in (True, False)
            for gpus in (ALL, FEW)
        }
        xid = next(s for s in plain if s.name == "xid_last")
        self._xid_since = re.compile(
            re.escape(signal_query(xid, policy.names, most_gpus=8)).replace(
                "21600000ms", r"(\d+)ms"
            )
        )

    def query(self, promql, *, at):
        """The questions of their own: what ties the metrics to their nodes, the operator's word."""
        if self.is_down:
            raise MetricsError("connection refused")
        if promql.startswith("ALERTS"):
            return QueryResult(tuple(Sample(labels, 1.0) for labels in self.firing))
        if "gpu_operator_node" in promql:
            said = [(n, v) for n, v in self.operator.items() if f'"{n}"' in promql]
            return QueryResult(tuple(Sample({"node": n}, v) for n, v in said))
        tied = [n for n in self._cluster._nodes if n not in self.silent | self.untied]
        return QueryResult(tuple(Sample({"node": n, "Hostname": n}, 1.0) for n in tied))

    def query_many(self, queries, *, at):
        return {name: self._answer(q, at) for name, q in queries.items()}

    def _answer(self, promql, at):
        if self.is_down:
            return "connection refused"
        seen = [n for n in self._cluster._nodes if n not in self.silent]
        if promql in self._covers:
            return QueryResult(tuple(Sample({"node": n}, 5.0) for n in seen))
        if promql.startswith("((0 * count by (") and ", gpu) (" in promql:  # which GPUs report
            telling = [n for n in seen if n not in self.mute]
            return QueryResult(tuple(Sample({"node": n, "UUID": f"GPU-{n}"}, 0.0) for n in telling))
        asked = self._xid_since.fullmatch(promql)
        if not asked:
            return QueryResult(self._counted(promql, at))
        since = at - timedelta(milliseconds=int(asked[1]))
        return QueryResult(
            tuple(
                Sample({"node": n, "UUID": f"GPU-{n}", "err_code": str(code)}, 1.0)
                for n, code, when in self.xids
                if n in seen and when >= since
            )
        )

    def _counted(self, promql, at):
        values = {
            (node, gpu): value
            for when, node, metric, gpu, value in self.counters
            if when <= at and metric in promql and f'"{node}"' in promql
        }
        return tuple(Sample({"node": n, "UUID": g}, float(v)) for (n, g), v in values.items())


class FakeRoad(Road):
    """`says(run, purpose)` gives the answers, or None while people are silent."""

    def __init__(self, services, says):
        super().__init__(services)
        self.says = says

    def _answer(self, run, purpose):
        answers = self.says(run, purpose)
        question = self.services.book.approvals(run.case_id)[-1]
        if answers is None and self.services.clock.now() < question.expires_at:
            return Wait(
                WaitKind.TIME, run.case_id, run.node, question.expires_at, question.expires_at
            )
        return self.settle(run, purpose, answers or [])

    def kill(self, run_id):
        """The run's worker is gone, and nobody retries it."""
        self.runs[run_id].stage, self.runs[run_id].wait = Stage.SETTLE_RUN, None


@dataclass
class FlowWorld:
    overlay: str = ""
    nodes: tuple[str, ...] = ("a1", "a2", "b1", "b2")  # the first letter is the rack
    cluster: Any = field(default_factory=FakeCluster)
    ledger: Any = field(default_factory=lambda: FakeLedger("test"))
    reboot_works: bool = True
    repair_clears: bool = True
    diag: tuple[int, str] = (0, DIAG_PASSES)  # of level 2 and more
    quick_diag: tuple[int, str] = (0, DIAG_PASSES)
    reset_exit: int = 0
    diags: list[tuple[int, str]] = field(default_factory=list)  # of the next ones, level 2 and up
    loads: dict[str, tuple[int, str]] = field(default_factory=dict)  # kind -> exit code, log
    settings: dict[str, str] = field(default_factory=dict)

    def __post_init__(self):
        self.clock, self.notifier = Clock(), Notifier()
        policy = policy_with(self.overlay)
        self.metrics = Telemetry(policy, self.cluster)
        chosen = {"cluster_name": "test", "acts_at_once": 1, **self.settings}
        settings = load_settings(**chosen)
        self.ledger.clock, self.cluster.now = self.clock, self.clock.now
        self.services = Services(
            self.metrics, self.cluster, policy, settings, self.clock, self.notifier, self.ledger
        )
        for name in self.nodes:
            self.cluster.add_node(name, rack=name[0])
        self.ran = Counter()  # repairs that reached the node, by kind
        self.plugins = set()
        self.refused, self.silence, self.approver = set(), set(), "oncall"
        self.road = FakeRoad(self.services, self._says)
        self._sweep_at = self._reconcile_at = self.clock.now()

    def _says(self, run, purpose):
        if purpose in self.silence:
            return None
        return [Answer(self.approver, purpose not in self.refused, "cli", self.clock.now())]

    # -- what happens to the fleet

    def break_node(self, name, xid=79):
        self.metrics.xids.append((name, xid, self.clock.now()))

    def uncordon(self, name):
        """As a person with kubectl does."""
        self.cluster.change_node(name, is_unschedulable=False)

    def add_plugin(self, node):
        self.cluster.add_pod(
            f"plugin-{node}",
            node,
            namespace="gpu",
            uid=f"plugin-{node}-{self.ran['plugin']}",
            owners=(Owner("DaemonSet", "plugin", "uid-ds"),),
            labels={"app": "nvidia-device-plugin-daemonset"},
        )
        self.cluster.sets.add(("gpu", "plugin"))
        self.plugins.add(node)

    def add_validator(self, node, *, is_ready=True, **changes):
        """The GPU operator's pod that validates the node."""
        name = "nvidia-operator-validator"
        self.cluster.sets.add(("gpu-operator", name))
        self.cluster.add_pod(
            f"{name}-{node}",
            node,
            namespace="gpu-operator",
            owners=(Owner("DaemonSet", name, "uid-validator"),),
            labels={"app": name},
            is_ready=is_ready,
            **changes,
        )

    def kubelet(self):
        """Runs the pods that were pinned to nodes, and brings the device plugin back."""
        for key, pod in list(self.cluster._pods.items()):
            step = pod.labels.get("breakfix.dev/step", "")
            if pod.phase == "Pending" and pod.node in self.cluster._nodes and step:
                self._run(key, pod, step)
        for node in self.plugins:
            if ("gpu", f"plugin-{node}") not in self.cluster._pods:
                self.ran["plugin"] += 1
                self.cluster.change_node(node, gpus_allocatable=8)
                self.add_plugin(node)
        self.cluster.settle()

    def _run(self, key, pod, step):
        if step.startswith("diag_r1"):
            self.ran["quick diag"] += 1
            self.cluster.finish_pod(*key, *self.quick_diag)
        elif step.startswith("diag"):
            self.ran["diag"] += 1
            self.cluster.finish_pod(*key, *(self.diags.pop(0) if self.diags else self.diag))
        elif step.startswith(("nccl", "nvbandwidth")):
            kind = "nccl" if step.startswith("nccl") else "nvbandwidth"
            self.ran[kind] += 1
            self.cluster.finish_pod(*key, *self.loads[kind])
        elif step.startswith("repair-reset_gpu"):
            self.ran["reset"] += 1
            self.cluster.finish_pod(*key, self.reset_exit)
            self._clear(pod.node, self.reset_exit == 0)
        elif step.startswith("repair-reboot_node"):
            self.cluster.finish_pod(*key, 1)
            if self.reboot_works:
                self.ran["reboot"] += 1
                self.cluster.reboot(pod.node)
                self._clear(pod.node, True)

    def _clear(self, node, is_fixed):
        if is_fixed and not self.repair_clears:
            self.break_node(node)

    # -- time

    def tick(self):
        self.kubelet()
        if self.clock.now() >= self._sweep_at:
            self._sweep_at = self.clock.now() + timedelta(seconds=SWEEP_EVERY_S)
            self.road.sweep()
        self.road.tick()
        if self.clock.now() >= self._reconcile_at:
            self._reconcile_at = self.clock.now() + timedelta(seconds=RECONCILE_EVERY_S)
            reconcile(self.services, self.road)
        self.clock.sleep(TASK_STEP_S)

    def drive(self, until, *, within_s=7200.0):
        deadline = self.clock.now() + timedelta(seconds=within_s)
        while not until():
            if self.clock.now() >= deadline:
                trails = "\n".join(f"{k} {r.stage} {r.trail}" for k, r in self.road.runs.items())
                raise AssertionError(f"not within {within_s} s\n{trails}\n{self.notifier.told}")
            self.tick()

    def run_for(self, seconds):
        end = self.clock.now() + timedelta(seconds=seconds)
        while self.clock.now() < end:
            self.tick()

    # -- what became of it

    def verdict(self, node="a1"):
        """As it is now; nothing is recorded."""
        return assess(self.services).judgement.verdict(node)

    def case(self, node="a1"):
        cases = self.ledger.cases(node=node)
        assert cases, f"no case of {node}"
        return cases[-1]

    def ended(self, *nodes):
        return lambda: all(
            self.ledger.cases(node=n) and not self.case(n).is_open for n in nodes or ("a1",)
        )

    def at_stage(self, stage, node="a1"):
        return lambda: any(
            r.node == node and r.stage is stage and not r.is_over for r in self.road.runs.values()
        )

    def node(self, name="a1"):
        return self.cluster._nodes[name]

    def is_in_service(self, name="a1"):
        node = self.node(name)
        ours = [k for k in (*node.labels, *node.annotations) if k.startswith("breakfix.dev/")]
        return not node.is_unschedulable and not ours and not self.taints(name)

    def taints(self, name="a1"):
        return [t for t in self.node(name).taints if t.key.startswith("breakfix.dev/")]

    def is_held_out(self, name="a1"):
        return self.node(name).is_unschedulable and bool(self.taints(name))

    def steps(self, node="a1"):
        return {s.name: s.status for s in self.ledger.steps(self.case(node).id)}

    def why(self, node="a1"):
        return str(self.case(node).detail["state_reason"])

    def is_audit_sound(self):
        return self.ledger.verify_audit()[1] == ""
