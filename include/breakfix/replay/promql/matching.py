"""Vectors with vectors: operators with their matching, and aggregations."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from breakfix.replay.promql.syntax import COMPARISONS, SETS, Aggregation, Binary, NotPromql
from breakfix.replay.promql.vectors import Element, Labels
from breakfix.replay.values import Floats

Vector = list[Element]
Signature = tuple[tuple[str, str], ...]

_OPERATORS: Mapping[str, Callable[[Floats, Floats], np.ndarray]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": np.divide,
    "%": np.fmod,
    "^": np.power,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


def combine(node: Binary, left: Vector | Floats, right: Vector | Floats) -> Vector | Floats:
    """One operator. Raises NotPromql where several elements match on a side that has to be one."""
    if isinstance(left, np.ndarray):
        if isinstance(right, np.ndarray):
            return _computed(node.op, left, right).astype(np.float64)
        return [_with_number(node, e, left, is_left=False) for e in right]
    if isinstance(right, np.ndarray):
        return [_with_number(node, e, right, is_left=True) for e in left]
    if node.op in SETS:
        return _set(node, left, right)
    return _matched(node, left, right)


def _computed(op: str, left: Floats, right: Floats) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        return np.asarray(_OPERATORS[op](left, right))


def _with_number(node: Binary, e: Element, number: Floats, *, is_left: bool) -> Element:
    made = _computed(node.op, e.values, number) if is_left else _computed(node.op, number, e.values)
    if node.op not in COMPARISONS:
        return Element(_without_name(e.labels), made, e.there)
    if node.is_bool:
        return Element(_without_name(e.labels), made.astype(np.float64), e.there)
    return Element(e.labels, e.values, e.there & made)


def _signature(node: Binary, labels: Labels) -> Signature:
    if node.on is not None:
        return tuple((k, labels[k]) for k in node.on if k in labels)
    return tuple(
        sorted((k, v) for k, v in labels.items() if k != "__name__" and k not in node.ignoring)
    )


def _by_signature(node: Binary, vector: Iterable[Element]) -> dict[Signature, Vector]:
    found: dict[Signature, Vector] = {}
    for e in vector:
        found.setdefault(_signature(node, e.labels), []).append(e)
    return found


def _set(node: Binary, left: Vector, right: Vector) -> Vector:
    size = _size(left, right)
    others = right if node.op != "or" else left
    there: dict[Signature, np.ndarray] = {}
    for e in others:
        key = _signature(node, e.labels)
        there[key] = there[key] | e.there if key in there else e.there
    nowhere = np.zeros(size, np.bool_)
    if node.op == "or":
        more = [
            Element(e.labels, e.values, e.there & ~there.get(_signature(node, e.labels), nowhere))
            for e in right
        ]
        return [*left, *(e for e in more if e.there.any())]
    kept = []
    for e in left:
        match = there.get(_signature(node, e.labels), nowhere)
        is_kept = np.asarray(e.there & (match if node.op == "and" else ~match), np.bool_)
        if is_kept.any():
            kept.append(Element(e.labels, e.values, is_kept))
    return kept


def _matched(node: Binary, left: Vector, right: Vector) -> Vector:
    many, one = (right, left) if node.group == "right" else (left, right)
    ones = _by_signature(node, one)
    for of_key in ones.values():
        _only_one(of_key)
    if not node.group:
        for of_key in _by_signature(node, many).values():
            _only_one(of_key)
    made = []
    for e in many:
        for other in ones.get(_signature(node, e.labels), ()):
            both = e.there & other.there
            if np.any(both):
                made.append(_pair(node, e, other, both))
    return made


def _only_one(vector: Sequence[Element]) -> None:
    if len(vector) > 1 and np.sum([e.there for e in vector], axis=0).max() > 1:
        raise NotPromql("several series match where one is wanted")


def _pair(node: Binary, many: Element, one: Element, both: np.ndarray) -> Element:
    left, right = (one, many) if node.group == "right" else (many, one)
    made = _computed(node.op, left.values, right.values)
    labels = _result_labels(node, many.labels, one.labels)
    if node.op not in COMPARISONS:
        return Element(labels, made, both)
    if node.is_bool:
        return Element(labels, made.astype(np.float64), both)
    name = {"__name__": many.labels["__name__"]} if "__name__" in many.labels else {}
    return Element({**name, **labels}, left.values, both & made)


def _result_labels(node: Binary, many: Labels, one: Labels) -> Labels:
    labels = _without_name(many)
    if not node.group:
        if node.on is not None:
            return {k: v for k, v in labels.items() if k in node.on}
        return {k: v for k, v in labels.items() if k not in node.ignoring}
    for label in node.include:
        if label in one:
            labels[label] = one[label]
        else:
            labels.pop(label, None)
    return labels


def _without_name(labels: Labels) -> dict[str, str]:
    return {k: v for k, v in labels.items() if k != "__name__"}


def _size(*vectors: Vector) -> int:
    return next((len(e.there) for v in vectors for e in v), 0)


# --------------------------------------------------------------------------- aggregations


def aggregate(node: Aggregation, vector: Vector) -> Vector:
    """max, min, sum, avg, count, group, topk by some labels or without them."""
    groups: dict[Signature, Vector] = {}
    for e in vector:
        groups.setdefault(_group(node, e.labels), []).append(e)
    if node.value_label:
        return [e for k, es in groups.items() for e in _counted(node.value_label, dict(k), es)]
    if node.largest:
        return [e for es in groups.values() for e in _largest(node.largest, es)]
    return [_aggregated(node.name, dict(key), members) for key, members in groups.items()]


def _largest(count: int, members: Vector) -> Iterable[Element]:
    """The elements with the largest values, of equal ones the first."""
    there = np.array([e.there for e in members])
    values = np.array([e.values for e in members])
    order = np.argsort(np.where(there, -values, np.inf), axis=0, kind="stable")
    kept = there & (np.argsort(order, axis=0) < count)
    return [Element(e.labels, e.values, k) for e, k in zip(members, kept, strict=True) if k.any()]


def _counted(label: str, labels: Labels, members: Vector) -> Iterable[Element]:
    """An element for each value, with how many members have it."""
    there = np.array([e.there for e in members])
    values = np.array([e.values for e in members])
    for value in np.unique(values[there]):
        count = (there & (values == value)).sum(axis=0)
        named = {**labels, label: f"{value:.15g}"}
        yield Element(named, count.astype(np.float64), count > 0)


def _group(node: Aggregation, labels: Labels) -> Signature:
    if node.is_without:
        return tuple(
            sorted((k, v) for k, v in labels.items() if k not in node.labels and k != "__name__")
        )
    return tuple((k, labels[k]) for k in sorted(node.labels) if k in labels)


def _aggregated(name: str, labels: Labels, members: Vector) -> Element:
    there = np.array([e.there for e in members])
    values = np.array([e.values for e in members])
    any_there = np.asarray(there.any(axis=0), np.bool_)
    count = there.sum(axis=0)
    match name:
        case "max":
            made = np.fmax.reduce(np.where(there, values, -np.inf), axis=0)
        case "min":
            made = np.fmin.reduce(np.where(there, values, np.inf), axis=0)
        case "count":
            made = count.astype(np.float64)
        case "group":
            made = np.ones(len(any_there))
        case _:
            made = np.where(there, values, 0.0).sum(axis=0)
            if name == "avg":
                made = made / np.maximum(count, 1)
    return Element(labels, made, any_there)
