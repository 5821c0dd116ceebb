"""A vector read by rows says the same as its samples, one by one."""

from __future__ import annotations

import json
import math

import msgspec
import pytest

from breakfix.adapters import prometheus_vector
from breakfix.adapters.prometheus_vector import JsonVector
from breakfix.errors import MetricsError
from breakfix.ports import QueryResult, Sample


def vector(*series: tuple[dict[str, object], str]) -> JsonVector:
    found = [{"metric": labels, "value": [1.5, value]} for labels, value in series]
    return JsonVector(msgspec.Raw(json.dumps(found, separators=(",", ":")).encode()))


SERIES = [
    ({"node": f"n{i}", "UUID": f"GPU-{i}", "class": "keyword", "odd": '"},{"metric":{'}, f"{i}.25")
    for i in range(50)
]


@pytest.mark.parametrize("part", [1, 100, 1 << 20], ids=["each alone", "a few", "all at once"])
def test_rows_are_the_samples_however_they_are_cut(monkeypatch, part) -> None:
    monkeypatch.setattr(prometheus_vector, "_PART", part)
    read = vector(*SERIES)
    assert [s.labels for s in read] == [labels for labels, _ in SERIES]
    assert list(read.values) == [s.value for s in read] == [float(v) for _, v in SERIES]
    plain = QueryResult(tuple(read))
    groups = (("node", "gone"), ("UUID",), ("class", "odd"), ("",))
    rows = list(read.rows(*groups))
    assert rows == list(plain.rows(*groups))
    assert rows[7] == (("n7", ""), ("GPU-7",), ("keyword", '"},{"metric":{'), ("",))


def test_what_is_no_common_number_is_read() -> None:
    values = vector(({}, "+Inf"), ({}, "-Inf"), ({}, "NaN"), ({}, "9.2e+18")).values
    assert values[0] == math.inf
    assert values[1] == -math.inf
    assert math.isnan(values[2])
    assert values[3] == pytest.approx(9.2e18)


def test_an_empty_vector_has_no_rows() -> None:
    empty = vector()
    assert (len(empty), list(empty.rows(("node",))), tuple(empty)) == (0, [], ())


def test_a_vector_equals_its_samples() -> None:
    read = vector(({"node": "a"}, "1"), ({"node": "b"}, "2"))
    assert read == (Sample({"node": "a"}, 1.0), Sample({"node": "b"}, 2.0))
    assert read[1] == Sample({"node": "b"}, 2.0)
    assert read != (Sample({"node": "a"}, 1.0),)


def test_a_label_that_is_no_text_is_told_when_it_is_read() -> None:
    read = vector(({"node": 7}, "1"))
    with pytest.raises(MetricsError, match="not understood"):
        list(read.rows(("node",)))
    with pytest.raises(MetricsError, match="not understood"):
        list(read)
