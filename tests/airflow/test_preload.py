"""Only processes that fork tasks load the heavy packages, and none of our own."""

from __future__ import annotations

import pytest

from breakfix_airflow.preload import PACKAGES, forks_tasks, preload


@pytest.mark.parametrize(
    ("arguments", "forks"),
    [
        pytest.param(["/venv/bin/airflow", "scheduler", "--skip-serve-logs"], True, id="scheduler"),
        pytest.param(["airflow", "celery", "worker"], True, id="Celery's worker"),
        pytest.param(["airflow", "api-server"], False, id="API server"),
        pytest.param(["airflow", "triggerer"], False, id="triggerer"),
        pytest.param(["airflow"], False, id="no command"),
        pytest.param(["pytest", "-q"], False, id="another program"),
    ],
)
def test_only_what_forks_tasks_preloads(arguments, forks):
    assert forks_tasks(arguments) is forks


def test_a_process_that_forks_loads_all_of_it():
    assert preload(["airflow", "scheduler"]) == list(PACKAGES)
    assert preload(["airflow", "triggerer"]) == []


def test_our_own_code_is_read_anew_by_every_task():
    assert not [p for p in PACKAGES if p.startswith("breakfix")]
