"""A policy's text to plain data: YAML in which nothing is said twice, and overlays merged. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from breakfix.errors import SettingsError

#: The one in C is ten times as fast, where PyYAML has it.
SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

PathPart = str | int

_MERGE = "tag:yaml.org,2002:merge"
_NUMBER = re.compile(r"0|[1-9][0-9]*")


@dataclass(frozen=True, slots=True)
class TextFault:
    """What is wrong with a text at a line and a column, both from 1; 0 where nobody can tell."""

    line: int
    column: int
    path: str
    text: str

    def of(self, name: str) -> str:
        """The fault in words, of a text that people know by that name."""
        place = f"{name}:{self.line}:{self.column}" if self.line else name
        return f"{place}: {self.path}: {self.text}"


class WrongText(SettingsError):
    """A text that is no YAML, or says something twice; `faults` has each with its place."""

    def __init__(self, faults: Sequence[TextFault]) -> None:
        super().__init__("; ".join(f.of("the text") for f in faults))
        self.faults = tuple(faults)

    def about(self, name: str) -> SettingsError:
        """The same of a text that people know by that name."""
        return SettingsError("; ".join(f.of(name) for f in self.faults))


def load_yaml(text: str, loader: Any = SAFE_LOADER) -> Any:
    """The data of a YAML text. Raises WrongText for one that is not well formed, or has a key
    twice in one map: YAML itself would drop the first without a word.
    """
    reader = None
    try:
        reader = loader(text)
        root = reader.get_single_node()
        if root is None:
            return None
        # Before anything is made of the nodes: merging (`<<`) puts keys twice into some.
        if faults := list(_said_twice(root)):
            raise WrongText(faults)
        return reader.construct_document(root)
    except yaml.YAMLError as e:
        raise WrongText([_not_yaml(text, e)]) from None
    except ValueError as e:  # it looks like a date and is none
        raise WrongText([TextFault(0, 0, "policy", f"not valid YAML: {e}")]) from None
    finally:
        if reader is not None:
            reader.dispose()


def _not_yaml(text: str, error: yaml.YAMLError) -> TextFault:
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as e:  # slower than the one in C, and better at saying what and where
        error = e
    mark = getattr(error, "problem_mark", None)
    problem = getattr(error, "problem", "") or " ".join(str(error).split())
    line, column = (mark.line + 1, mark.column + 1) if mark else (0, 0)
    return TextFault(line, column, "policy", f"not valid YAML: {problem}")


def _said_twice(root: yaml.Node) -> Iterator[TextFault]:
    """Keys that one map has twice. `79` and `"79"` are one key: they name the same XID."""
    waiting: list[tuple[str, yaml.Node]] = [("", root)]
    looked_at: set[int] = set()
    while waiting:
        path, node = waiting.pop()
        if id(node) in looked_at:  # an alias: the same node again
            continue
        looked_at.add(id(node))
        if isinstance(node, yaml.SequenceNode):
            waiting += [(f"{path}.{i}", item) for i, item in enumerate(node.value)]
        elif isinstance(node, yaml.MappingNode):
            first: dict[str, int] = {}
            for key, value in node.value:
                if not isinstance(key, yaml.ScalarNode) or key.tag == _MERGE:
                    continue
                here, mark = f"{path}.{key.value}", key.start_mark
                if key.value in first:
                    text = (
                        f"is already in line {first[key.value]}, and only one of them would count:"
                        " put both into one"
                    )
                    yield TextFault(mark.line + 1, mark.column + 1, here[1:], text)
                first.setdefault(key.value, mark.line + 1)
                waiting.append((here, value))


def signal_faults(data: Mapping[str, Any]) -> Iterator[tuple[tuple[PathPart, ...], str]]:
    """What keeps the signals of one text from being merged by name, with its path: each must be a
    map that has a name, and each name is of one of them.
    """
    signals = data.get("signals", [])
    if not isinstance(signals, list):
        yield ("signals",), "must be a list"
        return
    known: set[str] = set()
    for i, signal in enumerate(signals):
        name = signal.get("name") if isinstance(signal, dict) else None
        if not isinstance(name, str):
            yield ("signals", i), "each signal needs its `name`"
        elif name in known:
            text = f"{name} is in this list already, and only one of them would count"
            yield ("signals", i), f"{text}: put their keys into one"
        else:
            known.add(name)


def merge_overlay(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    """Overlay onto base: maps merge key by key, `signals` by `name`, anything else replaces.

    XIDs merge by their number, whether they are quoted (as they are in JSON) or not.
    """
    return _merged(_with_numbers(base), _with_numbers(overlay))


def _merged(base: Mapping[str, Any], overlay: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in overlay.items():
        old = merged.get(key)
        if key == "signals" and isinstance(old, list) and isinstance(value, list):
            merged[key] = _merge_signals(old, value)
        elif isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[key] = _merged(old, value)
        else:
            merged[key] = value
    return merged


def _merge_signals(old: list[Any], new: list[Any]) -> list[Any]:
    by_name = {s["name"]: s for s in old}
    for signal in new:
        name = signal.get("name", "")
        by_name[name] = _merged(by_name.get(name, {}), signal)
    return list(by_name.values())


def _with_numbers(data: Mapping[str, Any]) -> Mapping[str, Any]:
    xids = data.get("xids")
    if not isinstance(xids, Mapping):
        return data
    numbered = {
        int(k) if isinstance(k, str) and _NUMBER.fullmatch(k) else k: v for k, v in xids.items()
    }
    return {**data, "xids": numbered}
