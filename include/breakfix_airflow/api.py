"""Airflow's public API, asked as a service user: the only door to runs and answers for a task."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from breakfix.errors import AirflowError, CircuitOpen, SettingsError
from breakfix.resilience.breaker import Breaker, CircuitStore
from breakfix.resilience.retry import retried, retry_after_s
from breakfix.settings import Settings

TIMEOUT_S = 30.0  # an API server under load takes seconds; a task that waits costs little
ATTEMPTS = 3
LONGEST_S = 60.0  # no try begins later than this after the first
PAGE = 100
MAX_PAGES = 20
TEXT_MAX = 300  # of an answer that goes into an error: enough to know it, not enough to flood a log

#: Statuses of a proxy in front of a server that is not there.
_ABSENT = frozenset({502, 503, 504})
_UNAUTHENTICATED = frozenset({401, 403})  # a bad token is told as either


class _AwayError(AirflowError):
    """No answer, or one that says to come back."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message, is_transient=True)
        self.retry_after_s = retry_after_s


class _AbsentError(_AwayError):
    """Airflow is not there: it could not be reached, or a proxy says so."""


class LeftAlone(CircuitOpen, AirflowError):
    """Airflow's API failed so often that it is not asked for a while."""


class AirflowApi:
    """A small client: one login, renewed once when it is refused; every call has a timeout, and is
    repeated a few times only when that does no harm.

    Raises AirflowError (`is_transient` when asking again may help) and SettingsError for what a
    person must mend: the URL, the user, the password, the role.
    """

    def __init__(
        self,
        url: str,
        user: str,
        password: str,
        *,
        transport: httpx.BaseTransport | None = None,
        circuits: CircuitStore | None = None,
    ) -> None:
        self._user = user
        self._password = password
        # No connection outlives its call: it asks a few things a minute, and nobody closes it.
        limits = httpx.Limits(max_keepalive_connections=0)
        self._http = httpx.Client(
            base_url=url, timeout=TIMEOUT_S, limits=limits, transport=transport
        )
        self._token = ""
        self._breaker = None if circuits is None else _breaker_of(circuits)

    @classmethod
    def from_settings(cls, settings: Settings, circuits: CircuitStore | None = None) -> AirflowApi:
        """The client of connection breakfix_airflow, or of BREAKFIX_AIRFLOW_*."""
        settings.require("airflow_url", "airflow_user", "airflow_password")
        return cls(
            settings.airflow_url,
            settings.airflow_user,
            settings.airflow_password,
            circuits=circuits,
        )

    def get(self, path: str, params: Mapping[str, Any] | None = None) -> Any:
        """The JSON of a GET, or None when there is no such thing."""
        answer = self._send("GET", path, params=params)
        return None if answer.status_code == httpx.codes.NOT_FOUND else _json(answer)

    def get_all(self, path: str, key: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
        """All pages of a listing. Raises AirflowError when it is too long to be read."""
        items: list[dict[str, Any]] = []
        for page in range(MAX_PAGES):
            found = self.get(path, {**params, "limit": PAGE, "offset": page * PAGE})
            if found is None:
                raise AirflowError(f"Airflow has no {path}")
            items += found[key]
            if not found[key] or len(items) >= found["total_entries"]:
                return items
        raise AirflowError(f"Airflow lists more than {MAX_PAGES * PAGE} entries in {path}")

    def send(
        self, method: str, path: str, body: Mapping[str, Any], *, is_repeatable: bool = False
    ) -> int:
        """Send JSON; the status, of which 404 and 409 are the caller's to judge.

        `is_repeatable`: a second one does nothing, because of a name or a version in it.
        """
        return self._send(method, path, is_repeatable=is_repeatable, json=body).status_code

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        answer = self._with_token(method, path, **content)
        if answer.status_code in _UNAUTHENTICATED:
            self._token = ""
            answer = self._with_token(method, path, **content)
        if answer.status_code in _UNAUTHENTICATED:
            raise SettingsError(
                f"Airflow refuses {method} {path} to user {self._user!r} ({answer.status_code}): "
                "give the service user a role that may read, trigger and answer DAG runs"
            )
        if answer.is_success or answer.status_code in {404, 409}:
            return answer
        raise AirflowError(_told(f"{method} {path}", answer))

    def _with_token(self, method: str, path: str, **content: Any) -> httpx.Response:
        self._token = self._token or self._login()
        headers = {"Authorization": f"Bearer {self._token}"}
        return self._request(method, f"/api/v2{path}", headers=headers, **content)

    def _login(self) -> str:
        body = {"username": self._user, "password": self._password}
        answer = self._request("POST", "/auth/token", is_repeatable=True, json=body)
        if answer.status_code in _UNAUTHENTICATED:
            raise SettingsError(
                f"Airflow refuses the password of user {self._user!r}: check connection "
                "breakfix_airflow or BREAKFIX_AIRFLOW_PASSWORD"
            )
        if not answer.is_success:
            raise AirflowError(_told("the login", answer))
        return str(_json(answer)["access_token"])

    def _request(
        self, method: str, path: str, *, is_repeatable: bool = False, **content: Any
    ) -> httpx.Response:
        def once() -> httpx.Response:
            return self._once(method, path, **content)

        breaker = self._breaker
        return retried(
            once if breaker is None else lambda: breaker.call(once),
            on=(_AwayError,),
            is_idempotent=is_repeatable or method == "GET",
            deadline_s=LONGEST_S,
            attempts=ATTEMPTS,
        )

    def _once(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **content)
        except httpx.TransportError as e:
            where = self._http.base_url
            text = f"Airflow at {where} does not answer {method} {path}: {type(e).__name__} {e}"
            raise _AbsentError(text) from e
        if answer.is_server_error or answer.status_code == httpx.codes.TOO_MANY_REQUESTS:
            asked = retry_after_s(answer.headers.get("Retry-After", ""))
            error = _AbsentError if answer.status_code in _ABSENT else _AwayError
            raise error(_told(f"{method} {path}", answer), retry_after_s=asked)
        return answer


def _breaker_of(circuits: CircuitStore) -> Breaker:
    return Breaker(
        "airflow",
        on=(_AbsentError,),
        store=circuits,
        now=lambda: datetime.now(UTC),
        opens_as=LeftAlone,
    )


def path_of(*parts: str) -> str:
    """A URL path from names that may hold anything."""
    return "/" + "/".join(quote(part, safe="~") for part in parts)


def _json(answer: httpx.Response) -> Any:
    try:
        return answer.json()
    except ValueError as e:
        text = f"Airflow answered {answer.request.url} with no JSON: {answer.text[:TEXT_MAX]}"
        raise AirflowError(text, is_transient=True) from e


def _told(what: str, answer: httpx.Response) -> str:
    return f"Airflow answered {what} with {answer.status_code}: {answer.text[:TEXT_MAX]}"
