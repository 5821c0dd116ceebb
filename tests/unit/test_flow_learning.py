"""The day's report: read from the ledger, kept once, told once."""

from __future__ import annotations

from datetime import timedelta

import msgspec

from breakfix.flow.learning import learn, report_json, report_of_the_day, words_of
from breakfix.flow.services import Services
from breakfix.model import CaseEnd, Label
from breakfix.settings import Settings
from tests.contract.ledger_builders import NOW, admit, later, to_returning
from tests.contract.test_ledger_sweeps import bad, sweep
from tests.fakes_ledger import FakeLedger
from tests.unit.test_learn_report import a_policy


class Told:
    """A notifier that remembers."""

    def __init__(self):
        self.words = []

    def tell(self, subject, text, *, case_id=""):
        self.words.append((subject, text))


class StillClock:
    """A clock that stands where it is put."""

    def __init__(self):
        self.at = NOW + timedelta(days=2)

    def now(self):
        return self.at


def services(ledger, **fields):
    return Services(
        metrics=None,
        cluster=None,
        policy=a_policy(),
        settings=Settings(),
        clock=StillClock(),
        notifier=Told(),
        ledger=ledger,
        **fields,
    )


def a_lived_ledger():
    """One case repaired and returned, one that a person took back, one item answered."""
    ledger = FakeLedger("test")
    one = admit(ledger, "n1")
    for name in ("quarantine-1", "repair-reboot-1", "release-1"):
        ledger.begin_step(one.id, 1, name, detail={}, now=later(1))
        ledger.finish_step(one.id, 1, name, "done", detail={}, now=later(3600))
    to_returning(ledger, one, repaired_at=later(10))
    ledger.end_case(one.id, 1, CaseEnd.RETURNED, actor="a", reason="r", now=later(7200))
    two = admit(ledger, "n2")
    ledger.end_case(two.id, 1, CaseEnd.OVERRIDDEN, actor="a", reason="r", now=later(50))
    sweep(ledger, bad("n3"))
    said = {"actor": "ann", "note": "", "failure_class": None, "until": None}
    ledger.answer_review(1, Label.REAL, now=later(99), **said)
    return ledger


def test_the_report_reads_cases_steps_items_and_answers():
    report = learn(a_lived_ledger(), a_policy(), since=NOW, now=later(9000))
    (row,) = report.classes
    assert (row.cases, row.suspected, row.overrides, row.false_quarantines) == (2, 1, 1, 1)
    assert (row.precision.right, row.precision.total, row.suspicions.right) == (1, 2, 1)
    assert row.return_median_s == 3600
    assert report.labels == {"outcome": 1, "likely": 1, "person": 1}


def test_a_day_has_one_report_and_people_are_told_of_it_once():
    ledger = a_lived_ledger()
    built = services(ledger)
    first, is_new = report_of_the_day(built)
    again, is_new_again = report_of_the_day(built)
    assert (is_new, is_new_again, first == again) == (True, False, True)
    assert len(built.notifier.words) == 1
    (kept,) = ledger.reports()
    assert kept == msgspec.json.decode(msgspec.json.encode(report_json(first)))
    built.clock.at += timedelta(days=1)
    assert report_of_the_day(built)[1]
    assert (len(built.notifier.words), len(ledger.reports())) == (2, 2)


def test_people_are_told_what_is_proposed_and_that_nothing_is_applied():
    ledger = a_lived_ledger()
    bars = {"approve": {"labels": 2, "precision": 0.9}, "auto": {"labels": 2, "precision": 0.9}}
    policy = a_policy(
        classes={"gpu_off_bus": {"mode": "auto"}},
        learning={"demote": bars, "lemon": {"per_case": 5, "score": 1}},
    )
    subject, text = words_of(learn(ledger, policy, since=NOW, now=later(9000)))
    assert subject == "learning report: 1 proposal"
    assert "demote classes.gpu_off_bus.mode: auto -> approve" in text
    assert "1 false quarantines" in text
    assert "Nothing of this is applied by itself" in text
