"""The DAGs `halt` and `emergency`: under the names of those who triggered them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from breakfix.model import HaltLevel
from breakfix_airflow import emergencies, halting
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


# --------------------------------------------------------------------------- the DAG `emergency`


def emergency(action, *, who, **params):
    given = {"lift": ["windows"], "minutes": 30, "approver": "oncall", "reason": "power"} | params
    run = SimpleNamespace(triggering_user_name=who, dag_id="emergency")
    return {"params": {"action": action, **given}, "dag_run": run}


def test_an_emergency_takes_two_people_whom_airflow_knows(world, monkeypatch):
    monkeypatch.setattr(emergencies, "services", lambda: world.services)
    emergencies.carry_out(emergency("start", who="ann"))
    with pytest.raises(AirflowFailException, match="no approver by policy"):
        emergencies.carry_out(emergency("approve", who="ann"))
    said = emergencies.carry_out(emergency("approve", who="oncall"))
    assert said["emergency"].startswith("windows lifted until 2026-01-02 03:34 UTC")
    assert world.ledger.emergencies()[0].is_in_force(world.clock.now())
    emergencies.carry_out(emergency("end", who="eve"))
    assert not world.ledger.emergencies()[0].is_in_force(world.clock.now())


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"who": None}, "nobody is named", id="nobody triggered it"),
        pytest.param({"who": "oncall"}, "same person", id="the approver asks"),
        pytest.param({"who": "OnCall"}, "same person", id="under another spelling"),
        pytest.param({"who": "ann", "minutes": 999}, "lasts up to", id="for too long"),
        pytest.param({"who": "ann", "approver": "eve"}, "no approver", id="of nobody in policy"),
    ],
)
def test_an_emergency_that_airflow_refuses(world, monkeypatch, changes, says):
    monkeypatch.setattr(emergencies, "services", lambda: world.services)
    with pytest.raises(AirflowFailException, match=says):
        emergencies.carry_out(emergency("start", **changes))
    assert world.ledger.emergencies() == ()
