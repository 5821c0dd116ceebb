"""Repairs that somebody else's system does, asked for by a signed request.

POST <url> with a JSON body asks; GET <url>?key=<key> says what became of it. Both carry
`Idempotency-Key`, `X-Breakfix-Timestamp` (unix seconds) and `X-Breakfix-Signature`, the HMAC-SHA256
(hex) with the shared secret over `<timestamp>.<method>.<key>.<body>`. The far side does the same
key once, and answers with `{"status": "running" | "done" | "failed", "text": ..., "ticket": ...}`;
404 to a GET means that it does not know the key.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from breakfix.adapters.repairs.transport import LeftAlone, Reply, breaker_of, send
from breakfix.errors import RepairError
from breakfix.model import Action
from breakfix.ports import RepairLook, RepairRequest, RepairStatus
from breakfix.resilience.breaker import CircuitStore

VERSION = 1
_NOT_FOUND = frozenset({404, 410})
_UNCLEAR = frozenset({408, 409, 425})
_WORDS = {
    "running": RepairStatus.RUNNING,
    "done": RepairStatus.DONE,
    "failed": RepairStatus.FAILED,
}


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """Where to ask, with which secret, and how long one request may take."""

    url: str
    secret: str = field(repr=False)
    timeout_s: float = 10.0


class WebhookRepairs:
    """`ports.RepairProvider` over one webhook, left alone for a while when it keeps failing."""

    name = "webhook"
    can_compare = True

    def __init__(
        self,
        settings: WebhookSettings,
        *,
        now: Callable[[], float],
        circuits: CircuitStore,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings, self._now, self._transport = settings, now, transport
        self._breaker = breaker_of(f"webhook {httpx.URL(settings.url).host}", circuits)

    def prepare(self, request: RepairRequest) -> Mapping[str, Any]:
        """Nothing to find out: whom it concerns is in the request."""
        return {"webhook": httpx.URL(self._settings.url).host}

    def dispatch(self, request: RepairRequest, handle: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask, unless the far side knows the key already."""
        del handle
        note = {"key": request.key}
        if request.is_replay and self._knows(request.key):
            return note
        reply = self._ask("POST", request.key, _body(request), is_idempotent=False)
        if reply.is_good:
            return {**note, **_said(reply)}
        what = f"HTTP {reply.status} {reply.text}".rstrip()
        is_unclear = reply.is_unclear or reply.status in _UNCLEAR
        raise RepairError(what, is_unclear=is_unclear)

    def _knows(self, key: str) -> bool:
        """Raises RepairError (unclear) when nobody can say, and LeftAlone when nobody was asked."""
        try:
            reply = self._ask("GET", key, b"", is_idempotent=True)
        except LeftAlone:
            raise
        except RepairError as e:
            raise RepairError(f"asked for before, and {e}", is_unclear=True) from e
        if reply.is_good or reply.status in _NOT_FOUND:
            return reply.is_good
        raise RepairError(f"asked for before, and HTTP {reply.status}", is_unclear=True)

    def look(self, action: Action, handle: Mapping[str, Any]) -> RepairLook:
        """Its word on the key. Raises RepairError when it cannot be asked now."""
        del action
        key = str(handle.get("key", ""))
        if not key:
            return RepairLook(RepairStatus.UNKNOWN, "whether the webhook was asked is not known")
        reply = self._ask("GET", key, b"", is_idempotent=True)
        if reply.status in _NOT_FOUND:
            return RepairLook(RepairStatus.UNKNOWN, "the webhook does not know the request")
        status = _WORDS.get(str(reply.json.get("status", "")).lower())
        if not reply.is_good or status is None:
            raise RepairError(f"HTTP {reply.status}: {reply.text}", is_transient=True)
        said = _said(reply)
        words = [str(said[k]) for k in ("ticket", "text") if said.get(k)]
        return RepairLook(status, ": ".join([f"the webhook says {status}", *words]), said)

    def _ask(self, method: str, key: str, body: bytes, *, is_idempotent: bool) -> Reply:
        settings = self._settings
        url = settings.url
        if method == "GET":
            url += f"{'&' if '?' in url else '?'}key={quote(key, safe='')}"
        with httpx.Client(
            timeout=settings.timeout_s, follow_redirects=False, transport=self._transport
        ) as client:
            return send(
                client,
                method,
                url,
                breaker=self._breaker,
                headers=self._headers(method, key, body),
                body=body or None,
                is_idempotent=is_idempotent,
                deadline_s=2 * settings.timeout_s,
            )

    def _headers(self, method: str, key: str, body: bytes) -> Mapping[str, str]:
        stamp = str(int(self._now()))
        return {
            "Content-Type": "application/json",
            "Idempotency-Key": key,
            "X-Breakfix-Timestamp": stamp,
            "X-Breakfix-Signature": signature(self._settings.secret, stamp, method, key, body),
        }


def signature(secret: str, stamp: str, method: str, key: str, body: bytes) -> str:
    """HMAC-SHA256 (hex) over timestamp, method, key and body."""
    text = f"{stamp}.{method}.{key}.".encode() + body
    return hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


def _body(request: RepairRequest) -> bytes:
    value = {
        "version": VERSION,
        "key": request.key,
        "case": request.case_id,
        "step": request.step,
        "action": request.action.value,
        "node": {
            "name": request.node.name,
            "uid": request.node.uid,
            "system_uuid": request.node.system_uuid,
            "boot_id": request.boot_id,
        },
        "gpus": list(request.gpus),
        "evidence": request.evidence,
    }
    return json.dumps(value, sort_keys=True).encode()


def _said(reply: Reply) -> dict[str, str]:
    """Words of the far side, kept short: they are data, and shown to people."""
    return {k: str(reply.json[k])[:300] for k in ("ticket", "text") if reply.json.get(k)}
