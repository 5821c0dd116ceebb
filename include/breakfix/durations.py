"""Durations as people write them: `90s`, `15m`, `24h`, `7d`."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_DURATION = re.compile(r"^(\d+(?:\.\d+)?)(ms|s|m|h|d)$")
_UNIT_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def parse_duration(value: object) -> float:
    """Seconds from `90`, `"90s"`, `"15m"`, `"24h"`; ValueError says what is wanted."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    match = _DURATION.match(str(value))
    if match is None:
        msg = f"{value!r} is no duration; write e.g. 90s, 15m or 24h"
        raise ValueError(msg)
    return float(match[1]) * _UNIT_S[match[2]]


Seconds = Annotated[float, BeforeValidator(parse_duration), Field(ge=0)]
