"""The words of a question to an approver: all that a person must know, and nothing that they must
look up.
"""

from __future__ import annotations

from collections.abc import Sequence

from breakfix.model import Approval, Case, GivenAnswer, Purpose, Step
from breakfix.ports import Ledger

_LONG = 3000  # characters: whoever answers for a return sees every check of it

_ASKS = {
    Purpose.REPAIR: "Approve {action} of {node}?",
    Purpose.RETURN: "Return {node} to service?",
}


def subject(case: Case, purpose: Purpose) -> str:
    """One line; names from outside are data, so they are quoted where Markdown would read them."""
    return _ASKS[purpose].format(action=case.action.replace("_", " "), node=case.node)


def wording(ledger: Ledger, case: Case, approval: Approval) -> dict[str, str]:
    """The question as it is put to people, from what the ledger has: `subject`, `body`, times."""
    is_repair = approval.purpose is Purpose.REPAIR
    steps = () if is_repair else tuple(ledger.steps(case.id))
    yes = yes_so_far(approval, ledger.answers(case.id))
    said = f" ({len(yes)} of {approval.needed} said yes)" if yes else ""
    return {
        "subject": subject(case, approval.purpose) + said,
        "body": body(case, approval, steps, yes),
        "asked_at": approval.asked_at.isoformat(),
        "expires_at": approval.expires_at.isoformat(),
    }


def yes_so_far(approval: Approval, given: Sequence[GivenAnswer]) -> tuple[GivenAnswer, ...]:
    """The answers to this question that counted as a yes when they were given."""
    return tuple(
        g
        for g in given
        if (g.purpose, g.asked_at) == (approval.purpose, approval.asked_at)
        and g.answer.is_yes
        and not g.objection
    )


def body(
    case: Case,
    approval: Approval,
    steps: tuple[Step, ...] = (),
    yes: tuple[GivenAnswer, ...] = (),
) -> str:
    """Markdown for the approver: what was seen, what would be done, what it costs, who said yes,
    what silence means.
    """
    purpose, expires_at = approval.purpose, approval.expires_at
    impact = case.detail.get("impact", {})
    rows = [
        ("node", _code(case.node)),
        ("case", f"{_code(case.id)}, attempt {case.attempt}"),
        ("failure class", f"{case.failure_class} (confidence {case.confidence:.2f})"),
        ("why", _plain(case.reason)),
        ("action", str(case.action)),
    ]
    before = str(case.detail.get("climbed_because", ""))
    if purpose is Purpose.REPAIR and before:
        rows.append(("after", _plain(before)))
    if purpose is Purpose.REPAIR and impact:
        cost = (
            f"{impact.get('pods_evicted', '?')} pods, {impact.get('gpus_stopped', '?')} GPUs stop"
        )
        if impact.get("gang_gpus"):
            cost += f", {impact['gang_gpus']} of them in jobs that run on other nodes, too"
        rows.append(("cost", cost))
        rows += [("stops as a whole", _plain(str(gang))) for gang in impact.get("gangs", ())]
    if purpose is Purpose.RETURN:
        told = _plain("; ".join(_evidence(s) for s in steps), _LONG)
        rows.append(("evidence", told or "none"))
    if approval.needed > 1:
        said = "; ".join(_said(g) for g in yes) or "nobody"
        rows.append(("wants", f"{approval.needed} people; yes so far: {_plain(said)}"))
    silence = "no: the case escalates"
    if purpose is Purpose.RETURN:
        silence = "no: the node stays out and the question is asked again"
    rows += [
        ("plan", _code(case.plan_hash[:16])),
        ("expires", f"{expires_at:%Y-%m-%d %H:%M:%S} UTC; silence means {silence}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| | |\n|---|---|\n{table}\n"


def _said(given: GivenAnswer) -> str:
    answer = given.answer
    return f"{answer.approver} ({answer.channel}, {answer.at:%Y-%m-%d %H:%M:%S} UTC)"


def _evidence(step: Step) -> str:
    text = str(step.detail.get("text", ""))
    return f"{step.name} {step.status}" + (f" ({text})" if text else "")


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("|", "/").replace("\n", " ") + "`"


def _plain(text: str, longest: int = 500) -> str:
    cut = text.replace("\n", " ").replace("|", "/")[:longest]
    return "".join("\\" + c if c in "\\`*_{}[]<>#" else c for c in cut)
