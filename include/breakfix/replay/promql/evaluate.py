"""The tree of a query, evaluated at many instants at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from breakfix.replay.promql.matching import aggregate, combine
from breakfix.replay.promql.syntax import (
    LOOKBACK_S,
    Aggregation,
    Binary,
    Call,
    Node,
    NotPromql,
    Number,
    Selector,
    Subquery,
    Text,
)
from breakfix.replay.promql.vectors import Element, Labels, Millis, Store, Stored, pattern
from breakfix.replay.promql.windows import FUNCTIONS, Window
from breakfix.replay.values import Floats

Vector = list[Element]
_SIMPLE: Mapping[str, Callable[[Floats], Floats]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "floor": np.floor,
    "round": np.rint,
    "sqrt": np.sqrt,
}


class Evaluator:
    """Queries over one store. Raises NotPromql for what is not understood."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def vector(self, node: Node, instants: Millis) -> Vector:
        """The instant vector at each of the instants (ms)."""
        found = self._value(node, instants)
        if isinstance(found, np.ndarray):
            return [Element({}, found, np.ones(len(instants), np.bool_))]
        return [e for e in found if e.there.any()]

    def _value(self, node: Node, at: Millis) -> Vector | Floats:
        match node:
            case Number():
                return np.full(len(at), node.value)
            case Selector() if node.range_s == 0:
                return self._instant(node, at)[0]
            case Aggregation():
                return aggregate(node, self._vector(node.of, at))
            case Binary():
                return combine(node, self._value(node.left, at), self._value(node.right, at))
            case Call():
                return self._call(node, at)
            case _:
                raise NotPromql("a range stands where an instant vector is wanted")

    def _vector(self, node: Node, at: Millis) -> Vector:
        found = self._value(node, at)
        if isinstance(found, np.ndarray):
            raise NotPromql("a number stands where a vector is wanted")
        return found

    def _instant(self, node: Selector, at: Millis) -> tuple[Vector, list[Floats]]:
        """The newest sample of each series, and when it was taken (seconds)."""
        vector, times = [], []
        when = at - round(node.offset_s * 1000)
        for series in self._store.select(node.metric, node.matchers):
            place = np.searchsorted(series.times, when, side="right") - 1
            safe = np.maximum(place, 0)
            if len(series.times) == 0:
                continue
            taken = series.times[safe]
            fresh = (place >= 0) & (taken >= when - round(LOOKBACK_S * 1000))
            there = fresh & ~series.stale[safe]
            labels = {"__name__": node.metric, **series.labels}
            vector.append(Element(labels, series.values[safe], there))
            times.append(taken / 1000)
        return vector, times

    def _call(self, node: Call, at: Millis) -> Vector | Floats:
        name, arguments = node.name, node.arguments
        if name == "time":
            return at / 1000
        if name == "timestamp" and isinstance(arguments[0], Selector):
            vector, times = self._instant(arguments[0], at)
            pairs = zip(vector, times, strict=True)
            return [Element(_unnamed(e.labels), t, e.there) for e, t in pairs]
        if name == "label_replace":
            return self._label_replace(arguments, at)
        if name == "vector":
            value = self._value(arguments[0], at)
            if isinstance(value, np.ndarray):
                return [Element({}, value, np.ones(len(at), np.bool_))]
        if name in _SIMPLE:
            make = _SIMPLE[name]
            return [
                Element(_unnamed(e.labels), make(e.values), e.there)
                for e in self._vector(arguments[0], at)
            ]
        if name in FUNCTIONS:
            return self._over_range(name, arguments[0], at)
        raise NotPromql(f"function {name} is not understood")

    def _over_range(self, name: str, node: Node, at: Millis) -> Vector:
        if not isinstance(node, Selector | Subquery):
            raise NotPromql(f"{name} wants a range")
        ends = at - round(node.offset_s * 1000)
        range_ms = round(node.range_s * 1000)
        keeps_name = name == "last_over_time"
        vector = []
        for labels, times, values in self._samples(node, ends):
            made, there = FUNCTIONS[name](Window(times, values, ends, range_ms))
            if there.any():
                vector.append(Element(labels if keeps_name else _unnamed(labels), made, there))
        return vector

    def _samples(
        self, node: Selector | Subquery, ends: Millis
    ) -> list[tuple[Labels, Millis, Floats]]:
        if isinstance(node, Selector):
            found = self._store.select(node.metric, node.matchers)
            return [(_named(s, node.metric), s.times[~s.stale], s.values[~s.stale]) for s in found]
        step = round(node.step_s * 1000)
        steps = np.unique(
            np.concatenate([_steps(int(e), round(node.range_s * 1000), step) for e in ends])
        )
        vector = self.vector(node.of, steps)
        return [(e.labels, steps[e.there], e.values[e.there]) for e in vector]

    def _label_replace(self, arguments: Sequence[Node], at: Millis) -> Vector:
        texts = [a.value for a in arguments[1:] if isinstance(a, Text)]
        target, replacement, source, regex = texts
        made = []
        for e in self._vector(arguments[0], at):
            match = pattern(regex).fullmatch(e.labels.get(source, ""))
            labels = dict(e.labels)
            if match is not None:
                value = match.expand(_template(replacement))
                labels[target] = value
                if not value:
                    del labels[target]
            made.append(Element(labels, e.values, e.there))
        return made


def _template(text: str) -> str:
    """Go's $1 and ${1} as Python's groups."""
    escaped = text.replace("\\", "\\\\")
    return pattern(r"\$\{?(\d+)\}?").sub(r"\\g<\1>", escaped)


def _steps(end: int, range_ms: int, step: int) -> Millis:
    """A subquery's instants: whole multiples of its step within the range, both ends included."""
    first = -(-(end - range_ms) // step) * step
    return np.arange(first, end + 1, step, dtype=np.int64)


def _unnamed(labels: Labels) -> Labels:
    return {k: v for k, v in labels.items() if k != "__name__"}


def _named(series: Stored, metric: str) -> Labels:
    return {"__name__": metric, **series.labels}
