"""The demo's approver: a person's stand-in, who answers through Airflow's required actions as
people do.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import Any

import httpx

TIMEOUT_S = 10.0
POLL_S = 1.0
#: Airflow 3.3.2 may fail a task that is resumed in its first seconds; nobody reads faster than this
#: anyway.
READING_S = 7.0


@dataclass(frozen=True, slots=True)
class Said:
    """One answer: which question, and what was said."""

    subject: str
    answer: str


class Approver(threading.Thread):
    """Answers every open question once: "Reject" where the subject names a node of `rejects`, else
    "Approve".
    """

    def __init__(self, url: str, user: str, password: str, *, rejects: frozenset[str]) -> None:
        super().__init__(name="approver", daemon=True)
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self._user, self._password = user, password
        self._rejects = rejects
        self._seen: dict[tuple[str, str, int], float] = {}
        self.said: list[Said] = []
        self.troubles: list[str] = []
        self.stopping = threading.Event()

    def run(self) -> None:
        while not self.stopping.wait(POLL_S):
            try:
                self._answer_all()
            except httpx.HTTPError as error:
                self.troubles.append(f"{type(error).__name__}: {error}"[:200])
                self._client.headers.pop("Authorization", None)

    def _answer_all(self) -> None:
        if "Authorization" not in self._client.headers:
            self._log_in()
        query = {"response_received": "false", "state": "awaiting_input", "limit": "100"}
        answer = self._client.get("/api/v2/dags/~/dagRuns/~/hitlDetails", params=query)
        answer.raise_for_status()
        for question in answer.json()["hitl_details"]:
            self._consider(question)

    def _log_in(self) -> None:
        body = {"username": self._user, "password": self._password}
        answer = self._client.post("/auth/token", json=body)
        answer.raise_for_status()
        self._client.headers["Authorization"] = "Bearer " + answer.json()["access_token"]

    def _consider(self, question: dict[str, Any]) -> None:
        task = question["task_instance"]
        key = (task["dag_run_id"], task["task_id"], task["try_number"])
        first_seen = self._seen.setdefault(key, time.monotonic())
        if time.monotonic() - first_seen < READING_S:
            return
        subject = str(question["subject"])
        choice = "Reject" if any(node in subject for node in self._rejects) else "Approve"
        path = (
            f"/api/v2/dags/{task['dag_id']}/dagRuns/{task['dag_run_id']}"
            f"/taskInstances/{task['task_id']}/-1/hitlDetails"
        )
        answer = self._client.patch(path, json={"chosen_options": [choice], "params_input": {}})
        if answer.is_success:
            self.said.append(Said(subject, choice))
        elif answer.status_code != httpx.codes.CONFLICT:
            self.troubles.append(f"{subject}: {answer.status_code} {answer.text[:200]}")
