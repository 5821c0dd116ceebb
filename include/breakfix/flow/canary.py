"""A canary against what is stable: read both, compare, answer. Changes nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from breakfix.cohorts import CanaryReport, Cohort, NodeHealth
from breakfix.decide.canary import compare
from breakfix.flow.services import Services
from breakfix.model import FailureClass, Judgement, NodeState, Pod, SignalMode, Verdict
from breakfix.observe.canary import find_cohort, read_evidence
from breakfix.observe.canary.evidence import Asked

#: Out of service for a fault: it counts against the cohort though nothing is seen of it any more.
_OUT = frozenset(
    {NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING, NodeState.ESCALATED}
)


def check_selected(
    services: Services,
    canary: str,
    stable: str,
    *,
    window_s: float | None = None,
    waited_s: float = 0.0,
) -> CanaryReport:
    """Compare what two selectors name. Raises SettingsError for one that is not understood.

    What both select belongs to the canary: it would blur the comparison.
    """
    nodes, pods = tuple(services.cluster.nodes()), tuple(services.cluster.pods())
    new, old = (find_cohort(text, nodes, pods) for text in (canary, stable))
    if new.nodes is not None and old.nodes is not None:
        old = replace(old, nodes=old.nodes - new.nodes)
    if new.pods is not None and old.pods is not None:
        old = replace(old, pods=old.pods - new.pods)
    now = services.clock.now()
    return check_cohorts(
        services, new, old, at=now, pods=pods, window_s=window_s, waited_s=waited_s
    )


def check_cohorts(
    services: Services,
    canary: Cohort,
    stable: Cohort,
    *,
    at: datetime,
    pods: Iterable[Pod],
    judgement: Judgement | None = None,
    window_s: float | None = None,
    waited_s: float = 0.0,
    looks: int | None = None,
) -> CanaryReport:
    """Compare two cohorts over the window that ends at `at`.

    With a judgement, cohorts of nodes are compared by their findings, too. `looks`: how many looks
    share alpha, if not as many as the policy plans.
    """
    rules = services.policy.canary
    if looks is not None:
        rules = rules.model_copy(update={"looks": looks})
    asked = Asked(canary, stable, rules, window_s or rules.window_s)
    bound = {(p.namespace, p.name): p.node for p in pods if p.node}
    evidence = read_evidence(services.metrics, asked, at=at, bound=bound)
    if judgement is not None and canary.nodes is not None and stable.nodes is not None:
        verdicts = {v.node: v for v in judgement.verdicts}
        health = health_of(canary.nodes, verdicts), health_of(stable.nodes, verdicts)
        evidence = replace(evidence, health=health)
    return compare(evidence, rules, waited_s=waited_s)


def health_of(nodes: frozenset[str], verdicts: Mapping[str, Verdict]) -> NodeHealth:
    """How many nodes of a cohort can be judged, and which have findings or are out for one.

    What a verdict recommends is not asked: a change that is held makes its nodes a review, and
    would hold itself for ever.
    """
    judged = {n: v for n in nodes if (v := verdicts.get(n)) is not None and not _is_blind(v)}
    sick = frozenset(n for n, v in judged.items() if v.state in _OUT or _is_accused(v))
    return NodeHealth(len(nodes), len(judged), sick)


def _is_blind(verdict: Verdict) -> bool:
    return verdict.failure_class is FailureClass.TELEMETRY_LOST and not _is_accused(verdict)


def _is_accused(verdict: Verdict) -> bool:
    return any(f.mode is not SignalMode.NEVER for f in verdict.findings)
