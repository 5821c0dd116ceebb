"""Faults of the API as a client sees them."""

from __future__ import annotations

import http.client
import json
from urllib.parse import urlsplit

import pytest

from simfleet.kube import ADMIN_TOKEN, ApiFault, FaultKind, SimKube, node


@pytest.fixture(scope="module")
def kube():
    with SimKube(nodes=[node("a")]) as running:
        yield running


@pytest.fixture
def get(kube):
    yield lambda path: fetch(kube, path)
    kube.call(kube.faults.clear)


def fetch(kube, path):
    parts = urlsplit(kube.url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=5)
    try:
        connection.request("GET", path, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_429_is_plain_text(kube, get):
    kube.call(lambda: kube.faults.add(ApiFault(FaultKind.TOO_MANY)))
    assert get("/api/v1/nodes") == (429, "Too many requests, please try again later.\n")


def test_500_is_a_status(kube, get):
    kube.call(lambda: kube.faults.add(ApiFault(FaultKind.ERROR, path="/api/v1/nodes")))
    status, body = get("/api/v1/nodes")
    assert (status, json.loads(body)["reason"]) == (500, "InternalError")
    assert get("/api/v1/pods")[0] == 200


def test_a_dropped_connection_has_no_answer(kube, get):
    kube.call(lambda: kube.faults.add(ApiFault(FaultKind.DROP)))
    with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
        get("/api/v1/nodes")


def test_a_stale_watch_stays_silent_after_its_beginning(kube, get):
    kube.call(lambda: kube.faults.add(ApiFault(FaultKind.STALE_WATCH)))
    status, body = get("/api/v1/nodes?watch=1&timeoutSeconds=1")
    assert status == 200
    assert [json.loads(line)["type"] for line in body.splitlines()] == ["ADDED"]
