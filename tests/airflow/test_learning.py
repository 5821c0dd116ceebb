"""The task of `learning_report`: small values in XCom, one telling a day."""

from __future__ import annotations

import json

import pytest

from breakfix_airflow import learning
from tests.unit.test_flow_learning import a_lived_ledger, services

pytestmark = pytest.mark.airflow


def test_the_task_returns_counts_and_keeps_the_report_once(monkeypatch):
    built = services(a_lived_ledger())
    monkeypatch.setattr(learning, "services", lambda: built)
    first = learning.learning_report()
    assert first == {
        "is_new": True,
        "episodes": 3,
        "labelled": 3,
        "false_quarantines": 1,
        "proposals": [],
        "lemons": [],
    }
    assert learning.learning_report() == first | {"is_new": False}
    assert len(built.notifier.words) == 1
    assert len(json.dumps(first)) < 1000
