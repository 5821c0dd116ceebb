"""`report`: how right verdicts were, by what people and outcomes say, and what should change."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

import typer

from breakfix.adapters.clock import SystemClock
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.errors import SettingsError
from breakfix.flow.learning import learn, report_json
from breakfix.learn import Report
from breakfix.learn.statistics import Share
from breakfix.policy import parse_duration
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger, load_policy


def report(
    since: Annotated[str, typer.Option(help="How far back: 30d, 12h.")] = "30d",
    output: Output = Format.TABLE,
) -> None:
    """Say how right each class and signal was, and what policy should change. Changes nothing."""
    settings = load_settings()
    policy, now = load_policy(settings), SystemClock().now()
    ledger = build_ledger(settings, policy)
    made = learn(ledger, policy, since=now - _window(since), now=now)
    if output is Format.JSON:
        print_json(report_json(made))
        return
    _print_head(made)
    _print_classes(made)
    _print_signals(made)
    _print_calibration(made)
    _print_offenders(made)
    _print_proposals(made)


def _window(text: str) -> timedelta:
    try:
        window = timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError) as e:
        raise SettingsError(f"--since: {e}") from None
    if not timedelta(0) < window < timedelta(days=3650):
        raise SettingsError(f"--since {text!r}: give more than nothing, and less than ten years")
    return window


def _print_head(made: Report) -> None:
    labels = ", ".join(f"{count} by {source}" for source, count in sorted(made.labels.items()))
    say(
        f"{made.episodes} verdicts since {made.since:%Y-%m-%d %H:%M} UTC, policy"
        f" {made.policy_version} ({made.policy_hash[:12]}); labels: {labels or 'none'}"
    )


def _print_classes(made: Report) -> None:
    columns = (
        *("class", "mode", "cases", "advised", "suspected", "precision", "interval", "right"),
        *("known", "no label", "overrides", "false out", "people agreed", "return h"),
    )
    print_table(
        "failure classes: of what took nodes out, or would have",
        columns,
        (
            (
                *(c.failure_class, c.mode, c.cases, c.recommended, c.suspected),
                *_columns(c.precision),
                *(c.known, c.unlabelled, c.overrides, c.false_quarantines),
                f"{c.advice_agreed} of {c.recommended}" if c.recommended else "",
                None if c.return_median_s is None else c.return_median_s / 3600,
            )
            for c in made.classes
        ),
    )


def _columns(share: Share) -> tuple[float | None, str, str]:
    if share.share is None:
        return None, "", ""
    return share.share, f"{share.low:.2f}-{share.high:.2f}", f"{share.right} of {share.total}"


def _print_signals(made: Report) -> None:
    print_table(
        "signals: was there a fault when they spoke",
        ("signal", "XID", "weight", "mode", "seen", "real", "interval", "of", "real, alone"),
        (
            (
                *(s.signal, s.xid, s.weight, s.mode, s.seen, *_columns(s.precision)),
                _columns(s.alone)[2],
            )
            for s in made.signals
        ),
    )


def _print_calibration(made: Report) -> None:
    table = made.calibration
    ece = "" if table.ece is None else f", expected calibration error {table.ece:.3f}"
    print_table(
        f"stated confidence against what came true: {table.labelled} labelled{ece}",
        ("confidence", "verdicts", "stated", "right"),
        ((f"{b.low:.2f}-{b.high:.2f}", b.count, b.stated, b.right) for b in table.bins),
    )


def _print_offenders(made: Report) -> None:
    print_table(
        "repeat offenders",
        ("node", "score", "cases", "classes", "failed returns", "lemon"),
        (
            (
                *(o.node, o.score, o.cases, ", ".join(o.classes), o.failed_returns),
                "inspect it" if o.is_lemon else "",
            )
            for o in made.offenders
        ),
    )


def _print_proposals(made: Report) -> None:
    for p in made.proposals:
        say(f"{p.kind} {'.'.join(p.path)}: {p.before} -> {p.after}: {p.why}")
    if not made.overlay:
        say("no proposals")
        return
    say("to paste into the site's overlay, after a look; nothing of it is applied by itself:")
    say(made.overlay.rstrip())
