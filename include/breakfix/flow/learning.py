"""The learning report over the ledger: read, make, and once a day keep it and tell people."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import msgspec

from breakfix.flow.services import Services
from breakfix.learn import History, Report, make_report
from breakfix.policy import Policy
from breakfix.ports import Ledger

ACTOR = "learning_report"

#: What a report looks back on, unless it is asked for more.
DEFAULT_WINDOW = timedelta(days=30)


def learn(ledger: Ledger, policy: Policy, *, since: datetime, now: datetime) -> Report:
    """The report over what began since then. Reads only.

    The steps of a case are asked for when it is in the window of the report or of lemons.
    """
    cases = tuple(ledger.cases())
    first = min(since, now - timedelta(seconds=policy.learning.lemon.window_s))
    history = History(
        cases=cases,
        reviews=tuple(ledger.reviews(open_only=False)),
        labellings=tuple(ledger.labellings()),
        steps={c.id: tuple(ledger.steps(c.id)) for c in cases if c.opened_at >= first},
    )
    return make_report(history, policy, since=since, now=now)


def report_json(report: Report) -> dict[str, Any]:
    """The report as plain values: what `breakfix report -o json` prints and the ledger keeps."""
    plain: dict[str, Any] = msgspec.to_builtins(report, str_keys=True)
    return plain


def report_of_the_day(services: Services, *, actor: str = ACTOR) -> tuple[Report, bool]:
    """Make the day's report, keep it, and tell people; (report, False) when it is kept already.

    People are told once a day, whoever runs this how often.
    """
    now = services.clock.now()
    report = learn(services.book, services.policy, since=now - DEFAULT_WINDOW, now=now)
    is_new = services.book.store_report(
        f"{now:%Y-%m-%d}", report_json(report), actor=actor, now=now
    )
    if is_new:
        services.notifier.tell(*words_of(report))
    return report, is_new


def words_of(report: Report) -> tuple[str, str]:
    """(subject, text) for people: the proposals, or that there is none."""
    false = sum(c.false_quarantines for c in report.classes)
    labelled = report.calibration.labelled
    lemons = [o.node for o in report.offenders if o.is_lemon]
    lines = [f"{report.episodes} verdicts, {labelled} labelled, {false} false quarantines."]
    lines += [
        f"{p.kind} {'.'.join(p.path)}: {p.before} -> {p.after}: {p.why}." for p in report.proposals
    ]
    if lemons:
        lines.append(f"Repeat offenders, to be inspected: {', '.join(lemons)}.")
    lines.append("Nothing of this is applied by itself: see `breakfix report`.")
    count = len(report.proposals)
    return f"learning report: {count or 'no'} proposal{'' if count == 1 else 's'}", " ".join(lines)
