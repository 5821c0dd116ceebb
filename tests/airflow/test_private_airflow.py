"""The local Airflow runs a DAG, and goes on after any of its components was killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from dev.stack.airflow import POOLS, PrivateAirflow

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(300)]

DAG = """
from airflow.sdk import dag, task

@dag(schedule=None)
def hello():
    @task(pool="breakfix_drain")
    def greet():
        import os
        return os.environ["GREETING"]
    greet()

hello()
"""
RUN_TIMEOUT_S = 90.0


@pytest.fixture(scope="module")
def airflow(
    start_airflow: Callable[..., PrivateAirflow], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateAirflow]:
    dags, plugins = tmp_path_factory.mktemp("dags"), tmp_path_factory.mktemp("plugins")
    (dags / "hello.py").write_text(DAG)
    airflow = start_airflow(dags=dags, plugins=plugins, env={"GREETING": "good morning"})
    yield airflow
    airflow.stop()  # not at the end of the session: the next module may want the processors


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.2)


def run_to_the_end(client: httpx.Client, run: str) -> str:
    until(lambda: client.get("/api/v2/dags/hello").is_success)
    body = {"logical_date": None, "dag_run_id": run}
    client.post("/api/v2/dags/hello/dagRuns", json=body).raise_for_status()
    path = f"/api/v2/dags/hello/dagRuns/{run}"
    until(lambda: client.get(path).json()["state"] in {"success", "failed"})
    return client.get(path).json()["state"]


def test_a_task_runs_in_its_pool_and_sees_the_environment(airflow: PrivateAirflow) -> None:
    with airflow.client("oncall") as client:
        assert run_to_the_end(client, "first") == "success"
        path = "/api/v2/dags/hello/dagRuns/first/taskInstances/greet"
        assert client.get(path).json()["pool"] == "breakfix_drain"
        assert client.get(f"{path}/xcomEntries/return_value").json()["value"] == "good morning"
    with airflow.client("admin") as client:
        assert set(POOLS) <= {pool["name"] for pool in client.get("/api/v2/pools").json()["pools"]}


def test_a_viewer_may_look_but_not_start(airflow: PrivateAirflow) -> None:
    with airflow.client("viewer") as client:
        until(lambda: client.get("/api/v2/dags/hello").is_success)
        answer = client.post("/api/v2/dags/hello/dagRuns", json={"logical_date": None})
        assert answer.status_code == 403


@pytest.mark.parametrize("component", ["scheduler", "triggerer", "dag-processor", "api-server"])
def test_a_killed_component_is_started_again_and_the_rest_goes_on(
    airflow: PrivateAirflow, component: str
) -> None:
    others = {n: airflow.pid(n) for n in ("scheduler", "triggerer") if n != component}
    airflow.restart_component(component)
    assert {name: airflow.pid(name) for name in others} == others
    with airflow.client("oncall") as client:
        assert run_to_the_end(client, f"after-{component}") == "success"
