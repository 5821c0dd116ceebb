"""The annotation with which people confirm by kubectl that a node is healthy: a yes to its return.

`remediation.medik8s.io/manually-confirmed-healthy`, with any value, as medik8s' node health check
reads it. Kubernetes tells nobody who set an annotation: a field manager is a name that its writer
chose. So it confirms a return that wants one person, where policy says so, and never a disruption;
whoever may set it could as well uncordon the node. What was on the node before the question was
asked is no answer to it, unless the value names the run (`<case>.<fence>`) that asks.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from datetime import timedelta

from breakfix.approve import ANNOTATION, ANNOTATOR
from breakfix.errors import BreakfixError, NotFound
from breakfix.flow.answering import give_answer
from breakfix.flow.services import Services
from breakfix.model import Answer, Approval, Case, Purpose
from breakfix.ports import Waker

log = logging.getLogger(__name__)

CONFIRMED = "remediation.medik8s.io/manually-confirmed-healthy"

#: Key of the case's detail: what the annotation said before the question was asked, and the fence.
BEFORE = "confirmed_before"

_A_RUN = re.compile(r"\d{8}-[a-z0-9]+\.\d+")
_VALUE_MAX = 200


def note_confirmation(services: Services, case: Case) -> None:
    """Before a return is asked about: an annotation that is there already answers nothing."""
    try:
        value = services.cluster.node(case.node).annotations.get(CONFIRMED)
    except NotFound:
        return  # the next look at the case ends it
    if value is None:
        return
    services.book.move(
        case.id,
        case.fence,
        case.state,
        actor="node_case",
        reason="validated; the node was annotated as healthy before the question",
        now=services.clock.now(),
        detail={BEFORE: {"fence": case.fence, "value": value[:_VALUE_MAX]}},
    )


def heed_annotations(services: Services, *, waker: Waker | None = None) -> list[str]:
    """Answer each open question about a return whose node says so; the cases whose it counted for.

    Trouble with one node is logged: it is looked at again the next time.
    """
    services = services.refreshed()
    asked = [q for q in services.book.questions() if q.purpose is Purpose.RETURN]
    if not asked:
        return []
    found = {n.name: n.annotations for n in services.cluster.nodes() if CONFIRMED in n.annotations}
    counted: list[str] = []
    for question in asked if found else ():
        try:
            if _heed(services, question, found, waker):
                counted.append(question.case_id)
        except BreakfixError as e:
            log.warning("case=%s: its node's annotation is not heeded: %s", question.case_id, e)
    return counted


def _heed(
    services: Services,
    question: Approval,
    found: Mapping[str, Mapping[str, str]],
    waker: Waker | None,
) -> bool:
    case = services.book.case(question.case_id)
    if case.node not in found:
        return False
    answer = _answer_of(services, case, question, found[case.node][CONFIRMED][:_VALUE_MAX])
    if any(
        g.answer.channel == ANNOTATION
        and g.answer.note == answer.note
        and g.asked_at == question.asked_at
        for g in services.book.answers(case.id)
    ):
        return False  # on record, and it did not count
    given = give_answer(services, case.id, answer, waker=waker)
    if given.objection:
        log.info("case=%s: the annotation does not count: %s", case.id, given.objection)
    return not given.objection


def _answer_of(services: Services, case: Case, question: Approval, value: str) -> Answer:
    before = case.detail.get(BEFORE, {})
    is_old = before.get("fence") == case.fence and before.get("value") == value
    plan_hash, at = case.plan_hash, services.clock.now()
    if value != case.run_id and _A_RUN.fullmatch(value):
        plan_hash = value  # it names another question
    elif value != case.run_id and is_old:
        at = question.asked_at - timedelta(seconds=1)
    return Answer(
        approver=ANNOTATOR,
        is_yes=True,
        channel=ANNOTATION,
        at=at,
        plan_hash=plan_hash,
        note=f"{CONFIRMED}={value}",
    )
