"""Prometheus as the `Metrics` port: POST, typed decoding, one deadline for everything that a call
does.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import copy_context
from datetime import UTC, datetime
from types import TracebackType
from typing import Annotated, Self

import httpx
import msgspec

from breakfix.adapters.prometheus_vector import JsonVector
from breakfix.errors import CircuitOpen, MetricsError
from breakfix.ports import Arriving, Held, QueryResult, Sample
from breakfix.resilience.breaker import Breaker, CircuitStore
from breakfix.resilience.rate import RateLimit
from breakfix.resilience.retry import retried, retry_after_s

IN_FLIGHT = 4  # more does not help: the server is the bottleneck
MAX_BODY = 1 << 28  # 256 MiB: 80,000 series with all their labels are 25 MB
MAX_ERROR = 300  # characters of an error's text: bodies come from outside and go to logs
ATTEMPTS = 3
#: A sweep waits for the server's CPU and its own, not for the network: what is packed costs both.
_PLAIN = {"Accept-Encoding": "identity"}
_BUSY = frozenset({429, 502, 503, 504})


class _Data(msgspec.Struct):
    resultType: str = ""  # noqa: N815 - Prometheus' own name
    result: msgspec.Raw = msgspec.Raw(b"[]")


class _Answer(msgspec.Struct):
    status: str = ""
    data: _Data = msgspec.field(default_factory=_Data)
    error: str = ""
    warnings: list[str] = msgspec.field(default_factory=list)


class _Point(msgspec.Struct, array_like=True, gc=False):
    time: float
    value: str


class _Points(msgspec.Struct, gc=False):
    metric: msgspec.Raw
    values: Annotated[list[_Point], msgspec.Meta(min_length=1)]


class _Series(msgspec.Struct, gc=False):
    metric: msgspec.Raw
    value: _Point


_ANSWER = msgspec.json.Decoder(_Answer)
_MATRIX = msgspec.json.Decoder(list[_Points])
_NAME = b'"__name__":'  # a label's value has no quotes that are not escaped
_CLOCK = "vector(0)"  # is there at every instant of the answer, under no labels
_NO_LABELS = b"{}"
_SAME_S = 0.002  # instants that differ by less are one: they are told in milliseconds
_SCALAR = msgspec.json.Decoder(tuple[float, str])


class _TryAgainError(MetricsError):
    """A failure that asking again may cure."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, is_transient=True)
        self.retry_after_s = retry_after_s


class _AbsentError(_TryAgainError):
    """Prometheus is not there: it could not be reached, or a proxy says so."""


class _SlowError(MetricsError):
    """Prometheus did not answer in time; there is no time left to ask again."""


class LeftAlone(CircuitOpen, MetricsError):
    """Prometheus failed so often that it is not asked for a while."""


class PrometheusMetrics:
    """Queries of one Prometheus (or what speaks its API). `timeout_s` bounds each call, retries
    included. With `circuits`, one that keeps failing is left alone for a while; `rate` bounds what
    this process asks of it.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str] | None = None,
        in_flight: int = IN_FLIGHT,
        circuits: CircuitStore | None = None,
        rate: RateLimit | None = None,
    ) -> None:
        self._url = f"{url.rstrip('/')}/api/v1"
        self._timeout_s = timeout_s
        self._in_flight = in_flight
        self._under_way: set[Future[QueryResult | str]] = set()
        self._rate = rate
        self._breaker = None if circuits is None else _breaker_of(circuits)
        self._client = httpx.Client(
            headers={**_PLAIN, **(headers or {})}, limits=httpx.Limits(max_connections=in_flight)
        )

    def query(self, promql: str, *, at: datetime) -> QueryResult:
        """One instant query. Raises MetricsError."""
        return self._ask(promql, at, deadline=time.monotonic() + self._timeout_s)

    def query_many(
        self, queries: Mapping[str, str], *, at: datetime
    ) -> Mapping[str, QueryResult | str]:
        """Several queries under one deadline, a few at a time; an error's text for those that
        failed. They are under way when this returns: to look an answer up is to wait for it.
        """
        deadline = time.monotonic() + self._timeout_s

        def one(promql: str) -> QueryResult | str:
            try:
                return self._ask(promql, at, deadline=deadline)
            except MetricsError as e:
                return str(e)

        asked: dict[str, Future[QueryResult | str]] = {}
        pool = ThreadPoolExecutor(self._in_flight, "prometheus")
        for name, promql in queries.items():
            is_trial = not asked and self._breaker is not None and not self._breaker.is_closed
            # in the caller's context: what is urgent is asked though the circuit is open
            asked[name] = pool.submit(copy_context().run, one, promql)
            self._under_way.add(asked[name])
            asked[name].add_done_callback(self._under_way.discard)
            if is_trial:  # alone: while a trial is under way the others are refused
                asked[name].result()
        pool.shutdown(wait=False)  # its threads end with what they were given
        return Arriving({name: answer.result for name, answer in asked.items()})

    def _ask(self, promql: str, at: datetime, *, deadline: float) -> QueryResult:
        if isinstance(promql, Held):
            answer = self._in_one_pass(promql, at, deadline)
            if answer is not None:
                return answer
        path, form = request(str(promql), at)
        return retried(
            lambda: decode(self._body(path, form, deadline=deadline)),
            on=(_TryAgainError,),
            is_idempotent=True,  # a query changes nothing
            deadline_s=max(0.0, deadline - time.monotonic()),
            attempts=ATTEMPTS,
            first_s=0.1,
            longest_s=2.0,
        )

    def _in_one_pass(self, held: Held, at: datetime, deadline: float) -> QueryResult | None:
        """None where there is no such range, for whatever reason: a proxy lets none through or
        makes another of it, the answer is too large. Then the text is asked, which says it all,
        and only what becomes of that is said and counted.
        """
        if self._breaker is not None and not self._breaker.is_closed:
            return None
        path, form = request(held, at)
        try:
            self._wait(deadline)
            return decode_held(self._post(path, form, deadline=deadline), form)
        except MetricsError:
            return None

    def _body(self, path: str, form: Mapping[str, str], *, deadline: float) -> bytearray:
        self._wait(deadline)
        if self._breaker is None:
            return self._post(path, form, deadline=deadline)
        return self._breaker.call(lambda: self._post(path, form, deadline=deadline))

    def _wait(self, deadline: float) -> None:
        waits = self._rate.reserve() if self._rate is not None else 0.0
        if time.monotonic() + waits >= deadline:  # nobody was asked: no word about Prometheus
            raise MetricsError(
                "Prometheus was too slow: the deadline of the sweep's queries is over"
            )
        time.sleep(waits)

    def _post(self, path: str, form: Mapping[str, str], *, deadline: float) -> bytearray:
        """The body of a 200; the deadline holds over the whole body, not between two packets."""
        left = max(0.001, deadline - time.monotonic())
        data = {**form, "timeout": f"{left:.3f}"}
        url = f"{self._url}/{path}"
        try:
            with self._client.stream("POST", url, data=data, timeout=left) as response:
                body = _read(response, deadline=deadline)
        except httpx.TimeoutException as e:
            raise _SlowError(f"Prometheus did not answer in {left:.0f} s") from e
        except httpx.TransportError as e:
            raise _AbsentError(f"Prometheus could not be reached: {cut(str(e))}") from e
        except httpx.HTTPError as e:
            raise MetricsError(f"Prometheus could not be asked: {cut(str(e))}") from e
        if response.status_code in _BUSY:
            is_there = response.status_code == httpx.codes.TOO_MANY_REQUESTS
            raise (_TryAgainError if is_there else _AbsentError)(
                f"Prometheus is busy (HTTP {response.status_code}): {_why(body)}",
                retry_after_s=retry_after_s(response.headers.get("Retry-After", "")),
            )
        if response.status_code != httpx.codes.OK:
            raise MetricsError(
                f"Prometheus refused the query (HTTP {response.status_code}): {_why(body)}"
            )
        return body

    def close(self) -> None:
        """What is under way is answered first."""
        wait(list(self._under_way))
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _breaker_of(circuits: CircuitStore) -> Breaker:
    return Breaker(
        "prometheus",
        on=(_AbsentError, _SlowError),
        store=circuits,
        now=lambda: datetime.now(UTC),
        opens_as=LeftAlone,
    )


def _read(response: httpx.Response, *, deadline: float) -> bytearray:
    body = bytearray()
    for chunk in response.iter_bytes():
        body += chunk
        if len(body) > MAX_BODY:
            raise MetricsError(f"Prometheus' answer is larger than {MAX_BODY >> 20} MiB")
        if time.monotonic() > deadline:
            raise MetricsError("Prometheus sent its answer too slowly: the deadline is over")
    return body


def request(promql: str, at: datetime) -> tuple[str, Mapping[str, str]]:
    """Path below /api/v1, and form, of a query; of one that is Held, for all of its instants."""
    until = round(at.timestamp() * 1000)
    if not isinstance(promql, Held):
        return "query", {"query": promql, "time": _seconds(until)}
    step = max(1, int(promql.step_s * 1000))  # down, so that the last step ends now
    return "query_range", {
        "query": f"({promql.speaks}) or {_CLOCK}",
        "start": _seconds(until - step * promql.steps),
        "end": _seconds(until),
        "step": _seconds(step),
    }


def _seconds(milliseconds: int) -> str:
    return f"{milliseconds // 1000}.{milliseconds % 1000:03}"


def decode(body: bytes | bytearray) -> QueryResult:
    """An answer of /api/v1/query, vector or scalar, to samples. Raises MetricsError."""
    with _understood():
        answer = _succeeded(body)
        samples = _samples(answer.data)
    return QueryResult(samples, _warnings(answer))


def decode_held(body: bytes | bytearray, form: Mapping[str, str]) -> QueryResult | None:
    """An answer to a `request` for all instants of a Held query: the series that are there at each
    of them, with their last values.

    None where the instants are others than those asked for, or where series have names: `and`, for
    which this stands, does not look at them. Raises MetricsError.
    """
    with _understood():
        answer = _succeeded(body)
        if answer.data.resultType != "matrix":
            raise _not_a("matrix", answer.data)
        result = bytes(answer.data.result)
        series = _MATRIX.decode(result)
        clock = next((s.values for s in series if bytes(s.metric) == _NO_LABELS), [])
        if _NAME in result or not _is_of_instants(clock, form):
            return None
        whole = [
            _Series(s.metric, s.values[-1])
            for s in series
            if len(s.values) == len(clock) and s.values is not clock
        ]
        samples = JsonVector(msgspec.Raw(msgspec.json.encode(whole)))
    return QueryResult(samples, _warnings(answer))


def _is_of_instants(clock: Sequence[_Point], form: Mapping[str, str]) -> bool:
    start, end, step = (float(form[k]) for k in ("start", "end", "step"))
    wanted = [start + i * step for i in range(round((end - start) / step) + 1)]
    return len(clock) == len(wanted) and all(
        abs(p.time - t) < _SAME_S for p, t in zip(clock, wanted, strict=True)
    )


def _warnings(answer: _Answer) -> tuple[str, ...]:
    return tuple(cut(w) for w in answer.warnings)


def _succeeded(body: bytes | bytearray) -> _Answer:
    answer = _ANSWER.decode(body)
    if answer.status != "success":
        raise MetricsError(f"Prometheus refused the query: {cut(answer.error)}")
    return answer


@contextmanager
def _understood() -> Iterator[None]:
    try:
        yield
    except (msgspec.DecodeError, ValueError) as e:
        raise MetricsError(f"Prometheus' answer is not understood: {cut(str(e))}") from e


def _samples(data: _Data) -> Sequence[Sample]:
    if data.resultType == "vector":
        return JsonVector(data.result)
    if data.resultType == "scalar":
        return (Sample({}, float(_SCALAR.decode(data.result)[1])),)
    raise _not_a("vector", data)


def _not_a(kind: str, data: _Data) -> MetricsError:
    return MetricsError(
        f"Prometheus answered with a {cut(data.resultType) or 'nothing'}, not a {kind}"
    )


def _why(body: bytes | bytearray) -> str:
    try:
        return cut(_ANSWER.decode(body).error or "no reason given")
    except msgspec.DecodeError:
        return cut(body[: 4 * MAX_ERROR].decode("utf-8", "replace"))


def cut(text: str) -> str:
    """Text from outside, on one line and short."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_ERROR else line[: MAX_ERROR - 1] + "…"
