"""Airflow's public API as far as we use it, in memory, behind httpx's own transport."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import httpx

from breakfix_airflow.api import AirflowApi

ASKED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
TASK = "approve_repair"
RUN = "c1.1"
PASSWORD = "secret"


def at(seconds):
    return (ASKED + timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")


class FakeAirflow:
    """`detail`, `state` and `events` are the question's; `runs` by id with their state."""

    def __init__(self):
        self.state = "success"
        self.detail = None
        self.events = []
        self.runs = {}
        self.is_paused = False
        self.has_dag = True
        self.password = PASSWORD
        self.tokens = set()
        self.logins = 0
        self.seen = []
        self.parked = {}  # (run id, task id) of questions that wait -> chosen option
        self.parked_s = 60.0  # for so long
        self.broken = []  # status codes to answer with first
        self.lost = 0  # answers to a POST that are lost on their way, though it was done

    def api(self, password=PASSWORD):
        transport = httpx.MockTransport(self.answer)
        return AirflowApi("http://airflow", "breakfix", password, transport=transport)

    def asked(self, **answer):
        self.detail = {
            "created_at": at(0),
            "response_received": bool(answer),
            "responded_by_user": None,
            "responded_at": None,
            "chosen_options": None,
            **answer,
        }

    def answered(self, who, option, seconds=10):
        user = {"id": who, "name": who.title()} if who else None
        self.asked(
            response_received=True,
            responded_by_user=user,
            responded_at=at(seconds),
            chosen_options=[option],
        )

    def log(self, event, who, seconds=10, **extra):
        self.events.append(
            {
                "event": event,
                "owner": who,
                "when": at(seconds),
                "extra": json.dumps({**extra, "method": "PATCH"}),
            }
        )

    def answer(self, request):
        self.seen.append((request.method, request.url.path))
        if self.broken:
            return httpx.Response(self.broken.pop(0), text="broken")
        if request.url.path == "/auth/token":
            return self._login(json.loads(request.content))
        if request.headers["authorization"].removeprefix("Bearer ") not in self.tokens:
            return httpx.Response(401, json={"detail": "Invalid JWT token"})
        answer = self._route(request, request.url.path.removeprefix("/api/v2"))
        if self.lost and request.method == "POST":
            self.lost -= 1
            raise httpx.ReadError("connection reset", request=request)
        return answer

    def _login(self, body):
        if body != {"username": "breakfix", "password": self.password}:
            return httpx.Response(401, json={"detail": "Invalid credentials"})
        self.logins += 1
        token = f"token-{self.logins}"
        self.tokens.add(token)
        return httpx.Response(201, json={"access_token": token})

    def _route(self, request, path):
        if path == "/eventLogs":
            return self._page(request, "event_logs", self._events_after(request))
        if path.startswith(f"/dags/node_case/dagRuns/{RUN}/"):
            return self._question(path)
        if path == "/dags/node_case" and self.has_dag:
            return httpx.Response(200, json={"is_paused": self.is_paused})
        if path == "/dags/node_case/dagRuns":
            return self._case_runs(request)
        if path == "/dags/node_case/dagRuns/~/hitlDetails":
            return self._page(request, "hitl_details", self._waiting())
        if request.method == "PATCH":
            return self._choose(path.split("/"), json.loads(request.content))
        if path.endswith("/-1/hitlDetails"):
            return self._parked(path.split("/"))
        return httpx.Response(404, json={"detail": "Not Found"})

    def _question(self, path):
        instance = f"/dags/node_case/dagRuns/{RUN}/taskInstances/{TASK}"
        if path == f"{instance}/-1/hitlDetails" and self.detail is not None:
            return httpx.Response(200, json={**self.detail, "task_instance": {"state": self.state}})
        if path == instance:
            return httpx.Response(200, json={"state": self.state})
        return httpx.Response(404, json={"detail": "Not Found"})

    def _case_runs(self, request):
        if request.method == "POST":
            return self._trigger(json.loads(request.content))
        states = request.url.params.get_list("state")
        live = [{"dag_run_id": r} for r, s in self.runs.items() if s in states]
        return self._page(request, "dag_runs", live)

    def _events_after(self, request):
        after = datetime.fromisoformat(request.url.params["after"])
        assert request.url.params["task_id"] == TASK
        return [e for e in self.events if datetime.fromisoformat(e["when"]) > after]

    def _page(self, request, key, items):
        offset, limit = int(request.url.params["offset"]), int(request.url.params["limit"])
        page = {key: items[offset : offset + limit], "total_entries": len(items)}
        return httpx.Response(200, json=page)

    def _waiting(self):
        return [
            {"task_instance": {"dag_run_id": run, "task_id": task}}
            for (run, task), chosen in self.parked.items()
            if chosen is None
        ]

    def _parked(self, parts):
        question = parts[4], parts[6]
        if question not in self.parked:
            return httpx.Response(404, json={"detail": "Not Found"})
        chosen = self.parked[question]
        asked_at = datetime.now(UTC) - timedelta(seconds=self.parked_s)
        state = "awaiting_input" if chosen is None else "success"
        return httpx.Response(
            200,
            json={
                "created_at": asked_at.isoformat(),
                "response_received": chosen is not None,
                "task_instance": {"state": state},
            },
        )

    def _choose(self, parts, body):
        question = parts[4], parts[6]
        if self.parked[question] is not None:
            return httpx.Response(409, json={"detail": "already answered"})
        (self.parked[question],) = body["chosen_options"]
        return httpx.Response(200, json={})

    def _trigger(self, body):
        if body["dag_run_id"] in self.runs:
            return httpx.Response(409, json={"detail": "already exists"})
        self.runs[body["dag_run_id"]] = "queued"
        self.triggered = body
        return httpx.Response(200, json=body)
