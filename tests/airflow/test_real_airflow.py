"""The road on a real Airflow, with its triggerer, API and audit log; the stages are scripted."""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from breakfix.errors import LedgerError, Refused
from breakfix.model import Action, Case, FailureClass, NodeState, Purpose
from breakfix_airflow.api import AirflowApi
from breakfix_airflow.approvals import SYSTEM_EVENTS
from breakfix_airflow.runs import AirflowCaseRuns
from breakfix_airflow.waking import AirflowWaker, wake_settled
from dev.stack.airflow import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.airflow, pytest.mark.timeout(600)]

SCRIPTED = Path(__file__).parent / "scripted"
DEADLINE_S = 300.0
FINAL = {"success", "failed"}


class Road:
    """Starts scripted cases and watches their runs through the public API."""

    def __init__(self, airflow, folder):
        self.airflow = airflow
        self.folder = folder
        self.client = airflow.client("admin")
        self.api = AirflowApi(airflow.url, "breakfix", airflow.passwords["breakfix"])
        self.runs = AirflowCaseRuns(self.api)
        self.clients = {u: airflow.client(u) for u in ("oncall", "second", "viewer", "admin")}

    def close(self):
        for client in (self.client, *self.clients.values()):
            client.close()

    def start(self, case_id, stages, *, fence=1, **script):
        script = {"fence": fence, "stages": stages, **script}
        (self.folder / f"{case_id}.json").write_text(json.dumps(script))
        return self.runs.start(a_case(case_id, fence))

    def calls(self, case_id):
        path = self.folder / f"{case_id}.calls"
        return path.read_text().split() if path.exists() else []

    def approval(self, case_id, purpose="repair"):
        return json.loads((self.folder / f"{case_id}.{purpose}.json").read_text())

    def write_approval(self, case_id, **fields):
        path = self.folder / f"{case_id}.repair.json"
        path.write_text(json.dumps({**self.approval(case_id), **fields}))

    def url(self, case_id, task_id="", fence=1):
        base = f"/api/v2/dags/node_case/dagRuns/{case_id}.{fence}"
        return f"{base}/taskInstances/{task_id}" if task_id else base

    def states(self, case_id, fence=1):
        found = self.client.get(self.url(case_id, fence=fence) + "/taskInstances").json()
        return {t["task_id"]: t["state"] for t in found["task_instances"]}

    def end(self, case_id, fence=1):
        return self.until(
            lambda: (
                (s := self.client.get(self.url(case_id, fence=fence)).json()["state"]) in FINAL
                and s
            ),
            f"the end of {case_id}",
            lambda: self.states(case_id, fence),
        )

    def asked(self, case_id, task_id="approve_repair"):
        """Wait until the question is parked, and until Airflow has seen that (bug 1)."""
        self.until(
            lambda: self.states(case_id).get(task_id) == "awaiting_input",
            f"{task_id} of {case_id}",
            lambda: self.states(case_id),
        )
        detail = self.client.get(self.url(case_id, task_id) + "/-1/hitlDetails").json()
        age = datetime.now(UTC) - datetime.fromisoformat(detail["created_at"])
        time.sleep(max(0.0, 6.0 - age.total_seconds()))

    def until(self, ready, what, tell):
        deadline = time.monotonic() + DEADLINE_S
        while not (found := ready()):
            assert time.monotonic() < deadline, f"no sign of {what}: {tell()}"
            time.sleep(0.5)
        return found

    def answer(self, case_id, user, option, task_id="approve_repair"):
        return self.clients[user].patch(
            self.url(case_id, task_id) + "/-1/hitlDetails",
            json={"chosen_options": [option], "params_input": {}},
        )

    def mark(self, case_id, user, state, task_id="approve_repair"):
        return self.clients[user].patch(
            self.url(case_id, task_id) + "/-1", json={"new_state": state}
        )

    def events(self, case_id, task_id="approve_repair"):
        params = {"run_id": f"{case_id}.1", "task_id": task_id, "order_by": "event_log_id"}
        found = self.client.get("/api/v2/eventLogs", params=params).json()["event_logs"]
        return [(e["event"], e["owner"]) for e in found]


def a_case(case_id, fence):
    now = datetime.now(UTC)
    return Case(
        id=case_id,
        cluster="test",
        node=f"node-{case_id}",
        node_uid="u",
        fence=fence,
        state=NodeState.QUARANTINED,
        failure_class=FailureClass.GPU_OFF_BUS,
        action=Action.REBOOT_NODE,
        confidence=0.97,
        plan_hash="0123456789abcdef",
        reason="XID 79 on GPU 3",
        opened_at=now,
        updated_at=now,
        boot_id="b",
    )


ASKS = {"begin": ["approve_repair"], "drain": ["settle_run"], "escalate": ["settle_run"]}

#: Started together, so that their waits overlap; each test looks at one.
SCRIPTS = {
    "whole": {
        "begin": ["approve_repair"],
        "drain": ["wait1", "wait1", "reboot_node"],
        "reboot_node": ["wait8", "check_gpus"],
        "check_gpus": ["check_operator"],
        "check_operator": ["run_diag"],
        "run_diag": ["wait1", "run_bandwidth"],
        "run_bandwidth": ["check_signals"],
        "check_signals": ["approve_return"],
        "return_node": ["settle_run"],
    },
    "far": {"begin": ["check_gpus"], "check_gpus": ["escalate"], "escalate": ["settle_run"]},
    "broken": {"begin": ["drain"], "drain": ["break", "check_gpus"], "check_gpus": ["settle_run"]},
    **dict.fromkeys(
        (
            *("rejected", "silent", "by-viewer", "marked", "bulk", "two-marks", "forged"),
            *("by-requester", "marked-failed", "cleared", "withdrawn"),
            *("two-people", "one-person-twice", "elsewhere"),
        ),
        ASKS,
    ),
    "marked-stage": {"begin": ["wait100"]},
    "patient": {"begin": ["wait40", "escalate"], "escalate": ["settle_run"]},
}
OPTIONS = {
    "silent": {"expires_in_s": 20},
    "by-requester": {"requester": "oncall"},
    "two-people": {"needed": 2},
    "one-person-twice": {"needed": 2},
}


@pytest.fixture(scope="session")
def road(start_airflow, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    dags = tmp_path_factory.mktemp("dags")
    shutil.copy(ROOT / "dags" / "node_case.py", dags)
    airflow = start_airflow(
        dags=dags,
        plugins=ROOT / "plugins",
        env={
            "PYTHONPATH": os.pathsep.join(map(str, (SCRIPTED, ROOT / "include", ROOT))),
            "SCRIPTED_FLOW": str(folder),
        },
    )
    road = Road(airflow, folder)
    service_user = {
        "connection_id": "breakfix_airflow",
        "conn_type": "http",
        "host": airflow.url,
        "login": "breakfix",
        "password": airflow.passwords["breakfix"],
    }
    assert road.client.post("/api/v2/connections", json=service_user).status_code == 201
    path = "/api/v2/dags/node_case"
    road.until(lambda: road.client.get(path).status_code == 200, "the DAG", lambda: "not parsed")
    for case_id, stages in SCRIPTS.items():
        assert road.start(case_id, stages, **OPTIONS.get(case_id, {}))
    yield road
    road.close()


def test_a_run_is_started_once(road):
    assert road.runs.start(a_case("whole", 1)) is False
    assert "whole.1" in road.runs.live()


def test_a_case_that_waits_survives_the_death_of_the_triggerer(road):
    road.until(lambda: road.states("patient").get("begin") == "deferred", "a deferred begin", str)
    road.airflow.restart_component("triggerer")
    assert road.end("patient") == "success"
    assert road.calls("patient")[-1] == "escalate"


def test_a_paused_node_case_starts_nothing(road):
    road.client.patch("/api/v2/dags/node_case", json={"is_paused": True})
    try:
        with pytest.raises(Refused, match="counts as halt"):
            road.runs.start(a_case("paused", 1))
    finally:
        road.client.patch("/api/v2/dags/node_case", json={"is_paused": False})


def test_only_the_run_of_its_name_may_act_for_a_case(road):
    body = {"dag_run_id": "mine", "logical_date": None, "conf": {"case_id": "far", "fence": 1}}
    road.clients["second"].post("/api/v2/dags/node_case/dagRuns", json=body)
    path = "/api/v2/dags/node_case/dagRuns/mine"
    state = road.until(
        lambda: (s := road.client.get(path).json()["state"]) in FINAL and s, "mine", str
    )
    assert state == "failed"
    assert road.calls("far").count("begin") <= 1


def test_a_case_goes_the_whole_road_and_waits_without_a_worker(road):
    road.asked("whole")
    assert road.answer("whole", "oncall", "Approve").status_code == 200
    road.asked("whole", "approve_return")
    assert road.answer("whole", "oncall", "Approve", "approve_return").status_code == 200
    assert road.end("whole") == "success"
    assert road.calls("whole") == [
        *("begin", "settle_repair", "drain", "drain", "drain", "reboot_node", "reboot_node"),
        *(
            "check_gpus",
            "check_operator",
            "run_diag",
            "run_diag",
            "run_bandwidth",
            "check_signals",
            "settle_return",
            "return_node",
        ),
    ]
    states = road.states("whole")
    ran = {t for t, s in states.items() if s == "success"}
    assert ran == {*road.calls("whole"), "approve_repair", "approve_return", "settle_run"}
    assert set(states.values()) == {"success", "skipped"}


def test_a_case_that_jumps_far_runs_nothing_in_between(road):
    assert road.end("far") == "success"
    assert road.calls("far") == ["begin", "check_gpus", "escalate"]
    ran = {t for t, s in road.states("far").items() if s == "success"}
    assert ran == {"begin", "check_gpus", "escalate", "settle_run"}


def test_a_stage_that_breaks_is_tried_again_and_goes_on(road):
    assert road.end("broken") == "success"
    assert road.calls("broken") == ["begin", "drain", "drain", "check_gpus"]


def test_a_rejection_escalates(road):
    road.asked("rejected")
    assert road.answer("rejected", "oncall", "Reject").status_code == 200
    assert road.end("rejected") == "success"
    assert road.approval("rejected")["decision"] == "refused"
    assert road.calls("rejected") == ["begin", "settle_repair", "escalate"]


def test_silence_is_no(road):
    assert road.end("silent") == "success"
    assert road.approval("silent")["decision"] == "expired"
    assert road.calls("silent") == ["begin", "settle_repair", "escalate"]


def test_a_user_who_is_no_approver_does_not_count(road):
    road.asked("by-viewer")
    assert road.answer("by-viewer", "viewer", "Approve").status_code == 403
    assert road.answer("by-viewer", "second", "Approve").status_code == 200
    assert road.end("by-viewer") == "success"
    approval = road.approval("by-viewer")
    assert approval["decision"] == "expired"
    assert "not an approver by policy" in approval["note"]


def test_the_requester_does_not_approve_a_repair(road):
    road.asked("by-requester")
    assert road.answer("by-requester", "oncall", "Approve").status_code == 200
    road.end("by-requester")
    assert road.approval("by-requester")["decision"] == "expired"


def half_approved(road, case_id):
    road.asked(case_id)
    assert road.answer(case_id, "oncall", "Approve").status_code == 200
    road.asked(case_id, "approve_repair_second")
    assert road.approval(case_id)["decision"] == "pending"
    path = road.url(case_id, "approve_repair_second") + "/-1/hitlDetails"
    assert "2 people; yes so far: oncall" in road.client.get(path).json()["body"]


def test_a_second_person_is_asked_in_a_task_of_its_own_which_names_the_first(road):
    half_approved(road, "two-people")
    assert road.mark("two-people", "admin", "success", "approve_repair_second").status_code == 200
    assert road.end("two-people") == "success"
    approval = road.approval("two-people")
    assert (approval["decision"], approval["approver"]) == ("allowed", "oncall, admin")
    assert approval["channel"] == "airflow_required_action, airflow_mark_success"
    assert road.calls("two-people") == ["begin", "settle_repair", "settle_repair_second", "drain"]


def test_the_same_person_twice_repairs_nothing_and_leaves_the_question_open(road):
    half_approved(road, "one-person-twice")
    again = road.answer("one-person-twice", "oncall", "Approve", "approve_repair_second")
    assert again.status_code == 200
    assert road.end("one-person-twice") == "success"
    assert road.approval("one-person-twice")["decision"] == "pending"
    assert road.calls("one-person-twice") == ["begin", "settle_repair", "settle_repair_second"]


def test_an_answer_in_the_ledger_wakes_the_parked_question_and_is_what_counts(road):
    road.asked("elsewhere")
    road.write_approval("elsewhere", decision="allowed", approver="second", channel="cli")
    AirflowWaker(road.api).wake(a_case("elsewhere", 1), Purpose.REPAIR)
    assert road.end("elsewhere") == "success"
    assert road.approval("elsewhere")["approver"] == "second"
    assert road.calls("elsewhere") == ["begin", "settle_repair", "drain"]


def test_an_approver_who_marks_the_task_success_counts(road):
    road.asked("marked")
    assert road.mark("marked", "oncall", "success").status_code == 200
    assert road.end("marked") == "success"
    approval = road.approval("marked")
    assert (approval["decision"], approval["approver"]) == ("allowed", "oncall")
    assert approval["channel"] == "airflow_mark_success"
    assert road.calls("marked") == ["begin", "settle_repair", "drain"]


def test_an_approver_who_marks_the_task_failed_says_no(road):
    road.asked("marked-failed")
    assert road.mark("marked-failed", "oncall", "failed").status_code == 200
    assert road.end("marked-failed") == "success"
    assert road.approval("marked-failed")["decision"] == "refused"


def test_a_mark_through_the_unlogged_list_does_not_count(road):
    road.asked("bulk")
    entity = {"task_id": "approve_repair", "new_state": "success", "map_index": -1}
    action = {"action": "update", "entities": [entity], "update_mask": ["new_state"]}
    path = road.url("bulk") + "/taskInstances"
    assert road.clients["second"].patch(path, json={"actions": [action]}).status_code == 200
    assert road.end("bulk") == "success"
    assert road.approval("bulk")["decision"] == "expired"
    assert road.calls("bulk") == ["begin", "settle_repair", "escalate"]


def test_a_mark_does_not_count_when_another_touched_the_question(road):
    road.asked("two-marks")
    note = road.url("two-marks", "approve_repair") + "/-1"
    assert road.clients["second"].patch(note, json={"note": "looks fine"}).status_code == 200
    assert road.mark("two-marks", "oncall", "success").status_code == 200
    road.end("two-marks")
    assert road.approval("two-marks")["decision"] == "expired"


def test_a_forged_answer_in_xcom_is_ignored(road):
    road.asked("forged")
    forged = {
        "chosen_options": ["Approve"],
        "responded_by_user": {"id": "oncall", "name": "oncall"},
    }
    body = {"key": "return_value", "value": forged, "map_index": -1}
    path = road.url("forged", "approve_repair") + "/xcomEntries"
    assert road.clients["second"].post(path, json=body).status_code == 201
    assert road.mark("forged", "second", "success").status_code == 200
    road.end("forged")
    assert road.approval("forged")["decision"] == "expired"
    assert road.calls("forged") == ["begin", "settle_repair", "escalate"]
    people = [e for e in road.events("forged") if e[0] not in SYSTEM_EVENTS]
    assert people == [("create_xcom_entry", "second"), ("patch_task_instance", "second")]


def test_a_question_of_a_case_that_ended_is_withdrawn(road):
    class Ledger:
        def case(self, case_id):
            if case_id != "withdrawn":
                raise LedgerError("not asked about here")
            return replace(a_case(case_id, 1), ended_at=datetime.now(UTC))

    road.asked("withdrawn")
    assert wake_settled(road.api, Ledger()) == ["withdrawn.1"]
    assert road.end("withdrawn") == "success"
    assert road.approval("withdrawn")["decision"] == "expired"
    assert "breakfix does not count" in road.approval("withdrawn")["note"]


def test_a_cleared_question_asks_again_and_forgets_the_mark_before(road):
    road.asked("cleared")
    body = {"dry_run": False, "task_ids": ["approve_repair"], "dag_run_id": "cleared.1"}
    body |= {"only_failed": False, "include_downstream": True}
    path = "/api/v2/dags/node_case/clearTaskInstances"
    assert road.clients["second"].post(path, json=body).status_code == 200
    road.until(
        lambda: road.client.get(road.url("cleared", "approve_repair")).json()["try_number"] == 2,
        "the second try",
        lambda: road.states("cleared"),
    )
    road.asked("cleared")
    assert road.mark("cleared", "oncall", "success").status_code == 200
    road.end("cleared")
    assert road.approval("cleared")["decision"] == "allowed"
    assert road.calls("cleared") == ["begin", "settle_repair", "drain"]


def test_clearing_a_task_of_an_ended_run_sends_the_case_nowhere_else(road):
    assert road.end("far") == "success"
    body = {"dry_run": False, "task_ids": ["return_node"], "dag_run_id": "far.1"}
    body |= {"only_failed": False, "include_downstream": True}
    road.client.post("/api/v2/dags/node_case/clearTaskInstances", json=body)
    time.sleep(1.0)
    road.end("far")
    assert "return_node" not in road.calls("far")


def test_a_stage_marked_success_runs_nothing_and_turns_the_run_red(road):
    road.until(
        lambda: road.states("marked-stage").get("begin") == "deferred", "a deferred begin", str
    )
    assert road.mark("marked-stage", "second", "success", "begin").status_code == 200
    assert road.end("marked-stage") == "failed"
    assert set(road.calls("marked-stage")) == {"begin"}
