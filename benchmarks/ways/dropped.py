"""The same queries, the same number in flight, and every body thrown away: the server's share."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from benchmarks.ways import Setup
from breakfix.adapters.prometheus import IN_FLIGHT

_CHUNK = 1 << 16


def prepare(setup: Setup) -> Callable[[], int]:
    """All recorded queries, batch after batch; how many bytes they were."""
    host = urlsplit(setup.url).netloc
    batches: list[list[tuple[str, str]]] = json.loads(setup.queries.read_text())

    def drop(asked: tuple[str, str]) -> int:
        path, form = asked
        connection = http.client.HTTPConnection(host, timeout=120.0)
        head = {"Content-Type": "application/x-www-form-urlencoded"}
        connection.request("POST", f"/api/v1/{path}", form, head)
        answer = connection.getresponse()
        assert answer.status == http.client.OK, answer.read()
        size = 0
        while chunk := answer.read(_CHUNK):
            size += len(chunk)
        connection.close()
        return size

    def work() -> int:
        with ThreadPoolExecutor(IN_FLIGHT) as pool:
            return sum(sum(pool.map(drop, dict.fromkeys(map(tuple, batch)))) for batch in batches)

    return work


def told(result: Any) -> dict[str, Any]:
    return {"mib": result / (1 << 20)}
