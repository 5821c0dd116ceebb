"""`case`: what is being worked on, why, and what people said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
import typer

from breakfix.adapters.clock import SystemClock
from breakfix.cli.actor import actor, proven_name
from breakfix.cli.evidence import print_findings, print_kept_why, said
from breakfix.cli.output import Format, Output, print_json, print_table, say
from breakfix.decide.kept import verdict_of_case
from breakfix.decide.report import why_json
from breakfix.decide.why import explain
from breakfix.errors import SettingsError
from breakfix.flow.case import abort_case
from breakfix.flow.drain_endings import resume_case
from breakfix.flow.taking_back import force_return, return_case
from breakfix.learn import truth_of_case
from breakfix.model import Approval, Case, FailureClass, GivenAnswer, Label, Step, StepStatus
from breakfix.ports import Ledger
from breakfix.settings import load_settings
from breakfix.wiring import build_ledger, build_services, load_policy

app = typer.Typer(help="The cases: one per node and incident.", no_args_is_help=True)

Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; kept in the audit log.")]


@app.command("list")
def list_cases(
    *,
    all_: Annotated[bool, typer.Option("--all", "-a", help="Ended cases too.")] = False,
    output: Output = Format.TABLE,
) -> None:
    """List open cases, oldest first."""
    cases = build_ledger(load_settings()).cases(open_only=not all_)
    if output is Format.JSON:
        print_json([case_json(c) for c in cases])
        return
    print_table(
        "cases",
        ("case", "node", "state", "class", "action", "attempt", "opened", "held by", "end"),
        (
            (
                c.id,
                c.node,
                c.state,
                c.failure_class,
                c.action,
                c.attempt,
                f"{c.opened_at:%m-%d %H:%M:%S}",
                c.held_by,
                c.end,
            )
            for c in cases
        ),
    )


def case_json(case: Case) -> dict[str, Any]:
    """A case as plain values, with the run that works on it."""
    value: dict[str, Any] = msgspec.to_builtins(case)
    value["run_id"] = case.run_id
    value["is_open"] = case.is_open
    return value


@app.command("show")
def show(case_id: Annotated[str, typer.Argument()], output: Output = Format.TABLE) -> None:
    """Show one case: why it was opened, its steps and approvals, and what people said of it."""
    settings = load_settings()
    ledger, policy = build_ledger(settings), load_policy(settings)
    case = known_case(ledger, case_id)
    steps, approvals = ledger.steps(case_id), ledger.approvals(case_id)
    said_of_it = [a for a in ledger.labellings() if a.case_id == case_id]
    verdict = verdict_of_case(case)
    why = why_json(explain(verdict, policy)) if verdict else None
    if output is Format.JSON:
        shown = {"case": case_json(case), "steps": steps, "approvals": approvals}
        shown["answers"] = ledger.answers(case_id)
        print_json({**shown, "why": why, "labels": said_of_it})
        return
    _print_case(case)
    if why:
        print_kept_why(why, case.detail, policy)
        print_findings("findings it was opened on", case.detail["findings"])
    _print_steps(steps)
    _print_drain(steps)
    _print_approvals(approvals)
    _print_answers(ledger.answers(case_id))
    truth = truth_of_case(case, said_of_it[-1] if said_of_it else None)
    say(f"label: {truth.label or 'none'} ({truth.source}): {truth.why}")
    for labelling in said_of_it:
        say(said(labelling))


def _print_case(case: Case) -> None:
    say(f"case {case.id} on node {case.node}: {case.state}, {case.failure_class} -> {case.action}")
    say(f"  why: {case.reason}")
    say(f"  opened {case.opened_at:%Y-%m-%d %H:%M:%S} UTC by {case.requester}, run {case.run_id}")
    if case.held_by:
        say(f"  held by {case.held_by}")
    if case.end:
        say(f"  ended: {case.end} at {case.ended_at:%Y-%m-%d %H:%M:%S} UTC")


def _print_steps(steps: Sequence[Step]) -> None:
    print_table(
        "steps",
        ("step", "status", "started", "ended", "detail"),
        (
            (
                s.name,
                s.status,
                f"{s.started_at:%H:%M:%S}",
                f"{s.ended_at:%H:%M:%S}" if s.ended_at else "",
                s.detail.get("text", ""),
            )
            for s in steps
        ),
    )


def _print_drain(steps: Sequence[Step]) -> None:
    """Each pod that a drain under way has still to bring to leave."""
    for step in steps:
        pods = step.detail.get("pods", ()) if step.name.startswith("drain-") else ()
        if step.status is StepStatus.DISPATCHED and pods and isinstance(pods[0], Mapping):
            rows = ((p["pod"], p["order"], p["rung"], p["says"]) for p in pods)
            print_table(f"pods of {step.name}", ("pod", "order", "rung", "what"), rows)


def _print_approvals(approvals: Sequence[Approval]) -> None:
    print_table(
        "approvals",
        ("about", "decision", "by", "through", "asked", "note"),
        (
            (a.purpose, a.decision, a.approver, a.channel, f"{a.asked_at:%H:%M:%S}", a.note)
            for a in approvals
        ),
    )


def _print_answers(given: Sequence[GivenAnswer]) -> None:
    if not given:
        return
    print_table(
        "answers",
        ("about", "by", "said", "through", "at", "counts", "note"),
        (
            (
                g.purpose,
                g.answer.approver,
                "yes" if g.answer.is_yes else "no",
                g.answer.channel,
                f"{g.answer.at:%m-%d %H:%M:%S}",
                f"no: {g.objection}" if g.objection else "yes",
                g.answer.note,
            )
            for g in given
        ),
    )


@app.command("hold")
def hold(
    case_id: Annotated[str, typer.Argument()], reason: Reason = "", output: Output = Format.TABLE
) -> None:
    """Stop all work on a case until `case unhold`; nothing is undone."""
    ledger = build_ledger(load_settings())
    case = known_case(ledger, case_id)
    case = ledger.hold(case.id, actor=actor(), reason=reason, now=SystemClock().now())
    _said(case, f"case {case.id} is held; its node stays as it is", output)


@app.command("unhold")
def unhold(
    case_id: Annotated[str, typer.Argument()], reason: Reason = "", output: Output = Format.TABLE
) -> None:
    """Let a held case go on; the reconciler starts its next run."""
    ledger = build_ledger(load_settings())
    case = known_case(ledger, case_id)
    case = ledger.unhold(case.id, actor=actor(), reason=reason, now=SystemClock().now())
    _said(case, f"case {case.id} goes on with the next reconciliation", output)


@app.command("resume")
def resume(
    case_id: Annotated[str, typer.Argument()], reason: Reason = "", output: Output = Format.TABLE
) -> None:
    """Go on with a case on hold from where the world is: an overdue drain has its time anew."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    case = known_case(services.book, case_id)
    text = resume_case(services, case.id, actor=actor(), reason=reason)
    _said(services.book.case(case.id), text, output)


@app.command("release")
def release(
    case_id: Annotated[str, typer.Argument()], reason: Reason = "", output: Output = Format.TABLE
) -> None:
    """The same as `unhold`: work goes on. To give the node back: `case return`, `case abort`."""
    unhold(case_id, reason, output)


@app.command("return")
def return_(
    case_id: Annotated[str, typer.Argument()],
    *,
    force: Annotated[
        bool, typer.Option("--force", help="At once and unproven; an approver's word, with why.")
    ] = False,
    reason: Reason = "",
    output: Output = Format.TABLE,
) -> None:
    """Want the node back: it is validated, and returned if that passes and nobody objects.

    Works on escalated nodes, too, once they were repaired by hand.
    """
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    case = known_case(services.book, case_id)
    if force:  # an approver's word is theirs by proof, as every approval is
        who = f"cli:{proven_name(services, instead='without --force it is validated first')}"
        text = force_return(services, case.id, actor=who, reason=reason)
    else:
        text = return_case(services, case.id, actor=actor(), reason=reason)
    _said(services.book.case(case.id), text, output)


@app.command("abort")
def abort(
    case_id: Annotated[str, typer.Argument()], reason: Reason = "", output: Output = Format.TABLE
) -> None:
    """End a case now. Only what we put on the node is taken off; a node under repair stays out."""
    services = build_services(load_settings(), needs_ledger=True, needs_metrics=False)
    case = known_case(services.book, case_id)
    text = abort_case(services, case.id, actor=actor(), reason=reason)
    _said(services.book.case(case.id), text, output)


@app.command("label")
def label(
    case_id: Annotated[str, typer.Argument()],
    was: Annotated[Label, typer.Argument(help="Was the fault there?")],
    *,
    note: Annotated[str, typer.Option(help="Kept in the audit log.")] = "",
    failure_class: Annotated[
        FailureClass | None, typer.Option("--class", help="What it was, where you know better.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Say what a case was, for the learning report. It changes neither the case nor its node."""
    ledger = build_ledger(load_settings())
    case = known_case(ledger, case_id)
    given = ledger.label_case(
        case.id,
        was,
        actor=actor(),
        note=note,
        failure_class=failure_class,
        now=SystemClock().now(),
    )
    if output is Format.JSON:
        print_json(given)
    else:
        say(f"case {case.id} is labelled {given.label}")


def known_case(ledger: Ledger, case_id: str) -> Case:
    """The case of that id. Raises SettingsError for one that was mistyped."""
    case = next((c for c in ledger.cases() if c.id == case_id), None)
    if case is None:
        raise SettingsError(f"no case {case_id!r} of cluster {ledger.cluster!r}: see case list")
    return case


def _said(case: Case, text: str, output: Format) -> None:
    if output is Format.JSON:
        print_json({"case": case_json(case), "text": text})
    else:
        say(text)
