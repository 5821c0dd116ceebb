"""Traces from files: one or many YAML documents in each `*.trace.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from breakfix.errors import SettingsError
from breakfix.replay.trace import Trace

SUFFIX = ".trace.yaml"
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the C one is ten times as fast


@dataclass(frozen=True, slots=True)
class Source:
    """A trace and where it came from; `folder` is what its series_file is relative to."""

    trace: Trace
    folder: Path


def load_paths(paths: Iterable[Path]) -> tuple[Source, ...]:
    """All traces of files and folders (searched for *.trace.yaml), in order of their paths.

    Raises SettingsError: nothing found, one name twice, or what is wrong in which document.
    """
    files = [f for p in paths for f in _files(p)]
    found = tuple(source for file in files for source in load_file(file))
    if not found:
        raise SettingsError(f"no trace found: give files or folders with *{SUFFIX}")
    names = [s.trace.name for s in found]
    twice = sorted({n for n in names if names.count(n) > 1}) if len(set(names)) < len(names) else []
    if twice:
        raise SettingsError(f"several traces are named {', '.join(twice)}")
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(path.rglob(f"*{SUFFIX}"))
    return [path]


def load_file(path: Path) -> Iterator[Source]:
    """The traces of one file. Raises SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise SettingsError(f"cannot read {path}: {e.strerror}") from e
    for trace in parse_traces(text, str(path)):
        yield Source(trace, path.parent)


def parse_traces(text: str, what: str = "the trace") -> tuple[Trace, ...]:
    """The traces of a YAML text. Raises SettingsError with a line per wrong value."""
    try:
        documents = list(yaml.load_all(text, Loader=_LOADER))
    except yaml.YAMLError as e:
        raise SettingsError(f"{what} is not valid YAML: {e}") from None
    return tuple(make_trace(d, what) for d in documents if d is not None)


def make_trace(document: Any, what: str = "the trace") -> Trace:
    """A trace from plain data, as a generator makes it. Raises SettingsError."""
    if isinstance(document, dict) and isinstance(document.get("name"), str):
        what = f"{what}, trace {document['name']}"
    try:
        return Trace.model_validate(document)
    except ValidationError as e:
        lines = [
            f"{'.'.join(str(p) for p in err['loc']) or 'trace'}: "
            f"{err['msg'].removeprefix('Value error, ')}"
            for err in e.errors(include_url=False)
        ]
        raise SettingsError(f"{what}: " + "; ".join(lines)) from None
