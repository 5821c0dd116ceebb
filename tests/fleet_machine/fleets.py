"""Random fleets under random policies, and a kubelet that keeps a diary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from breakfix.flow.services import Services
from breakfix.model import Condition, Owner, Taint
from tests.fakes_cluster import FakeCluster
from tests.fakes_ledger import FakeLedger
from tests.fleet_machine import truth
from tests.fleet_machine.journal import CASE, STEP, Journal
from tests.flow.world import DIAG_PASSES, FlowWorld, policy_with

GPUS = 8


@dataclass(frozen=True)
class Site:
    """What a site has decided; the rules take their numbers from here, never from the policy."""

    out: dict = field(default_factory=lambda: {"fleet": (0.5, None), "rack": (None, 1)})
    cooldown_s: int = 0
    override_hold_s: int = 3600
    headroom: int = 0
    max_attempts: int = 2
    modes: dict = field(default_factory=lambda: dict.fromkeys(CLASSES, "approve"))
    gang_gpus: int = 16
    ask_return: bool = True
    approvers: tuple = ("oncall", "second")

    def overlay(self) -> str:
        """As an overlay of the default policy."""
        out = ", ".join(f"{k}: {_share(*v)}" for k, v in sorted(_scopes(self.out).items()))
        modes = "\n".join(f"  {c}: {{mode: '{m}'}}" for c, m in sorted(self.modes.items()))
        ask = "[repair, return]" if self.ask_return else "[repair]"
        return (
            f"version: fleet-machine\n"
            f"limits:\n  out: {{{out}}}\n"
            f"  cooldown: {self.cooldown_s}s\n  override_hold: {self.override_hold_s}s\n"
            f"  headroom_gpus: {self.headroom}\n  max_attempts: {self.max_attempts}\n"
            f"  max_runs: 6\n"
            f"approvals: {{ask_before: {ask}, gang_gpus: {self.gang_gpus}}}\n"
            f"common_cause: {{min_nodes: 90, surge_nodes: 90}}\n"
            f"classes:\n{modes}\n"
        )


CLASSES = ("gpu_off_bus", "ecc_uncorrectable", "device_plugin", "manual")


def _scopes(out):
    free = dict.fromkeys(("fleet", "pool", "rack", "sku", "fabric"), (None, None))
    return free | out


def _share(share, nodes):
    words = [f"share: {1.0 if share is None else share}"]
    return "{" + ", ".join([*words, *([] if nodes is None else [f"nodes: {nodes}"])]) + "}"


SITES = {
    "tight": Site(),
    "loose": Site(
        out={"fleet": (0.9, None), "rack": (None, 3)}, modes=dict.fromkeys(CLASSES, "auto")
    ),
    "pools": Site(
        out={"fleet": (0.6, 4), "pool": (0.34, None), "fabric": (None, 1)}, cooldown_s=600
    ),
    "careful": Site(headroom=8, max_attempts=1, cooldown_s=300, ask_return=False),
    "mixed": Site(
        out={"fleet": (None, 3), "sku": (None, 2)},
        modes=dict(zip(CLASSES, ("auto", "approve", "recommend", "approve"), strict=True)),
        gang_gpus=4,
    ),
}


class Fleet(FlowWorld):
    """A `FlowWorld` whose product side goes through a journal, with the truth beside it."""

    def __init__(self, rng, site_name, *, ledger=None, nodes=None):
        self.site = SITES[site_name]
        cluster = FakeCluster(pods_go_at_once=rng.random() < 0.7)
        super().__init__(
            overlay=self.site.overlay(),
            nodes=(),
            cluster=cluster,
            ledger=ledger or FakeLedger("test"),
        )
        self.truth = truth.Truth()
        self.is_kubelet_asleep = False
        self.policy = self.services.policy
        self.journal = Journal(self.cluster, self.ledger, self.metrics, self.clock)
        self.services = self.seen_by_product()
        self.road.services = self.services
        self._build(rng, nodes or rng.randint(5, 12))

    def seen_by_product(self) -> Services:
        """The services, every port behind the journal, the policy read anew each time."""
        return replace(
            self.services,
            metrics=self.journal.port("metrics"),
            cluster=self.journal.port("cluster"),
            ledger=self.journal.port("ledger"),
            policies=lambda: (self.policy, ""),
        )

    def change_site(self, site: Site):
        """People edit the policy; whoever begins now works by the new one."""
        self.site = site
        self.policy = policy_with(site.overlay())

    # -- what it is made of

    def _build(self, rng, count):
        names = [f"n{i}" for i in range(count)]
        self.nodes = tuple(names)
        for i, name in enumerate(names):
            self.cluster.add_node(
                name,
                rack=f"r{i % max(2, count // 3)}",
                pool=rng.choice(("train", "serve")),
                sku=rng.choice(("H100", "H100", "A100")),
                fabric=rng.choice(("", "f1", "f2")),
            )
            if rng.random() < 0.8:
                self.add_plugin(name)
            self._at_first(rng, name)
            for k in range(rng.choice((0, 0, 1, 2))):
                self.add_work(rng, name, k)
            self.truth.note_foreign(self.node(name))

    def _at_first(self, rng, name):
        """What others have done to nodes before us."""
        what = rng.random()
        if what < 0.04:
            self.relabel(name, {truth.CONTROL_PLANE: ""})
        elif what < 0.08:
            self.cluster.change_node(name, is_unschedulable=True)
            self.truth.cordon[name] = "theirs"
        elif what < 0.12:
            self.cluster.add_pod(f"airflow-{name}", name, labels=dict(truth.AIRFLOW))
        elif what < 0.16:
            self.relabel(name, dict([truth.EXCLUDE]))
        elif what < 0.5:
            self.cluster.change_node(
                name,
                taints=(Taint("team", "NoSchedule", "ml"),),
                annotations={"other.io/note": "keep", "team": "ml"},
            )

    def relabel(self, name, labels):
        """Add labels (None takes one away)."""
        merged = {**self.node(name).labels, **labels}
        self.cluster.change_node(name, labels={k: v for k, v in merged.items() if v is not None})

    def add_work(self, rng, node, number):
        """One pod of a team: of a ReplicaSet, a gang, or under a budget."""
        kind = rng.choice(("web", "web", "gang", "db"))
        name = f"{kind}-{node}-{number}-{rng.randint(0, 10**6)}"
        owner = Owner("ReplicaSet", kind, f"uid-{kind}")
        labels = {"app": kind}
        if kind == "gang":
            owner = Owner("Job", "train-1", "uid-train-1")
            labels["jobset.sigs.k8s.io/jobset-name"] = "train-1"
        self.cluster.add_pod(name, node, owners=(owner,), labels=labels, gpus=rng.choice((0, 1, 2)))
        if ("work", "db") not in self.cluster._budgets:
            self.cluster.add_budget("db", {"app": "db"}, allowed=1)

    # -- the kubelet

    def kubelet(self):
        if not self.is_kubelet_asleep:
            super().kubelet()

    def _run(self, key, pod, step):
        boots = self.node(pod.node).boot_id
        super()._run(key, pod, step)
        self.cluster.change_pod(*key, ended_at=self.clock.now())
        node, case = self.node(pod.node), pod.labels[CASE]
        if step.startswith("diag"):
            is_good = self.diag == (0, DIAG_PASSES)
            self.truth.diags.append((case, node.boot_id, self.clock.now(), is_good))
        elif step.startswith("repair"):
            self.truth.repairs.append((case, f"{pod.labels[STEP]}", pod.node))
        if node.boot_id != boots:
            self.truth.rebooted.setdefault(pod.node, []).append(node.boot_id)

    def set_ready(self, name, is_ready):
        self.cluster.change_node(
            name,
            conditions=(
                *(c for c in self.node(name).conditions if c.type != "Ready"),
                Condition("Ready", "True" if is_ready else "False", since=self.clock.now()),
            ),
        )
