"""The product's own metrics, as Prometheus reads them: made of the ledger, one look for all.

Nothing is counted in a process, so that it does not matter which one tells, nor that it restarts.
Labels name nodes only where somebody must do something about them: their number stays small.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric

from breakfix.act.guard import halt_level
from breakfix.act.ownership import marked_head, ownership_problem
from breakfix.brakes import Breaker
from breakfix.errors import ClusterError
from breakfix.flow.services import Services
from breakfix.model import Case, CaseEnd, HaltLevel, NodeRecord, NodeState, Scope, Step
from breakfix.ports import Figures

_LEVELS = tuple(HaltLevel)  # in rising order
_BLOCKERS = 3  # named of one drain
#: A wait is overdue so long after its deadline: its stage may be at work on just that.
_GRACE_S = 60.0
_PREFIX = 12  # hexadecimal digits of the head's hash that a metric's value can carry exactly


@dataclass(frozen=True, slots=True)
class _ClusterSays:
    """What only the cluster can tell; None and "" where it could not be asked."""

    is_reachable: bool
    halt: HaltLevel | None = None
    problem: str = ""
    marked_seq: int | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """Everything that the metrics are made of."""

    now: datetime
    cases: tuple[Case, ...]
    records: Mapping[str, NodeRecord]
    escalated: tuple[Case, ...]
    figures: Figures
    ledger_halt: HaltLevel
    breakers: Mapping[Scope, Breaker]
    is_emergency: bool
    cluster: _ClusterSays


def exposition(services: Services) -> str:
    """The metrics in Prometheus' text format. Raises LedgerError; a cluster that is away is told.

    Costs the ledger a handful of statements and the cluster two reads, whatever the fleet.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(_look(services)))
    return generate_latest(registry).decode()


def samples(services: Services) -> Iterator[tuple[str, Mapping[str, str], float]]:
    """The same as (name, labels, value), for programs."""
    for family in _Families(_look(services)).collect():
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value


class _Families:
    """What the client library calls a collector."""

    def __init__(self, look: _Look) -> None:
        self._look = look

    def collect(self) -> Iterator[Metric]:
        look = self._look
        yield from _of_cases(look)
        yield from _of_nodes(look)
        yield from _of_waits(look)
        yield from _of_drains(look)
        yield from _of_limits(look)
        yield from _of_the_whole(look)
        yield from _of_the_audit(look)


def _look(services: Services) -> _Look:
    ledger, now = services.book, services.clock.now()
    records = ledger.node_records(now=now)
    escalated = [r.last_case for r in records.values() if r.state is NodeState.ESCALATED]
    return _Look(
        now=now,
        cases=tuple(ledger.cases(open_only=True)),
        records=records,
        escalated=tuple(ledger.case(case_id) for case_id in escalated),
        figures=ledger.figures(),
        ledger_halt=ledger.halt_level(),
        breakers=ledger.storms(since=now).breakers,
        is_emergency=any(e.is_in_force(now) for e in ledger.emergencies(limit=1)),
        cluster=_ask_cluster(services),
    )


def _ask_cluster(services: Services) -> _ClusterSays:
    cluster, ledger, namespace = services.cluster, services.book, services.settings.namespace
    try:
        marked = marked_head(cluster, namespace)
        return _ClusterSays(
            is_reachable=True,
            halt=halt_level(cluster, None, namespace),
            problem=ownership_problem(cluster, ledger, namespace),
            marked_seq=marked[0] if marked else None,
        )
    except ClusterError:
        return _ClusterSays(is_reachable=False)


# --------------------------------------------------------------------------- families


Samples = Iterable[tuple[tuple[str, ...], float]]


def _gauge(name: str, text: str, labels: tuple[str, ...], samples: Samples) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"breakfix_{name}", text, labels=labels)
    for values, value in samples:
        family.add_metric(values, value)
    return family


def _one(name: str, text: str, value: float) -> GaugeMetricFamily:
    return _gauge(name, text, (), [((), value)])


def _of_cases(look: _Look) -> Iterator[Metric]:
    counted = Counter((str(c.state), str(c.failure_class), str(c.action)) for c in look.cases)
    yield _gauge(
        "cases", "Open cases.", ("state", "failure_class", "action"), sorted(counted.items())
    )
    ages: dict[str, float] = {}
    for case in look.cases:
        since = look.records[case.node].since if case.node in look.records else case.opened_at
        age = (look.now - since).total_seconds()
        ages[str(case.state)] = max(age, ages.get(str(case.state), 0.0))
    text = "How long the oldest case has been in its state."
    yield _gauge("case_oldest_seconds", text, ("state",), _labelled(ages))
    held = [c for c in look.cases if c.held_by]
    yield _gauge(
        "case_held",
        "1 for each case that somebody, or policy, holds.",
        ("node", "case", "by"),
        sorted(((c.node, c.id, c.held_by), 1.0) for c in held),
    )


def _of_nodes(look: _Look) -> Iterator[Metric]:
    states = Counter(str(r.state) for r in look.records.values())
    counts = {str(s): float(states.get(str(s), 0)) for s in NodeState}
    yield _gauge("nodes", "Nodes by the ledger's state.", ("state",), _labelled(counts))
    standing = [c for c in look.escalated if c.end is CaseEnd.ESCALATED and c.ended_at]
    yield _gauge(
        "node_escalated_seconds",
        "Since when a node is out and waits for a person or hardware.",
        ("node", "case", "failure_class"),
        sorted(
            ((c.node, c.id, str(c.failure_class)), (look.now - c.ended_at).total_seconds())
            for c in standing
            if c.ended_at is not None
        ),
    )
    tried = {n: float(r.attempts) for n, r in look.records.items() if r.attempts}
    text = "Repairs begun within limits.attempts_window, of nodes that had any."
    yield _gauge("node_attempts", text, ("node",), _labelled(tried))


def _of_waits(look: _Look) -> Iterator[Metric]:
    questions = look.figures.questions
    counted = Counter(str(q.purpose) for q in questions)
    yield _gauge("questions", "Questions nobody answered.", ("purpose",), _labelled(counted))
    oldest: dict[str, float] = {}
    for question in questions:
        age = (look.now - question.asked_at).total_seconds()
        oldest[str(question.purpose)] = max(age, oldest.get(str(question.purpose), 0.0))
    text = "How long the oldest of them has been open."
    yield _gauge("question_oldest_seconds", text, ("purpose",), _labelled(oldest))
    text = "Waits that go on more than a minute after their deadline."
    yield _gauge("deadlines_overdue", text, ("of",), _labelled(_overdue(look)))


def _overdue(look: _Look) -> dict[str, float]:
    def is_over(deadline: datetime | None) -> bool:
        return deadline is not None and (look.now - deadline).total_seconds() > _GRACE_S

    working = {c.id for c in look.cases if not c.held_by}
    return {
        "question": float(sum(is_over(q.expires_at) for q in look.figures.questions)),
        "state": float(sum(is_over(c.deadline) for c in look.cases if not c.held_by)),
        "step": float(
            sum(is_over(_deadline(s)) for s in look.figures.steps if s.case_id in working)
        ),
    }


def _deadline(step: Step) -> datetime | None:
    """Where a step's detail names one."""
    try:
        found = datetime.fromisoformat(str(step.detail.get("deadline", "")))
    except ValueError:
        return None
    return found if found.tzinfo is not None else None


def _of_drains(look: _Look) -> Iterator[Metric]:
    nodes = {c.id: c.node for c in look.cases}
    blocked = [
        (
            (
                nodes[step.case_id],
                step.case_id,
                str(blocker.get("kind", "")),
                str(blocker.get("pod", "")),
                str(blocker.get("name", "")),
            ),
            1.0,
        )
        for step in look.figures.steps
        if step.name.startswith("drain-") and step.case_id in nodes
        for blocker in _blockers(step)
    ]
    yield _gauge(
        "drain_blocked",
        "1 for each pod that holds up a drain, with the budget or finalizer behind it.",
        ("node", "case", "kind", "pod", "blocker"),
        sorted(dict(blocked).items()),
    )


def _blockers(step: Step) -> list[Mapping[str, object]]:
    found = step.detail.get("blocked")
    if not isinstance(found, list):
        return []
    return [b for b in found if isinstance(b, Mapping)][:_BLOCKERS]


def _of_limits(look: _Look) -> Iterator[Metric]:
    text = "Refusals of the last sweep, by the guardrail that said no."
    yield _gauge("refusals", text, ("reason",), _labelled(look.figures.refusals))
    out = [((str(s.kind), s.value), float(n)) for s, n in look.figures.leases.items()]
    text = "Slots of a scope that open cases hold."
    yield _gauge("scope_slots", text, ("scope", "value"), sorted(out))
    levels = {"ledger": float(_LEVELS.index(look.ledger_halt))}
    if look.cluster.halt is not None:
        levels["cluster"] = float(_LEVELS.index(look.cluster.halt))
    text = "The kill switch: 0 off, 1 no disruption, 2 nothing at all."
    yield _gauge("halt_level", text, ("source",), _labelled(levels))
    states = {n: float(s != "closed") for n, s in look.figures.circuits.items()}
    open_now = [((str(s.kind), s.value), float(b.is_open)) for s, b in look.breakers.items()]
    text = "1 while the breaker of a scope is open: no node of it is taken out."
    yield _gauge("breaker_open", text, ("scope", "value"), sorted(open_now))
    text = "1 while an emergency that two people started lifts limits."
    yield _one("emergency_in_force", text, float(look.is_emergency))
    text = "1 while a dependency is left alone because it failed."
    yield _gauge("circuit_open", text, ("dependency",), _labelled(states))


def _of_the_whole(look: _Look) -> Iterator[Metric]:
    yield _one("reviews", "Review items that are open.", look.figures.reviews)
    yield _one("incidents", "Incidents that hold their nodes.", look.figures.incidents)
    if look.figures.swept_at is not None:
        at = look.figures.swept_at.timestamp()
        yield _one("last_sweep_timestamp_seconds", "When the last sweep was recorded.", at)
    yield _one(
        "exposition_timestamp_seconds", "When these metrics were made.", look.now.timestamp()
    )
    text = "Whether the Kubernetes API answered."
    yield _one("cluster_reachable", text, float(look.cluster.is_reachable))


def _of_the_audit(look: _Look) -> Iterator[Metric]:
    seq, digest = look.figures.head
    yield _one("audit_head_seq", "Entries of the audit chain; it never goes back.", seq)
    text = f"The first {_PREFIX} hexadecimal digits of its last entry's hash, as a number."
    yield _one("audit_head_hash_prefix", text, float(int(digest[:_PREFIX], 16)))
    if look.cluster.marked_seq is not None:
        text = "The chain's head as the cluster's ConfigMap last saw it."
        yield _one("audit_marked_seq", text, look.cluster.marked_seq)
    if look.cluster.is_reachable:
        text = "Whether this ledger owns the cluster, with all the history that the cluster saw."
        yield _one("ledger_owns_cluster", text, float(not look.cluster.problem))


def _labelled(values: Mapping[str, float]) -> Samples:
    return sorted(((name,), float(value)) for name, value in values.items())
