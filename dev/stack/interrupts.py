"""Ctrl-C, TERM and a closed terminal end a stack in order; a second one does not break the end."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - the signal module's
    raise KeyboardInterrupt


@contextmanager
def ending_signals_interrupt() -> Iterator[None]:
    """Within it, each ending signal raises KeyboardInterrupt in the main thread."""
    before = {number: signal.signal(number, _interrupt) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_signals_wait() -> Iterator[None]:
    """Within it, ending signals are ignored: for the ending itself, which has its own deadlines."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
