"""The checks of a validation that only read, on any node and without a case."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

from breakfix.errors import BreakfixError
from breakfix.flow.assessment import assess
from breakfix.flow.gates import gpus_due
from breakfix.flow.proof import required_signals
from breakfix.flow.service_levels import compare_counters, counters_since
from breakfix.flow.services import Services
from breakfix.flow.validation import look_at_operator, said_of_gpus, why_no_operator
from breakfix.model import Case, Node, Outcome
from breakfix.observe.expected import expected_gpus
from breakfix.verify import gpus_outcome, signals_outcome

_SINCE_S = 3600.0  # without a case: what was counted in the last hour is new (ours)


@dataclass(frozen=True, slots=True)
class Gate:
    """One check: passed, not passed, or not run."""

    name: str
    outcome: Outcome | None  # None: not run
    text: str

    @property
    def is_passed(self) -> bool:
        """Not run is no objection: policy decides where it may be so."""
        return self.outcome in (Outcome.FIXED, None)


def look_over(services: Services, name: str) -> tuple[Gate, ...]:
    """Ready, GPUs, the operator's validation, signals, counters: of one node, now. Reads only, and
    needs no ledger; an open case is heeded. Raises NotFound, and ClusterError for the node itself.
    """
    node = services.cluster.node(name)
    case = _case_of(services, name)
    return tuple(_gates(services, node, case))


def _case_of(services: Services, node: str) -> Case | None:
    if services.ledger is None:
        return None
    return next(iter(services.ledger.cases(open_only=True, node=node)), None)


def _gates(services: Services, node: Node, case: Case | None) -> Iterator[Gate]:
    ready = Outcome.FIXED if node.is_ready else Outcome.NOT_FIXED
    yield Gate("ready", ready, f"boot id {node.boot_id or 'not known'}")
    due = gpus_due(services, case, node) if case else expected_gpus(node, services.policy)
    yield Gate("gpus", gpus_outcome(node, due), said_of_gpus(node, due))
    for name, look in (("operator", _operator), ("signals", _signals), ("counters", _counters)):
        try:
            outcome, text = look(services, node, case)
        except BreakfixError as e:  # one that cannot be read does not hide the others
            outcome, text = Outcome.CANNOT_TELL, f"cannot be read: {e}"
        yield Gate(name, outcome, text)


def _operator(services: Services, node: Node, _case: Case | None) -> tuple[Outcome | None, str]:
    absent = why_no_operator(services, node)
    return (None, f"not run: {absent}") if absent else look_at_operator(services, node, None)


def _signals(services: Services, node: Node, _case: Case | None) -> tuple[Outcome | None, str]:
    verdict = assess(services).judgement.verdict(node.name)
    outcome = signals_outcome(verdict, required=required_signals(services))
    return outcome, verdict.reason if verdict else "the node is not judged"


def _counters(services: Services, node: Node, case: Case | None) -> tuple[Outcome | None, str]:
    if case is not None:
        outcome, text, _ = compare_counters(services, case)
    else:
        since = services.clock.now() - timedelta(seconds=_SINCE_S)
        outcome, text, _ = counters_since(services, node.name, since, since)
    return outcome, text
