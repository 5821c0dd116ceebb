"""`limits`: why nothing moves, at one look."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.flow.limits_report import limits_report
from breakfix.settings import load_settings
from breakfix.wiring import build_services


def limits(
    *,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Scopes of which nobody is out.")] = (
        False
    ),
    output: Output = Format.TABLE,
) -> None:
    """Each limit, what of it is used, and what holds everything now. Changes nothing."""
    services = build_services(load_settings(), needs_ledger=False, needs_metrics=False)
    report = limits_report(services)
    if output is Format.JSON:
        print_json(report)
        return
    _print(report, is_all=all_)


def _print(report: dict[str, Any], *, is_all: bool) -> None:
    say(f"{report['nodes']} GPU nodes at {report['at']:%Y-%m-%d %H:%M:%S} UTC")
    if report["emergency"]:
        say(f"EMERGENCY {report['emergency']['state']}: {report['emergency']['text']}")
    for line in report["holds"] or ["nothing holds the whole fleet or one of its parts"]:
        say(f"- {line}")
    print_table(
        "nodes out of service, whoever took them out",
        ("scope", "nodes", "out", "at most", "", "who"),
        (
            (
                r["scope"],
                r["size"],
                r["out"],
                r["maximum"],
                "lifted" if r["is_lifted"] else "full" if r["is_full"] else "",
                ", ".join(r["who"][:5]),
            )
            for r in report["scopes"]
            if is_all or r["out"] or r["is_full"] or r["kind"] == "fleet"
        ),
    )
    print_table(
        "breakers: distinct nodes that fell ill or were taken out",
        ("scope", "state", "struck", "at most", "within", "closes", "why"),
        (
            (
                r["scope"],
                "open" if r["is_open"] else "closed",
                r["struck"],
                r["most"],
                f"{r['window_s'] / 60:g} min",
                f"{r['closes_at']:%H:%M}" if r["closes_at"] else "",
                r["reason"],
            )
            for r in report["breakers"]
            if is_all or r["struck"] or r["is_open"] or r["scope"] == "fleet"
        ),
    )
    _print_rest(report)


def _print_rest(report: dict[str, Any]) -> None:
    print_table(
        "calendar",
        ("nodes", "windows", "now"),
        ((r["nodes"], "; ".join(r["windows"]), r["text"]) for r in report["windows"]),
    )
    named = report["alerts"]["named"]
    say(f"alerts that hold disruption: {named or 'none'} named in the policy")
    print_table(
        "GPUs that stay free once all that must move and all that waits is placed",
        ("SKU", "pool", "free", "must stay free"),
        ((r["sku"], r["pool"], r["free"], r["must_stay_free"]) for r in report["headroom"]),
    )
    print_table(
        "nodes left alone",
        ("why", "nodes", "which"),
        ((w, len(n), ", ".join(n[:5])) for w, n in report["left_alone"].items() if n),
    )
    by_mode: dict[str, list[str]] = {}
    for name, mode in report["modes"].items():
        by_mode.setdefault(mode, []).append(name)
    print_table(
        "failure classes", ("mode", "classes"), ((m, ", ".join(c)) for m, c in by_mode.items())
    )
