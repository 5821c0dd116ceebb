"""The next run of a case that climbed is started at once, or left to the reconciler."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from breakfix.errors import AirflowError, Refused
from breakfix.flow.stages import Go, Stage
from breakfix.model import RefusalReason
from breakfix_airflow import climbing
from breakfix_airflow.climbing import NextRungOperator
from breakfix_airflow.operators import StageOperator

pytestmark = pytest.mark.airflow

CONTEXT = {"params": {"case_id": "c1", "fence": 2}, "run_id": "c1.2"}


@dataclass
class Runs:
    error: Exception | None = None
    started: list[str] = field(default_factory=list)

    def start(self, case):
        if self.error is not None:
            raise self.error
        self.started.append(case.run_id)


@pytest.fixture
def go(monkeypatch):
    """`go(case, runs)` lets the operator go on with this case and these runs."""

    def go(case, runs):
        book = SimpleNamespace(case=lambda _: case)
        built = SimpleNamespace(book=book, settings=None)
        monkeypatch.setattr(climbing, "services", lambda: built)
        monkeypatch.setattr(climbing, "AirflowCaseRuns", lambda _: runs)
        monkeypatch.setattr(climbing.AirflowApi, "from_settings", lambda _: None)
        monkeypatch.setattr(StageOperator, "go", lambda *_: None)
        NextRungOperator().go(CONTEXT, Go(Stage.SETTLE_RUN))
        return runs.started

    return go


def case_at(fence, *, is_open=True):
    return SimpleNamespace(fence=fence, is_open=is_open, run_id=f"c1.{fence}")


def test_a_case_that_climbed_has_its_next_run(go):
    assert go(case_at(3), Runs()) == ["c1.3"]


@pytest.mark.parametrize(
    "case",
    [case_at(2), case_at(3, is_open=False), case_at(4)],
    ids=["it did not climb", "it has ended", "somebody else has it"],
)
def test_no_other_case_has_one_from_here(go, case):
    assert go(case, Runs()) == []


@pytest.mark.parametrize(
    "error",
    [AirflowError("no answer"), Refused(RefusalReason.HALTED, "node_case is paused")],
    ids=["Airflow does not answer", "the DAG is paused"],
)
def test_a_run_that_cannot_be_started_is_left_to_the_reconciler(go, error):
    assert go(case_at(3), Runs(error)) == []
