"""Ask again, a bounded number of times, and only where asking twice does no harm."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt

T = TypeVar("T")

#: Named classes of error, or a question about one where the class alone does not tell.
Which = tuple[type[Exception], ...] | Callable[[BaseException], bool]

ATTEMPTS = 4
FIRST_S = 0.2
LONGEST_S = 5.0
#: The longest wait that a server may ask for; for a longer one nobody stays: it is an outage.
LONGEST_RETRY_AFTER_S = 30.0


def retried(
    call: Callable[[], T],
    *,
    on: Which,
    is_idempotent: bool,
    deadline_s: float,
    attempts: int = ATTEMPTS,
    first_s: float = FIRST_S,
    longest_s: float = LONGEST_S,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> T:
    """What `call` returns, or the last error it raised.

    Only errors of the classes `on` are worth another try, and only of a call that `is_idempotent`:
    one that may have been done must not be done twice. Waits double from `first_s` up to
    `longest_s` with full jitter (anything from zero to that), so that callers which failed together
    do not come back together. An error with `retry_after_s` names its own wait, and nobody comes
    back before it is over: one that is too long ends the tries. No try begins later than
    `deadline_s` seconds after the first.
    """
    if not is_idempotent:
        return call()
    start = clock()
    try:
        return call()
    except Exception as e:  # noqa: BLE001 it is raised again below, by the rules
        first = [e]

    def again() -> T:  # nearly every call ends above: only then the rules cost something
        if first:
            raise first.pop()
        return call()

    def wait(state: RetryCallState) -> float:
        return _wait_s(state, first_s=first_s, longest_s=longest_s)

    def is_worth_it(error: BaseException) -> bool:
        return isinstance(error, on) if isinstance(on, tuple) else on(error)

    def is_enough(state: RetryCallState) -> bool:
        is_too_late = clock() - start + state.upcoming_sleep > deadline_s
        is_outage = (_asked_s(state) or 0.0) > LONGEST_RETRY_AFTER_S
        return is_too_late or is_outage or stop_after_attempt(attempts)(state)

    retrying = Retrying(
        retry=retry_if_exception(is_worth_it),
        stop=is_enough,
        wait=wait,
        sleep=sleep,
        reraise=True,
    )
    return retrying(again)


def retry_after_s(header: str, *, now: datetime | None = None) -> float | None:
    """The wait in seconds that a Retry-After header asks for: a number, or a date (RFC 9110).

    None when it is empty or not understood; never less than zero.
    """
    text = header.strip()
    if text.isascii() and text.isdigit():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - (now or datetime.now(UTC))).total_seconds())


def _wait_s(state: RetryCallState, *, first_s: float, longest_s: float) -> float:
    asked_s = _asked_s(state)
    return backoff_s(state.attempt_number, first_s=first_s, longest_s=longest_s, asked_s=asked_s)


def backoff_s(
    tries: int, *, first_s: float, longest_s: float, asked_s: float | None = None
) -> float:
    """Seconds to wait after so many tries (1 or more), with full jitter.

    `asked_s` is what the server asked for: never less than that.
    """
    widest = min(longest_s, first_s * 2.0 ** (tries - 1))
    jitter = random.uniform(0.0, widest)  # noqa: S311 no secret: it spreads callers
    if asked_s is None:
        return jitter
    return asked_s + min(jitter, 0.5)


def _asked_s(state: RetryCallState) -> float | None:
    """The wait that the last error names, if it names one."""
    error = state.outcome.exception() if state.outcome is not None else None
    asked = getattr(error, "retry_after_s", None)
    return None if asked is None else float(asked)
