"""Only processes that fork tasks load the heavy packages, and none of our own."""

from __future__ import annotations

import subprocess
import sys

import pytest

from breakfix_airflow.preload import PACKAGES, forks_tasks


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
    code = (
        "import sys; from breakfix_airflow.preload import PACKAGES, preload\n"
        "assert preload(['airflow', 'triggerer']) == []\n"
        "assert preload(['airflow', 'scheduler']), 'nothing was loaded'\n"
        "assert set(PACKAGES) <= set(sys.modules), set(PACKAGES) - set(sys.modules)\n"
        "assert preload(['airflow', 'scheduler']) == []\n"
    )
    subprocess.run([sys.executable, "-c", code], timeout=60, check=True)


def test_our_own_code_is_read_anew_by_every_task():
    assert not [p for p in PACKAGES if p.startswith("breakfix")]
