"""What fields the kinds have: read from the models of the official Python client.

`canonical` turns what a client sent into what the server stores: unknown fields are dropped and
reported, wrong types are reported, empty values that Go leaves out are left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from kubernetes.client import models

ROOT_MODELS = {
    "Event": "CoreV1Event",
    "Eviction": "V1Eviction",
    "Binding": "V1Binding",
}
# Value (not pointer) fields of Go types: false is the same as absent.
_FALSE_IS_ABSENT = frozenset(
    {"unschedulable", "hostNetwork", "hostPID", "hostIPC", "stdin", "stdinOnce", "tty", "optional"}
)
# Fields that are written even when empty.
_KEEPS_EMPTY_TEXT = frozenset({"V1NodeSystemInfo", "V1Condition"})
_QUANTITIES = frozenset({"limits", "requests", "capacity", "allocatable"})


@dataclass(frozen=True, slots=True)
class Field:
    """A field's type as the client's models write it: `str`, `list[V1Taint]`, ..."""

    type: str


@cache
def fields_of(model: str) -> dict[str, Field]:
    """The fields of a model by their JSON names."""
    cls = getattr(models, model)
    return {
        json_name: Field(_one_spelling(cls.openapi_types[name]))
        for name, json_name in cls.attribute_map.items()
    }


def _one_spelling(text: str) -> str:
    """The client's releases write maps as `dict(str, str)` or `dict[str, str]`."""
    return f"dict({text[5:-1]})" if text.startswith("dict[") else text


def root_model(kind: str) -> str:
    """The model of a kind: `Node` -> `V1Node`."""
    return ROOT_MODELS.get(kind, f"V1{kind}")


@dataclass(slots=True)
class Reading:
    """What `canonical` found: unknown fields by path, and the first wrong type."""

    unknown: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def canonical(kind: str, obj: dict[str, Any]) -> tuple[dict[str, Any], Reading]:
    """The object as the server would store it, and what was wrong with it."""
    reading = Reading()
    return _struct(root_model(kind), obj, "", reading, kind), reading


def _struct(
    model: str, obj: dict[str, Any], path: str, reading: Reading, kind: str
) -> dict[str, Any]:
    known = fields_of(model)
    made: dict[str, Any] = {}
    unknown: list[str] = []
    for name, value in obj.items():
        where = f"{path}.{name}" if path else name
        if name not in known:
            unknown.append(where)
            continue
        kept = _value(known[name].type, value, where, reading, kind)
        if _is_kept(model, name, known[name].type, kept, value):
            made[name] = kept
    reading.unknown.extend(unknown)
    return made


def _is_kept(model: str, name: str, kind: str, kept: Any, sent: Any) -> bool:
    if kept is None:
        return model == "V1PodCondition" and name == "lastProbeTime"
    if kept == "" and kind == "str":
        return model in _KEEPS_EMPTY_TEXT or name.startswith("reporting")
    if kept in ([], {}) and not isinstance(kept, bool):
        return not (kind.startswith(("list[", "dict(")) or (sent is None))
    return not (kept is False and name in _FALSE_IS_ABSENT)


def _value(kind: str, value: Any, path: str, reading: Reading, root: str) -> Any:
    if value is None:
        return None
    if kind.startswith("list["):
        return _list(kind[5:-1], value, path, reading, root)
    if kind.startswith("dict("):
        inner = kind[5:-1].split(", ", 1)[1]
        return _map(inner, value, path, reading, root)
    if kind in _SCALARS:
        return _SCALARS[kind](value, path, reading, root)
    if not isinstance(value, dict):
        _mismatch(value, f"{path}", f"v1.{kind.removeprefix('V1')}", reading, root)
        return None
    return _struct(kind, value, path, reading, root)


def _list(inner: str, value: Any, path: str, reading: Reading, root: str) -> Any:
    if not isinstance(value, list):
        _mismatch(value, path, f"[]{_go_type(inner)}", reading, root)
        return None
    return [_value(inner, item, f"{path}[{at}]", reading, root) for at, item in enumerate(value)]


def _map(inner: str, value: Any, path: str, reading: Reading, root: str) -> Any:
    if not isinstance(value, dict):
        _mismatch(value, path, f"map[string]{_go_type(inner)}", reading, root)
        return None
    if path.rsplit(".", 1)[-1] in _QUANTITIES:
        return {key: str(item) for key, item in value.items()}
    return {
        key: _value(inner, item, path if inner == "str" else f"{path}.{key}", reading, root)
        for key, item in value.items()
    }


def _go_type(inner: str) -> str:
    return {"str": "string", "int": "int32", "bool": "bool"}.get(inner, f"v1.{inner}")


def _mismatch(value: Any, path: str, wanted: str, reading: Reading, root: str) -> None:
    names = {bool: "bool", int: "number", float: "number", str: "string", list: "array"}
    have = names.get(type(value), "object")
    holder, _, leaf = path.rpartition(".")
    # Go names the struct the field is in, then the path from the root.
    struct = (re.sub(r"\[\d+\]", "", holder.rsplit(".", 1)[-1]).capitalize() or root) + (
        "Spec" if holder == "spec" else ""
    )
    struct = {"SpecSpec": f"{root}Spec", "Metadata": "ObjectMeta"}.get(struct, struct)
    dotted = re.sub(r"\[\d+\]", "", path if holder else leaf)
    reading.wrong.append(
        f"json: cannot unmarshal {have} into Go struct field {struct}.{dotted} of type {wanted}"
    )


Check = Callable[[Any, str, Reading, str], Any]


def _text(value: Any, path: str, reading: Reading, root: str) -> Any:
    if not isinstance(value, str):
        _mismatch(value, path, "string", reading, root)
    return value


def _number(value: Any, path: str, reading: Reading, root: str) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        _mismatch(value, path, "int32", reading, root)
    return value


def _flag(value: Any, path: str, reading: Reading, root: str) -> Any:
    if not isinstance(value, bool):
        _mismatch(value, path, "bool", reading, root)
    return value


_MICRO_TIMES = frozenset({"renewTime", "acquireTime", "eventTime"})
_MICRO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")
_SECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _time(value: Any, path: str, reading: Reading, root: str) -> Any:
    if not isinstance(value, str):
        _mismatch(value, path, "string", reading, root)
        return value
    if path.rsplit(".", 1)[-1] in _MICRO_TIMES:
        if not _MICRO.fullmatch(value):
            layout = "2006-01-02T15:04:05.000000Z07:00"
            reading.wrong.append(_unparsed(value, layout, ".000000"))
    elif not _SECONDS.fullmatch(value):
        reading.wrong.append(_unparsed(value, "2006-01-02T15:04:05Z07:00", ""))
    elif "." in value:
        return re.sub(r"\.\d+", "", value)
    return value


def _unparsed(value: str, layout: str, fraction: str) -> str:
    whole = re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", value)
    rest, wanted = (value[whole.end() :], fraction) if whole else (value, "2006")
    return f'parsing time "{value}" as "{layout}": cannot parse "{rest}" as "{wanted}"'


def _anything(value: Any, _path: str, _reading: Reading, _root: str) -> Any:
    return value


_SCALARS: dict[str, Check] = {
    "str": _text,
    "int": _number,
    "float": _number,
    "bool": _flag,
    "datetime": _time,
    "object": _anything,
}
