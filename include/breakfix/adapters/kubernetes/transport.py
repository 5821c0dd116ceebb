"""Requests to the API server: timeouts, bounded retries, and answers turned into our errors.

The official client brings credentials (kubeconfig, exec plugins, token files) and the connection
pool. Its models are left out: decoding a list with them costs twenty times the typed decoding here,
and its own retries (urllib3 repeats even a DELETE) are switched off.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import msgspec
import urllib3
from kubernetes.client import ApiClient
from urllib3.exceptions import HTTPError, SSLError

from breakfix.errors import CircuitOpen, ClusterError, Conflict, Forbidden, NotFound
from breakfix.resilience.breaker import Breaker, CircuitStore
from breakfix.resilience.retry import retried, retry_after_s

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

#: Statuses after which asking again may help: priority and fairness, overload, a lost leader.
TRANSIENT = frozenset({429, 500, 502, 503, 504})
#: Statuses of a server that is not there. 429 and 500 are words of one that is: a rate, a webhook.
_ABSENT = frozenset({502, 503, 504})
_SUCCESS = range(200, 300)
_ATTEMPTS = 4
_CONNECT_S = 5.0
_MESSAGE_LIMIT = 500  # characters of a foreign message that we repeat


class Cause(msgspec.Struct, gc=False):
    """One cause of a failure."""

    reason: str = ""
    message: str = ""


class _Details(msgspec.Struct, gc=False):
    causes: list[Cause] | None = None
    retry_after: float | None = msgspec.field(default=None, name="retryAfterSeconds")


class Status(msgspec.Struct, gc=False):
    """The API server's answer to what it did not do."""

    message: str = ""
    reason: str = ""
    details: _Details | None = None

    @property
    def causes(self) -> list[Cause]:
        return (self.details.causes or []) if self.details else []


class Unavailable(ClusterError):
    """No answer, or one that asks to come back later."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, is_transient=True)
        self.retry_after_s = retry_after_s


class _Absent(Unavailable):
    """No answer from an API server: nothing, or a proxy's word for nothing. `answer`: that word."""

    def __init__(self, message: str, answer: Answer | None = None) -> None:
        super().__init__(message, retry_after_s=answer.retry_after_s if answer else None)
        self.answer = answer


class LeftAlone(CircuitOpen, ClusterError):
    """The API server failed so often that it is not asked for a while."""


class Expired(ClusterError):
    """410: the version a list was read at is gone; read it from the start."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and the wait that was asked for, whatever they are."""

    status: int
    body: bytes
    retry_after_s: float | None = None

    @property
    def is_ok(self) -> bool:
        return self.status in _SUCCESS

    def failure(self) -> Status:
        """The Status in the body; text that is none (429 of fairness, a proxy) as its message."""
        try:
            return _STATUS.decode(self.body)
        except msgspec.MsgspecError:
            return Status(message=self.body.decode("utf-8", "replace").strip()[:_MESSAGE_LIMIT])


_STATUS = msgspec.json.Decoder(Status)


def breaker_of(circuits: CircuitStore) -> Breaker:
    """The breaker of the API server, in circuits that others may share."""
    return Breaker(
        "kubernetes",
        on=(_Absent,),
        store=circuits,
        now=lambda: datetime.now(UTC),
        opens_as=LeftAlone,
    )


class Transport:
    """One API server. Thread-safe as far as the client's connection pool is.

    Without `circuits` it is always asked: a person's own command does not wait for a breaker.
    """

    def __init__(
        self, client: ApiClient, *, timeout_s: float, circuits: CircuitStore | None = None
    ) -> None:
        self._client = client
        self._breaker = None if circuits is None else breaker_of(circuits)
        self._host = client.configuration.host.rstrip("/")
        self._timeout = urllib3.Timeout(connect=min(_CONNECT_S, timeout_s), read=timeout_s)
        self._longest_s = timeout_s * _ATTEMPTS

    def read(self, path: str, query: Mapping[str, Any] | None = None) -> bytes:
        """GET, retried on transient failures. Raises a ClusterError."""
        return self._retried(lambda: self._call("GET", path, query, None, JSON), is_idempotent=True)

    def write(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any],
        *,
        content_type: str = JSON,
        query: Mapping[str, Any] | None = None,
        is_repeatable: bool = False,
    ) -> bytes:
        """One write. `is_repeatable`: a version, uid or name in it makes a second one harmless."""
        query = {"fieldManager": "breakfix", **(query or {})} if method != "DELETE" else query

        def once() -> bytes:
            return self._call(method, path, query, body, content_type)

        return self._retried(once, is_idempotent=is_repeatable)

    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> Answer:
        """One request and whatever was answered. Raises Unavailable when nothing was, LeftAlone
        when nobody was asked.
        """

        def once() -> Answer:
            return self._once(method, path, query, body, content_type)

        try:
            return once() if self._breaker is None else self._breaker.call(once)
        except _Absent as e:
            if e.answer is None:
                raise
            return e.answer

    def _once(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
    ) -> Answer:
        """Raises _Absent for what the breaker counts, be it no answer or one that says so."""
        headers = {"Accept": JSON, "User-Agent": "breakfix"}
        if body is not None:
            headers["Content-Type"] = content_type
        self._client.update_params_for_auth(headers, [], ["BearerToken"])
        url = f"{self._host}{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            response = self._client.rest_client.pool_manager.request(
                method,
                url,
                body=None if body is None else json.dumps(body),
                headers=headers,
                timeout=self._timeout,
                retries=False,
                redirect=False,
            )
        except SSLError as e:
            raise ClusterError(f"{method} {path}: {e}") from e
        except HTTPError as e:
            raise _Absent(f"{method} {path}: no answer: {e}") from e
        asked = retry_after_s(response.headers.get("Retry-After", ""))
        answer = Answer(response.status, response.data, asked)
        if answer.status in _ABSENT:
            raise _Absent(f"{method} {path}: {answer.status}", answer)
        return answer

    def close(self) -> None:
        """Give the connections back."""
        manager = self._client.rest_client.pool_manager
        for key in manager.pools.keys():  # noqa: SIM118 it is no mapping
            pool = manager.pools.get(key)
            if pool is not None:
                pool.close()  # clear() alone leaves that to the garbage collector
        manager.clear()
        self._client.close()

    def _call(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None,
        body: Mapping[str, Any] | None,
        content_type: str,
    ) -> bytes:
        answer = self.send(method, path, query, body, content_type)
        if not answer.is_ok:
            raise error_of(answer, f"{method} {path}")
        return answer.body

    def _retried(self, once: Callable[[], bytes], *, is_idempotent: bool) -> bytes:
        return retried(
            once,
            on=(Unavailable,),
            is_idempotent=is_idempotent,
            deadline_s=self._longest_s,
            attempts=_ATTEMPTS,
        )


def error_of(answer: Answer, what: str) -> ClusterError:
    """Our error for an answer that is no success; `what` is the request, for the message."""
    status = answer.failure()
    text = f"{what}: {answer.status} {status.message}"
    match answer.status:
        case 401:
            return Forbidden(f"{text} (the credentials are not accepted)")
        case 403:
            return Forbidden(text)
        case 404:
            return NotFound(text)
        case 409:
            return Conflict(text)
        case 410:
            return Expired(text, is_transient=True)
        case code if code in TRANSIENT:
            return Unavailable(text, retry_after_s=answer.retry_after_s)
        case _:
            return ClusterError(text)
