"""What a sweep starts when it sees a mixture, and which way `change_canary` goes."""

from __future__ import annotations

import json

import httpx
import pytest

from breakfix.cohorts import Advice
from breakfix.errors import SettingsError
from breakfix_airflow import changes
from breakfix_airflow.api import AirflowApi
from tests.flow.test_change_canary import SCOPE, World
from tests.observations import observation, ready_node

NODES = [ready_node(n, sku="h100", pool="train") for n in ("n1", "n2", "n3")]


class Airflow:
    """Takes runs of one DAG, each id once."""

    def __init__(self, *, broken=0):
        self.runs, self.broken = [], broken

    def api(self):
        return AirflowApi("http://airflow", "u", "p", transport=httpx.MockTransport(self.answer))

    def answer(self, request):
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": "t"})
        if self.broken:
            return httpx.Response(self.broken, text="no")
        assert request.url.path == "/api/v2/dags/change_canary/dagRuns"
        run = json.loads(request.content)["dag_run_id"]
        if run in self.runs:
            return httpx.Response(409, json={})
        self.runs.append(run)
        return httpx.Response(200, json={})


def drivers(*values):
    return {n.name: {"driver_version": v} for n, v in zip(NODES, values, strict=True)}


def see(airflow, *values):
    seen = observation(nodes=NODES, facts=drivers(*values))
    return changes.start_when_changed(World().services, airflow.api(), seen)


def test_a_sweep_starts_one_look_for_each_mixture():
    airflow = Airflow()
    started = [
        see(airflow, *values)
        for values in (("A", "A", "A"), ("B", "A", "A"), ("B", "B", "A"), ("B", "C", "A"))
    ]
    assert started == [False, True, False, True]
    assert len(set(airflow.runs)) == 2


@pytest.mark.parametrize("status", [404, 503], ids=["no such DAG", "Airflow is busy"])
def test_a_look_that_cannot_be_started_does_not_stop_the_sweep(status):
    assert not see(Airflow(broken=status), "B", "A", "A")


@pytest.fixture
def world(monkeypatch):
    world = World()
    world.drive_to("BBBAAAAAAA")
    monkeypatch.setattr(changes, "services", lambda **_: world.services)
    return world


def compare(**how):
    asked = {
        "is_dry_run": False,
        "scope": "",
        "canary": "",
        "stable": "",
        "minutes": None,
        "requester": "change_canary",
    }
    return changes.compare_changes(**(asked | how))


def test_the_run_goes_the_way_of_the_worst_change(world, caplog):
    world.fail("a1", "a2", "a3")
    summary = compare()
    assert changes.branch_of(summary) == "roll_back"
    assert [c["scope"] for c in summary["changes"]] == [SCOPE]
    json.dumps(summary)  # XCom carries it
    with caplog.at_level("INFO"):
        changes.tell(summary)
    assert f"{SCOPE}: roll_back (new): vllm error rate" in caplog.text
    world.drive_to("AAAAAAAAAA")
    summary = compare()
    assert (changes.branch_of(summary), summary["gone"]) == ("nothing", [SCOPE])


def test_a_change_that_may_proceed_goes_on(world):
    assert changes.branch_of(compare()) == "go_on"
    assert world.advice().advice is Advice.PROCEED


def test_by_hand_two_cohorts_are_compared_and_nothing_is_kept(world):
    for name in ("a1", "a2", "a3"):
        world.cluster.change_node(name, labels={"v": "new"})
    world.fail("a1", "a2", "a3")
    summary = compare(canary="v=new", stable="v!=new", minutes=5)
    assert changes.branch_of(summary) == "roll_back"
    assert summary["changes"][0]["sizes"] == [3, 7]
    assert world.ledger.advices() == ()


def test_one_selector_alone_is_a_mistake(world):
    with pytest.raises(SettingsError, match="both canary and stable"):
        compare(canary="v=new")
