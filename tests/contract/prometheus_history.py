"""Histories of scrapes, written into a real Prometheus at once: an hour without the waiting."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import httpx

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[
    0
]  # Prometheus' staleness marker

Value = Callable[
    [float], float | None
]  # seconds since the history's start -> value; None: no series


@dataclass
class History:
    """What a Prometheus that scrapes every `every_s` seconds until `end` (Unix time) has seen.

    A series whose value becomes None is marked stale, as when a scrape no longer has it, or fails.
    """

    end: float
    length_s: float = 1800.0
    every_s: float = 15.0
    series: list[tuple[dict[str, str], Value]] = field(default_factory=list)

    def add(self, name: str, value: Value | float, **labels: str) -> None:
        made = value if callable(value) else lambda _t, v=value: v
        self.series.append(({"__name__": name, **labels}, made))

    def write(self, url: str) -> None:
        """Send everything in one request; raises when Prometheus does not take it."""
        body = b"".join(_message(1, _series(labels, self._samples(v))) for labels, v in self.series)
        answer = httpx.post(
            f"{url}/api/v1/write",
            content=_snappy(body),
            headers={
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            },
            timeout=30.0,
        )
        assert answer.status_code == 204, answer.text

    def _samples(self, value: Value) -> Iterator[tuple[float, int]]:
        was_there = False
        for tick in range(int(self.length_s / self.every_s) + 1):
            since = tick * self.every_s
            now = value(since)
            when = int((self.end - self.length_s + since) * 1000)
            if now is not None or was_there:
                yield (STALE if now is None else now), when
            was_there = now is not None


def _series(labels: Mapping[str, str], samples: Iterator[tuple[float, int]]) -> bytes:
    names = b"".join(
        _message(1, _message(1, k.encode()) + _message(2, v.encode()))
        for k, v in sorted(labels.items())
    )
    values = b"".join(
        _message(2, b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(when))
        for value, when in samples
    )
    return names + values


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _snappy(data: bytes) -> bytes:
    """Snappy's block format with literals only: valid, if not small."""
    out = bytearray(_varint(len(data)))
    for start in range(0, len(data), 65536):
        chunk = data[start : start + 65536]
        out += bytes([61 << 2]) + struct.pack("<H", len(chunk) - 1) + chunk
    return bytes(out)
