"""What of the things people can do to a question counts as their answer."""

from __future__ import annotations

from datetime import timedelta

import pytest

from breakfix.errors import AirflowError
from breakfix.model import Answer
from breakfix_airflow.approvals import (
    MARKED_FAILED,
    MARKED_SUCCESS,
    REQUIRED_ACTION,
    QuestionReader,
)
from tests.airflow.fake_airflow import ASKED, RUN, TASK, FakeAirflow

MARK = "patch_task_instance"
ANSWER = "update_hitl_detail"


def read(airflow):
    return QuestionReader(airflow.api()).read("node_case", RUN, TASK)


@pytest.mark.parametrize(
    ("who", "option", "is_yes"),
    [
        pytest.param("oncall", "Approve", True, id="Approve is yes"),
        pytest.param("oncall", "Reject", False, id="Reject is no"),
    ],
)
def test_the_answer_to_the_required_action_has_its_identity(who, option, is_yes):
    airflow = FakeAirflow()
    airflow.answered(who, option, seconds=10)
    answer = Answer(who, is_yes, REQUIRED_ACTION, ASKED + timedelta(seconds=10))
    assert read(airflow).answers == (answer,)


def test_the_answer_counts_though_the_task_failed_after_it():
    airflow = FakeAirflow()
    airflow.state = "failed"
    airflow.answered("oncall", "Approve")
    assert read(airflow).answers[0].is_yes


def test_the_default_of_the_timeout_is_nobodys_answer():
    airflow = FakeAirflow()
    airflow.answered("", "Reject")
    reading = read(airflow)
    assert (reading.answers, reading.is_lost) == ((), False)


@pytest.mark.parametrize(
    ("events", "yes_of"),
    [
        pytest.param([(MARK, "ann", "success")], "ann", id="one person's mark"),
        pytest.param(
            [(MARK, "ann", "success"), (MARK, "ann", "success")], "ann", id="the same mark twice"
        ),
        pytest.param(
            [("create_xcom_entry", "ann", ""), (MARK, "ann", "success")],
            "ann",
            id="a mark and an XCom of the same person",
        ),
        pytest.param(
            [("running", "airflow", ""), (MARK, "ann", "success"), ("success", None, "")],
            "ann",
            id="a mark among what Airflow itself logs",
        ),
        pytest.param([], "", id="a mark that nobody logged"),
        pytest.param(
            [(MARK, "ann", "success"), (MARK, "eve", "success")], "", id="two people's marks"
        ),
        pytest.param([(MARK, "ann", "success"), (MARK, "eve", "")], "", id="another's note"),
        pytest.param(
            [("create_xcom_entry", "eve", ""), (MARK, "ann", "success")], "", id="another's XCom"
        ),
        pytest.param(
            [(ANSWER, "eve", ""), (MARK, "ann", "success")], "", id="another's refused answer"
        ),
        pytest.param([(ANSWER, "ann", "")], "", id="an answer that was refused, and no mark"),
        pytest.param([(MARK, "ann", "failed")], "", id="a mark of another state"),
        pytest.param(
            [(MARK, "ann", "success"), (MARK, "ann", "failed")], "", id="contradicting marks"
        ),
        pytest.param([(MARK, "ann", "")], "", id="a note alone"),
        pytest.param([(MARK, None, "success")], "anonymous", id="a mark without an identity"),
        pytest.param(
            [("a_new_kind_of_event", "eve", ""), (MARK, "ann", "success")],
            "",
            id="an event that we do not know",
        ),
    ],
)
def test_a_mark_counts_when_one_person_alone_touched_the_question(events, yes_of):
    airflow = FakeAirflow()
    airflow.asked()
    for n, (event, who, new_state) in enumerate(events):
        airflow.log(event, who, seconds=n + 1, **({"new_state": new_state} if new_state else {}))
    reading = read(airflow)
    assert [a.approver for a in reading.answers if a.is_yes] == ([yes_of] if yes_of else [])
    assert all(a.channel == MARKED_SUCCESS for a in reading.answers)
    assert bool(reading.note) == (not yes_of)
    assert not reading.is_lost


def test_a_person_who_also_chose_reject_has_not_said_yes():
    airflow = FakeAirflow()
    airflow.asked()
    airflow.log(ANSWER, "ann", seconds=1, chosen_options=["Reject"])
    airflow.log(MARK, "ann", seconds=2, new_state="success")
    assert read(airflow).answers == ()


def test_what_was_before_the_question_does_not_matter():
    airflow = FakeAirflow()
    airflow.asked()
    airflow.log(MARK, "eve", seconds=-5, new_state="success")
    airflow.log(MARK, "ann", seconds=5, new_state="success")
    assert [a.approver for a in read(airflow).answers] == ["ann"]


def test_all_pages_of_the_log_are_read():
    airflow = FakeAirflow()
    airflow.asked()
    for n in range(150):
        airflow.log(MARK, "ann", seconds=n + 1, new_state="success")
    airflow.log(MARK, "eve", seconds=200)
    assert read(airflow).answers == ()


def test_a_body_that_is_no_json_in_the_log_is_no_mark():
    airflow = FakeAirflow()
    airflow.asked()
    airflow.log(MARK, "ann", new_state="success")
    airflow.events[0]["extra"] = "[not json"
    assert read(airflow).answers == ()


def test_a_mark_as_failed_is_that_persons_no():
    airflow = FakeAirflow()
    airflow.asked()
    airflow.state = "failed"
    airflow.log(MARK, "ann", new_state="failed")
    reading = read(airflow)
    assert [(a.approver, a.is_yes, a.channel) for a in reading.answers] == [
        ("ann", False, MARKED_FAILED)
    ]


@pytest.mark.parametrize(
    ("state", "is_asked", "is_lost"),
    [
        pytest.param("failed", True, True, id="it failed while it waited, by nobody's hand"),
        pytest.param("failed", False, True, id="it failed before it was asked"),
        pytest.param("success", False, False, id="somebody marked it before it was asked"),
        pytest.param("skipped", True, False, id="it was skipped"),
        pytest.param("upstream_failed", False, False, id="it never came to be asked"),
    ],
)
def test_a_question_that_broke_is_told_from_one_that_nobody_answered(state, is_asked, is_lost):
    airflow = FakeAirflow()
    airflow.state = state
    if is_asked:
        airflow.asked()
    reading = read(airflow)
    assert (reading.answers, reading.is_lost) == ((), is_lost)
    assert reading.note


@pytest.mark.parametrize("state", ["awaiting_input", "running", "queued"])
def test_a_question_that_is_still_open_is_not_settled(state):
    airflow = FakeAirflow()
    airflow.state = state
    airflow.asked()
    with pytest.raises(AirflowError, match="nothing to settle") as e:
        read(airflow)
    assert e.value.is_transient
