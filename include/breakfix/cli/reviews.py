"""`review`: what automation left to people, with its evidence, and their answers to it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Any

import msgspec
import typer

from breakfix.adapters.clock import SystemClock
from breakfix.cli.actor import actor
from breakfix.cli.evidence import print_findings, print_kept_why, said
from breakfix.cli.judge import parse_time
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.decide.kept import verdict_of_review
from breakfix.decide.report import why_json
from breakfix.decide.why import explain
from breakfix.errors import SettingsError
from breakfix.model import FailureClass, Label
from breakfix.policy import Learning, parse_duration
from breakfix.ports import Ledger, ReviewItem
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger, load_policy

app = typer.Typer(help="What automation left to people.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(help="As `review list` shows it.")]
Class = Annotated[
    FailureClass | None, typer.Option("--class", help="What it was, where you know better.")
]


@app.command("list")
def list_reviews(
    *,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Closed ones too.")] = False,
    answered: Annotated[bool, typer.Option(help="Answered ones that are still seen too.")] = False,
    topic: Annotated[
        str, typer.Option("--class", help="Only this failure class, or `incident`.")
    ] = "",
    node: Annotated[str, typer.Option(help="Only this node, or scope of an incident.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """List what waits for a person's eyes, oldest first."""
    items = [
        i
        for i in build_ledger(load_settings()).reviews(open_only=not all_)
        if (all_ or answered or i.is_waiting) and topic in {"", i.topic} and node in {"", i.node}
    ]
    if output is Format.JSON:
        print_json([review_json(i) for i in items])
        return
    now = SystemClock().now()
    print_table(
        "review queue",
        ("id", "node", "about", "conf.", "age", "seen", "last seen", "answer", "why"),
        (
            (
                i.id,
                i.node,
                i.topic,
                i.detail.get("confidence"),
                age(now - i.at),
                f"{i.times_seen}x",
                f"{i.last_seen:%m-%d %H:%M:%S}",
                i.answer.label if i.answer else "",
                i.reason,
            )
            for i in items
        ),
    )


def review_json(item: ReviewItem) -> dict[str, Any]:
    """An item as plain values."""
    value: dict[str, Any] = msgspec.to_builtins(item)
    value["is_waiting"] = item.is_waiting
    return value


def age(since: timedelta) -> str:
    """`45s`, `12m`, `7h`, `3d`: enough to tell fresh from forgotten."""
    seconds = max(0, int(since.total_seconds()))
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


@app.command("show")
def show(number: Number, output: Output = Format.TABLE) -> None:
    """Show one item: why it is here, its findings, what is unknown, and what was said of it."""
    settings = load_settings()
    policy = load_policy(settings)
    item = known_review(build_ledger(settings), number)
    detail = item.detail
    verdict = verdict_of_review(item.node, item.reason, detail)
    why = why_json(explain(verdict, policy)) if verdict else None
    if output is Format.JSON:
        print_json({**review_json(item), "why": why})
        return
    say(f"review {item.id}, {item.node}: {item.topic}. {item.reason}")
    for line in _facts(item, SystemClock().now()):
        say("  " + line)
    if why:
        print_kept_why(why, detail, policy)
        print_findings(f"findings on {item.node}", detail["findings"])
    if nodes := detail.get("nodes"):
        say(f"{len(nodes)} nodes, {', '.join(detail['failure_classes'])}: {', '.join(nodes)}")
    for answer in item.answers:
        say(said(answer))
    if item.is_waiting:
        say(f"answer with: breakfix review answer {item.id} real|noise|known")


def _facts(item: ReviewItem, now: datetime) -> list[str]:
    """Lines of "name: value" for those that are known."""
    detail = item.detail
    policy = detail.get("policy", {})
    facts = {
        "state": detail.get("state"),
        "confidence": detail.get("confidence"),
        "recommended": detail.get("recommended_action"),
        "held by": detail.get("refusal"),
        "unknown": ", ".join(detail.get("unknown", ())),
        "policy": f"{policy['version']} ({policy['hash'][:12]})" if policy else "",
        "first seen": f"{item.at:%Y-%m-%d %H:%M:%S} UTC, {age(now - item.at)} ago",
        "last seen": f"{item.last_seen:%Y-%m-%d %H:%M:%S} UTC, in {item.times_seen} sweeps so far",
        "closed": f"{item.closed_at:%Y-%m-%d %H:%M:%S} UTC" if item.closed_at else "",
    }
    return [f"{name}: {value}" for name, value in facts.items() if value not in {None, ""}]


@app.command("answer")
def answer(
    number: Number,
    label: Annotated[Label, typer.Argument(help="Was the fault there?")],
    *,
    note: Annotated[str, typer.Option(help="Kept in the audit log.")] = "",
    failure_class: Class = None,
    until: Annotated[
        str, typer.Option(help="noise, known: not asked again so long; 7d, or a time.")
    ] = "",
    output: Output = Format.TABLE,
) -> None:
    """Say what it was. It is a label: it changes no node, no verdict and no case."""
    settings = load_settings()
    ledger, now = build_ledger(settings), SystemClock().now()
    known_review(ledger, number)
    rules = load_policy(settings).learning
    item = ledger.answer_review(
        number,
        label,
        actor=actor(),
        note=note,
        failure_class=failure_class,
        until=rest_until(label, until, rules, now),
        now=now,
    )
    if output is Format.JSON:
        print_json(review_json(item))
        return
    say(f"review {item.id} is labelled {label}")
    say(what_follows(item))


def rest_until(label: Label, text: str, rules: Learning, now: datetime) -> datetime | None:
    """Until when the same evidence is not asked about again. Raises SettingsError."""
    if label is Label.REAL:
        if text:
            raise SettingsError("--until is for noise and known: `real` holds by itself")
        return None
    if not text:
        rest_s = rules.noise_rest_s if label is Label.NOISE else rules.known_rest_s
        return now + timedelta(seconds=rest_s)
    try:
        until = now + timedelta(seconds=parse_duration(text))
    except (ValueError, OverflowError):
        until = parse_time(text, option="--until")
    if not now < until <= now + timedelta(seconds=rules.longest_rest_s):
        raise SettingsError(
            f"--until {text!r}: give a time to come, at most"
            f" {rules.longest_rest_s / 86400:g} days from now (policy learning.longest_rest)"
        )
    return until


def what_follows(item: ReviewItem) -> str:
    """What the last answer does and what it does not, in words for whoever gave it."""
    given = item.answer
    if given is None:
        return ""
    if given.label is Label.REAL:
        return (
            "automation does nothing because of it. To take the node out yourself:"
            f" breakfix drain {item.node}"
        )
    if item.is_waiting:
        return "it stays in the queue: this evidence may act by itself, or is lost telemetry"
    return (
        f"the same evidence is not queued again until {given.until:%Y-%m-%d %H:%M} UTC;"
        " anything new is"
    )


def known_review(ledger: Ledger, number: int) -> ReviewItem:
    """The item of that number. Raises SettingsError for one that was mistyped."""
    item = next((i for i in ledger.reviews(open_only=False) if i.id == number), None)
    if item is None:
        raise SettingsError(
            f"no review item {number} of cluster {ledger.cluster!r}: see review list --all"
        )
    return item
