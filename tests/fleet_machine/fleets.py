"""Random fleets under random policies, and a kubelet that keeps a diary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from breakfix.flow.services import Services
from breakfix.model import Action, Condition, Owner, Taint
from breakfix.ports import RepairLook, RepairStatus
from tests.fakes_cluster import FakeCluster
from tests.fakes_ledger import FakeLedger
from tests.fleet_machine import truth
from tests.fleet_machine.journal import CASE, Effect, Journal
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
    two_for: tuple = ()  # classes whose repair two people must want
    two_return: tuple = ()  # and whose return
    annotations: bool = False  # may confirm a return that wants one person
    hours: tuple | None = None  # (from, to) of the day, UTC, in which nodes may be taken out
    storm: int | None = None  # so many nodes of the fleet may be taken out within an hour
    heeds_alerts: bool = False  # `NodesHot` holds its rack, or all where it names none
    power_for: tuple = ()  # classes that are repaired by a power cycle
    looks_after: bool = False  # for the successors of what a drain took

    def overlay(self) -> str:
        """As an overlay of the default policy."""
        out = ", ".join(f"{k}: {_share(*v)}" for k, v in sorted(_scopes(self.out).items()))
        modes = "\n".join(f"  {c}: {self._rule(c, m)}" for c, m in sorted(self.modes.items()))
        ask = "[repair, return]" if self.ask_return else "[repair]"
        two = {"repair": self.two_for, "return": self.two_return}
        tiers = ", ".join(
            f"{{needs: two, before: {p}, classes: [{', '.join(c)}]}}" for p, c in two.items() if c
        )
        return (
            f"version: fleet-machine\n"
            f"limits:\n  out: {{{out}}}\n"
            f"  cooldown: {self.cooldown_s}s\n  override_hold: {self.override_hold_s}s\n"
            f"  headroom_gpus: {self.headroom}\n  max_attempts: {self.max_attempts}\n"
            f"  max_runs: 6\n{self._holds()}"
            f"approvals: {{ask_before: {ask}, gang_gpus: {self.gang_gpus}, tiers: [{tiers}],"
            f" annotation_returns: {str(self.annotations).lower()}}}\n"
            f"common_cause: {{min_nodes: 90, surge_nodes: 90}}\n"
            f"drain: {{replaced: {{within: {600 if self.looks_after else 0}s}}}}\n"
            f"classes:\n{modes}\n"
        )

    def people_for(self, case, purpose) -> int:
        """How many must want it."""
        two = self.two_for if purpose == "repair" else self.two_return
        return 2 if str(case.failure_class) in two else 1

    def hears(self, said, case) -> bool:
        """Whether who says it may."""
        if said.channel != truth.ANNOTATION:
            return said.who in self.approvers
        alone = said.purpose == "return" and self.people_for(case, "return") == 1
        return self.annotations and said.is_yes and alone

    def _rule(self, failure_class, mode) -> str:
        ladder = ", ladder: [power_cycle]" if failure_class in self.power_for else ""
        return f"{{mode: '{mode}'{ladder}}}"

    def _holds(self) -> str:
        """Calendar, alerts and breaker, of the limits."""
        lines = []
        if self.hours:
            lines.append("windows: [{{kind: allowed, from: '{}', to: '{}'}}]".format(*self.hours))
        if self.heeds_alerts:
            lines.append("alerts: {block: [{match: {alertname: NodesHot}, by: rack, label: rack}]}")
        free = "".join(f", {k}: {{at_least: 90}}" for k in ("pool", "sku", "rack", "fabric"))
        nodes = 90 if self.storm is None else self.storm
        lines.append(f"breaker: {{most: {{fleet: {{nodes: {nodes}, at_least: {nodes}}}{free}}}}}")
        return "".join(f"  {line}\n" for line in lines)


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


SITES |= {
    "two": Site(two_for=CLASSES[:3], out={"fleet": (0.9, None), "rack": (None, 3)}),
    "hours": Site(hours=("03:05", "03:15"), out={"fleet": (0.9, None), "rack": (None, 3)}),
    "storms": Site(storm=2, out={"fleet": (0.9, None)}),
    "alerts": Site(heeds_alerts=True, out={"fleet": (0.9, None), "rack": (None, 3)}),
    "power": Site(
        power_for=("ecc_uncorrectable",),
        modes=dict.fromkeys(CLASSES, "auto"),
        out={"fleet": (0.9, None), "rack": (None, 3)},
    ),
}
SITES["watchful"] = replace(SITES["loose"], looks_after=True)
SITES["unasked"] = replace(SITES["loose"], ask_return=False)
SITES["annotated"] = replace(SITES["loose"], annotations=True)
SITES["annotated_asked"] = replace(SITES["tight"], annotations=True)
SITES["annotated_two"] = replace(SITES["annotated"], two_return=CLASSES[:3])
WATCHDOG = {"alertname": "Watchdog"}


class Power:
    """Whoever switches nodes off and on from outside: does it once for a key, at once."""

    name, can_compare = "webhook", True

    def __init__(self, world):
        self._world, self._done = world, set()

    def prepare(self, request):
        return {"asked_of": self.name}

    def dispatch(self, request, handle):
        if request.key not in self._done:
            self._done.add(request.key)
            self._world.power_cycled(request)
        return {"key": request.key}

    def look(self, action, handle):
        is_done = handle.get("key", "") in self._done
        status = RepairStatus.DONE if is_done else RepairStatus.RUNNING
        return RepairLook(status, "the webhook says so")


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
        self.metrics.firing = [WATCHDOG]
        self.providers = {Action.POWER_CYCLE: Power(self)}
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
            providers=self.providers,
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
            code, log = self.cluster.exit_codes[key], self.cluster.logs[key]
            is_good = (code, log) == (0, DIAG_PASSES)
            word = step.partition("-")[0].partition("_try")[0]
            self.truth.diags.append((case, node.boot_id, self.clock.now(), is_good, word))
        elif step.startswith("repair"):
            self.truth.repairs.append((case, step, pod.node))
        self._note_boot(node.name, boots)

    def _note_boot(self, name, before):
        boot_id = self.node(name).boot_id
        if boot_id != before:
            self.truth.rebooted.setdefault(name, []).append(boot_id)

    def power_cycled(self, request):
        """By whoever can do that; the rules hear of it as of any repair."""
        case, name = request.case_id, request.node.name
        self.journal.hear(Effect("repair", name, case, self.journal.task, step=request.step))
        self.truth.repairs.append((case, request.step, name))
        node = self.cluster._nodes.get(name)
        if node is not None and self.reboot_works:
            self.cluster.reboot(name)
            self._note_boot(name, node.boot_id)

    def set_ready(self, name, is_ready):
        self.cluster.change_node(
            name,
            conditions=(
                *(c for c in self.node(name).conditions if c.type != "Ready"),
                Condition("Ready", "True" if is_ready else "False", since=self.clock.now()),
            ),
        )
