"""The comparison is put where the server groups least, and only where that changes nothing."""

from __future__ import annotations

import copy

import pytest

from breakfix.observe.promql import coverage_query, signal_query
from breakfix.policy import Names
from breakfix.ports import Held
from tests.observations import POLICY

NAMES = Names(node=("node",), gpu=("UUID",))


@pytest.mark.parametrize(
    ("query", "op", "expected"),
    [
        pytest.param("max by (node) (M)", ">", "max by (node) ((M) > 3.0)", id="inside a maximum"),
        pytest.param(
            "max by (node) (M)", "<", "(max by (node) (M)) < 3.0", id="not of a shortfall"
        ),
        pytest.param("max by (node) (M)", "==", "(max by (node) (M)) == 3.0", id="not of equality"),
        pytest.param("min by (node) (M)", ">", "(min by (node) (M)) > 3.0", id="not in a minimum"),
        pytest.param(
            "max by (node) (M) / max by (node) (N)",
            ">",
            "(max by (node) (M) / max by (node) (N)) > 3.0",
            id="not where two brackets only look like one",
        ),
        pytest.param(
            'max by (node) (rate(M[5m]) or label_replace(rate(N[5m]), "a", ")", "", ""))',
            ">",
            'max by (node) ((rate(M[5m])) > 3.0 or (label_replace(rate(N[5m]), "a", ")", "", ""))'
            " > 3.0)",
            id="on both sides of an or",
        ),
        pytest.param(
            "max by (node) (M or on (node) (N))",
            ">",
            "max by (node) ((M or on (node) (N)) > 3.0)",
            id="not into an or with a matching",
        ),
        pytest.param(
            "max by (node) (M == 1 or M == 4)",
            ">",
            "max by (node) ((M == 1 or M == 4) > 3.0)",
            id="not into an or of comparisons",
        ),
    ],
)
def test_the_threshold_goes_where_it_may(query: str, op: str, expected: str) -> None:
    plain = {"hold_s": 0.0, "also_window_s": 0.0, "clear_threshold": None, "peers": None}
    rule = POLICY.signals[0].model_copy(
        update={"query": query, "op": op, "threshold": 3.0, "expects": "", **plain}
    )
    assert signal_query(rule, NAMES, most_gpus=8) == expected


def test_ages_are_asked_for_only_where_they_are_wanted() -> None:
    rule = POLICY.signals[0].model_copy(update={"coverage": '$seen(M{a="{}"})'})
    aged = coverage_query(rule, NAMES, stale_s=180.0)
    assert aged.count('timestamp(M{a="{}"})') == 1
    assert ">= time() - 180" in aged
    plain = coverage_query(rule, NAMES, stale_s=180.0, with_ages=False)
    assert "timestamp" not in plain
    assert plain.startswith('(0 * count by (node) (M{a="{}"} < ')


def _held(hold_s: float, *, clear_threshold: float | None = None) -> str:
    rule = POLICY.signals[0].model_copy(
        update={
            "query": "max by (node) (M)",
            "op": ">",
            "threshold": 3.0,
            "expects": "",
            "hold_s": hold_s,
            "also_window_s": 0.0,
            "clear_threshold": clear_threshold,
            "peers": None,
        }
    )
    return signal_query(rule, NAMES, most_gpus=8)


def test_what_must_hold_is_whole_as_a_text_and_says_how_to_ask_in_one_pass() -> None:
    query = _held(120.0)
    now = "max by (node) ((M) > 3.0)"
    assert query == (
        f"({now}) and last_over_time(({now})[1ms:1ms] offset 59999ms)"
        f" and last_over_time(({now})[1ms:1ms] offset 119999ms)"
    )
    assert isinstance(query, Held)
    assert (query.speaks, query.step_s, query.steps) == (now, 60.0, 2)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(
            _held(60.0, clear_threshold=2.0), id="it lingers, so its hold is in a subquery"
        ),
        pytest.param(_held(90.0), id="its points are closer than a minute"),
        pytest.param(_held(3600.0), id="its points are many"),
    ],
)
def test_what_is_asked_as_a_text(query: str) -> None:
    assert type(query) is str


def test_a_held_query_can_be_copied() -> None:
    query = _held(60.0)
    copied = copy.deepcopy(query)
    assert isinstance(copied, Held)
    assert (copied, copied.speaks, copied.step_s, copied.steps) == (
        query,
        "max by (node) ((M) > 3.0)",
        60.0,
        1,
    )
