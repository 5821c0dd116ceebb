"""Faults of the API itself: latency, error answers, dropped connections, stale watches."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from simfleet.kube.errors import ApiError


class FaultKind(StrEnum):
    """What goes wrong with a request."""

    LATENCY = "latency"
    TOO_MANY = "too_many"
    ERROR = "error"
    DROP = "drop"
    STALE_WATCH = "stale_watch"


@dataclass(slots=True)
class ApiFault:
    """One rule: which requests it hits and what it does to them.

    `method` and `path` are regular expressions, matched from the start. `times` is how many
    requests it hits, None for all. `latency_s` is real seconds, waited before anything else.
    `hits` counts.
    """

    kind: FaultKind
    method: str = ".*"
    path: str = ".*"
    latency_s: float = 0.0
    times: int | None = None
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        """Whether the rule hits this request; counts it if so."""
        if self.times is not None and self.hits >= self.times:
            return False
        if not (re.match(self.method, method) and re.match(self.path, path)):
            return False
        self.hits += 1
        return True


@dataclass(slots=True)
class Effect:
    """What the rules together do to one request."""

    latency_s: float = 0.0
    error: ApiError | None = None
    drop: bool = False
    stale_watch: bool = False


@dataclass(slots=True)
class Faults:
    """The rules in force. Change the list at any time, on the API's own thread."""

    rules: list[ApiFault] = field(default_factory=list)

    def add(self, fault: ApiFault) -> ApiFault:
        """Put a rule in force; it is returned for its `hits`."""
        self.rules.append(fault)
        return fault

    def clear(self) -> None:
        """Take every rule away."""
        self.rules.clear()

    def effect(self, method: str, path: str) -> Effect:
        """What happens to a request now."""
        made = Effect()
        for rule in self.rules:
            if rule.takes(method, path):
                made.latency_s += rule.latency_s
                _apply(rule.kind, made)
        return made


def _apply(kind: FaultKind, effect: Effect) -> None:
    match kind:
        case FaultKind.TOO_MANY:
            effect.error = too_many_requests()
        case FaultKind.ERROR:
            effect.error = unexpected_error()
        case FaultKind.DROP:
            effect.drop = True
        case FaultKind.STALE_WATCH:
            effect.stale_watch = True


def too_many_requests() -> ApiError:
    """429 of priority and fairness: plain text, with Retry-After."""
    text = "Too many requests, please try again later.\n"
    headers = {"Retry-After": "1"}
    return ApiError(429, "TooManyRequests", text, headers=headers, plain_text=text)


def unexpected_error() -> ApiError:
    """500 with reason InternalError, as when the storage behind the API is away."""
    message = "Internal error occurred: etcdserver: request timed out"
    causes = [{"message": "etcdserver: request timed out"}]
    details: dict[str, Any] = {"causes": causes}
    return ApiError(500, "InternalError", message, details=details)
