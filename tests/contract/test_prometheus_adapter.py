"""The Prometheus adapter against servers that answer well, badly, late or never."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import pytest

from breakfix.adapters.prometheus import IN_FLIGHT, PrometheusMetrics, decode, decode_held, request
from breakfix.adapters.prometheus_evidence import node_evidence
from breakfix.errors import MetricsError
from breakfix.ports import Held, QueryResult, Sample
from breakfix.resilience.circuits import CircuitsInMemory
from dev.stack.prometheus import PrivatePrometheus
from tests.contract.prometheus_history import History

AT = datetime(2026, 3, 1, tzinfo=UTC)


def vector(*values: str, warnings: list[str] | None = None) -> bytes:
    rows = [{"metric": {"n": str(i)}, "value": [1.0, v]} for i, v in enumerate(values)]
    answer = {"status": "success", "data": {"resultType": "vector", "result": rows}}
    return json.dumps(answer | ({"warnings": warnings} if warnings else {})).encode()


class Server:
    """Answers each request by `behave(server, form)`: a status and a body."""

    def __init__(self) -> None:
        self.behave: Callable[[dict[str, str]], tuple[int, bytes]] = lambda _: (200, vector("1"))
        self.forms: list[dict[str, str]] = []
        self.most_at_once = self._at_once = 0
        self.slowly_s = 0.0
        self._lock = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        length = int(handler.headers["Content-Length"])
        form = {k: v[0] for k, v in parse_qs(handler.rfile.read(length).decode()).items()}
        with self._lock:
            self.forms.append(form)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            status, body = self.behave(form)
        finally:
            with self._lock:  # before the answer, on which the client may send its next one
                self._at_once -= 1
        try:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            self._write(handler, body)
        except OSError:
            pass  # the client has gone

    def _write(self, handler: BaseHTTPRequestHandler, body: bytes) -> None:
        if not self.slowly_s:
            handler.wfile.write(body)
            return
        for i in range(len(body)):
            handler.wfile.write(body[i : i + 1])
            time.sleep(self.slowly_s)


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            made.answer(self)

        def log_message(self, *_: object) -> None: ...

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    made.url = f"http://127.0.0.1:{http.server_port}"
    yield made
    http.shutdown()
    http.server_close()
    thread.join(5)


@pytest.fixture
def client(server: Server) -> Iterator[PrometheusMetrics]:
    with PrometheusMetrics(server.url) as made:
        yield made


def test_a_query_is_posted_with_its_instant_and_a_deadline(
    server: Server, client: PrometheusMetrics
) -> None:
    result = client.query('up{a="ü"}', at=AT)
    assert [(s.labels, s.value) for s in result.samples] == [({"n": "0"}, 1.0)]
    (form,) = server.forms
    assert (form["query"], form["time"]) == ('up{a="ü"}', "1772323200.000")
    assert "timeout" in form


def test_warnings_reach_the_caller(server: Server, client: PrometheusMetrics) -> None:
    server.behave = lambda _: (200, vector("1", warnings=["store unavailable"]))
    assert client.query("up", at=AT).warnings == ("store unavailable",)


def test_one_failing_query_leaves_the_others(server: Server, client: PrometheusMetrics) -> None:
    bad = json.dumps({"status": "error", "error": "parse error"}).encode()
    server.behave = lambda f: (400, bad) if f["query"] == "bad" else (200, vector("7"))
    answers = client.query_many({"a": "good", "b": "bad"}, at=AT)
    assert isinstance(answers["a"], QueryResult)
    assert answers["b"] == "Prometheus refused the query (HTTP 400): parse error"


def test_an_answer_is_read_while_others_are_under_way(
    server: Server, client: PrometheusMetrics
) -> None:
    is_read = threading.Event()

    def behave(form: dict[str, str]) -> tuple[int, bytes]:
        if form["query"] == "late":
            assert is_read.wait(10)
        return 200, vector("1")

    server.behave = behave
    answers = client.query_many({"early": "early", "late": "late"}, at=AT)
    assert "late" in answers  # which does not wait
    assert isinstance(answers["early"], QueryResult)
    is_read.set()
    assert isinstance(answers["late"], QueryResult)
    assert list(answers) == ["early", "late"]


def test_only_a_few_queries_are_in_flight(server: Server, client: PrometheusMetrics) -> None:
    def slow(_: dict[str, str]) -> tuple[int, bytes]:
        time.sleep(0.05)
        return 200, vector("1")

    server.behave = slow
    assert dict(client.query_many({str(i): f"q{i}" for i in range(20)}, at=AT))
    assert server.most_at_once <= IN_FLIGHT
    assert len(server.forms) == 20


# --------------------------------------------------------------------------- what must have held

HELD = Held("m > 1 and m offset 120s > 1", speaks="m > 1", step_s=60.0, steps=2)
THEN, NOW = AT.timestamp() - 120, AT.timestamp()


INSTANTS = [THEN, THEN + 60, NOW]


def matrix(
    *series: list[float], label: str = "n", instants: list[float] = INSTANTS, **more: object
) -> bytes:
    """Series that are there at these instants, with the value 7 now and 9 before."""
    rows: list[dict[str, object]] = [
        {"metric": {label: str(i)}, "values": [[t, "7" if t == NOW else "9"] for t in times]}
        for i, times in enumerate(series)
    ]
    rows.append({"metric": {}, "values": [[t, "0"] for t in instants]})
    data = {"resultType": "matrix", "result": rows}
    return json.dumps({"status": "success", "data": data, **more}).encode()


def test_what_must_have_held_is_asked_in_one_pass(
    server: Server, client: PrometheusMetrics
) -> None:
    late, over, gap = [THEN + 60, NOW], [THEN, THEN + 60], [THEN, NOW]
    server.behave = lambda _: (200, matrix(INSTANTS, late, over, gap, [NOW], INSTANTS))
    result = client.query(HELD, at=AT)
    assert [(s.labels, s.value) for s in result.samples] == [({"n": "0"}, 7.0), ({"n": "5"}, 7.0)]
    (form,) = server.forms
    assert {k: form[k] for k in ("query", "start", "end", "step")} == {
        "query": "(m > 1) or vector(0)",
        "start": "1772323080.000",
        "end": "1772323200.000",
        "step": "60.000",
    }


def test_a_hold_of_uneven_steps_ends_now() -> None:
    held = Held("", speaks="m", step_s=610 / 11, steps=11)
    _, form = request(held, AT)
    start, end, step = (round(float(form[k]) * 1000) for k in ("start", "end", "step"))
    assert end == round(NOW * 1000)
    assert start + 11 * step == end
    assert 0 <= 610_000 - 11 * step < 11
    points = [[(start + i * step) / 1000, "1"] for i in range(12)]
    rows = [{"metric": m, "values": points} for m in ({"n": "0"}, {})]
    data = {"resultType": "matrix", "result": rows}
    body = json.dumps({"status": "success", "data": data}).encode()
    assert decode_held(body, form) == QueryResult((Sample({"n": "0"}, 1.0),))


def test_a_partial_answer_of_what_held_says_so(server: Server, client: PrometheusMetrics) -> None:
    server.behave = lambda _: (200, matrix(warnings=["store unavailable"]))
    assert client.query(HELD, at=AT) == QueryResult((), ("store unavailable",))


def late_by(seconds: float) -> bytes:
    return matrix(INSTANTS, instants=[t - seconds for t in INSTANTS])


@pytest.mark.parametrize(
    ("status", "body"),
    [
        pytest.param(403, b"this path is not for you", id="a proxy lets no range through"),
        pytest.param(503, b"no backend", id="a proxy has nobody for ranges"),
        pytest.param(422, b'{"status":"error","error":"too many samples"}', id="too many samples"),
        pytest.param(200, b"<html>login</html>", id="a login page"),
        pytest.param(200, b'{"status":"error","error":"no"}', id="an error with 200"),
        pytest.param(200, vector("1"), id="a vector"),
        pytest.param(200, matrix([]), id="a series without points"),
        pytest.param(200, matrix(INSTANTS)[:-9], id="half an answer"),
        pytest.param(200, late_by(0.9), id="a proxy moves the range by less than a second"),
        pytest.param(200, late_by(30), id="a proxy moves the range to whole steps"),
        pytest.param(200, late_by(60), id="a proxy moves the range by a step"),
        pytest.param(
            200, matrix([THEN, NOW], instants=[THEN, NOW]), id="a proxy asks with longer steps"
        ),
        pytest.param(
            200,
            matrix(INSTANTS, label="__name__"),
            id="names differ, which the text does not look at",
        ),
    ],
)
def test_where_there_is_no_such_range_the_text_is_asked(
    server: Server, client: PrometheusMetrics, status: int, body: bytes
) -> None:
    server.behave = lambda f: (status, body) if "step" in f else (200, vector("5"))
    assert [s.value for s in client.query(HELD, at=AT).samples] == [5.0]
    assert [f["query"] for f in server.forms] == [f"({HELD.speaks}) or vector(0)", str(HELD)]


def test_an_answer_too_large_for_a_range_is_asked_for_as_a_text(
    server: Server, client: PrometheusMetrics, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("breakfix.adapters.prometheus.MAX_BODY", 1000)
    many = matrix(*[INSTANTS] * 100)
    server.behave = lambda f: (200, many if "step" in f else vector("5"))
    assert [s.value for s in client.query(HELD, at=AT).samples] == [5.0]


def test_what_becomes_of_ranges_is_no_word_about_prometheus(server: Server) -> None:
    server.behave = lambda f: (503, b"") if "step" in f else (200, vector("5"))
    held = {str(i): Held(f"q{i}", speaks="m", step_s=60.0, steps=1) for i in range(12)}
    with PrometheusMetrics(server.url, circuits=CircuitsInMemory()) as client:
        told = client.query_many({**held, "plain": "up"}, at=AT)
        assert all(isinstance(answer, QueryResult) for answer in told.values())


def test_a_server_left_alone_is_not_asked_for_ranges_either(server: Server) -> None:
    server.behave = lambda _: (503, b"")
    with PrometheusMetrics(server.url, circuits=CircuitsInMemory()) as client:
        dict(client.query_many({str(i): f"q{i}" for i in range(6)}, at=AT))
        server.forms.clear()
        with pytest.raises(MetricsError, match="left alone"):
            client.query(HELD, at=AT)
    assert server.forms == []


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_busy_server_is_asked_again(
    server: Server, client: PrometheusMetrics, status: int
) -> None:
    server.behave = lambda _: (status, b"busy") if len(server.forms) < 3 else (200, vector("1"))
    assert client.query("up", at=AT).samples
    assert len(server.forms) == 3


def test_a_server_that_stays_busy_is_given_up(server: Server, client: PrometheusMetrics) -> None:
    server.behave = lambda _: (503, b"busy")
    with pytest.raises(MetricsError, match="busy") as error:
        client.query("up", at=AT)
    assert error.value.is_transient
    assert len(server.forms) == 3


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        pytest.param(400, b'{"status":"error","error":"parse error"}', "parse error", id="refused"),
        pytest.param(401, b"<html>no</html>", "HTTP 401", id="not allowed"),
        pytest.param(422, b'{"status":"error","error":"too many samples"}', "too many", id="limit"),
        pytest.param(500, b"x" * 100_000, "HTTP 500", id="a long page"),
        pytest.param(200, b"<html>login</html>", "not understood", id="a login page"),
        pytest.param(200, b'{"status":"success"}', "not a vector", id="no data"),
        pytest.param(200, b'{"status":"error","error":"no"}', "no", id="an error with 200"),
        pytest.param(
            200,
            b'{"status":"success","data":{"resultType":"matrix","result":[]}}',
            "a matrix, not a vector",
            id="a matrix",
        ),
        pytest.param(200, vector("one"), "not understood", id="a value that is no number"),
        pytest.param(200, vector("1")[:-9], "not understood", id="half an answer"),
    ],
)
def test_what_is_no_answer_is_an_error_at_once(
    server: Server, client: PrometheusMetrics, status: int, body: bytes, says: str
) -> None:
    server.behave = lambda _: (status, body)
    with pytest.raises(MetricsError, match=says) as error:
        client.query("up", at=AT)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
    assert len(server.forms) == 1


def test_a_server_that_trickles_is_cut_off_at_the_deadline(server: Server) -> None:
    server.slowly_s = 0.05
    with PrometheusMetrics(server.url, timeout_s=0.5) as client:
        started = time.monotonic()
        with pytest.raises(MetricsError, match=r"deadline|did not answer"):
            client.query("up", at=AT)
    assert time.monotonic() - started < 5


def test_a_silent_server_costs_one_deadline_for_all_queries(server: Server) -> None:
    release = threading.Event()
    server.behave = lambda _: (200 if release.wait(10) else 503, vector("1"))
    with PrometheusMetrics(server.url, timeout_s=0.5) as client:
        started = time.monotonic()
        answers = client.query_many({str(i): "up" for i in range(12)}, at=AT)
        took = time.monotonic() - started
    release.set()
    assert all(isinstance(a, str) for a in answers.values())
    assert took < 5


def test_a_server_that_is_not_there_is_named() -> None:
    client = PrometheusMetrics("http://127.0.0.1:1", timeout_s=2)
    with client, pytest.raises(MetricsError, match="could not be reached"):
        client.query("up", at=AT)


@pytest.mark.parametrize("value", ["NaN", "+Inf", "-Inf", "1e300"])
def test_prometheus_numbers_are_numbers(value: str) -> None:
    assert len(decode(vector(value)).samples) == 1


def test_a_scalar_is_one_sample() -> None:
    body = b'{"status":"success","data":{"resultType":"scalar","result":[1.0,"42"]}}'
    assert [s.value for s in decode(body).samples] == [42.0]


# ------------------------------------------------------------------ evidence for people


def test_evidence_is_the_nodes_last_minutes(
    start_prometheus: Callable[..., PrivatePrometheus],
) -> None:
    prometheus = start_prometheus("", remote_write=True)
    history = History(end=float(int(time.time())) - 30)
    for label, node in (("Hostname", "gpu-1"), ("hostname", "gpu-1"), ("Hostname", "gpu-2")):
        history.add("DCGM_FI_DEV_GPU_TEMP", lambda t: t, **{label: node, "UUID": f"GPU-{label}"})
    history.write(prometheus.url)
    at = datetime.fromtimestamp(history.end, UTC)
    found = node_evidence(prometheus.url, "gpu-1", at=at, lookback=timedelta(minutes=10))
    assert {(s.metric, s.gpu) for s in found} == {
        ("DCGM_FI_DEV_GPU_TEMP", "GPU-Hostname"),
        ("DCGM_FI_DEV_GPU_TEMP", "GPU-hostname"),
    }
    assert found[0].points[-1] == (at, 1800.0)
    assert node_evidence(prometheus.url, 'x"} or up{a="', at=at) == ()


def test_evidence_that_cannot_be_read_is_an_error_at_once(server: Server) -> None:
    server.behave = lambda _: (503, b"busy")
    with pytest.raises(MetricsError, match="evidence"):
        node_evidence(server.url, "gpu-1", at=AT, timeout_s=2)
    assert len(server.forms) == 1
