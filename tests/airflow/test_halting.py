"""The DAG `halt`: the ledger's switch, under the name of whoever triggered it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from breakfix.model import HaltLevel
from breakfix_airflow import halting
from tests.flow.world import FlowWorld

pytestmark = pytest.mark.airflow


def context(level, *, who="ann", reason="drill"):
    run = SimpleNamespace(triggering_user_name=who, dag_id="halt")
    return {"params": {"level": level, "reason": reason}, "dag_run": run}


@pytest.fixture
def world(monkeypatch):
    made = FlowWorld()
    monkeypatch.setattr(halting, "services", lambda: made.services)
    return made


@pytest.mark.parametrize("level", ["disruption", "all", "none"])
def test_the_level_is_set_and_audited_under_the_name_that_airflow_knows(world, level):
    said = halting.set_level(context(level))
    assert said == {"before": "none", "level": level, "in_force": level, "by": "ann"}
    assert world.ledger.halt_level() is HaltLevel(level)
    entry = world.ledger.audit_entries()[-1]
    assert (entry.event, entry.actor, entry.detail["reason"]) == ("halt.set", "ann", "drill")


def test_the_switch_in_the_cluster_stays_in_force(world):
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "all"}
    assert halting.set_level(context("none"))["in_force"] == "all"


def test_anything_may_halt_but_only_a_person_lets_it_go_on(world):
    assert halting.set_level(context("all", who=None))["by"] == "halt"
    with pytest.raises(AirflowFailException, match="trigger it yourself"):
        halting.set_level(context("none", who=None))
    assert world.ledger.halt_level() is HaltLevel.ALL
