"""Label and field selectors: parsed as the API server does, errors included."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from simfleet.kube.errors import ApiError, bad_request

Json = Mapping[str, Any]

_TOKEN = re.compile(r"\s*(==|!=|=|!|>|<|\(|\)|,|[^\s=!<>(),]+)")
_WORD_OPERATORS = ("in", "notin")
_SIGNS = ("=", "==", "!=", ">", "<")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on a label: key, operator and values."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels meet the condition; a missing label meets `!=`, `notin` and `!`."""
        have = labels.get(self.key)
        match self.operator:
            case "exists":
                return have is not None
            case "!":
                return have is None
            case "in" | "=" | "==":
                return have in self.values
            case "notin" | "!=":
                return have not in self.values
            case ">" | "<":
                return _compares(have, self.operator, self.values[0])
        raise ValueError(f"unknown operator {self.operator}")


def _compares(have: str | None, operator: str, bound: str) -> bool:
    try:
        number = int(have or "")
    except ValueError:
        return False
    return number > int(bound) if operator == ">" else number < int(bound)


LabelSelector = tuple[Requirement, ...]


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def requirement(self) -> Requirement:
        if self.peek() == "!":
            self.take()
            return Requirement(self._key(), "!")
        key = self._key()
        if self.peek() in ("", ","):
            return Requirement(key, "exists")
        operator = self.take()
        if operator in _WORD_OPERATORS:
            return Requirement(key, operator, self._set())
        if operator in _SIGNS:
            return Requirement(key, operator, (self._value(operator),))
        expected = "in, notin, =, ==, !=, gt, lt"
        raise bad_request(f"unable to parse requirement: found '{operator}', expected: {expected}")

    def _key(self) -> str:
        token = self.take()
        if not re.match(r"[A-Za-z0-9]", token):
            message = f"found '{token}', expected: !, identifier, or 'end of string'"
            raise bad_request(message)
        return token

    def _value(self, operator: str) -> str:
        if self.peek() in ("", ","):
            return ""
        value = self.take()
        if operator in (">", "<") and not re.fullmatch(r"-?\d+", value):
            raise bad_request(
                f"for 'Gt', 'Lt' operators, the value must be an integer: \"{value}\""
            )
        return value

    def _set(self) -> tuple[str, ...]:
        word = self.take()
        if word != "(":
            raise bad_request(f"unable to parse requirement: found '{word}' expected: '('")
        values: list[str] = []
        expected = "',', ')' or identifier"
        while (word := self.take()) != ")":
            if word == "":
                raise bad_request(f"unable to parse requirement: found '', expected: {expected}")
            if word != ",":
                values.append(word)
        return tuple(values)


def parse_labels(text: str) -> LabelSelector:
    """Read a label selector. Raises ApiError 400 with the API server's wording."""
    parser = _Parser(text)
    found: list[Requirement] = []
    while parser.peek():
        found.append(parser.requirement())
        separator = parser.take()
        if separator not in ("", ","):
            raise bad_request(f"found '{separator}', expected: ',' or 'end of string'")
        if separator == "," and not parser.peek():
            raise bad_request("found '', expected: identifier after ','")
    return tuple(found)


def labels_match(selector: LabelSelector, labels: Mapping[str, str] | None) -> bool:
    """Whether every requirement is met."""
    have = labels or {}
    return all(requirement.matches(have) for requirement in selector)


def from_label_selector(spec: Json | None) -> LabelSelector | None:
    """The `selector` field of a workload or budget; None selects nothing, {} everything."""
    if spec is None:
        return None
    found = [Requirement(key, "=", (value,)) for key, value in spec.get("matchLabels", {}).items()]
    operators = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}
    for expression in spec.get("matchExpressions", []):
        values = tuple(expression.get("values", ()))
        found.append(Requirement(expression["key"], operators[expression["operator"]], values))
    return tuple(found)


def _path(*keys: str, default: str = "") -> Callable[[Json], str]:
    def read(obj: Json) -> str:
        value: Any = obj
        for key in keys:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, bool):
            return "true" if value else "false"
        return default if value is None else str(value)

    return read


_COMMON = {"metadata.name": _path("metadata", "name")}
_NAMESPACED = _COMMON | {"metadata.namespace": _path("metadata", "namespace")}
_INVOLVED = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")


def _event_source(obj: Json) -> str:
    source = (obj.get("source") or {}).get("component") or ""
    return str(source or obj.get("reportingComponent") or "")


FIELDS: dict[str, dict[str, Callable[[Json], str]]] = {
    "Node": _COMMON | {"spec.unschedulable": _path("spec", "unschedulable", default="false")},
    "Namespace": _COMMON | {"status.phase": _path("status", "phase")},
    "Pod": _NAMESPACED
    | {
        "spec.nodeName": _path("spec", "nodeName"),
        "spec.restartPolicy": _path("spec", "restartPolicy"),
        "spec.schedulerName": _path("spec", "schedulerName"),
        "spec.serviceAccountName": _path("spec", "serviceAccountName"),
        "spec.hostNetwork": _path("spec", "hostNetwork", default="false"),
        "status.phase": _path("status", "phase"),
        "status.podIP": _path("status", "podIP"),
        "status.nominatedNodeName": _path("status", "nominatedNodeName"),
    },
    "ReplicaSet": _NAMESPACED | {"status.replicas": _path("status", "replicas", default="0")},
    "Event": _NAMESPACED
    | {f"involvedObject.{key}": _path("involvedObject", key) for key in _INVOLVED}
    | {f"regarding.{key}": _path("involvedObject", key) for key in _INVOLVED}
    | {
        "reason": _path("reason"),
        "type": _path("type"),
        "reportingComponent": _path("reportingComponent"),
        "reportingController": _path("reportingComponent"),
        "source": _event_source,
    },
}


@dataclass(frozen=True, slots=True)
class FieldTerm:
    """One condition on a field: equal to a value or not."""

    read: Callable[[Json], str]
    name: str
    value: str
    equal: bool

    def matches(self, obj: Json) -> bool:
        """Whether the object meets the condition."""
        return (self.read(obj) == self.value) is self.equal


FieldSelector = tuple[FieldTerm, ...]


def parse_fields(text: str, kind: str) -> FieldSelector:
    """Read a field selector of a kind. Raises ApiError 400."""
    known = FIELDS.get(kind, _NAMESPACED)
    return tuple(_field_term(term, text, known) for term in text.split(",") if term)


def _field_term(term: str, whole: str, known: Mapping[str, Callable[[Json], str]]) -> FieldTerm:
    for sign, equal in (("!=", False), ("==", True), ("=", True)):
        name, found, value = term.partition(sign)
        if found:
            if name not in known:
                raise bad_request(f"field label not supported: {name}")
            return FieldTerm(known[name], name, value, equal)
    raise _bad_field(term, whole)


def _bad_field(term: str, whole: str) -> ApiError:
    # The server reports the last term it cannot read.
    bad = next((part for part in reversed(whole.split(",")) if "=" not in part), term)
    return bad_request(f"invalid selector: '{whole}'; can't understand '{bad}'")


def fields_match(selector: Sequence[FieldTerm], obj: Json) -> bool:
    """Whether every term is met."""
    return all(term.matches(obj) for term in selector)
