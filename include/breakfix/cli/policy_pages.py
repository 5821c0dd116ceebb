"""How the policy's answers look on a screen."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from breakfix.cli.output import print_table, say
from breakfix.policy import Policy
from breakfix.rulebook.boldness import Effect
from breakfix.rulebook.compare import Change
from breakfix.rulebook.explain import Explanation
from breakfix.rulebook.words import said, seconds

_LONG = frozenset({"PromQL", "coverage"})
_STYLES = {Effect.BOLDER: "bold red", Effect.CAREFUL: "green", Effect.OTHER: "yellow"}


def print_policy(policy: Policy) -> None:
    """The rules in three tables."""
    say(f"policy {policy.version}, hash {policy.hash}")
    print_table(
        "signals",
        ("signal", "fires when", "window", "mode", "weight", "group", "class", "source"),
        (
            (
                s.name,
                f"{s.op} {s.threshold:g}",
                seconds(s.window_s),
                s.mode,
                s.weight,
                s.group,
                s.failure_class,
                s.source,
            )
            for s in policy.signals
        ),
    )
    print_table(
        "classes",
        ("class", "mode", "ladder", "min. confidence", "diag level"),
        (
            (c, r.mode, " > ".join(r.ladder), r.min_confidence, r.diag_level)
            for c, r in policy.classes.items()
        ),
    )
    print_table(
        "limits: nodes out at a time",
        ("scope", "share", "nodes"),
        ((k, s.share, s.nodes) for k, s in policy.limits.out.items()),
    )


def print_explanation(found: Explanation) -> None:
    """One screen: the sentences, then the facts by name, the queries at the end."""
    console = Console()
    console.print(Text(f"{found.kind} {found.name}: {found.title}", style="bold"))
    for sentence in found.sentences:
        console.print(Text(_indented(sentence, console.width)))
    console.print()
    for name, value in found.facts.items():
        if name not in _LONG:
            _print_fact(console, name, value, found.name)
    for name in sorted(_LONG & found.facts.keys()):
        console.print(Text(f"{name}, as it is sent:", style="bold"))
        console.print(Text(str(found.facts[name])), soft_wrap=True)  # to be copied as it is


def _print_fact(console: Console, name: str, value: Any, rule: str) -> None:
    if value in ("", None, [], {}):
        return
    label = Text(f"{name:24} ", style="cyan")
    if isinstance(value, list) and any(" " in str(v) for v in value):
        console.print(label)
        for line in value:
            console.print(Text(_indented(str(line), console.width, by=4)))
        return
    console.print(label + Text(_fact(value, rule)), soft_wrap=True)


def _indented(text: str, width: int, *, by: int = 2) -> str:
    return textwrap.indent(textwrap.fill(text, max(40, width - by)), " " * by)


def _fact(value: Any, rule: str) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, Mapping):
        return "; ".join(f"{k} {v}" for k, v in value.items() if v)
    return said(rule, value)


def print_changes(before: Policy, after: Policy, changes: Sequence[Change]) -> None:
    """What makes automation bolder first; each value on its line."""
    say(f"from {before.version} ({before.hash[:12]}) to {after.version} ({after.hash[:12]})")
    if not changes:
        say("they are the same")
        return
    console = Console(soft_wrap=True)
    for effect in Effect:
        told = [c for c in changes if c.effect is effect]
        if told:
            console.print(Text(f"{effect} ({len(told)})", style=_STYLES.get(effect, "dim")))
        for change in told:
            console.print(f"  {escape(change.text)}", highlight=False)
