"""From the checks to one answer and one sentence. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from breakfix.cohorts import Advice, CanaryReport, Check, CheckOutcome, Evidence
from breakfix.decide.canary.checks import health_check, metric_checks, rate_checks
from breakfix.decide.canary.coverage import seen_check
from breakfix.decide.canary.latency import latency_checks
from breakfix.policy_canary import CanaryRules


def compare(evidence: Evidence, rules: CanaryRules, *, waited_s: float = 0.0) -> CanaryReport:
    """The answer. `waited_s`: for how long this canary has been looked at without one.

    One failed check is a roll-back. To proceed, both cohorts must be there, no check may be
    unknown, and something must have been seen: enough requests, a business metric, or enough judged
    nodes. Everything else goes on.
    """
    alpha = rules.alpha / (rules.looks * max(1, _relative_tests(evidence, rules)))
    checks = tuple(_checks(evidence, rules, alpha))
    advice, reason = _answer(evidence, checks, rules)
    is_overdue = advice is Advice.CONTINUE and waited_s >= rules.deadline_s
    if is_overdue:
        reason += f"; so it has been for {waited_s / 60:.0f} min: a person has to decide"
    return CanaryReport(
        advice=advice,
        reason=reason,
        checks=checks,
        canary=evidence.canary.name,
        stable=evidence.stable.name,
        canary_size=evidence.canary.size,
        stable_size=evidence.stable.size,
        at=evidence.at,
        window_s=evidence.window_s,
        alpha=alpha,
        is_overdue=is_overdue,
        warnings=evidence.warnings,
    )


def _relative_tests(evidence: Evidence, rules: CanaryRules) -> int:
    """How many tests share this look's part of alpha (Bonferroni)."""
    sources = sum(1 + s.has_latency for s in evidence.sources if not s.is_silent)
    return sources + sum(m.ratio is not None for m in rules.metrics) + (evidence.health is not None)


def _checks(evidence: Evidence, rules: CanaryRules, alpha: float) -> Iterator[Check]:
    for source in evidence.sources:
        if source.is_silent:
            continue
        yield from rate_checks(source, rules, alpha)
        if source.has_latency:
            yield from latency_checks(source, rules, alpha)
    wanted = {m.name: m for m in rules.metrics}
    for values in evidence.metrics:
        yield from metric_checks(values, wanted[values.metric], alpha)
    if (seen := seen_check(evidence, rules)) is not None:
        yield seen
    if evidence.health is not None:
        yield health_check(evidence.health, rules, alpha)


def _answer(evidence: Evidence, checks: Sequence[Check], rules: CanaryRules) -> tuple[Advice, str]:
    failed = [c for c in checks if c.outcome is CheckOutcome.FAILED]
    if failed:
        return Advice.ROLL_BACK, _failure(failed)
    missing = [f"{c.name!r}" for c in (evidence.canary, evidence.stable) if c.is_missing]
    if missing:
        return Advice.CONTINUE, f"nothing to compare: {' and '.join(missing)} selects nothing"
    unknown = [c for c in checks if c.outcome is CheckOutcome.UNKNOWN]
    if unknown:
        first = unknown[0]
        more = f", and {len(unknown) - 1} more checks" if len(unknown) > 1 else ""
        return Advice.CONTINUE, f"{first.name} is not known yet: {first.note}{more}"
    proof = _proof(evidence, checks, rules)
    if not proof:
        return Advice.CONTINUE, "nothing was seen of the canary that could clear it"
    return Advice.PROCEED, f"all {len(checks)} checks passed on {proof}"


def _failure(failed: Sequence[Check]) -> str:
    worst = failed[0]
    stable = "" if worst.stable is None else f", stable has {worst.stable:.4g}"
    sure = "" if worst.p_value is None else f" (p {worst.p_value:.2g})"
    more = f"; also {', '.join(c.name for c in failed[1:])}" if len(failed) > 1 else ""
    return f"{worst.name} is {worst.canary:.4g}, limit {worst.limit:.4g}{stable}{sure}{more}"


def _proof(evidence: Evidence, checks: Sequence[Check], rules: CanaryRules) -> str:
    """What the pass rests on; "" when on nothing."""
    served = [s for s in evidence.sources if not s.is_silent]
    requests = sum(u.requests for s in served for u in s.canary)
    if served:
        return f"{requests:.0f} requests of the canary"
    if evidence.metrics and len(checks) > (evidence.health is not None):
        return "business metrics"
    judged = evidence.health[0].judged if evidence.health is not None else 0
    return f"{judged} judged nodes" if judged >= rules.min_nodes else ""
