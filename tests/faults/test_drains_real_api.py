"""Parallel drains against a Kubernetes API over HTTP: controllers, kubelets, budgets, faults.

Everything is real but the machines, Prometheus and the ledger's database.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from kubernetes import client, config

from breakfix.adapters.clock import SystemClock
from breakfix.adapters.kubernetes import connect
from breakfix.flow.by_hand import drain_by_hand
from breakfix.flow.holds import OVERDUE_HOLD
from breakfix.flow.services import Services
from breakfix.model import CaseEnd, StepStatus
from breakfix.policy import parse_policy
from breakfix.settings import load_settings
from breakfix.wiring import default_policy_text
from simfleet.kube import SimKube
from simfleet.kube.faults import ApiFault, FaultKind
from simfleet.kube.kubelet import KubeletSettings
from simfleet.kube.live import CONTROLLERS, LiveSettings
from simfleet.kube.machines import PlainMachine
from simfleet.kube.seeds import node
from tests.fakes_ledger import FakeLedger
from tests.flow.world import Notifier

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

A, B = "gpu-a", "gpu-b"
FAST = LiveSettings(
    CONTROLLERS,
    cordon_taint_s=0.05,
    node_grace_s=1.0,
    kubelet=KubeletSettings(start_s=0.05, stop_s=0.05, tick_s=0.05),
)
POLICY = """
version: real-api
limits: {out: {fleet: {share: 0.9}, pool: {share: 0.9}, sku: {share: 0.9}, rack: {share: 0.9}}}
drain:
  timeout: 20s
  poll: 200ms
  evictions_per_s: 60
  evictions_in_flight: 8
  stuck_after: 1s
  replaced: {within: 10s}
"""


@dataclass
class Box(PlainMachine):
    """A machine that can be switched off."""

    gpus: int = 8
    boot_id: str = "boot-1"
    is_on: bool = True

    def is_up(self):
        return self.is_on


@dataclass
class Sim:
    kube: SimKube
    services: Services
    core: client.CoreV1Api
    box: Box
    told: list[str] = field(default_factory=list)

    def api(self, kind):
        return kind(self.core.api_client)

    def replica_set(self, name, count, **pod):
        """So many pods, wherever they find a place; waits until all are Ready."""
        container = {"name": "main", "image": "registry.example/app:1"}
        spec = {"terminationGracePeriodSeconds": 5, "containers": [container], **pod}
        template = {"metadata": {"labels": {"app": name}}, "spec": spec}
        body: dict[str, Any] = {
            "metadata": {"name": name},
            "spec": {
                "replicas": count,
                "selector": {"matchLabels": {"app": name}},
                "template": template,
            },
        }
        self.api(client.AppsV1Api).create_namespaced_replica_set("default", body)
        wait_for(lambda: len(self.ready(name)) == count)

    def ready(self, app, on=None):
        pods = self.services.cluster.pods(on)
        return [p.name for p in pods if p.labels.get("app") == app and p.is_ready]

    def budget(self, app, at_least):
        spec = {"selector": {"matchLabels": {"app": app}}, "minAvailable": at_least}
        body = {"metadata": {"name": f"{app}-pdb"}, "spec": spec}
        self.api(client.PolicyV1Api).create_namespaced_pod_disruption_budget("default", body)
        wait_for(lambda: any(b.is_observed for b in self.services.cluster.budgets()))

    def open_the_other_node(self):
        self.core.patch_node(B, {"spec": {"unschedulable": None}})

    def drain(self):
        return drain_by_hand(
            self.services, A, requester="dag:t", reason="test", tell=self.told.append
        )

    def case(self):
        return self.services.book.cases(node=A)[-1]

    def step(self, name="drain-1"):
        return next(s for s in self.services.book.steps(self.case().id) if s.name == name)

    def audited(self, event):
        return [e for e in self.services.book.audit_entries() if e.event == event]


def wait_for(what, within_s=15.0):
    deadline = time.monotonic() + within_s
    while not what():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


@pytest.fixture
def sim(tmp_path):
    """Two nodes; the second is closed until the pods are all on the first."""
    labels = {"nvidia.com/gpu.present": "true", "breakfix.dev/pool": "p"}
    nodes = [node(name, labels=labels) for name in (A, B)]
    nodes[1]["spec"]["unschedulable"] = True
    box = Box()
    with SimKube(nodes=nodes, live=True, settings=FAST, machines={A: box}) as kube:
        path = str(kube.kubeconfig(tmp_path / "kubeconfig"))
        cluster = connect(kubeconfig=path, timeout_s=5.0)
        services = Services(
            None,
            cluster,
            parse_policy(default_policy_text(), POLICY),
            load_settings(cluster_name="sim"),
            SystemClock(),
            Notifier(),
            FakeLedger("sim"),
        )
        with config.new_client_from_config(path) as api:
            yield Sim(kube, services, client.CoreV1Api(api), box)
        cluster.close()


def test_partial_success_a_budget_lets_a_few_go_at_a_time(sim):
    """Forty pods of one workload leave in parallel, and its budget never allows more than four.

    Lost: nothing; the API server's own count is kept at every moment, and all are Ready elsewhere.
    """
    sim.replica_set("web", 40)
    sim.open_the_other_node()
    sim.budget("web", 36)
    lowest, stop = [40], threading.Event()

    def watch():
        while not stop.is_set():
            lowest[0] = min(lowest[0], len(sim.ready("web")))

    watcher = threading.Thread(target=watch)
    watcher.start()
    report = sim.drain()
    stop.set()
    watcher.join(10)
    assert report.is_done
    assert lowest[0] >= 36
    assert len(sim.ready("web", on=B)) == 40
    assert sim.step("replaced-1").status is StepStatus.VERIFIED
    uids = [e.detail["uid"] for e in sim.audited("pod.evicted")]
    assert len(uids) == len(set(uids)) == 40


def test_f08_a_person_uncordons_while_evictions_are_in_flight(sim):
    """A person uncordons the node by kubectl's own patch while eight evictions are in flight.

    Lost: nothing; no eviction is sent later than a second after it, and the node is theirs.
    """
    sim.replica_set("web", 80)
    sim.open_the_other_node()
    at = []

    def person():
        wait_for(lambda: len(sim.audited("pod.evicted")) >= 10)
        sim.core.patch_node(A, {"spec": {"unschedulable": None}})
        at.append(sim.services.clock.now())

    hand = threading.Thread(target=person)
    hand.start()
    report = sim.drain()
    hand.join(10)
    assert not report.is_done
    late = [e for e in sim.audited("pod.evicting") if (e.at - at[0]).total_seconds() > 1.0]
    assert not late
    assert len(sim.audited("pod.evicted")) < 80
    assert sim.case().end is CaseEnd.OVERRIDDEN
    assert not sim.services.cluster.node(A).is_unschedulable


def test_f24_a_finalizer_and_a_dead_kubelet_are_named(sim):
    """One evicted pod has a finalizer; the node dies, so that nobody confirms the other's end.

    Lost: nothing; both are named for what holds them, neither is forced, and the case waits.
    """
    sim.replica_set("web", 2)
    sim.open_the_other_node()
    first, second = sorted(sim.ready("web"))
    sim.core.patch_namespaced_pod(
        first, "default", {"metadata": {"finalizers": ["example.com/hold"]}}
    )
    quicker = parse_policy(default_policy_text(), POLICY.replace("timeout: 20s", "timeout: 9s"))
    sim.services = replace(sim.services, policy=quicker)
    done: list[Any] = []
    drain = threading.Thread(target=lambda: done.append(sim.drain()))
    sim.box.is_on = False  # before any eviction can be confirmed
    wait_for(lambda: not sim.services.cluster.node(A).is_ready)
    drain.start()
    drain.join(60)
    assert not done[0].is_done
    kinds = {b["pod"].removeprefix("default/"): b["kind"] for b in sim.step().detail["blocked"]}
    assert kinds == {first: "finalizer", second: "stuck_terminating"}
    assert "NotReady" in str(sim.step().detail["blocked"])
    assert sim.case().held_by == OVERDUE_HOLD
    assert {p.name for p in sim.services.cluster.pods(A)} == {first, second}
    assert len(sim.audited("pod.evicted")) == 2


@pytest.mark.parametrize("kind", [FaultKind.TOO_MANY, FaultKind.ERROR, FaultKind.DROP])
def test_f29_evictions_are_throttled_fail_or_vanish_on_the_wire(sim, kind):
    """Two evictions in ten get 429 with Retry-After, 500, or a connection that breaks.

    Lost: nothing; they are asked again, each pod leaves once, and all are Ready elsewhere.
    """
    sim.replica_set("web", 10)
    sim.open_the_other_node()
    fault = ApiFault(kind, method="POST", path=".*/eviction", times=2)
    sim.kube.call(lambda: sim.kube.faults.add(fault))
    assert sim.drain().is_done
    assert fault.hits == 2
    assert len(sim.audited("pod.evicting")) == 12
    assert len(sim.ready("web", on=B)) == 10


def test_api_timeout_of_every_eviction(sim):
    """The API server takes each eviction, and answers later than anybody waits.

    Lost: nothing; the requests are on record before, and what they did is seen in the cluster.
    """
    sim.replica_set("web", 4)
    sim.open_the_other_node()
    slow = ApiFault(FaultKind.LATENCY, method="POST", path=".*/eviction", latency_s=6.0, times=4)
    sim.kube.call(lambda: sim.kube.faults.add(slow))
    assert sim.drain().is_done
    assert len(sim.audited("pod.evicting")) >= 8
    assert not sim.services.cluster.pods(A)
