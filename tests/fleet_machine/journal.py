"""Between the product and its ports: every call is seen, and may be met by trouble.

A `Task` is what one process of ours does at a time: a sweep, a stage, a reconciliation. The journal
keeps what the task last read, because a guard can heed no more than that, and turns each write that
changed something into an `Effect` for the rules.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from breakfix.errors import ClusterError, LedgerError, MetricsError
from breakfix.model import Case, HaltLevel, Node

TAINT = "breakfix.dev/quarantine"
CASE = "breakfix.dev/case"
STEP = "breakfix.dev/step"
STATE = "breakfix.dev/state"
HALT_MAP = "breakfix-halt"

WRITES = {
    "cluster": {
        "patch_node",
        "evict",
        "delete_pod",
        "create_pod",
        "create_config_map",
        "update_config_map",
        "ensure_namespace",
        "post_event",
        "mark_pod",
    },
    "ledger": {
        "admit",
        "move",
        "end_case",
        "climb",
        "take_over",
        "reopen",
        "mend_leases",
        "hold",
        "unhold",
        "begin_step",
        "finish_step",
        "ask",
        "answer",
        "record_sweep",
        "answer_review",
        "label_case",
        "store_report",
        "record_advice",
        "close_advice",
        "watch_storms",
        "reset_breaker",
        "ask_emergency",
        "approve_emergency",
        "end_emergency",
        "set_halt",
        "audit",
        "reserve",
    },
    "metrics": set(),
}
#: Writes that only the owner of a case at its fence may make: (case id, fence, ...).
FENCED = {"move", "begin_step", "finish_step", "climb", "take_over", "ask", "end_case"}
_ERRORS = {"cluster": ClusterError, "ledger": LedgerError, "metrics": MetricsError}


class Killed(BaseException):
    """What no `except Exception` sees: the process is gone."""


@dataclass
class Trouble:
    """What meets a task at its nth write (`kill_...`) or nth call (the others).

    `error`: nothing is done and it raises; `lost_answer`: it is done and raises all the same;
    `meanwhile`: somebody else does something right before the call.
    """

    kind: str
    at: int
    meanwhile: Callable[[], None] | None = None
    method: str = ""  # the nth call of this one, where it is given
    is_over: bool = False
    seen: int = 0

    def is_due(self, method, count):
        """Whether it is its turn; it happens once."""
        if self.method:
            self.seen += method == self.method
            count = self.seen if method == self.method else 0
        self.is_over = self.is_over or count == self.at
        return count == self.at


@dataclass
class Task:
    """What one process does, and what it last read of everything."""

    kind: str
    case_id: str = ""
    fence: int = 0
    troubles: list[Trouble] = field(default_factory=list)
    calls: int = 0
    writes: int = 0
    halts: dict[str, HaltLevel] = field(default_factory=dict)
    nodes: dict[str, Node] = field(default_factory=dict)
    fleet: tuple[Node, ...] | None = None
    pods: dict[Any, Any] = field(default_factory=dict)  # (namespace, name) -> Pod
    budgets: tuple = ()
    cases: dict[str, Case] = field(default_factory=dict)
    records: dict[str, Any] = field(default_factory=dict)
    remembered: Any = None  # cases, records and halts as they were when the signals were asked
    owner: Any = None  # the ConfigMap that names the ledger
    telemetry: Any = None  # a picture of it when the signals were last asked
    untied: frozenset[str] = frozenset()  # nodes whose metrics nothing tied to them when asked
    firing: Any = None  # alerts
    storms: Any = None  # what the ledger knows of them
    site: Any = None  # what the policy said when the task began
    last_case: str = ""
    told: str = ""  # its last entry in the audit that was of no other record
    end: str = ""


@dataclass(frozen=True)
class Effect:
    """One change that a task made to the cluster.

    `take` cordons or taints, `give` releases, `clear` takes what is left of ours off, `mark` is any
    other patch; `evict`, `repair`, `diag`, `plugin` (its pod is deleted), `withdraw` (one of ours).
    """

    kind: str
    node: str
    case_id: str
    task: Task
    before: Node | None = None
    after: Node | None = None
    pod: Any = None
    step: str = ""

    @property
    def seen(self) -> Node | None:
        """The node as it was when the change was decided: a patch is bound to its version."""
        return self.before or self.task.nodes.get(self.node)


class Journal:
    """Whom it tells: `planned` before a plan is recorded, `hear`, `admitted` and `wrote` (what only
    an owner may) after a change, with the case as it was before it.
    """

    def __init__(self, raw_cluster, raw_ledger, raw_metrics, clock):
        self.raw = {"cluster": raw_cluster, "ledger": raw_ledger, "metrics": raw_metrics}
        self.clock = clock
        self.stack: list[Task] = []
        self.hear: Callable[[Effect], None] = lambda effect: None
        self.planned: Callable[..., None] = lambda *a: None
        self.admitted: Callable[..., None] = lambda *a: None
        self.wrote: Callable[..., None] = lambda *a: None

    def port(self, name):
        return Witness(name, self)

    @property
    def task(self) -> Task:
        return self.stack[-1]

    def call(self, port, method, args, kwargs):
        task = self.task
        is_write = method in WRITES[port] and not kwargs.get("dry_run")
        task.calls += 1
        task.writes += is_write
        self._meet(task, port, method, ("error", "meanwhile"), task.calls)
        if is_write:
            self._meet(task, port, method, ("kill_before",), task.writes)
        before = self._before(method, args) if port == "cluster" else self._case(method, args)
        if method == "record_sweep":
            self.planned(task, args[1].intents, args[1].at)
        elif method == "admit" and args[0].is_by_hand and task.kind != "reconcile":  # no adoption
            self.planned(task, (args[0],), kwargs["now"])
        result = getattr(self.raw[port], method)(*args, **kwargs)
        self._read(task, port, method, args, result)
        if is_write:
            self._written(task, method, args, before, result)
            self._meet(task, port, method, ("kill_after",), task.writes)
        self._meet(task, port, method, ("lost_answer",), task.calls)
        return result

    def _meet(self, task, port, method, kinds, count):
        for trouble in task.troubles:
            if trouble.is_over or trouble.kind not in kinds or not trouble.is_due(method, count):
                continue
            if trouble.kind == "meanwhile":
                if threading.current_thread() is threading.main_thread():
                    trouble.meanwhile()
            elif trouble.kind.startswith("kill"):
                raise Killed
            else:
                raise _ERRORS[port](f"injected {trouble.kind}", is_transient=True)

    # -- what was read

    def _read(self, task, port, method, args, result):
        key = f"{port}.{method}"
        if key in _READS:
            _READS[key](task, result)
        elif key == "cluster.pods":
            _read_pods(task, args, result)
        elif key == "cluster.config_map":
            self._read_map(task, args[1], result)
        elif port == "metrics":
            self._read_metrics(task, method, args)
        elif port == "ledger":
            self._read_cases(task, result)

    def _read_metrics(self, task, method, args):
        raw = self.raw["metrics"]
        if method == "query_many":
            task.remembered = (dict(task.cases), dict(task.records), dict(task.halts))
            task.telemetry = (tuple(raw.xids), frozenset(raw.silent), raw.is_down, self.clock.now())
        elif args[0].startswith("ALERTS"):
            task.firing = list(raw.firing)
        elif method == "query":
            task.untied = frozenset(raw.untied | raw.silent)

    @staticmethod
    def _read_map(task, name, data):
        if name == HALT_MAP:
            text = (data or {}).get("level", "none").strip()
            known = text in {"none", "disruption", "all"}
            task.halts["cluster"] = HaltLevel(text) if known else HaltLevel.ALL
        elif name == "breakfix-ledger":
            task.owner = data

    @staticmethod
    def _read_cases(task, result):
        for case in result if isinstance(result, tuple) else (result,):
            if isinstance(case, Case):
                task.cases[case.id] = case
        if isinstance(result, Case):
            task.last_case = result.id

    # -- what was written

    def _case(self, method, args):
        """The case that a write of the ledger is about, as it is before it."""
        ledger = self.raw["ledger"]
        if method == "admit":
            mine = [c for c in ledger.cases(open_only=True) if c.node == args[0].node]
            return mine[0] if mine else None
        return ledger.case(args[0]) if method in FENCED else None

    def _before(self, method, args):
        raw = self.raw["cluster"]
        if method == "patch_node":
            return raw._nodes.get(args[0])
        if method in {"evict", "delete_pod"}:
            return raw._pods.get((args[0], args[1]))
        if method == "create_pod":
            meta = args[0]["metadata"]
            return raw._pods.get((meta["namespace"], meta["name"]))
        return None

    def _written(self, task, method, args, before, result):
        task.told = args[0] if method == "audit" else task.told
        if method == "admit":
            self.admitted(task, args[0], before, result)
        elif method in FENCED:
            self.wrote(method, args[1], before)
        effect = {
            "patch_node": self._patched,
            "evict": self._evicted,
            "delete_pod": self._deleted,
            "create_pod": self._created,
        }.get(method)
        made = effect(task, before, result) if effect else None
        if made is not None:
            self.hear(made)

    @staticmethod
    def _patched(task, before, after):
        if before == after:
            return None
        tainted = [any(t.key == TAINT for t in n.taints) for n in (before, after)]
        cordoned = [n.is_unschedulable for n in (before, after)]
        kind = "mark"
        if (False, True) in {tuple(tainted), tuple(cordoned)}:
            kind = "take"
        elif (True, False) in {tuple(tainted), tuple(cordoned)}:
            is_release = cordoned == [True, False] or STATE in after.labels
            kind = "give" if is_release and task.told != "marks.cleared" else "clear"
        case = after.annotations.get(CASE) or before.annotations.get(CASE) or task.case_id
        return Effect(kind, after.name, case, task, before, after)

    def _evicted(self, task, pod, answer):
        if answer.status != "evicted" or pod is None:
            return None
        case = task.case_id or self._case_on(task, pod.node)
        return Effect("evict", pod.node, case, task, pod=pod)

    def _deleted(self, task, pod, is_done):
        if not is_done:
            return None
        case = pod.labels.get(CASE, "") or task.case_id or self._case_on(task, pod.node)
        is_plugin = any(o.kind == "DaemonSet" for o in pod.owners)
        kind = "withdraw" if CASE in pod.labels else "plugin" if is_plugin else "evict"
        return Effect(kind, pod.node, case, task, pod=pod)

    @staticmethod
    def _created(task, before, pod):
        if before is not None:
            return None
        step = pod.labels.get(STEP, "")
        kind = "repair" if step.startswith("repair") else "diag"
        return Effect(kind, pod.node, pod.labels.get(CASE, ""), task, pod=pod, step=step)

    @staticmethod
    def _case_on(task, node):
        seen = task.nodes.get(node)
        return (seen.annotations.get(CASE) if seen else "") or task.last_case


def _read_nodes(task, found):
    task.fleet = tuple(found)
    task.nodes |= {n.name: n for n in found}


def _read_pods(task, args, found):
    """All of them, or those of one node: what was there before is read anew."""
    for key in [k for k, p in task.pods.items() if args[:1] in {(), (None,), (p.node,)}]:
        del task.pods[key]
    task.pods |= {(p.namespace, p.name): p for p in found}


_READS = {
    "cluster.nodes": _read_nodes,
    "cluster.node": lambda task, node: task.nodes.update({node.name: node}),
    "cluster.patch_node": lambda task, node: task.nodes.update({node.name: node}),
    "cluster.budgets": lambda task, found: setattr(task, "budgets", tuple(found)),
    "ledger.halt_level": lambda task, level: task.halts.update(ledger=level),
    "ledger.storms": lambda task, found: setattr(task, "storms", found),
    "ledger.node_records": lambda task, found: setattr(task, "records", dict(found)),
}


class Witness:
    """A port as the product sees it."""

    def __init__(self, name, journal):
        self._name, self._journal = name, journal

    def __getattr__(self, method):
        value = getattr(self._journal.raw[self._name], method)
        if not callable(value):
            return value
        return lambda *a, **k: self._journal.call(self._name, method, a, k)
