"""Cases, review items and words of people, for the learning report."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from breakfix.model import (
    Action,
    Case,
    FailureClass,
    Label,
    Labelling,
    NodeState,
    Step,
    StepStatus,
)
from breakfix.ports import ReviewItem

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
GSP = FailureClass.GSP


def ago(**duration):
    return NOW - timedelta(**duration)


def a_case(number=1, **fields):
    made = {
        "id": f"c{number}",
        "cluster": "test",
        "node": f"n{number}",
        "node_uid": f"u{number}",
        "fence": 1,
        "state": NodeState.QUARANTINED,
        "failure_class": GSP,
        "action": Action.RESET_GPU,
        "confidence": 0.95,
        "plan_hash": "p",
        "reason": "because",
        "opened_at": ago(days=2),
        "updated_at": ago(days=1),
        "boot_id": "b",
        "detail": {"findings": [a_finding()]},
    }
    return Case(**(made | fields))


def ended(end, number=1, **fields):
    return a_case(number, end=end, ended_at=ago(days=1), **fields)


def a_finding(signal="gsp_errors", *, key="", group="gsp", mode="corroborate"):
    return {"signal": signal, "key": key, "group": group, "mode": mode, "gpu": "0"}


def said(label, *, case="", review=None, number=1, **fields):
    made = {"id": number, "at": NOW, "actor": "cli:ann", "label": label, "node": "n", "topic": "t"}
    return Labelling(**(made | fields), case_id=case, review_id=review)


def a_review(number=1, *, label=None, **detail):
    kept = {
        "failure_class": GSP.value,
        "confidence": 0.7,
        "findings": [a_finding()],
        "recommended_action": "review",
        "refusal": "not_corroborated",
    }
    answers = () if label is None else (said(label, review=number),)
    return ReviewItem(
        id=number,
        at=ago(days=2),
        node=f"n{number}",
        reason="because",
        detail=kept | detail,
        last_seen=ago(days=1),
        topic=kept["failure_class"],
        answers=answers,
    )


def advice(number=1, *, label=None, **detail):
    """What policy only recommends: a repair that nothing but its mode keeps from being done."""
    wanted = {"recommended_action": "reset_gpu", "action": "reset_gpu"}
    wanted |= {"refusal": "mode_recommend", "confidence": 0.95}
    return a_review(number, label=label, **(wanted | detail))


def a_round(case_id, number, *, released=None):
    """The steps of one time that a case took its node out."""
    begun = Step(case_id, 1, f"quarantine-{number}", StepStatus.DONE, ago(days=2), ago(days=2))
    if released is None:
        return [begun]
    back = Step(case_id, 1, f"release-{number}", StepStatus.DONE, released, released)
    return [begun, back]


LABELS = (Label.REAL, Label.NOISE, Label.KNOWN)
