"""Numbers of the policy as people write them. Pure."""

from __future__ import annotations

from collections.abc import Mapping

COMPARED = {
    ">": "is above {limit}",
    ">=": "is {limit} or more",
    "<": "is below {limit}",
    "==": "is exactly {limit}",
    "!=": "is anything but {limit}",
}

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "m"), (1.0, "s"))


def seconds(value: float) -> str:
    """`21600` -> `6h`, `90` -> `90s`; what the policy's file would have."""
    for size, unit in _UNITS:
        if value >= size and value % size == 0:
            return f"{value / size:g}{unit}"
    return f"{value:g}s" if value else "0s"


_DURATIONS = frozenset(
    {
        "window",
        "hold",
        "also_window",
        "clear_window",
        "attempts_window",
        "cooldown",
        "override_hold",
        "timeout",
        "poll",
    }
)


def said(path: str, value: object) -> str:
    """A value of the policy as its file would have it; durations by their unit."""
    name = path.rpartition(".")[2]
    is_duration = name in _DURATIONS or path.startswith("timing.")
    if is_duration and isinstance(value, int | float) and not isinstance(value, bool):
        return seconds(float(value))
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {said('', v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(said("", v) for v in value) + "]"
    text = " ".join(str(value).split())
    return "nothing" if text in {"", "None"} else text
