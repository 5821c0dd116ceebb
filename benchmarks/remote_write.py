"""Fills a Prometheus' head by remote write: a fleet's ten minutes in one, without a text file."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

import httpx
import numpy as np
import numpy.typing as npt

from benchmarks.fleet import Series, Values

_STALE = 0x7FF0000000000002  # Prometheus' marker of a series that has ended
_SAMPLE = 20  # bytes: tag and length of the message, 9 of the value, 9 of the time
_BATCH = 20_000  # series in one request
_LITERAL = 65536


def write(url: str, series: Series, times_ms: npt.NDArray[np.int64]) -> int:
    """Send all samples of the series; how many they were. Raises httpx.HTTPError."""
    samples = _samples(series.values, times_ms)
    present = ~np.isnan(series.values) | _ends(series.values)
    with httpx.Client(timeout=120.0) as client:
        for start in range(0, len(series.labels), _BATCH):
            rows = range(start, min(start + _BATCH, len(series.labels)))
            _post(client, url, b"".join(_messages(series.labels, samples, present, rows)))
    return int(present.sum())


def _ends(values: Values) -> npt.NDArray[np.bool_]:
    """Where a series has just ended: the first NaN after a number."""
    gone = np.isnan(values)
    ends = np.zeros_like(gone)
    ends[:, 1:] = gone[:, 1:] & ~gone[:, :-1]
    return ends


def _samples(values: Values, times_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Each sample as the bytes of its protobuf message, (series, samples, _SAMPLE)."""
    rows, columns = values.shape
    made = np.empty((rows, columns, _SAMPLE), dtype=np.uint8)
    made[:, :, :3] = (0x12, _SAMPLE - 2, 0x09)
    bits = np.where(np.isnan(values), np.uint64(_STALE), values.view(np.uint64))
    made[:, :, 3:11] = bits.view(np.uint8).reshape(rows, columns, 8)
    made[:, :, 11] = 0x10
    shifts = np.arange(0, 56, 7)
    times = (times_ms[:, None] >> shifts & 0x7F).astype(np.uint8)
    times[:, :-1] |= 0x80  # a varint of eight bytes, the last ones zero
    made[:, :, 12:] = times
    return made


def _messages(
    labels: Sequence[tuple[tuple[str, str], ...]],
    samples: npt.NDArray[np.uint8],
    present: npt.NDArray[np.bool_],
    rows: range,
) -> Iterator[bytes]:
    whole: npt.NDArray[np.bool_] = np.asarray(present.all(axis=1))
    for row in rows:
        sent = samples[row] if whole[row] else samples[row][present[row]]
        yield _message(0x0A, b"".join(_label(*pair) for pair in labels[row]) + sent.tobytes())


def _label(name: str, value: str) -> bytes:
    content = _message(0x0A, name.encode()) + _message(0x12, value.encode())
    return _message(0x0A, content)


def _message(tag: int, content: bytes) -> bytes:
    return bytes((tag,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _post(client: httpx.Client, url: str, body: bytes) -> None:
    client.post(
        f"{url}/api/v1/write",
        content=_snappy(body),
        headers={
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        },
    ).raise_for_status()


def _snappy(data: bytes) -> bytes:
    """Snappy's block format with literals only: valid, if not small."""
    out = [_varint(len(data))]
    for start in range(0, len(data), _LITERAL):
        chunk = data[start : start + _LITERAL]
        out += [bytes([61 << 2]), struct.pack("<H", len(chunk) - 1), chunk]
    return b"".join(out)
