"""`emergency`: named limits lifted for a while, by two people."""

from __future__ import annotations

from typing import Annotated

import typer

from breakfix.adapters.clock import SystemClock
from breakfix.brakes import Lift
from breakfix.cli.actor import actor, proven_name, requester
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.durations import parse_duration
from breakfix.errors import SettingsError
from breakfix.flow import brakes
from breakfix.flow.limits_report import emergency_json
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger, build_services

app = typer.Typer(help="Lift named limits for a while, by two people.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", "-r", help="For the audit log and the people.")]


@app.command("start")
def start(
    *,
    lift: Annotated[str, typer.Option(help="What to lift, with commas: windows,fleet,rack.")],
    for_: Annotated[str, typer.Option("--for", help="For how long, e.g. 2h.")],
    approver: Annotated[str, typer.Option(help="Who is to approve it: another person.")],
    reason: Reason = "",
    output: Output = Format.TABLE,
) -> None:
    """Ask for an emergency. It is in force once the approver runs `emergency approve`."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    asked = brakes.ask_emergency(
        services,
        parse_lifts(lift),
        lasts_s=_seconds(for_),
        requester=requester(services),
        approver=approver,
        reason=reason,
    )
    if output is Format.JSON:
        print_json(emergency_json(asked, services.clock.now()))
        return
    say(f"asked: {asked}")
    say(
        f"{approver} runs `breakfix emergency approve`, or the DAG `emergency`,"
        f" until {asked.answer_by:%H:%M} UTC"
    )


@app.command("approve")
def approve(output: Output = Format.TABLE) -> None:
    """Say yes to the emergency that names you; its time begins now. Who you are says your own role
    of the ledger's database; without one, use the DAG `emergency`.
    """
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    who = proven_name(services, instead="use Airflow")
    made = brakes.approve_emergency(services, approver=who)
    if output is Format.JSON:
        print_json(emergency_json(made, services.clock.now()))
        return
    say(f"in force: {made}")


@app.command("end")
def end(reason: Reason = "", output: Output = Format.TABLE) -> None:
    """End what is in force, or withdraw what is asked; all limits hold again at once."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    ended = brakes.end_emergency(services, actor=actor(), reason=reason)
    if output is Format.JSON:
        print_json({"ended": ended is not None, "id": ended.id if ended else None})
        return
    say(f"ended: {ended}" if ended else "there was no emergency")


@app.command("show")
def show(output: Output = Format.TABLE) -> None:
    """The emergency that is asked for or in force, and those that were."""
    now = SystemClock().now()
    known = build_ledger(load_settings()).emergencies()
    if output is Format.JSON:
        print_json({"now": emergency_json(next(iter(known), None), now), "known": known})
        return
    print_table(
        "emergencies",
        ("state", "lifts", "asked", "until", "requester", "approver", "ended by", "why"),
        (
            (
                "in force" if e.is_in_force(now) else "asked" if e.is_asked(now) else "over",
                ", ".join(sorted(e.lifts)),
                f"{e.asked_at:%m-%d %H:%M}",
                f"{e.until:%m-%d %H:%M}" if e.until else "never approved",
                e.requester,
                e.approver,
                e.ended_by,
                e.reason,
            )
            for e in known
        ),
    )


def parse_lifts(text: str) -> frozenset[Lift]:
    """`windows,fleet` -> the lifts. Raises SettingsError with the words there are."""
    names = [x.strip() for x in text.split(",") if x.strip()]
    try:
        return frozenset(Lift(x) for x in names)
    except ValueError as e:
        raise SettingsError(f"--lift: {e}; there are {', '.join(Lift)}") from None


def _seconds(text: str) -> float:
    try:
        return parse_duration(text)
    except ValueError as e:
        raise SettingsError(f"--for: {e}") from None
