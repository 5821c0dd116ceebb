"""The words of a question to an approver: all that a person must know, and nothing that they must
look up.
"""

from __future__ import annotations

from datetime import datetime

from breakfix.model import Case, Purpose, Step

_LONG = 3000  # characters: whoever answers for a return sees every check of it

_ASKS = {
    Purpose.REPAIR: "Approve {action} of {node}?",
    Purpose.RETURN: "Return {node} to service?",
}


def subject(case: Case, purpose: Purpose) -> str:
    """One line; names from outside are data, so they are quoted where Markdown would read them."""
    return _ASKS[purpose].format(action=case.action.replace("_", " "), node=case.node)


def body(case: Case, purpose: Purpose, expires_at: datetime, steps: tuple[Step, ...] = ()) -> str:
    """Markdown for the approver: what was seen, what would be done, what it costs, what silence
    means.
    """
    impact = case.detail.get("impact", {})
    rows = [
        ("node", _code(case.node)),
        ("case", f"{_code(case.id)}, attempt {case.attempt}"),
        ("failure class", f"{case.failure_class} (confidence {case.confidence:.2f})"),
        ("why", _plain(case.reason)),
        ("action", str(case.action)),
    ]
    if purpose is Purpose.REPAIR and impact:
        cost = (
            f"{impact.get('pods_evicted', '?')} pods, {impact.get('gpus_stopped', '?')} GPUs stop"
        )
        rows.append(("cost", cost))
        rows += [("stops as a whole", _plain(str(gang))) for gang in impact.get("gangs", ())]
    if purpose is Purpose.RETURN:
        told = _plain("; ".join(_evidence(s) for s in steps), _LONG)
        rows.append(("evidence", told or "none"))
    silence = "no: the case escalates"
    if purpose is Purpose.RETURN:
        silence = "no: the node stays out and the question is asked again"
    rows += [
        ("plan", _code(case.plan_hash[:16])),
        ("expires", f"{expires_at:%Y-%m-%d %H:%M:%S} UTC; silence means {silence}"),
    ]
    table = "\n".join(f"| {name} | {value} |" for name, value in rows)
    return f"| | |\n|---|---|\n{table}\n"


def _evidence(step: Step) -> str:
    text = str(step.detail.get("text", ""))
    return f"{step.name} {step.status}" + (f" ({text})" if text else "")


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("|", "/").replace("\n", " ") + "`"


def _plain(text: str, longest: int = 500) -> str:
    cut = text.replace("\n", " ").replace("|", "/")[:longest]
    return "".join("\\" + c if c in "\\`*_{}[]<>#" else c for c in cut)
