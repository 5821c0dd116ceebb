"""`all_reduce_perf` and `nvbandwidth`: what they measured of a node, against the floors of its SKU.

Both are read as text or as JSON (nccl-tests `-J`, nvbandwidth `-j`). Neither has a stable contract,
so it fails closed: no number, a wrong value, fewer GPUs than there are, a test that did not pass,
an exit status other than 0: none is a pass. All bandwidths are in GB/s (1e9 bytes).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from breakfix.model import Outcome
from breakfix.policy_validation import Floors

#: nvbandwidth's test -> our name of what it measures; by copy engine, one direction at a time.
NVBANDWIDTH_TESTS: Mapping[str, str] = {
    "host_to_device_memcpy_ce": "h2d",
    "device_to_host_memcpy_ce": "d2h",
    "device_to_device_memcpy_read_ce": "p2p",
    "device_to_device_memcpy_write_ce": "p2p",
}
_MOST_GPUS = 1024  # of a matrix; more is no output of ours
_ROUNDING = 0.02  # between a printed busbw and the one computed from its algbw (ours)


@dataclass(frozen=True, slots=True)
class Bandwidth:
    """One measurement: the least value by what was measured, and what it was measured with."""

    text: str
    measured: Mapping[str, float] = field(default_factory=dict)
    nccl_version: str = ""
    has_nvls: bool | None = None  # whether NCCL used NVLink SHARP: it moves the result by a third


def bus_bandwidth(algorithm_bandwidth: float, ranks: int) -> float:
    """What an all-reduce puts through each link: `algbw * 2 (n - 1) / n`. Raises ValueError below
    two ranks, which share no link.
    """
    if ranks < 2:  # noqa: PLR2004 - a pair
        raise ValueError(f"{ranks} ranks have no bus between them")
    return algorithm_bandwidth * 2 * (ranks - 1) / ranks


def nccl_outcome(
    text: str, exit_code: int | None, *, gpus: int, floors: Floors
) -> tuple[Outcome, Bandwidth]:
    """Of one run of `all_reduce_perf -g <gpus>`: the bus bandwidth of its largest size."""
    if exit_code != 0:
        return _cannot_tell(f"all_reduce_perf ended with {_status(exit_code)}")
    try:
        run = _nccl_json(text) or _nccl_text(text)
    except _Unreadable as e:
        return _cannot_tell(f"all_reduce_perf: {e}")
    said = Bandwidth("", {"all_reduce": run.bus}, run.version or _version(text), _nvls(text))
    if run.wrong:
        return Outcome.NOT_FIXED, _with(said, f"all_reduce_perf: {run.wrong:g} wrong results")
    if run.ranks is not None and run.ranks != gpus:
        return Outcome.CANNOT_TELL, _with(said, f"only {run.ranks} of {gpus} GPUs took part")
    if run.algorithm and gpus > 1:
        computed = bus_bandwidth(run.algorithm, gpus)
        if abs(computed - run.bus) > max(_ROUNDING * computed, 0.01):
            odd = f"a bus bandwidth of {run.bus:g} does not go with {run.algorithm:g} on {gpus}"
            return Outcome.CANNOT_TELL, _with(said, odd)
    return _against(said, {"all_reduce": floors.all_reduce})


def nvbandwidth_outcome(
    text: str, exit_code: int | None, *, gpus: int, floors: Floors
) -> tuple[Outcome, Bandwidth]:
    """Of one run of nvbandwidth's copies: the slowest GPU, and the slowest pair of GPUs."""
    if exit_code != 0:
        return _cannot_tell(f"nvbandwidth ended with {_status(exit_code)}")
    try:
        tests = _nvbandwidth_json(text) or list(_nvbandwidth_text(text))
        measured = _slowest(tests, gpus)
    except _Unreadable as e:
        return _cannot_tell(f"nvbandwidth: {e}")
    floor_of = {"h2d": floors.h2d, "d2h": floors.d2h, "p2p": floors.p2p if gpus > 1 else 0.0}
    return _against(Bandwidth("", measured), floor_of)


class _Unreadable(ValueError):
    """What was printed proves nothing; its text says why."""


def _status(exit_code: int | None) -> str:
    return "an exit status nobody knows" if exit_code is None else f"exit status {exit_code}"


def _cannot_tell(text: str) -> tuple[Outcome, Bandwidth]:
    return Outcome.CANNOT_TELL, Bandwidth(text)


def _with(said: Bandwidth, text: str) -> Bandwidth:
    return Bandwidth(text, said.measured, said.nccl_version, said.has_nvls)


def _against(said: Bandwidth, floors: Mapping[str, float]) -> tuple[Outcome, Bandwidth]:
    wanted = {what: floor for what, floor in floors.items() if floor > 0}
    if missing := sorted(wanted.keys() - said.measured.keys()):
        return Outcome.CANNOT_TELL, _with(said, f"{', '.join(missing)} was not measured")
    if not wanted:
        return Outcome.CANNOT_TELL, _with(said, "the policy has no floor to compare with")
    told = [f"{what} {said.measured[what]:g} of {floor:g} GB/s" for what, floor in wanted.items()]
    low = [t for t, what in zip(told, wanted, strict=True) if said.measured[what] < wanted[what]]
    nvls = {True: " with NVLS", False: " without NVLS", None: ""}[said.has_nvls]
    version = f", NCCL {said.nccl_version}{nvls}" if said.nccl_version else nvls
    text = ("below its floor: " + "; ".join(low)) if low else "; ".join(told)
    return (Outcome.NOT_FIXED if low else Outcome.FIXED), _with(said, text + version)


# --------------------------------------------------------------------------- all_reduce_perf


@dataclass(frozen=True, slots=True)
class _Run:
    bus: float
    algorithm: float | None
    wrong: float
    ranks: int | None = None
    version: str = ""


_ROW = re.compile(r"^\s*(\d+)\s+(\d+)\s+([a-z]\w*)\s+([a-z]\w*)\s+(-?\d+)\s+(\S.*)$", re.MULTILINE)
_RANK = re.compile(r"^#\s+Rank\s+(\d+)\b", re.MULTILINE)
_NCCL = re.compile(r"NCCL version\s+v?(\d[\w.+-]*)")
_BOUNDS = re.compile(r"Out of bounds values\s*:\s*(\d+)\s*(\w+)")
_NVLS_THERE = re.compile(r"NVLS multicast support is (not )?available")
_COLUMNS = 8  # out-of-place and in-place: time, algbw, busbw, #wrong


def _nccl_text(text: str) -> _Run:
    rows = [(int(m[1]), m[6].split()) for m in _ROW.finditer(text)]
    if not rows:
        raise _Unreadable("there is no result in the log")
    bounds = _BOUNDS.search(text)
    if bounds is None:
        raise _Unreadable("it does not say whether the results were right")
    columns = max(rows, key=lambda row: row[0])[1]
    if len(columns) < _COLUMNS:
        raise _Unreadable(f"a result of {len(columns)} columns")
    sides = [(_number(columns[i + 2]), _number(columns[i + 1]), columns[i + 3]) for i in (0, 4)]
    bus, algorithm, _ = min(sides)
    wrong = sum(_number(w) for _, _, w in sides if w != "N/A") + _number(bounds[1])
    ranks = {int(rank) for rank in _RANK.findall(text)}
    return _Run(bus, algorithm, wrong or (bounds[2] != "OK"), len(ranks) or None)


def _nccl_json(text: str) -> _Run | None:
    """None when the log holds no JSON of nccl-tests."""
    document = _document(text, "results")
    if document is None:
        return None
    results = [r for r in _list(document, "results") if isinstance(r, dict)]
    if not results:
        raise _Unreadable("there is no result in its JSON")
    largest = max(results, key=lambda r: _number(r.get("size")))
    sides = [_map(largest, key) for key in ("out_of_place", "in_place") if key in largest]
    if not sides:
        raise _Unreadable("a result without a bandwidth")
    bus, algorithm = min((_number(s.get("bus_bw")), _number(s.get("alg_bw"))) for s in sides)
    bounds = _map(document, "out_of_bounds")
    wrong = _number(bounds.get("count")) or (bounds.get("okay") is False)
    devices = document.get("devices")
    ranks = len(devices) if isinstance(devices, list) else None
    return _Run(bus, algorithm, wrong, ranks, _version_of(document.get("nccl_version")))


def _version(text: str) -> str:
    found = _NCCL.search(text)
    return found[1] if found else ""


def _version_of(number: object) -> str:
    """`22703` is 2.27.3."""
    if not isinstance(number, int) or number < 10000:  # noqa: PLR2004 - NCCL 2.9 and later
        return ""
    return f"{number // 10000}.{number // 100 % 100}.{number % 100}"


def _nvls(text: str) -> bool | None:
    """Whether NCCL says that it has NVLink SHARP; None where it says nothing."""
    said = _NVLS_THERE.findall(text)
    return None if not said else all(not without for without in said)


# --------------------------------------------------------------------------- nvbandwidth


@dataclass(frozen=True, slots=True)
class _Copies:
    test: str
    values: tuple[float, ...]
    gpus: int


def _slowest(tests: Sequence[_Copies], gpus: int) -> Mapping[str, float]:
    measured: dict[str, float] = {}
    for found in tests:
        what = NVBANDWIDTH_TESTS.get(found.test)
        if what is None:
            continue
        if found.gpus != gpus:
            raise _Unreadable(f"{found.test} tells of {found.gpus} of {gpus} GPUs")
        pairs = gpus * (gpus - 1)  # each GPU with each other one, both ways
        if len(found.values) != (pairs if what == "p2p" else gpus):
            raise _Unreadable(f"{found.test} measured {len(found.values)} of its values")
        measured[what] = min((*found.values, measured.get(what, math.inf)))
    if not measured:
        raise _Unreadable("there is no result in the log")
    return measured


def _nvbandwidth_json(text: str) -> list[_Copies]:
    document = _document(text, "nvbandwidth")
    if document is None:
        return []
    return [_copies(t) for t in _list(_map(document, "nvbandwidth"), "testcases")]


def _copies(test: object) -> _Copies:
    if not isinstance(test, dict):
        raise _Unreadable("a test that is no object")
    name, status = str(test.get("name", "")), str(test.get("status", ""))
    if status != "Passed":
        if name in NVBANDWIDTH_TESTS and status != "Waived":
            raise _Unreadable(f"{name[:50]} did not pass: {status[:50]}")
        return _Copies("", (), 0)  # waived: not exercised
    return _matrix(name, [list(map(str, row)) for row in _list(test, "bandwidth_matrix")])


_RUNNING = re.compile(r"^Running (\w+)\.", re.MULTILINE)
_MATRIX_ROW = re.compile(r"^\s*(\d+)((?:\s+(?:\d+\.\d+|N/A))+)\s*$", re.MULTILINE)


def _nvbandwidth_text(text: str) -> Iterator[_Copies]:
    parts = _RUNNING.split(text)
    for name, body in zip(parts[1::2], parts[2::2], strict=True):
        rows = [m[2].split() for m in _MATRIX_ROW.finditer(body)]
        if "Waived" in body and not rows:
            continue
        yield _matrix(name, rows)


def _matrix(name: str, rows: list[list[str]]) -> _Copies:
    """Host copies have one row with a column a GPU; copies between GPUs a row a GPU."""
    if not rows or any(len(row) != len(rows[0]) for row in rows) or len(rows[0]) > _MOST_GPUS:
        raise _Unreadable(f"{name[:50]} has no matrix of bandwidths")
    values = tuple(_number(cell) for row in rows for cell in row if cell != "N/A")
    return _Copies(name, values, len(rows[0]))


# --------------------------------------------------------------------------- JSON in a log


def _document(text: str, key: str) -> dict[str, Any] | None:
    """The first JSON object of the log that has the key; None when there is none."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            value, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end, value = at + 1, None
        if isinstance(value, dict) and key in value:
            return value
        at = text.find("{", end)
    return None


def _map(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    if not isinstance(found, dict):
        raise _Unreadable(f"its JSON has no {key}")
    return found


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    if not isinstance(found, list):
        raise _Unreadable(f"its JSON has no {key}")
    return found


def _number(value: object) -> float:
    """A finite number that is not negative, of a JSON value or a printed word."""
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise _Unreadable(f"{str(value)[:30]!r} is no bandwidth")
    return number
