"""Series recorded from a real Prometheus: OpenMetrics text with timestamps, plain or gzipped."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import numpy as np

from breakfix.errors import SettingsError
from breakfix.replay.remote_write import WrittenSeries

_LINE = re.compile(
    r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})?\s+(?P<value>\S+)\s+(?P<time>\S+)"
    r"(?:\s+#.*)?$"
)
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"\s*,?')
_ESCAPES = {"\\\\": "\\", '\\"': '"', "\\n": "\n"}


def read_openmetrics(path: Path) -> Iterator[WrittenSeries]:
    """Every series of the file, its samples in order of time. Times are seconds since 1970.

    Raises SettingsError naming the line that is not understood.
    """
    samples: dict[str, list[tuple[int, float]]] = {}
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines, 1):
                if line.strip() and not line.startswith("#"):
                    _add(samples, line, f"{path.name} line {number}")
    except (OSError, UnicodeDecodeError, EOFError) as e:
        raise SettingsError(f"cannot read {path}: {e}") from e
    for series, points in samples.items():
        latest = dict(sorted(points))
        times = np.fromiter(latest, np.int64, len(latest))
        yield WrittenSeries(_labels(series), times, np.fromiter(latest.values(), float))


def _open(path: Path) -> TextIO:
    with path.open("rb") as file:
        is_gzip = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rt", encoding="utf-8") if is_gzip else path.open(encoding="utf-8")


def _add(samples: dict[str, list[tuple[int, float]]], line: str, where: str) -> None:
    match = _LINE.match(line.strip())
    if match is None:
        raise SettingsError(f"{where}: not NAME{{LABELS}} VALUE TIMESTAMP")
    try:
        value, time = float(match["value"]), round(float(match["time"]) * 1000)
    except ValueError:
        raise SettingsError(f"{where}: value and timestamp (seconds) must be numbers") from None
    samples.setdefault(f"{match['name']}{{{match['labels'] or ''}", []).append((time, value))


def _labels(series: str) -> dict[str, str]:
    name, _, text = series.partition("{")
    labels = {"__name__": name}
    for label, value in _LABEL.findall(text):
        labels[label] = re.sub(r"\\[\\\"n]", lambda m: _ESCAPES[m[0]], value)
    return labels
