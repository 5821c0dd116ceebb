"""The DAGs load without a server, have a task for every stage, and say what a person must know."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk.exceptions import ParamValidationError

from breakfix.flow.stages import REPAIR_STAGES, Stage
from breakfix.model import Answer, FailureClass
from breakfix_airflow.operators import QuestionOperator, StageOperator, as_people
from dev.dags_reference import PAGE, page
from dev.stack.airflow import POOLS, ROOT

pytestmark = pytest.mark.airflow

#: Where each stage may go: what the functions of `breakfix.flow` return.
REPAIRS = " ".join(REPAIR_STAGES)
ROAD = {
    "begin": f"approve_repair drain {REPAIRS} check_gpus escalate",
    "settle_repair": f"drain {REPAIRS} approve_repair_second escalate",
    "settle_repair_second": f"drain {REPAIRS} escalate",
    "drain": f"{REPAIRS} check_gpus escalate",
    **dict.fromkeys(REPAIR_STAGES, "check_gpus next_rung escalate"),
    "check_gpus": "check_operator next_rung escalate",
    "check_operator": "run_diag next_rung escalate",
    "run_diag": "run_bandwidth next_rung escalate",
    "run_bandwidth": "check_signals next_rung escalate",
    "check_signals": "approve_return return_node next_rung escalate",
    "settle_return": "return_node approve_return_second escalate",
    "settle_return_second": "return_node escalate",
    "return_node": "escalate",
    "next_rung": "escalate",
    "escalate": "",
}


@pytest.fixture(scope="module")
def bag():
    return DagBag(str(ROOT / "dags"))


@pytest.fixture(scope="module")
def node_case(bag):
    return bag.dags["node_case"]


def test_all_dags_load(bag):
    assert bag.import_errors == {}
    assert set(bag.dags) >= {
        "fleet_sweep",
        "node_case",
        "reconcile_cases",
        "change_canary",
        "learning_report",
        "halt",
        "emergency",
    }


def test_parsing_is_quick_once_airflow_is_there(bag):
    started = time.monotonic()
    DagBag(str(ROOT / "dags"))
    assert time.monotonic() - started < 1.0


def test_parsing_imports_nothing_heavy():
    code = (
        "import sys, importlib.util as u\n"
        "import airflow.sdk, airflow.providers.standard.operators.hitl\n"
        "import airflow.providers.standard.operators.empty\n"
        "before = set(sys.modules)\n"
        "names = 'fleet_sweep node_case reconcile_cases halt emergency '\n"
        "names += 'change_canary learning_report'\n"
        "for name in names.split():\n"
        "    spec = u.spec_from_file_location(name, f'dags/{name}.py')\n"
        "    spec.loader.exec_module(u.module_from_spec(spec))\n"
        "heavy = {'pandas', 'kubernetes', 'sqlalchemy', 'prometheus_api_client'}\n"
        "heavy |= {'numpy', 'scipy'}\n"
        "print(sorted(heavy & (set(sys.modules) - before)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_every_stage_has_its_task(node_case):
    assert set(node_case.task_ids) == {str(s) for s in Stage}


@pytest.mark.parametrize("stage", ROAD)
def test_a_stage_may_go_where_the_flow_sends_it_and_to_the_end(node_case, stage):
    below = node_case.get_task(stage).downstream_task_ids
    assert set(ROAD[stage].split()) | {"settle_run"} <= below


@pytest.mark.parametrize("purpose", ["repair", "return", "repair_second", "return_second"])
def test_a_question_is_asked_once_and_settled_whatever_became_of_it(node_case, purpose):
    question = node_case.get_task(f"approve_{purpose}")
    assert isinstance(question, QuestionOperator)
    assert (question.retries, question.execution_timeout, question.assigned_users) == (
        0,
        None,
        None,
    )
    assert (question.options, question.defaults) == (["Approve", "Reject"], ["Reject"])
    assert question.downstream_task_ids == {f"settle_{purpose}"}
    settle = node_case.get_task(f"settle_{purpose}")
    assert settle.trigger_rule == "all_done"
    assert settle.upstream_task_ids == {f"approve_{purpose}"}


def test_the_service_user_is_nobodys_approver_even_where_policy_lists_it():
    at = datetime(2026, 1, 2, tzinfo=UTC)
    answers = [Answer(who, False, "airflow_required_action", at) for who in ("breakfix", "ann")]
    assert [a.approver for a in as_people(answers, "breakfix")] == ["service user breakfix", "ann"]


def test_stages_are_retried_with_growing_pauses_and_bounded_in_time(node_case):
    for task in node_case.tasks:
        if isinstance(task, StageOperator):
            assert (task.retries, task.retry_exponential_backoff) == (3, 2.0), task.task_id
            assert task.execution_timeout is not None, task.task_id


def test_waiting_cases_do_not_block_others(node_case):
    assert node_case.max_active_runs >= 500


def test_the_pools_exist_in_the_local_stack(bag):
    used = {t.pool for d in bag.dags.values() for t in d.tasks} - {"default_pool"}
    assert used == set(POOLS)


def test_no_task_is_a_teardown_or_has_a_callback(bag):
    for dag in bag.dags.values():
        assert not any(t.is_teardown or t.on_failure_callback for t in dag.tasks)


@pytest.mark.parametrize(
    "name",
    ["fleet_sweep", "reconcile_cases", "change_canary", "learning_report", "halt", "emergency"],
)
def test_what_is_scheduled_runs_alone_and_never_catches_up(bag, name):
    dag = bag.dags[name]
    assert (dag.max_active_runs, dag.catchup) == (1, False)
    assert dag.dagrun_timeout is not None


def test_every_dag_and_every_task_is_documented(bag):
    for dag in bag.dags.values():
        assert "When it is red" in dag.doc_md, dag.dag_id
        for task in dag.tasks:
            assert task.doc_md, task.task_id


@pytest.mark.parametrize("name", ["fleet_sweep", "node_case"])
def test_params_are_typed_described_and_offer_every_failure_class(bag, name):
    params = bag.dags[name].params
    for key in params:
        param = params.get_param(key)
        assert param.schema["type"], key
        assert param.description, key
    assert params.get_param("failure_class").schema["enum"] == [None, *map(str, FailureClass)]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        pytest.param("node", "UPPER", id="a name that is no node's"),
        pytest.param("node", "a b", id="a name with a space"),
        pytest.param("failure_class", "bad_luck", id="an unknown class"),
        pytest.param("dry_run", "yes", id="a dry run that is no boolean"),
        pytest.param("fence", 0, id="a fence below one"),
        pytest.param("case_id", "../x", id="a case that is a path"),
    ],
)
def test_wrong_params_are_refused(node_case, key, value):
    param = node_case.params.get_param(key)
    with pytest.raises(ParamValidationError):
        param.resolve(value)


def test_the_canary_says_which_way_it_went(bag):
    dag = bag.dags["change_canary"]
    assert dag.get_task("what_next").downstream_task_ids == {"nothing", "go_on", "roll_back"}
    assert dag.get_task("compare").execution_timeout is not None
    for key in dag.params:
        param = dag.params.get_param(key)
        assert param.schema["type"], key
        assert param.description, key


def test_the_reference_is_not_stale(bag):
    assert PAGE.read_text() == page(bag.dags), "run python -m dev.dags_reference"
