"""Samples in Prometheus' remote-write format, made fast: a series' samples are one array of bytes.

Format: the remote-write 1.0 specification (protobuf messages WriteRequest, TimeSeries, Label,
Sample; snappy's block format).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import httpx
import numpy as np
from numpy.typing import NDArray

from breakfix.errors import MetricsError
from breakfix.replay.values import Floats

Millis = NDArray[np.int64]

BATCH_BYTES = 8 << 20  # one request: large enough to be fast, small enough to be held twice
WRITE_TIMEOUT_S = 120.0
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
_EARLIEST, _LATEST = 1 << 35, 1 << 42  # ms: what takes six bytes as varint, 1971 to 2109
_SAMPLE = np.frombuffer(b"\x12\x10\x09" + bytes(8) + b"\x10" + bytes(6), np.uint8)
_MOST = 50_000  # samples of one series in one message


@dataclass(frozen=True, slots=True)
class WrittenSeries:
    """One series: labels (with __name__), ascending times in ms since 1970, values."""

    labels: Mapping[str, str]
    times: Millis
    values: Floats


def write(url: str, series: Iterable[WrittenSeries], client: httpx.Client | None = None) -> int:
    """Send all samples to a remote-write receiver in batches; how many there were.

    Raises MetricsError when the receiver does not take one of them.
    """
    if client is None:
        with httpx.Client() as own:
            return write(url, series, own)
    batch: list[bytes] = []
    size = count = 0
    for one in series:
        for start in range(0, len(one.times), _MOST):
            part = slice(start, start + _MOST)
            batch.append(_message(1, encode(one.labels, one.times[part], one.values[part])))
            size += len(batch[-1])
            if size >= BATCH_BYTES:
                _post(client, url, batch)
                batch, size = [], 0
        count += len(one.times)
    if batch:
        _post(client, url, batch)
    return count


def _post(client: httpx.Client, url: str, batch: list[bytes]) -> None:
    body = snappy(b"".join(batch))
    try:
        answer = client.post(
            f"{url}/api/v1/write", content=body, headers=_HEADERS, timeout=WRITE_TIMEOUT_S
        )
    except httpx.HTTPError as e:
        raise MetricsError(f"Prometheus did not take the samples: {e}") from e
    if answer.status_code != httpx.codes.NO_CONTENT:
        raise MetricsError(f"Prometheus did not take the samples: {answer.text[:300].strip()}")


def encode(labels: Mapping[str, str], times: Millis, values: Floats) -> bytes:
    """One TimeSeries message, without its tag. ValueError for times that are no real ones."""
    names = b"".join(
        _message(1, _message(1, k.encode()) + _message(2, v.encode()))
        for k, v in sorted(labels.items())
        if v
    )
    return names + encode_samples(times, values)


def encode_samples(times: Millis, values: Floats) -> bytes:
    """The Sample messages: 18 bytes each, because every time of our age takes six bytes."""
    if len(times) == 0:
        return b""
    if int(times.min()) < _EARLIEST or int(times.max()) >= _LATEST:
        raise ValueError("a sample's time must lie between 1971 and 2109")
    out = np.tile(_SAMPLE, (len(times), 1))
    out[:, 3:11] = np.ascontiguousarray(values, "<f8").view(np.uint8).reshape(-1, 8)
    rest = times.astype(np.uint64)
    for place in range(6):
        more = 0x80 if place < 5 else 0  # noqa: PLR2004 - the sixth byte is the last
        out[:, 12 + place] = (rest & np.uint64(0x7F)).astype(np.uint8) | np.uint8(more)
        rest >>= np.uint64(7)
    return out.tobytes()


def _message(number: int, content: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:  # noqa: PLR2004 - seven bits a byte
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def snappy(data: bytes) -> bytes:
    """Snappy's block format with one literal: valid, if not small."""
    if not data:
        return b"\x00"
    return b"".join((_varint(len(data)), b"\xfc", struct.pack("<I", len(data) - 1), data))
