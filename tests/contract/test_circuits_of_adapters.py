"""What counts as a failure, what is then left alone, and what goes through all the same: the real
clients against scripted servers.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
from kubernetes import client

from breakfix.adapters.kubernetes.cluster import KubernetesCluster
from breakfix.adapters.kubernetes.transport import LeftAlone, Transport
from breakfix.adapters.prometheus import PrometheusMetrics
from breakfix.errors import AirflowError, CircuitOpen, ClusterError, MetricsError, NotFound
from breakfix.resilience.breaker import Circuit, CircuitState, urgent
from breakfix.resilience.circuits import CircuitsInMemory
from breakfix.resilience.rate import RateLimit
from breakfix_airflow.api import AirflowApi

AT = datetime(2026, 1, 1, tzinfo=UTC)
NODE = b'{"metadata":{"name":"a","uid":"u-a","resourceVersion":"7"}}'
VECTOR = b'{"status":"success","data":{"resultType":"vector","result":[]}}'
OPEN = Circuit(CircuitState.OPEN, 5, datetime(2099, 1, 1, tzinfo=UTC), error="refused")
TRIED = Circuit(CircuitState.OPEN, 5, datetime(2020, 1, 1, tzinfo=UTC))


class Server:
    def __init__(self) -> None:
        self.status, self.body, self.seen, self.url = 200, b"{}", 0, ""
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()


@pytest.fixture
def server() -> Iterator[Server]:
    it = Server()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            with it.lock:
                it.seen += 1
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(it.status)
            self.send_header("Content-Length", str(len(it.body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(it.body)

        do_GET = do_POST = do_PATCH = answer  # noqa: N815 - the library's names

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    it.url = f"http://127.0.0.1:{http.server_port}"
    yield it
    http.shutdown()
    http.server_close()
    thread.join(5)


@pytest.fixture
def circuits() -> CircuitsInMemory:
    return CircuitsInMemory()


@pytest.fixture
def cluster(server: Server, circuits: CircuitsInMemory) -> Iterator[KubernetesCluster]:
    api = client.ApiClient(client.Configuration(host=server.url))
    it = KubernetesCluster(Transport(api, timeout_s=2.0, circuits=circuits))
    yield it
    it.close()


@pytest.mark.parametrize(
    ("status", "counts"),
    [
        pytest.param(503, True, id="a proxy that finds no API server"),
        pytest.param(504, True, id="an API server that does not answer its proxy"),
        pytest.param(500, False, id="an API server whose webhook fails"),
        pytest.param(429, False, id="an API server with too many requests"),
        pytest.param(403, False, id="an API server that forbids it"),
        pytest.param(404, False, id="an API server that has no such node"),
    ],
)
def test_only_an_api_server_that_is_not_there_opens_its_circuit(
    server: Server,
    circuits: CircuitsInMemory,
    cluster: KubernetesCluster,
    status: int,
    counts: bool,
) -> None:
    server.status, server.body = status, b"{}"
    for _ in range(2):
        with pytest.raises(ClusterError):
            cluster.node("a")
    assert circuits.load("kubernetes").state == ("open" if counts else "closed")
    if counts:
        assert server.seen == 5  # and then the tries that were left were not made


def test_nobody_asks_an_open_circuits_server_and_the_error_is_the_ports_own(
    server: Server, circuits: CircuitsInMemory, cluster: KubernetesCluster
) -> None:
    circuits.save("kubernetes", OPEN, over=0)
    with pytest.raises(LeftAlone, match="until 00:00:00 UTC; the last time: refused") as e:
        cluster.node("a")
    assert isinstance(e.value, ClusterError)
    assert e.value.until == OPEN.until
    assert cluster.evict("ns", "p", "u", grace_s=None).status == "busy"
    assert server.seen == 0


def test_what_gives_a_node_back_asks_all_the_same(
    server: Server, circuits: CircuitsInMemory, cluster: KubernetesCluster
) -> None:
    circuits.save("kubernetes", OPEN, over=0)
    server.body = NODE
    with urgent():
        assert cluster.node("a").uid == "u-a"
    assert circuits.load("kubernetes").state == "closed"


def test_an_eviction_that_no_server_answers_is_busy_and_counts(
    server: Server, circuits: CircuitsInMemory, cluster: KubernetesCluster
) -> None:
    server.status = 503
    assert cluster.evict("ns", "p", "u", grace_s=None).status == "busy"
    assert circuits.load("kubernetes").failures == 1


def test_a_404_is_still_not_found(server: Server, cluster: KubernetesCluster) -> None:
    server.status = 404
    with pytest.raises(NotFound):
        cluster.node("a")


# ------------------------------------------------------------------ Prometheus


def test_a_sweep_asks_a_prometheus_that_is_away_a_few_times_only(
    server: Server, circuits: CircuitsInMemory
) -> None:
    server.status = 503
    with PrometheusMetrics(server.url, in_flight=1, circuits=circuits) as metrics:
        answers = metrics.query_many({str(i): "up" for i in range(100)}, at=AT)
    assert server.seen == 5
    assert "left alone until" in str(answers["99"])


def test_a_sweep_after_an_outage_loses_no_query_to_the_trial(
    server: Server, circuits: CircuitsInMemory
) -> None:
    circuits.save("prometheus", TRIED, over=0)
    server.body = VECTOR
    with PrometheusMetrics(server.url, circuits=circuits) as metrics:
        answers = metrics.query_many({str(i): f"q{i}" for i in range(20)}, at=AT)
    assert not any(isinstance(a, str) for a in answers.values())
    assert sorted(answers) == sorted(str(i) for i in range(20))


def test_what_is_urgent_is_asked_of_prometheus_though_it_is_left_alone(
    server: Server, circuits: CircuitsInMemory
) -> None:
    circuits.save("prometheus", OPEN, over=0)
    server.body = VECTOR
    with PrometheusMetrics(server.url, circuits=circuits) as metrics, urgent():
        answers = metrics.query_many({str(i): f"q{i}" for i in range(6)}, at=AT)
    assert not any(isinstance(a, str) for a in answers.values())


@pytest.mark.parametrize("status", [400, 422, 429, 500])
def test_a_prometheus_that_says_no_is_there(
    server: Server, circuits: CircuitsInMemory, status: int
) -> None:
    server.status = status
    with PrometheusMetrics(server.url, circuits=circuits) as metrics:
        for _ in range(6):
            with pytest.raises(MetricsError):
                metrics.query("up", at=AT)
    assert circuits.load("prometheus") == Circuit()


def test_an_open_circuit_of_prometheus_is_an_error_of_metrics(circuits: CircuitsInMemory) -> None:
    circuits.save("prometheus", OPEN, over=0)
    metrics = PrometheusMetrics("http://127.0.0.1:1", circuits=circuits)
    with metrics, pytest.raises(CircuitOpen) as e:
        metrics.query("up", at=AT)
    assert isinstance(e.value, MetricsError)


def test_queries_that_nobody_could_ask_in_time_say_nothing_of_prometheus(
    server: Server, circuits: CircuitsInMemory
) -> None:
    circuits.save("prometheus", Circuit(failures=4, version=1), over=0)
    metrics = PrometheusMetrics(server.url, timeout_s=0.0, circuits=circuits)
    with metrics, pytest.raises(MetricsError, match="deadline"):
        metrics.query("up", at=AT)
    assert server.seen == 0
    assert circuits.load("prometheus").failures == 4


def test_a_flood_of_queries_is_spread_and_ends_at_its_deadline(server: Server) -> None:
    server.body = VECTOR
    rate = RateLimit(0.001, burst=3)
    with PrometheusMetrics(server.url, timeout_s=5.0, rate=rate) as metrics:
        answers = metrics.query_many({str(i): f"q{i}" for i in range(10)}, at=AT)
    assert server.seen == 3
    assert sum(isinstance(a, str) and "deadline" in a for a in answers.values()) == 7


# ------------------------------------------------------------------ Airflow


def airflow(circuits: CircuitsInMemory, answer: Any) -> AirflowApi:
    transport = httpx.MockTransport(answer)
    return AirflowApi("http://airflow", "u", "p", transport=transport, circuits=circuits)


def test_an_airflow_that_is_away_is_left_alone(circuits: CircuitsInMemory) -> None:
    seen: list[str] = []

    def away(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        raise httpx.ConnectError("refused", request=request)

    api = airflow(circuits, away)
    for _ in range(4):
        with pytest.raises(AirflowError):
            api.get("/dags")
    assert len(seen) == 5
    with pytest.raises(CircuitOpen, match="airflow failed 5 times in a row"):
        api.get("/dags")


def test_an_airflow_whose_server_fails_is_there(circuits: CircuitsInMemory) -> None:
    api = airflow(circuits, lambda _: httpx.Response(500))
    for _ in range(3):
        with pytest.raises(AirflowError):
            api.get("/dags")
    assert circuits.load("airflow") == Circuit()
