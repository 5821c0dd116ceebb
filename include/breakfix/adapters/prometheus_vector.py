"""A vector as Prometheus sent it: kept as bytes, decoded to what a reader asks for.

80,000 series with all their labels are 80,000 dicts: a quarter of a second and 60 MB. A sweep wants
the labels that name node and GPU, so these are decoded, by a struct made for them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain
from operator import attrgetter
from typing import Any, overload

import msgspec

from breakfix.errors import MetricsError
from breakfix.ports import Labels, Sample, Vector

_Getter = Callable[[Sequence[Any]], Iterable[Labels]]


class _Point(msgspec.Struct, array_like=True, gc=False):
    time: float
    value: float


class _Valued(msgspec.Struct, gc=False):
    value: _Point


class _SpeltPoint(msgspec.Struct, array_like=True, gc=False):
    time: float
    value: str


class _Spelt(msgspec.Struct, gc=False):
    value: _SpeltPoint


class _Labelled(msgspec.Struct, gc=False):
    metric: dict[str, str]


_NEXT = b'},{"metric"'  # between two series of the array
_PART = 1 << 20  # bytes of JSON that are decoded at a time
_VALUED = msgspec.json.Decoder(list[_Valued], strict=False)  # numbers come as text
_SPELT = msgspec.json.Decoder(list[_Spelt])
_LABELLED = msgspec.json.Decoder(list[_Labelled])


class JsonVector(Vector):
    """The `result` of an instant query's answer.

    Raises ValueError or msgspec.DecodeError when that is no vector, or a value no number; labels
    are looked at when they are read.
    """

    def __init__(self, result: msgspec.Raw) -> None:
        self._result = bytes(result)
        self._values = array("d")
        for part in self._parts():
            self._values.extend(_values(part))

    @property
    def values(self) -> Sequence[float]:
        return self._values

    def rows(self, *groups: Labels) -> Iterator[tuple[Labels, ...]]:
        decoder, getters = _reader(groups)
        # chained, so that a row costs no step of a generator
        return chain.from_iterable(_rows(part, decoder, getters) for part in self._parts())

    def _parts(self) -> Iterator[bytes]:
        """The array, a piece at a time: of 80,000 series the decoded ones would be 60 MB. Inside a
        text the separator cannot be: its quotes would be escaped.
        """
        start = 1
        while (end := self._result.find(_NEXT, start + _PART)) > 0:
            yield b"[%b]" % self._result[start : end + 1]
            start = end + 2
        yield b"[%b" % self._result[start:]

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator[Sample]:
        values = iter(self._values)
        for part in self._parts():
            try:
                series = _LABELLED.decode(part)
            except msgspec.DecodeError as e:
                raise _no_labels(e) from e
            yield from (Sample(s.metric, next(values)) for s in series)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | Sequence[Sample]:
        return tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]


def _values(part: bytes) -> list[float]:
    try:
        return [s.value.value for s in _VALUED.decode(part)]
    except msgspec.DecodeError:  # "+Inf" is a number to Prometheus, and to Python
        return [float(s.value.value) for s in _SPELT.decode(part)]


@lru_cache(maxsize=256)
def _reader(
    groups: tuple[Labels, ...],
) -> tuple[msgspec.json.Decoder[Any], Sequence[_Getter]]:
    """A decoder of just these labels, and for each group what takes its values from the struct."""
    fields = {name: f"label_{i}" for i, name in enumerate(dict.fromkeys(sum(groups, ())))}
    metric = msgspec.defstruct(
        "Metric",
        [(field, str, "") for field in fields.values()],
        rename={field: name for name, field in fields.items()},
        gc=False,
    )
    series = msgspec.defstruct("Series", [("metric", metric)], gc=False)
    return msgspec.json.Decoder(list[series]), [_getter(g, fields) for g in groups]  # type: ignore[valid-type]


def _rows(
    part: bytes, decoder: msgspec.json.Decoder[Any], getters: Sequence[_Getter]
) -> Iterator[tuple[Labels, ...]]:
    try:
        metrics = [s.metric for s in decoder.decode(part)]
    except msgspec.DecodeError as e:
        raise _no_labels(e) from e
    return zip(*(values(metrics) for values in getters), strict=True)


def _getter(group: Labels, fields: dict[str, str]) -> _Getter:
    if len(group) > 1:
        get: Callable[[Any], Labels] = attrgetter(*(fields[name] for name in group))
        return lambda metrics: map(get, metrics)
    one: Callable[[Any], str] = attrgetter(fields[group[0]])
    return lambda metrics: zip(map(one, metrics), strict=True)  # which makes tuples of one


def _no_labels(error: msgspec.DecodeError) -> MetricsError:
    return MetricsError(f"Prometheus' answer is not understood: {error}")
