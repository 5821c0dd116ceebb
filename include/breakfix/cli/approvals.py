"""`approvals`, `approve`: what waits for people, and their answers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import typer

from breakfix.cli.actor import identity
from breakfix.cli.cases import known_case
from breakfix.cli.output import ExitCode, Format, Output, complain, print_json, print_table, say
from breakfix.errors import BreakfixError, Refused, SettingsError
from breakfix.flow.answering import Given, give_answer
from breakfix.flow.open_questions import WaitingQuestion, open_questions, token_of
from breakfix.flow.services import Services
from breakfix.model import Answer, Case, Decision, Purpose, RefusalReason
from breakfix.settings import load_settings
from breakfix.wiring import build_services

CHANNEL = "cli"
_PLAN_MIN = 8  # characters of a plan's hash that name it

Pool = Annotated[str | None, typer.Option("--pool", help="Only this pool.")]


def approvals(*, pool: Pool = None, output: Output = Format.TABLE) -> None:
    """List what waits for people's answers, oldest first: who has said yes, and what it costs."""
    _show(open_questions(_services(), pool=pool), "open questions", output)


def approve(
    case_id: Annotated[str, typer.Argument(metavar="[CASE]", help="As `approvals` names it.")] = "",
    *,
    yes: Annotated[bool | None, typer.Option("--yes/--no", help="The answer.")] = None,
    plan: Annotated[str, typer.Option(help="For a yes: its plan, as `approvals` shows it.")] = "",
    returns: Annotated[
        bool, typer.Option("--returns", help="All returns that are asked about.")
    ] = False,
    pool: Pool = None,
    these: Annotated[
        str, typer.Option(help="With --returns: the token of the list you have seen.")
    ] = "",
    note: Annotated[str, typer.Option("--note", help="Kept in the audit log.")] = "",
    output: Output = Format.TABLE,
) -> None:
    """Answer a question; without --yes or --no only show it. A no takes back a yes to what has not
    begun.

    The answer is yours by your own role of the ledger's database. Exit 3: it was recorded and does
    not count, or there was nothing to answer.
    """
    if returns == bool(case_id):
        raise SettingsError("give either a case or --returns")
    services = _services()
    if returns:
        asked = open_questions(services, purpose=Purpose.RETURN, pool=pool)
        if yes is None or not these:
            _preview(asked, output)
            if yes is not None:
                raise SettingsError("look at them first, then answer with --these")
            return
        _answer_returns(services, asked, is_yes=yes, these=these, note=note, output=output)
        return
    case = known_case(services.book, case_id)
    if yes is None:
        asked = [q for q in open_questions(services) if q.case.id == case.id]
        _show(asked, f"asked by case {case.id}", output)
        return
    answer = _answer(services, is_yes=yes, note=note, plan_hash=_plan(case, plan, is_yes=yes))
    given = give_answer(services, case.id, answer)
    _tell([given], output)


def _services() -> Services:
    return build_services(
        load_settings(), needs_ledger=True, needs_metrics=False, needs_cluster=False
    )


def _plan(case: Case, plan: str, *, is_yes: bool) -> str:
    """The plan that is meant: this one, or what was typed, which then counts for no other."""
    if not plan:
        if is_yes:
            raise SettingsError(
                f"a yes is for one plan: see `breakfix approve {case.id}`, then add --plan"
            )
        return case.plan_hash
    if len(plan) < _PLAN_MIN:
        raise SettingsError(f"--plan {plan!r}: give at least {_PLAN_MIN} characters of it")
    return case.plan_hash if case.plan_hash.startswith(plan) else plan


def _answer(services: Services, *, is_yes: bool, note: str, plan_hash: str) -> Answer:
    return Answer(
        approver=identity(services),
        is_yes=is_yes,
        channel=CHANNEL,
        at=services.clock.now(),
        plan_hash=plan_hash,
        note=note,
    )


def _preview(asked: list[WaitingQuestion], output: Format) -> None:
    _show(asked, "returns that are asked about", output)
    if output is Format.TABLE and asked:
        say(f"to answer just these: add --yes or --no, and --these {token_of(asked)}")


def _answer_returns(
    services: Services,
    asked: Sequence[WaitingQuestion],
    *,
    is_yes: bool,
    these: str,
    note: str,
    output: Format,
) -> None:
    """Each return by itself, with its own plan; only those that were looked at."""
    if these != token_of(asked):
        text = f"other returns are asked about than those of {these}: look again"
        raise Refused(RefusalReason.NOT_APPROVED, text)
    given: list[Given] = []
    failed = 0
    for question in asked:
        answer = _answer(services, is_yes=is_yes, note=note, plan_hash=question.approval.plan_hash)
        try:
            given.append(give_answer(services, question.case.id, answer))
        except BreakfixError as e:
            failed += 1
            complain(f"{question.case.node}: {e}", ExitCode.REFUSED)
    _tell(given, output, is_short=failed > 0)


def _tell(given: Sequence[Given], output: Format, *, is_short: bool = False) -> None:
    if output is Format.JSON:
        print_json([_given_json(g) for g in given])
    else:
        for one in given:
            say(_sentence(one))
    objections = [g.objection for g in given if g.objection]
    for objection in dict.fromkeys(objections):
        complain(f"recorded, but it does not count: {objection}{_hint(given)}", ExitCode.REFUSED)
    if objections or is_short:
        raise typer.Exit(ExitCode.REFUSED)


def _hint(given: Sequence[Given]) -> str:
    """What to do where the ledger does not know whose role it is."""
    return (
        "; the policy maps your role of the ledger's database to nobody (approvals.ledger_roles):"
        " answer in Airflow"
        if any("not an approver" in g.objection for g in given)
        else ""
    )


def _sentence(given: Given) -> str:
    approval = given.approval
    what = f"{approval.purpose} of {given.case.node}"
    if approval.decision is Decision.PENDING:
        said = f"; yes so far: {', '.join(given.yes)}" if given.yes else ""
        return f"{what} stays open until {approval.expires_at:%m-%d %H:%M} UTC{said}"
    who = approval.approver or "nobody"
    return f"{what} is {approval.decision} by {who}; its run goes on within a sweep"


def _given_json(given: Given) -> dict[str, Any]:
    return {
        "case": given.case.id,
        "node": given.case.node,
        "purpose": given.approval.purpose,
        "decision": given.approval.decision,
        "counts": not given.objection,
        "objection": given.objection,
        "yes": given.yes,
        "plan_hash": given.approval.plan_hash,
    }


# --------------------------------------------------------------------------- what is asked


def _show(asked: Iterable[WaitingQuestion], title: str, output: Format) -> None:
    found = list(asked)
    if output is Format.JSON:
        print_json({"questions": [question_json(q) for q in found], "these": token_of(found)})
        return
    print_table(
        title,
        *(
            ("case", "node", "about", "tier", "plan", "asked", "expires", "yes so far", "cost"),
            [_row(q) for q in found],
        ),
    )


def _row(question: WaitingQuestion) -> tuple[object, ...]:
    case, approval = question.case, question.approval
    return (
        case.id,
        case.node,
        f"{approval.purpose}: {case.action} for {case.failure_class}",
        question.tier,
        approval.plan_hash[:12],
        f"{approval.asked_at:%m-%d %H:%M:%S}",
        f"{approval.expires_at:%m-%d %H:%M:%S}",
        ", ".join(g.answer.approver for g in question.yes),
        _cost(question),
    )


def _cost(question: WaitingQuestion) -> str:
    cost = question.cost
    if cost is None:
        return "nothing stops"
    whole = "".join(f"; stops as a whole: {gang}" for gang in cost.gangs)
    return f"{cost.pods_evicted} pods, {cost.gpus_stopped} GPUs stop{whole}"


def question_json(question: WaitingQuestion) -> dict[str, Any]:
    """One question as plain values."""
    case, approval = question.case, question.approval
    return {
        "case": case.id,
        "run_id": case.run_id,
        "node": case.node,
        "pool": question.pool,
        "purpose": approval.purpose,
        "failure_class": case.failure_class,
        "action": case.action,
        "reason": case.reason,
        "tier": question.tier,
        "needed": question.tier.people,
        "yes": [g.answer for g in question.yes],
        "asked_at": approval.asked_at,
        "expires_at": approval.expires_at,
        "cost": question.cost,
        "plan_hash": approval.plan_hash,
        "requester": case.requester,
    }
