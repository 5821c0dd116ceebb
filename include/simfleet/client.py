"""A client of the control API, for the command line and for demo drivers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_S = 10.0


class ControlError(Exception):
    """The control API could not be reached or said no; the message says which."""


class ControlClient:
    """Talks to `/sim/...` of a running simulation."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        """The JSON at a path. Raises ControlError."""
        return self._ask("GET", path, query=query).json()

    def get_text(self, path: str) -> str:
        """The text at a path. Raises ControlError."""
        return self._ask("GET", path).text

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a JSON body. Raises ControlError."""
        return self._ask("POST", path, body=body).json()

    def put(self, path: str, body: Mapping[str, Any]) -> Any:
        """The answer to a JSON body. Raises ControlError."""
        return self._ask("PUT", path, body=body).json()

    def delete(self, path: str) -> Any:
        """The answer to a DELETE. Raises ControlError."""
        return self._ask("DELETE", path).json()

    def _ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> httpx.Response:
        try:
            answer = httpx.request(
                method, self._url + path, params=query, json=body, timeout=TIMEOUT_S
            )
        except httpx.HTTPError as error:
            raise ControlError(f"no answer from simfleet at {self._url}: {error}") from error
        if answer.is_error:
            raise ControlError(_reason(answer))
        return answer


def _reason(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text.strip()[:200]}"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read."""
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
