"""The DAGs `halt` and `emergency`: under the names of those who triggered them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from airflow.sdk.exceptions import AirflowFailException

from breakfix.model import FailureClass, HaltLevel
from breakfix_airflow import by_hand, emergencies, halting
from tests.flow.world import FlowWorld

pytestmark = pytest.mark.airflow


def a_run(dag_id, who, *, cleared=0, waited=timedelta(0)):
    return SimpleNamespace(
        dag_id=dag_id,
        triggering_user_name=who,
        clear_number=cleared,
        run_after=datetime.now(UTC) - waited,
    )


def context(level, *, who="ann", reason="drill", **changes):
    run = a_run("halt", who, **changes)
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


@pytest.mark.parametrize("level", ["none", "disruption"])
@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"who": None}, "nobody is named", id="nobody triggered it"),
        pytest.param({"cleared": 1}, "run that was cleared", id="somebody cleared ann's old run"),
        pytest.param({"waited": timedelta(hours=1)}, "waited since", id="it was queued for long"),
    ],
)
def test_a_halt_is_lowered_by_a_person_who_says_so_now(world, level, changes, says):
    halting.set_level(context("all"))
    with pytest.raises(AirflowFailException, match=says):
        halting.set_level(context(level, **changes))
    assert world.ledger.halt_level() is HaltLevel.ALL


def test_a_run_that_is_cleared_halts_again_and_names_nobody(world):
    assert halting.set_level(context("all", cleared=1))["by"] == "halt"


# --------------------------------------------------------------------------- the DAG `emergency`


def emergency(action, *, who, cleared=0, **params):
    given = {"lift": ["windows"], "minutes": 30, "approver": "oncall", "reason": "power"} | params
    run = a_run("emergency", who, cleared=cleared)
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


def test_an_approvers_old_run_that_is_cleared_approves_nothing(world, monkeypatch):
    monkeypatch.setattr(emergencies, "services", lambda: world.services)
    emergencies.carry_out(emergency("start", who="ann"))
    with pytest.raises(AirflowFailException, match="run that was cleared"):
        emergencies.carry_out(emergency("approve", who="oncall", cleared=1))
    assert not world.ledger.emergencies()[0].is_in_force(world.clock.now())


def test_a_run_by_hand_that_is_cleared_opens_no_case_in_its_first_name(world):
    run = {"dag_run": a_run("node_case", "ann", cleared=1)}
    said = by_hand.open_case(world.services, "a1", FailureClass.MANUAL, run)
    assert said.startswith("refused: this run was cleared")
    assert world.ledger.cases() == ()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        pytest.param({"who": None}, "nobody is named", id="nobody triggered it"),
        pytest.param({"who": "ann", "cleared": 1}, "was cleared", id="somebody cleared it"),
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
