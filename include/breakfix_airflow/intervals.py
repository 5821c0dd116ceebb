"""Intervals of schedules, read while a DAG is parsed: a wrong value must not take the DAG away."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta

log = logging.getLogger(__name__)

SHORTEST_S = 5.0
LONGEST_S = 86400.0


def interval(
    name: str, *, default_s: float, environment: Mapping[str, str] = os.environ
) -> timedelta:
    """Seconds from the environment; the default, and a line in the log, when they make no sense."""
    text = environment.get(name, "").strip()
    if not text:
        return timedelta(seconds=default_s)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not SHORTEST_S <= seconds <= LONGEST_S:
        log.error(
            "%s=%r is no number of seconds from %g to %g: %g is used",
            *(name, text, SHORTEST_S, LONGEST_S, default_s),
        )
        return timedelta(seconds=default_s)
    return timedelta(seconds=seconds)
