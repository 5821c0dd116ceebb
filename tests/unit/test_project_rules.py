"""The project's own rules hold, and break when they are broken."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from dev import lock

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the rules over packages that hold nothing but what the test plants."""
    shutil.copy(ROOT / ".importlinter", tmp_path)
    shutil.copytree(ROOT / "dev", tmp_path / "dev", ignore=shutil.ignore_patterns("__pycache__"))
    for package in ("breakfix", "breakfix_airflow", "simfleet"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").touch()
    return tmp_path


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    code = "from importlinter.cli import lint_imports_command as run; run(['--no-cache'])"
    # -I would hide the copy; the empty PYTHONPATH hides the packages of this checkout instead
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def plant(tree: Path, name: str, source: str) -> None:
    path = tree / name
    path.parent.mkdir(exist_ok=True)
    (path.parent / "__init__.py").touch()
    path.write_text(source)


PLANTED = [
    pytest.param("breakfix/decide.py", "import time", id="a pure stage reads the clock"),
    pytest.param("breakfix/plan.py", "import logging", id="a pure stage logs"),
    pytest.param("breakfix/policy.py", "import os", id="policy reads the environment"),
    pytest.param("breakfix/verify.py", "import sqlalchemy", id="a pure stage knows a database"),
    pytest.param("breakfix/act.py", "import breakfix.adapters", id="a stage knows an adapter"),
    pytest.param("breakfix/act.py", "import breakfix.plan", id="a stage knows another stage"),
    pytest.param("breakfix/adapters/x.py", "import breakfix.flow", id="an adapter imports upward"),
    pytest.param("breakfix/model.py", "import breakfix.ports", id="the model imports upward"),
    pytest.param("breakfix/flow.py", "from airflow.sdk import dag", id="the product knows Airflow"),
    pytest.param("breakfix/flow.py", "import simfleet", id="the product knows the simulation"),
    pytest.param("simfleet/server.py", "import breakfix.model", id="the simulation knows us"),
    pytest.param("breakfix/agent.py", "import breakfix.model", id="the agent knows the product"),
    pytest.param("breakfix/cli.py", "import breakfix.api", id="the command line knows the API"),
]


@pytest.mark.parametrize(("path", "source"), PLANTED)
def test_a_planted_import_breaks_the_rules(tree: Path, path: str, source: str) -> None:
    for name in ("adapters", "plan", "flow", "ports", "model", "api"):
        plant(tree, f"breakfix/{name}/__init__.py", "")
    if (folder := tree / path.removesuffix(".py")).is_dir():
        shutil.rmtree(folder)
    plant(tree, path, source)
    result = lint(tree)
    assert result.returncode == 1, result.stdout + result.stderr
    assert "BROKEN" in result.stdout


def test_the_same_tree_without_a_plant_keeps_the_rules(tree: Path) -> None:
    plant(tree, "breakfix/decide.py", "import dataclasses, breakfix.model")
    plant(tree, "breakfix/model/__init__.py", "")
    result = lint(tree)
    assert result.returncode == 0, result.stdout + result.stderr


PURE = (
    "decide",
    "plan",
    "approve",
    "verify",
    "model",
    "cohorts",
    "policy",
    "policy_canary",
    "policy_text",
    "policy_validation",
)
NOW_IS_AN_ARGUMENT = re.compile(r"\.(now|utcnow|today)\(|getLogger|environ")


def test_pure_stages_take_now_as_an_argument() -> None:
    base = ROOT / "include" / "breakfix"
    files = [p for n in PURE for p in (*base.glob(f"{n}.py"), *base.glob(f"{n}/**/*.py"))]
    found = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if NOW_IS_AN_ARGUMENT.search(line.partition("#")[0])
    ]
    assert not found


PYPROJECT = (ROOT / "pyproject.toml").read_text()
LOCK = (ROOT / "requirements.txt").read_text()


def test_the_lock_belongs_to_the_project_file() -> None:
    lock.check(PYPROJECT, LOCK)


@pytest.mark.parametrize(
    ("pyproject", "text", "words"),
    [
        pytest.param(
            PYPROJECT.replace("httpx==", "httpx==9"), LOCK, "is stale", id="a dependency moved"
        ),
        pytest.param(
            PYPROJECT.replace(">=3.11", ">=3.12"), LOCK, "is stale", id="the Python range moved"
        ),
        pytest.param(
            PYPROJECT, LOCK.replace("httpx==", "httpx==9"), "by hand", id="the lock was edited"
        ),
        pytest.param(PYPROJECT, LOCK + "six==1.0\n", "by hand", id="a line was added to the lock"),
    ],
)
def test_a_stale_lock_is_found_without_a_network(pyproject: str, text: str, words: str) -> None:
    with pytest.raises(lock.StaleLock, match=words):
        lock.check(pyproject, text)


def test_a_comment_in_the_project_file_leaves_the_lock_fresh() -> None:
    lock.check(PYPROJECT + "\n# a remark\n", LOCK)


def test_the_lock_names_no_host_and_no_folder() -> None:
    assert not re.search(r"https?://|index-url|find-links|/\w+/", LOCK)


def test_every_locked_package_carries_hashes() -> None:
    packages = re.findall(r"^[\w.\-\[\]]+==", LOCK, re.MULTILINE)
    blocks = re.findall(r"^[\w.\-\[\]]+==[^\n]*\\\n    --hash=sha256:", LOCK, re.MULTILINE)
    assert len(packages) == len(blocks) > 100
