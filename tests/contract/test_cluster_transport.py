"""What the adapter does when the API server misbehaves: scripted answers over real HTTP."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from kubernetes import client

from breakfix.adapters.kubernetes import KubernetesCluster
from breakfix.adapters.kubernetes.transport import Transport
from breakfix.errors import ClusterError, Conflict, Forbidden, NotFound
from breakfix.ports import NodePatch

DROP = "drop the connection"
HANG = "say nothing"


@dataclass
class Script:
    """Answers in order; the last one repeats. Each is (status, body) or (status, body, headers)."""

    answers: list[Any] = field(default_factory=list)
    seen: list[tuple[str, str, dict[str, list[str]], Any]] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)

    def next(self) -> Any:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            url = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            script.seen.append((self.command, url.path, parse_qs(url.query), body))
            answer = script.next()
            if answer == HANG:
                script.release.wait(20)
            if answer in (HANG, DROP):
                linger = struct.pack("ii", 1, 0)  # reset, not an orderly close
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                self.close_connection = True
                return
            status, content, *headers = answer
            data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in (headers[0] if headers else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815 http.server's names

        def log_message(self, *args: Any) -> None:
            pass

    return Handler


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def cluster(script: Script) -> Iterator[KubernetesCluster]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(script))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    settings = client.Configuration()
    settings.host = f"http://127.0.0.1:{server.server_port}"
    it = KubernetesCluster(Transport(client.ApiClient(settings), timeout_s=0.5), page=2)
    yield it
    it.close()
    script.release.set()
    server.shutdown()
    server.server_close()
    thread.join(5)


def node(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": f"u-{name}", "resourceVersion": "7"}}


def failure(reason: str, message: str, **details: Any) -> dict[str, Any]:
    return {"kind": "Status", "reason": reason, "message": message, "details": details}


def budget_cause(message: str) -> dict[str, Any]:
    causes = [{"reason": "DisruptionBudget", "message": message}]
    text = "Cannot evict pod as it would violate the pod's disruption budget."
    return failure("TooManyRequests", text, causes=causes)


FAIR = (429, "Too many requests, please try again later.\n", {"Retry-After": "0"})


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(DROP, id="the connection is reset"),
        pytest.param(HANG, id="nothing is answered in time"),
        pytest.param(FAIR, id="priority and fairness says later, in plain text"),
        pytest.param((500, failure("", "etcdserver: leader changed")), id="a 500"),
        pytest.param((503, "no healthy upstream"), id="a 503 of a proxy"),
        pytest.param((504, failure("Timeout", "too large resource version")), id="a 504"),
    ],
)
def test_reads_are_repeated_after_a_transient_failure(cluster, script, trouble):
    script.answers = [trouble, (200, node("a"))]
    assert cluster.node("a").uid == "u-a"
    assert len(script.seen) == 2


@pytest.mark.parametrize(
    ("answer", "error", "is_transient"),
    [
        ((404, failure("NotFound", 'nodes "a" not found')), NotFound, False),
        ((403, failure("Forbidden", "no")), Forbidden, False),
        ((401, failure("Unauthorized", "Unauthorized")), Forbidden, False),
        ((400, failure("BadRequest", "bad")), ClusterError, False),
        ((200, "<html>hello</html>"), ClusterError, False),
        ((302, "", {"Location": "http://127.0.0.1:1/"}), ClusterError, False),
    ],
    ids=["404", "403", "401", "400", "no JSON", "a redirect"],
)
def test_other_failures_are_not_repeated(cluster, script, answer, error, is_transient):
    script.answers = [answer]
    with pytest.raises(error) as caught:
        cluster.node("a")
    assert len(script.seen) == 1
    assert caught.value.is_transient is is_transient
    assert "/api/v1/nodes/a" in str(caught.value)


def test_gives_up_after_four_attempts(cluster, script):
    script.answers = [(503, "down")]
    with pytest.raises(ClusterError) as caught:
        cluster.node("a")
    assert caught.value.is_transient
    assert len(script.seen) == 4


def test_waits_as_long_as_the_server_asks(cluster, script):
    script.answers = [(429, "later", {"Retry-After": "1"}), (200, node("a"))]
    began = time.monotonic()
    cluster.node("a")
    assert time.monotonic() - began >= 1.0


def test_a_list_that_expires_half_way_is_read_again_whole(cluster, script):
    script.answers = [
        (200, {"items": [node("a"), node("b")], "metadata": {"continue": "t1"}}),
        (410, failure("Expired", "The provided continue parameter is too old")),
        (200, {"items": [node("a"), node("x")], "metadata": {"continue": "t2"}}),
        (200, {"items": [node("y")], "metadata": {}}),
    ]
    assert [n.name for n in cluster.nodes()] == ["a", "x", "y"]
    assert [q.get("continue") for _, _, q, _ in script.seen] == [None, ["t1"], None, ["t2"]]
    assert all(q["limit"] == ["2"] for _, _, q, _ in script.seen)


def test_a_list_that_always_expires_is_given_up(cluster, script):
    script.answers = [(410, failure("Expired", "too old"))]
    with pytest.raises(ClusterError, match="expired 3 times"):
        cluster.pods()


def test_a_node_patch_names_its_version_and_may_be_repeated(cluster, script):
    script.answers = [DROP, (409, failure("Conflict", "the object has been modified"))]
    with pytest.raises(Conflict):
        cluster.patch_node("a", "7", NodePatch(is_unschedulable=True, labels={"x": None}))
    method, _, query, body = script.seen[1]
    assert (method, query["fieldManager"]) == ("PATCH", ["breakfix"])
    assert body == {
        "metadata": {"resourceVersion": "7", "labels": {"x": None}},
        "spec": {"unschedulable": True},
    }


@pytest.mark.parametrize(
    ("answer", "status", "retry_after_s"),
    [
        pytest.param((201, {"kind": "Status"}), "evicted", None, id="201"),
        pytest.param((404, failure("NotFound", "not found")), "gone", None, id="404"),
        pytest.param((409, failure("Conflict", "the UID ...")), "conflict", None, id="409"),
        pytest.param(
            (429, budget_cause("needs 2 healthy pods and has 2 currently")),
            *("blocked", None),
            id="429 of a budget, which names no time",
        ),
        pytest.param(
            (429, budget_cause("still being processed"), {"Retry-After": "10"}),
            *("blocked", 10.0),
            id="429 of a budget that is not counted yet",
        ),
        pytest.param((429, "Too many", {"Retry-After": "1"}), "busy", 1.0, id="429 of fairness"),
        pytest.param(
            (500, failure("", "This pod has more than one PodDisruptionBudget, which ...")),
            *("error", None),
            id="500 because of two budgets",
        ),
        pytest.param((500, failure("", "etcd")), "busy", None, id="500 otherwise"),
        pytest.param((503, "no upstream"), "busy", None, id="503"),
        pytest.param(DROP, "busy", None, id="no answer: perhaps it was done"),
        pytest.param(
            (403, failure("Forbidden", "x", causes=[{"reason": "NamespaceTerminating"}])),
            *("busy", None),
            id="its namespace is going",
        ),
    ],
)
def test_an_eviction_is_sent_once_and_its_answer_is_told_truly(
    cluster, script, answer, status, retry_after_s
):
    script.answers = [answer]
    eviction = cluster.evict("work", "web-1", "uid-1", grace_s=30)
    assert (eviction.status, eviction.retry_after_s) == (status, retry_after_s)
    ((method, path, _, body),) = script.seen
    assert (method, path) == ("POST", "/api/v1/namespaces/work/pods/web-1/eviction")
    assert body["apiVersion"] == "policy/v1"
    assert body["kind"] == "Eviction"
    assert body["deleteOptions"] == {"preconditions": {"uid": "uid-1"}, "gracePeriodSeconds": 30}


def test_an_eviction_that_we_may_not_ask_for_is_an_error(cluster, script):
    script.answers = [(403, failure("Forbidden", "cannot create pods/eviction"))]
    with pytest.raises(Forbidden):
        cluster.evict("work", "web-1", "uid-1", grace_s=None)


def test_a_namespace_without_its_service_account_yet_is_worth_waiting_for(cluster, script):
    text = 'error looking up service account ns/default: serviceaccount "default" not found'
    script.answers = [(403, failure("Forbidden", text))]
    with pytest.raises(ClusterError) as caught:
        cluster.create_pod({"metadata": {"namespace": "ns", "name": "p"}, "spec": {}})
    assert caught.value.is_transient


def test_another_owners_taint_goes_back_with_the_time_it_was_added(cluster, script):
    taint = {"key": "gpu", "value": "x", "effect": "NoExecute", "timeAdded": "2026-01-02T03:04:05Z"}
    full = {**node("a"), "spec": {"taints": [taint]}}
    script.answers = [(200, full)]
    read = cluster.node("a")
    cluster.patch_node("a", read.resource_version, NodePatch(taints=read.taints))
    assert script.seen[1][3]["spec"]["taints"] == [taint]


def test_quantities_that_are_no_numbers_count_as_no_gpus(cluster, script):
    status = {"allocatable": {"nvidia.com/gpu": "many"}, "capacity": {"nvidia.com/gpu": "8"}}
    script.answers = [(200, {**node("a"), "status": status})]
    read = cluster.node("a")
    assert (read.gpus_allocatable, read.gpus_capacity) == (0, 8)
