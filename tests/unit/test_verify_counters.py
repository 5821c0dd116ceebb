from __future__ import annotations

import math

import pytest

from breakfix.model import Action, Outcome
from breakfix.policy_validation import CounterRule
from breakfix.verify import (
    CounterReading,
    DiagAdvice,
    Remedy,
    counters_outcome,
    remedy_of,
    remedy_of_diag,
)

FIXED, NOT_FIXED, CANNOT_TELL = Outcome.FIXED, Outcome.NOT_FIXED, Outcome.CANNOT_TELL


def rule(**changes):
    given = {"name": "dbe", "query": "m{$match}", "text": "errors", "source": "test"} | changes
    return CounterRule.model_validate(given)


@pytest.mark.parametrize(
    ("before", "after", "changes", "outcome"),
    [
        pytest.param({"0": 7}, {"0": 7}, {}, FIXED, id="seven of before the repair are no fault"),
        pytest.param({"0": 7}, {"0": 8}, {}, NOT_FIXED, id="an eighth came after it"),
        pytest.param({"0": 7}, {"0": 8}, {"may_grow": 1}, FIXED, id="one more is allowed"),
        pytest.param({"0": 7}, {"0": 9}, {"may_grow": 1}, NOT_FIXED, id="two more are not"),
        pytest.param({"0": 7}, {"0": 0}, {}, FIXED, id="a new part counts from 0"),
        pytest.param({"0": 7, "1": 0}, {"0": 7}, {}, CANNOT_TELL, id="a GPU is silent now"),
        pytest.param({"0": 7}, {"0": 7, "1": 0}, {}, FIXED, id="a new GPU without any"),
        pytest.param({"0": 7, "1": 0}, {"0": 7, "2": 0}, {}, FIXED, id="a replaced GPU"),
        pytest.param(
            {"0": 7, "1": 0}, {"0": 7, "2": 5}, {}, CANNOT_TELL, id="a replaced GPU that has some"
        ),
        pytest.param({"0": 7}, {"0": 7, "1": 3}, {}, CANNOT_TELL, id="a new GPU that has some"),
        pytest.param({}, {}, {}, FIXED, id="nobody collects it"),
        pytest.param({}, {}, {"is_required": True}, CANNOT_TELL, id="nobody collects it, but must"),
        pytest.param({"0": 7}, {}, {}, CANNOT_TELL, id="it was collected and is not any more"),
        pytest.param({"0": 7}, {"0": math.nan}, {}, CANNOT_TELL, id="no number now"),
        pytest.param({"0": math.nan}, {"0": 1}, {}, CANNOT_TELL, id="no number before"),
    ],
)
def test_counters_are_compared_with_before_the_repair(before, after, changes, outcome):
    told, text = counters_outcome([rule(**changes)], [CounterReading("dbe", before, after)])
    assert told is outcome
    assert text


def test_what_cannot_be_read_is_not_proven():
    failed = CounterReading("dbe", {}, {}, error="connection refused")
    assert counters_outcome([rule()], [failed])[0] is CANNOT_TELL
    assert counters_outcome([rule()], [])[0] is CANNOT_TELL


def test_a_new_fault_weighs_more_than_what_cannot_be_told():
    rules = [rule(), rule(name="rows", text="rows")]
    readings = [CounterReading("dbe", {"0": 0}, {}), CounterReading("rows", {"0": 0}, {"0": 4})]
    told, text = counters_outcome(rules, readings)
    assert (told, "4 rows on GPU 0" in text) == (NOT_FIXED, True)


RESET, REBOOT = Action.RESET_GPU, Action.REBOOT_NODE


@pytest.mark.parametrize(
    ("advice", "done", "remedy"),
    [
        pytest.param(
            DiagAdvice.HARDWARE, [], Remedy.HOLD_FOR_HARDWARE, id="isolate is for hardware at once"
        ),
        pytest.param(DiagAdvice.RESET_AGAIN, [RESET], Remedy.RESET_GPU, id="one more reset"),
        pytest.param(
            DiagAdvice.RESET_AGAIN, [RESET, RESET], Remedy.HOLD_FOR_HARDWARE, id="but not a third"
        ),
        pytest.param(
            DiagAdvice.RESET_AGAIN, [REBOOT], Remedy.RESET_GPU, id="a reset after a reboot"
        ),
        pytest.param(DiagAdvice.REBOOT, [RESET], Remedy.REBOOT_NODE, id="triage: a reboot"),
        pytest.param(
            DiagAdvice.REBOOT, [REBOOT, REBOOT], Remedy.HOLD_FOR_HARDWARE, id="but not a third one"
        ),
        pytest.param(DiagAdvice.SOFTWARE, [RESET], Remedy.PERSON, id="config: no hardware ticket"),
        pytest.param(DiagAdvice.RETRY, [RESET], Remedy.PERSON, id="plumbing is no verdict"),
        pytest.param(DiagAdvice.LOOK, [RESET], Remedy.PERSON, id="unreadable is no verdict"),
    ],
)
def test_a_severity_leads_to_its_remedy(advice, done, remedy):
    assert remedy_of_diag(advice, done) is remedy


def test_a_check_without_a_cause_climbs_the_ladder_or_asks_a_person():
    assert remedy_of(NOT_FIXED) is Remedy.NEXT_RUNG
    assert remedy_of(CANNOT_TELL) is Remedy.PERSON
    assert Remedy.REBOOT_NODE.action is REBOOT
    assert Remedy.PERSON.action is None
