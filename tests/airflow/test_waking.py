"""Questions that nobody asks any more do not keep their runs waiting."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from breakfix.flow import confirmations
from breakfix.model import CaseEnd, Decision, Purpose
from breakfix_airflow.sweeps import heed_answers
from breakfix_airflow.waking import AirflowWaker, wake_settled
from tests.airflow.fake_airflow import FakeAirflow
from tests.contract import ledger_builders as builders
from tests.contract.ledger_builders import NOW, admit, later
from tests.fakes_ledger import FakeLedger

WHO = {"actor": "x", "reason": "r", "now": NOW}


@pytest.fixture
def ledger():
    return FakeLedger()


@pytest.fixture
def case(ledger):
    case = admit(ledger, "gpu-1")
    expires_at = later(60)
    ledger.ask(case.id, 1, Purpose.REPAIR, plan_hash=case.plan_hash, expires_at=expires_at, now=NOW)
    return case


def decide(ledger, case):
    builders.decide(ledger, case, Decision.ALLOWED, plan_hash=case.plan_hash, now=later(1))


@pytest.mark.parametrize(
    ("change", "is_woken"),
    [
        pytest.param(lambda ledger, case: None, False, id="an open question waits on"),
        pytest.param(decide, True, id="one that was answered in the ledger is woken"),
        pytest.param(
            lambda ledger, case: ledger.take_over(case.id, 1, **WHO),
            True,
            id="a case at a new fence",
        ),
        pytest.param(
            lambda ledger, case: ledger.end_case(case.id, 1, CaseEnd.ABORTED, **WHO),
            True,
            id="a case that was aborted",
        ),
    ],
)
def test_a_question_is_woken_when_the_ledger_does_not_ask_it_any_more(
    ledger, case, change, is_woken
):
    airflow = FakeAirflow()
    question = (case.run_id, "approve_repair")
    airflow.parked[question] = None
    change(ledger, case)
    assert wake_settled(airflow.api(), ledger) == ([case.run_id] if is_woken else [])
    assert airflow.parked[question] == ("Reject" if is_woken else None)


def test_one_that_the_ledger_does_not_know_does_not_keep_the_others_asleep(ledger, case):
    airflow = FakeAirflow()
    airflow.parked = {("forged.1", "approve_repair"): None, (case.run_id, "approve_repair"): None}
    decide(ledger, case)
    assert wake_settled(airflow.api(), ledger) == [case.run_id]
    assert airflow.parked["forged.1", "approve_repair"] is None


@pytest.mark.parametrize("task_id", ["approve_repair", "approve_repair_second"])
def test_an_answer_by_another_way_wakes_the_question_that_is_parked(case, task_id):
    airflow = FakeAirflow()
    airflow.parked = {(case.run_id, task_id): None, (case.run_id, "approve_return"): None}
    waker = AirflowWaker(airflow.api())
    waker.wake(case, Purpose.REPAIR)
    assert airflow.parked == {
        (case.run_id, task_id): "Reject",
        (case.run_id, "approve_return"): None,
    }
    waker.wake(case, Purpose.REPAIR)
    assert [m for m, _ in airflow.seen].count("PATCH") == 1


def test_a_question_that_parked_just_now_is_left_to_the_next_sweep(case):
    airflow = FakeAirflow()
    airflow.parked = {(case.run_id, "approve_repair"): None}
    airflow.parked_s = 1.0
    AirflowWaker(airflow.api()).wake(case, Purpose.REPAIR)
    assert airflow.parked == {(case.run_id, "approve_repair"): None}


def test_a_second_question_is_woken_when_it_was_answered_in_the_ledger(ledger, case):
    airflow = FakeAirflow()
    airflow.parked = {(case.run_id, "approve_repair_second"): None}
    assert wake_settled(airflow.api(), ledger) == []
    decide(ledger, case)
    assert wake_settled(airflow.api(), ledger) == [case.run_id]


def test_a_sweep_that_cannot_wake_anybody_is_no_failed_sweep(ledger, case, monkeypatch):
    airflow = FakeAirflow()
    airflow.broken = [500] * 20
    heeded = []
    monkeypatch.setattr(confirmations, "heed_annotations", heeded.append)
    built = SimpleNamespace(book=ledger)
    assert heed_answers(built, airflow.api()) == []
    airflow.broken = []
    airflow.parked = {(case.run_id, "approve_repair"): None}
    decide(ledger, case)
    assert heed_answers(built, airflow.api()) == [case.run_id]
    assert heeded == [built, built]
