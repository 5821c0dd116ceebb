"""One HTTP request, bounded in time and size, and whether the far side may have acted on it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx

from breakfix.errors import CircuitOpen, RepairError
from breakfix.resilience.breaker import Breaker, CircuitStore
from breakfix.resilience.retry import retried

#: More than any answer that we can use.
LONGEST_ANSWER = 1 << 20
#: The request never left, so nobody can have acted on it.
NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
_TRANSIENT = (httpx.TransportError,)
#: Of a server that is not there, by the word of who stands before it. A 500 is one that is.
_ABSENT = frozenset({502, 503, 504})
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; `json` is an empty map where the body is no JSON object."""

    status: int
    headers: Mapping[str, str]
    json: Mapping[str, Any]
    text: str = ""

    @property
    def is_good(self) -> bool:
        return httpx.codes.is_success(self.status)

    @property
    def is_unclear(self) -> bool:
        """A server that failed may have begun."""
        return httpx.codes.is_server_error(self.status)


class LeftAlone(CircuitOpen, RepairError):
    """It failed so often that it is not asked for a while: nothing was sent."""


class _Absent(Exception):
    """An answer that counts as none."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"HTTP {reply.status}")
        self.reply = reply


def breaker_of(name: str, circuits: CircuitStore) -> Breaker:
    """Of one far side. Its failures: silence, a refused connection, 502 to 504."""
    return Breaker(
        name,
        on=(httpx.TransportError, _Absent),
        store=circuits,
        now=lambda: datetime.now(UTC),
        opens_as=LeftAlone,
    )


def send(
    client: httpx.Client,
    method: str,
    url: str,
    *,
    breaker: Breaker,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    is_idempotent: bool,
    deadline_s: float,
) -> Reply:
    """The answer, whatever its status. Raises RepairError, unclear where it may have been acted on.

    What never left is sent again within the deadline; what left, only when it is idempotent. Raises
    LeftAlone, with nothing sent, while the breaker is open.
    """

    def once() -> Reply:
        with client.stream(method, url, headers=dict(headers or {}), content=body) as answer:
            return _read(answer)

    def answered() -> Reply:
        reply = retried(
            once,
            on=_TRANSIENT if is_idempotent else NEVER_SENT,
            is_idempotent=True,
            deadline_s=deadline_s,
        )
        if reply.status in _ABSENT:
            raise _Absent(reply)
        return reply

    try:
        return breaker.call(answered)
    except _Absent as e:
        return e.reply
    except NEVER_SENT as e:
        raise RepairError(f"{_host(url)} cannot be reached: {e}", is_transient=True) from e
    except httpx.HTTPError as e:
        what = f"{_host(url)} did not answer: {type(e).__name__}"
        raise RepairError(what, is_unclear=not is_idempotent, is_transient=True) from e


def _read(answer: httpx.Response) -> Reply:
    found = bytearray()
    for chunk in answer.iter_bytes():
        found += chunk
        if len(found) > LONGEST_ANSWER:
            raise httpx.DecodingError("the answer is too long")
    text = bytes(found).decode("utf-8", "replace")
    try:
        value = json.loads(text) if text.strip() else {}
    except ValueError:
        value = {}
    shown = " ".join(text.split())[:_SHOWN]
    return Reply(
        answer.status_code, dict(answer.headers), value if isinstance(value, dict) else {}, shown
    )


def _host(url: str) -> str:
    return httpx.URL(url).host
