"""What people say of review items and cases in every ledger, and what that keeps off the queue."""

from __future__ import annotations

from dataclasses import replace

import pytest

from breakfix.errors import LedgerError
from breakfix.model import (
    Action,
    CaseEnd,
    FailureClass,
    Label,
    NodeState,
    RefusalReason,
    SignalMode,
)
from tests.contract.ledger_builders import NOW, admit, events, later
from tests.contract.test_ledger_sweeps import a_finding, a_verdict, an_incident, sweep

HOUR = 3600


def weak(node="n1", *signals, mode=SignalMode.CORROBORATE, **fields):
    """A verdict for people: nothing in it may act by itself."""
    findings = tuple(
        replace(a_finding(node), signal=s, mode=mode) for s in signals or ("nvlink_errors",)
    )
    action = fields.pop("action", Action.REVIEW)
    verdict = a_verdict(node, NodeState.SUSPECT, action=action)
    return replace(verdict, findings=findings, **fields)


def answer(ledger, label, *, number=None, at=10, hours=1, **said):
    number = number or ledger.reviews()[-1].id
    until = None if label is Label.REAL else later(hours * HOUR)
    said = {"actor": "cli:ann", "note": "", "failure_class": None, "until": until} | said
    return ledger.answer_review(number, label, now=later(at), **said)


def waiting(ledger):
    return [i for i in ledger.reviews() if i.is_waiting]


def test_an_answer_is_kept_with_who_when_and_what_it_speaks_of(ledger):
    sweep(ledger, weak())
    item = answer(ledger, Label.NOISE, note="cable", failure_class=FailureClass.FABRIC)
    (kept,) = ledger.labellings()
    assert item.answer == kept
    assert (kept.label, kept.actor, kept.note, kept.at) == (
        *(Label.NOISE, "cli:ann", "cable", later(10)),
    )
    assert (kept.node, kept.topic, kept.marks) == ("n1", "gpu_off_bus", ("nvlink_errors|3|",))
    assert (kept.failure_class, kept.until) == (FailureClass.FABRIC, later(HOUR))
    assert events(ledger) == ["sweep.changed", "review.answered"]
    entry = ledger.audit_entries()[-1]
    assert (entry.actor, entry.subject, entry.detail["label"]) == ("cli:ann", "n1", "noise")


def test_a_changed_answer_stands_and_the_former_is_kept(ledger):
    sweep(ledger, weak())
    answer(ledger, Label.NOISE)
    item = answer(ledger, Label.REAL, at=20)
    assert [a.label for a in item.answers] == [Label.NOISE, Label.REAL]
    assert item.answer.label is Label.REAL
    assert ledger.audit_entries()[-1].detail["before"] == "noise"


def test_the_same_answer_once_more_changes_nothing(ledger):
    sweep(ledger, weak())
    answer(ledger, Label.NOISE)
    assert len(answer(ledger, Label.NOISE, at=20).answers) == 1
    assert events(ledger) == ["sweep.changed", "review.answered"]


@pytest.mark.parametrize("label", [Label.NOISE, Label.KNOWN], ids=str)
def test_what_is_noise_or_known_is_not_queued_again_before_its_time(ledger, label):
    sweep(ledger, weak())
    number = ledger.reviews()[0].id
    answer(ledger, label)
    sweep(ledger, weak(), now=later(60))
    (same,) = ledger.reviews()
    assert (same.id, same.times_seen, waiting(ledger)) == (number, 2, [])
    sweep(ledger, a_verdict("n1"), now=later(120))
    sweep(ledger, weak(), now=later(HOUR - 1))
    assert ledger.reviews() == ()
    sweep(ledger, weak(), now=later(HOUR))
    assert [i.id > number for i in waiting(ledger)] == [True]


def test_an_open_item_is_asked_anew_when_the_time_of_its_answer_is_over(ledger):
    sweep(ledger, weak())
    answer(ledger, Label.KNOWN)
    sweep(ledger, weak(), now=later(HOUR + 1))
    (item,) = ledger.reviews()
    assert (item.is_waiting, item.at) == (True, later(HOUR + 1))


def test_real_holds_while_the_evidence_is_the_same(ledger):
    sweep(ledger, weak())
    answer(ledger, Label.REAL)
    sweep(ledger, weak(), now=later(1000 * HOUR))
    (item,) = ledger.reviews()
    assert (item.is_waiting, item.times_seen) == (False, 2)
    sweep(ledger, a_verdict("n1"), now=later(1001 * HOUR))
    sweep(ledger, weak(), now=later(1002 * HOUR))
    assert len(waiting(ledger)) == 1


@pytest.mark.parametrize(
    ("then", "is_new"),
    [
        pytest.param(weak("n1", "a", "b"), False, id="the same evidence"),
        pytest.param(weak("n1", "a"), False, id="less of the same"),
        pytest.param(weak("n1", "a", "b", "c"), True, id="a signal more"),
        pytest.param(weak("n1", "c"), True, id="another signal"),
        pytest.param(
            weak("n1", "a", "b", failure_class=FailureClass.THERMAL), True, id="another class"
        ),
        pytest.param(weak("n2", "a", "b"), True, id="another node"),
        pytest.param(
            weak("n1", "a", "b", mode=SignalMode.ALONE), True, id="what may act by itself"
        ),
        pytest.param(
            weak("n1", "a", "b", refusal=RefusalReason.TELEMETRY), True, id="telemetry is lost"
        ),
    ],
)
def test_an_answer_is_for_what_it_was_given_for(ledger, then, is_new):
    sweep(ledger, weak("n1", "a", "b"))
    answer(ledger, Label.NOISE)
    sweep(ledger, now=later(60))
    sweep(ledger, then, now=later(120))
    assert bool(waiting(ledger)) is is_new


def test_evidence_that_joins_an_answered_item_makes_a_new_one(ledger):
    sweep(ledger, weak("n1", "a"))
    first = answer(ledger, Label.NOISE)
    sweep(ledger, weak("n1", "a", "b"), now=later(60))
    (item,) = ledger.reviews()
    assert (item.id != first.id, item.is_waiting, item.answers) == (True, True, ())


def test_noise_does_not_quiet_what_may_act_by_itself(ledger):
    sweep(ledger, weak("n1", mode=SignalMode.ALONE))
    item = answer(ledger, Label.NOISE)
    assert item.is_waiting
    sweep(ledger, weak("n1", mode=SignalMode.ALONE), now=later(60))
    assert [i.id for i in waiting(ledger)] == [item.id]


def test_an_incident_rests_until_a_node_joins_it(ledger):
    sweep(ledger, incidents=[an_incident("n1", "n2")])
    answer(ledger, Label.KNOWN)
    sweep(ledger, incidents=[an_incident("n1", "n2")], now=later(60))
    assert waiting(ledger) == []
    sweep(ledger, incidents=[an_incident("n1", "n2", "n3")], now=later(120))
    assert len(waiting(ledger)) == 1


def test_a_closed_item_can_be_answered(ledger):
    sweep(ledger, weak())
    number = ledger.reviews()[0].id
    sweep(ledger, now=later(60))
    assert answer(ledger, Label.KNOWN, number=number, at=70).answer.label is Label.KNOWN
    sweep(ledger, weak(), now=later(80))
    assert ledger.reviews() == ()


def test_in_force_are_last_answers_of_open_items_and_those_whose_time_is_to_come(ledger):
    sweep(ledger, weak("n1"), weak("n2"), weak("n3"))
    one, two, three = ledger.reviews()
    answer(ledger, Label.REAL, number=one.id)
    answer(ledger, Label.NOISE, number=two.id)
    answer(ledger, Label.NOISE, number=three.id)
    answer(ledger, Label.REAL, number=three.id, at=20)
    sweep(ledger, weak("n1"), now=later(60))
    found = ledger.labellings(standing_at=later(90))
    assert [(a.node, a.label) for a in found] == [("n1", Label.REAL), ("n2", Label.NOISE)]
    assert [a.node for a in ledger.labellings(standing_at=later(HOUR))] == ["n1"]
    assert len(ledger.labellings()) == 4


@pytest.mark.parametrize(
    ("said", "says"),
    [
        pytest.param({"label": Label.REAL, "until": later(99)}, "no end", id="real with an end"),
        pytest.param({"label": Label.NOISE, "until": later(1)}, "to come", id="an end gone by"),
        pytest.param({"label": Label.KNOWN, "until": None}, "to come", id="known without an end"),
        pytest.param({"label": Label.REAL, "number": 999}, "no review item 999", id="no item"),
    ],
)
def test_an_answer_that_makes_no_sense_is_refused_and_not_kept(ledger, said, says):
    sweep(ledger, weak())
    with pytest.raises(LedgerError, match=says):
        answer(ledger, **said)
    assert (ledger.labellings(), events(ledger)) == ((), ["sweep.changed"])


def test_an_item_of_another_cluster_cannot_be_answered(open_ledger):
    ours, theirs = open_ledger(), open_ledger("other")
    sweep(theirs, weak())
    with pytest.raises(LedgerError, match="no review item"):
        answer(ours, Label.REAL, number=theirs.reviews()[0].id)


def test_a_case_is_labelled_and_stays_as_it_is(ledger):
    case = admit(ledger, "n1")
    ledger.end_case(case.id, 1, CaseEnd.OVERRIDDEN, actor="a", reason="r", now=later(5))
    before = ledger.case(case.id)
    said = {"note": "seen it", "failure_class": None}
    ledger.label_case(case.id, Label.NOISE, actor="ann", now=later(9), **said)
    kept = ledger.label_case(case.id, Label.REAL, actor="bob", now=later(10), **said)
    assert (kept.case_id, kept.node, kept.topic) == (case.id, "n1", "gpu_off_bus")
    assert [(a.actor, a.label) for a in ledger.labellings()] == [
        ("ann", Label.NOISE),
        ("bob", Label.REAL),
    ]
    assert ledger.case(case.id) == before
    assert events(ledger)[-2:] == ["case.labelled", "case.labelled"]
    with pytest.raises(LedgerError, match="no case"):
        ledger.label_case("c-none", Label.REAL, actor="ann", now=later(11), **said)


def test_a_day_has_one_report(ledger):
    assert ledger.store_report("2026-01-02", {"proposals": ["p"]}, actor="dag", now=NOW)
    assert not ledger.store_report("2026-01-02", {"proposals": []}, actor="dag", now=later(1))
    assert ledger.store_report("2026-01-03", {"proposals": []}, actor="dag", now=later(2))
    assert ledger.reports() == ({"proposals": []}, {"proposals": ["p"]})
    assert ledger.reports(limit=1) == ({"proposals": []},)
    assert events(ledger) == ["learning.reported"] * 2
    assert ledger.verify_audit()[1] == ""


def test_words_from_outside_cannot_break_an_answer(ledger):
    sweep(ledger, weak("n\0", "s\0"))
    answer(ledger, Label.NOISE, note="\0\ud800", actor="a\0")
    sweep(ledger, weak("n\0", "s\0"), now=later(60))
    assert waiting(ledger) == []
    assert ledger.verify_audit()[1] == ""
