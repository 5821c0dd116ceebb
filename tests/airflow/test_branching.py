"""However far a stage jumps, Airflow's scheduler starts exactly the task that is pointed to."""

from __future__ import annotations

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException
from hypothesis import given, settings
from hypothesis import strategies as st

from breakfix_airflow.branching import leave_word, off_the_way, skip_unless_sent
from dev.stack.airflow import ROOT

pytestmark = pytest.mark.airflow

DAG = DagBag(str(ROOT / "dags")).dags["node_case"]
QUESTIONS = ("approve_repair", "approve_return")
DONE = {"success", "skipped", "failed", "upstream_failed"}


def verdict(task, states):
    """Airflow's trigger rules as far as the DAG uses them: the state to go to, or None to wait."""
    above = [states.get(t) for t in task.upstream_task_ids]
    if any(s not in DONE for s in above):
        return None
    if task.trigger_rule == "all_done" or not above:
        return "run"
    if "failed" in above or "upstream_failed" in above:
        return "upstream_failed"
    return "run" if "success" in above else "skipped"


def scheduled(states):
    """What starts now; what the rules skip or fail on the way there is set."""
    while True:
        said = {
            t.task_id: v
            for t in DAG.tasks
            if t.task_id not in states and (v := verdict(t, states)) is not None
        }
        passive = {k: v for k, v in said.items() if v != "run"}
        if not passive:
            return sorted(said)
        states.update(passive)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_exactly_the_task_that_is_pointed_to_runs(data):
    states, at = {}, "begin"
    while True:
        assert scheduled(states) == [at]
        states[at] = "success"
        ways = sorted(DAG.get_task(at).downstream_task_ids)
        if not ways:
            return
        to = ways[0] if at in QUESTIONS else data.draw(st.sampled_from(ways), label=at)
        if at not in QUESTIONS:
            states.update(dict.fromkeys(off_the_way(DAG, at, to), "skipped"))
        at = to


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_after_a_failed_stage_nothing_runs_but_the_end(data):
    states, at = {}, "begin"
    while at not in QUESTIONS and at != "settle_run":
        if data.draw(st.booleans(), label=f"{at} fails"):
            states[at] = "failed"
            break
        states[at] = "success"
        ways = sorted(DAG.get_task(at).downstream_task_ids)
        to = data.draw(st.sampled_from(ways), label=at)
        states.update(dict.fromkeys(off_the_way(DAG, at, to), "skipped"))
        at = to
    if states.get(at) == "failed":
        assert set(scheduled(states)) <= {"settle_run", "settle_repair", "settle_return"}


def test_a_way_that_the_dag_does_not_have_is_refused():
    with pytest.raises(AirflowFailException, match="no such way"):
        off_the_way(DAG, "run_diag", "drain")


class FakeTaskInstance:
    def __init__(self, words):
        self.words = words

    def xcom_pull(self, *, task_ids, key, map_indexes):
        return self.words.get(task_ids) if (key, map_indexes) == ("went", -1) else None

    def xcom_push(self, *, key, value):
        self.words[key] = value


def context(**words):
    ti = FakeTaskInstance({k: {"to": v, "note": ""} for k, v in words.items()})
    return {"dag": DAG, "ti": ti}


@pytest.mark.parametrize(
    ("task_id", "words", "is_sent"),
    [
        pytest.param("begin", {}, True, id="the first task needs nobody to send it"),
        pytest.param("drain", {"begin": "drain"}, True, id="a stage that begin pointed to"),
        pytest.param("drain", {"begin": "check_gpus"}, False, id="a stage that begin jumped over"),
        pytest.param("drain", {}, False, id="a stage after one that was marked success by hand"),
        pytest.param("drain", {"settle_repair": "drain"}, True, id="a stage after an approval"),
        pytest.param("return_node", {"begin": "return_node"}, False, id="a word from no neighbour"),
        pytest.param("approve_return", {"check_signals": "approve_return"}, True, id="a question"),
    ],
)
def test_a_task_runs_only_when_one_before_it_pointed_to_it(task_id, words, is_sent):
    task = DAG.get_task(task_id)
    if is_sent:
        skip_unless_sent(context(**words), task)
    else:
        with pytest.raises(AirflowSkipException):
            skip_unless_sent(context(**words), task)


def test_an_answer_is_settled_only_when_its_question_was_sent_for():
    settle = DAG.get_task("settle_repair")
    skip_unless_sent(context(begin="approve_repair"), settle, ask_before="approve_repair")
    with pytest.raises(AirflowSkipException):
        skip_unless_sent(context(begin="drain"), settle, ask_before="approve_repair")


def test_a_word_that_is_no_word_sends_nobody():
    ti = FakeTaskInstance({"begin": "drain"})
    with pytest.raises(AirflowSkipException):
        skip_unless_sent({"dag": DAG, "ti": ti}, DAG.get_task("drain"))


def test_a_word_is_left_under_our_own_key():
    ti = FakeTaskInstance({})
    leave_word({"ti": ti}, "drain", "no question needed")
    assert ti.words == {"went": {"to": "drain", "note": "no question needed"}}
