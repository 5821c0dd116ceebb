"""Changes under way: find them, compare their cohorts, advise, and hold repairs where one is bad.

Nothing is ever rolled back here. A change that is to be rolled back holds repairs in its scope
until it is cleared or gone: what looks like many broken nodes is then one bad change.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import msgspec

from breakfix.cohorts import Advice, CanaryReport, Change, ChangeAdvice, CheckOutcome
from breakfix.decide.canary import find_deploys, find_fact_changes, last_known
from breakfix.errors import SettingsError
from breakfix.flow.assessment import Assessment, assess
from breakfix.flow.canary import check_cohorts
from breakfix.flow.services import Services
from breakfix.model import Observation
from breakfix.observe.facts import read_facts
from breakfix.observe.fleet import Fleet
from breakfix.observe.labels import NodeNames
from breakfix.observe.remembered import RememberedMetrics

ACTOR = "change_canary"


@dataclass(frozen=True, slots=True)
class Advised:
    """One change, this look's report, and what is advised of it now."""

    change: Change
    report: CanaryReport
    advice: Advice
    is_new: bool  # another advice than before, or the first


@dataclass(frozen=True, slots=True)
class ChangesFound:
    """The changes of one look. `skipped`: kinds of change that could not be looked for."""

    changes: tuple[Change, ...]
    notes: tuple[str, ...] = ()
    skipped: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Result:
    """What one look at all changes came to."""

    advised: tuple[Advised, ...] = ()
    gone: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    at: datetime | None = None


def advise_on_changes(
    services: Services, *, actor: str = ACTOR, is_dry_run: bool = False, only: str = ""
) -> Result:
    """Look at every change there is; advice goes to the ledger, its audit, and people.

    `only`: the changes whose scope contains that text. A dry run needs no ledger and writes
    nothing. Raises what observing raises: on half a look nothing is advised.
    """
    assessment = assess(services)
    open_now = {} if services.ledger is None else {a.scope: a for a in services.ledger.advices()}
    found = find_changes(services, assessment.observation, open_now.values())
    wanted = [c for c in found.changes if only in c.scope]
    notes = list(found.notes)
    most = services.policy.canary.max_changes
    if len(wanted) > most:
        notes.append(f"{len(wanted) - most} more changes than are looked at in one run")
    # all of them ask the same of the same instant: what the fleet served is asked once
    services = replace(services, metrics=RememberedMetrics(services.metrics))
    advised = tuple(
        _advise(services, c, open_now.get(c.scope), assessment, actor, is_dry_run=is_dry_run)
        for c in wanted[:most]
    )
    gone = () if is_dry_run else _close(services, found, open_now, actor)
    return Result(advised, gone, tuple(notes), assessment.observation.at)


def find_changes(
    services: Services, observation: Observation, known: Iterable[ChangeAdvice] = ()
) -> ChangesFound:
    """Facts that spread over part of the fleet, then deploys.

    A fact whose past cannot be read is skipped, not guessed at. A node that is silent is taken to
    have what it told before, `known` changes included.
    """
    rules = services.policy.canary
    nodes = {n.name: n for n in observation.judged}
    fleet = Fleet(
        nodes, NodeNames(services.policy.names, frozenset(n.name for n in observation.nodes))
    )
    then = [observation.at - timedelta(seconds=s) for s in (rules.window_s, rules.lookback_s)]
    (settled, odd), (before, odder) = (
        read_facts(services.metrics, fleet, services.policy, at=at) for at in then
    )
    changes: list[Change] = []
    skipped: set[str] = set()
    for fact in rules.facts:
        if any(_is_about(fact, w) for w in (*observation.warnings, *odd, *odder)):
            skipped.add(fact)
            continue
        told = last_known(
            nodes.values(),
            fact,
            now=observation.facts,
            settled=settled,
            remembered=_remembered(fact, known),
        )
        changes += find_fact_changes(nodes.values(), fact, now=told, settled=settled, before=before)
    changes += find_deploys(observation, lookback_s=rules.deploy_lookback_s)
    notes = [
        f"{fact} could not be read now or of before: not looked at" for fact in sorted(skipped)
    ]
    return ChangesFound(tuple(changes), tuple(notes), frozenset(skipped))


def _remembered(fact: str, known: Iterable[ChangeAdvice]) -> dict[str, str]:
    """Node -> the value that an open change says it has; of several the newest."""
    mine = [a for a in known if a.detail.get("what") == fact]
    return {n: str(a.detail.get("value", "")) for a in mine for n in a.nodes}


def _is_about(fact: str, warning: str) -> bool:
    return warning.startswith(f"fact {fact} ")


def _advise(
    services: Services,
    change: Change,
    before: ChangeAdvice | None,
    assessment: Assessment,
    actor: str,
    *,
    is_dry_run: bool,
) -> Advised:
    now = assessment.observation.at
    waited_s = (now - before.first_seen).total_seconds() if before else 0.0
    report = check_cohorts(
        services,
        change.canary,
        change.stable,
        at=now,
        pods=assessment.observation.pods,
        judgement=assessment.judgement,
        waited_s=waited_s,
    )
    advice = standing_advice(before, report)
    is_new = before is None or before.advice is not advice
    if not is_dry_run:
        _record(services, change, report, advice, before=before, actor=actor)
    return Advised(change, report, advice, is_new)


def standing_advice(before: ChangeAdvice | None, report: CanaryReport) -> Advice:
    """A roll-back stands until the change is cleared: by every check that had failed, passed.

    Seeing less does not clear it: a canary that was drained fails no request any more. What a
    person has accepted is advised against no more, until another check fails.
    """
    failed = {c.name for c in report.checks if c.outcome is CheckOutcome.FAILED}
    if failed and failed <= set(accepted_checks(before)):
        return Advice.CONTINUE
    if before is None or before.advice is not Advice.ROLL_BACK:
        return report.advice
    passed = {c.name for c in report.checks if c.outcome is CheckOutcome.PASSED}
    is_cleared = report.advice is Advice.PROCEED and passed >= set(_failed_before(before))
    return Advice.PROCEED if is_cleared else Advice.ROLL_BACK


def accepted_checks(before: ChangeAdvice | None) -> list[str]:
    """The checks whose failure a person has accepted for this change."""
    if before is None:
        return []
    return [str(name) for name in before.detail.get("accepted", {}).get("checks", ())]


def accept_change(services: Services, scope: str, *, actor: str, reason: str) -> ChangeAdvice:
    """A person accepts what a change does: its nodes are repaired again from now on.

    Another check that fails is advised against as ever. Raises SettingsError for a change that is
    not to be rolled back.
    """
    before = next((a for a in services.book.advices() if a.scope == scope), None)
    if before is None or before.advice is not Advice.ROLL_BACK:
        raise SettingsError(f"no change {scope!r} is to be rolled back; see `breakfix change list`")
    now = services.clock.now()
    checks = sorted({*accepted_checks(before), *_failed_before(before)})
    accepted = {"by": actor, "reason": reason, "at": now.isoformat(), "checks": checks}
    return services.book.record_advice(
        scope,
        Advice.CONTINUE,
        reason=f"accepted by {actor}: {reason or 'no reason given'}",
        nodes=before.nodes,
        detail={**before.detail, "accepted": accepted, "failed": []},
        actor=actor,
        now=now,
    )


def _failed_before(before: ChangeAdvice | None) -> list[str]:
    """The checks for which a standing roll-back was advised."""
    if before is None or before.advice is not Advice.ROLL_BACK:
        return []
    return [str(name) for name in before.detail.get("failed", ())]


def _record(
    services: Services,
    change: Change,
    report: CanaryReport,
    advice: Advice,
    *,
    before: ChangeAdvice | None,
    actor: str,
) -> None:
    reason = report.reason
    if advice is Advice.CONTINUE and report.advice is Advice.ROLL_BACK:
        reason = f"a person accepted this: {reason}"
    elif advice is not report.advice and before is not None:
        reason = f"{before.reason.partition('. Since then: ')[0]}. Since then: {reason}"
    services.book.record_advice(
        change.scope,
        advice,
        reason=reason,
        nodes=change.nodes,
        detail=_detail(change, report)
        | {"failed": _failed(report, advice, before)}
        | ({"accepted": before.detail["accepted"]} if accepted_checks(before) and before else {}),
        actor=actor,
        now=report.at,
    )
    was_overdue = before is not None and bool(before.detail.get("is_overdue"))
    if before is None or before.advice is not advice or (report.is_overdue and not was_overdue):
        services.notifier.tell(f"change {change.scope}: {advice}", _told(change, advice, reason))


def _failed(report: CanaryReport, advice: Advice, before: ChangeAdvice | None) -> list[str]:
    if advice is not Advice.ROLL_BACK:
        return []
    now = {c.name for c in report.checks if c.outcome is CheckOutcome.FAILED}
    return sorted(now.union(_failed_before(before)))


def _told(change: Change, advice: Advice, reason: str) -> str:
    if advice is Advice.ROLL_BACK:
        held = f"{len(change.nodes)} nodes with it are not repaired until it is gone or cleared"
        return f"{reason}. Breakfix rolls nothing back itself; {held}."
    return f"{reason}."


def _detail(change: Change, report: CanaryReport) -> dict[str, Any]:
    checks: list[Any] = msgspec.to_builtins(report.checks)
    return {
        "what": change.what,
        "value": change.value,
        "sku": change.sku,
        "pool": change.pool,
        "canary": {"name": report.canary, "size": report.canary_size},
        "stable": {"name": report.stable, "size": report.stable_size},
        "settling": sorted(change.settling),
        "window_s": report.window_s,
        "alpha": report.alpha,
        "is_overdue": report.is_overdue,
        "checks": checks,
    }


def _close(
    services: Services,
    found: ChangesFound,
    open_now: Mapping[str, ChangeAdvice],
    actor: str,
) -> tuple[str, ...]:
    """Advice on changes that are gone. What could not be looked for is not gone."""
    present = {c.scope for c in found.changes}
    gone: Sequence[ChangeAdvice] = [
        a
        for a in open_now.values()
        if a.scope not in present and a.detail.get("what") not in found.skipped
    ]
    for advice in gone:
        reason = "the change is gone: it is everywhere, nowhere, or no longer new"
        services.book.close_advice(
            advice.scope, actor=actor, reason=reason, now=services.clock.now()
        )
        if advice.advice is not Advice.PROCEED:
            services.notifier.tell(f"change {advice.scope}: over", f"{reason}.")
    return tuple(a.scope for a in gone)
