"""XIDs as dcgm-exporter shows them: a sticky last value, counts over a trailing window, totals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from breakfix.replay.baseline import XID_COUNT, XID_LAST, XID_TOTAL, Plain
from breakfix.replay.values import GONE, MISSING, Floats, Track, constant

WINDOW_S = 300.0  # dcgm-exporter --xid-count-window-size, by default 300000 ms

# Text that the exporter gives with each code (NVIDIA Xid catalogue).
TEXTS = {
    0: "No Error",
    13: "Graphics Engine Exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "Preemptive cleanup, due to previous errors",
    48: "Double Bit ECC Error",
    63: "GPU memory remapping event",
    64: "GPU memory remapping failure",
    74: "NVLINK Error",
    79: "GPU has fallen off the bus",
    94: "Contained memory error",
    95: "Uncontained memory error",
    119: "GSP RPC Timeout",
    120: "GSP Error",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What the driver reported on one GPU: (time, code) in order, and the exporter's restarts."""

    events: Sequence[tuple[float, int]]
    restarts: Sequence[float]


def xid_series(metrics: Sequence[str], said: Said, times: Floats) -> Iterator[Plain]:
    """The XID series of one GPU that the chosen metric groups have."""
    if "xid" in metrics:
        yield Plain(XID_LAST, {}, last_value(said, times), value_label="err_code")
    if "xid_count" in metrics:
        yield from _counts(said, times)
    if "xid_total" in metrics:
        yield from _totals(said, times)


def last_value(said: Said, times: Floats) -> Track:
    """The gauge: the last code, until the exporter restarts."""
    track = constant(0.0, len(times))
    marks = [*((at, float(code)) for at, code in said.events), *((at, 0.0) for at in said.restarts)]
    for at, value in sorted(marks, key=lambda m: m[0]):
        track.values[times >= at] = value
    return track


def _counts(said: Said, times: Floats) -> Iterator[Plain]:
    window = {"window_size_in_ms": "300000"}
    total = np.zeros(len(times))
    for code in sorted({code for _, code in said.events}):
        count = np.zeros(len(times))
        for at, other in said.events:
            if other == code:
                count += (times >= at) & (times < min(at + WINDOW_S, _forgotten(said, at)))
        total += count
        yield Plain(XID_COUNT, {**window, "xid": str(code)}, _where(count, count > 0))
    yield Plain(XID_COUNT, window, _where(np.zeros(len(times)), total == 0))


def _totals(said: Said, times: Floats) -> Iterator[Plain]:
    for code in sorted({code for _, code in said.events}):
        count = np.zeros(len(times))
        for at, other in said.events:
            if other == code:
                count += (times >= at) & (times < _forgotten(said, at))
        yield Plain(XID_TOTAL, {"xid": str(code)}, _where(count, count > 0))


def _forgotten(said: Said, at: float) -> float:
    return min((r for r in said.restarts if r > at), default=float("inf"))


def _where(values: Floats, is_there: np.ndarray) -> Track:
    seen = np.maximum.accumulate(is_there)
    states = np.where(is_there, 0, np.where(seen, GONE, MISSING)).astype(np.uint8)
    return Track(values, states)
