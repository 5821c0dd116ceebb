"""A value beside its peers: far from the median, and farther than their spread explains."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from breakfix.observe.peers import unlike_peers
from breakfix.policy import SignalRule
from tests.observations import ready_node


def slow(**changes: Any) -> SignalRule:
    """Slower than 0.9 of the peers' median."""
    return SignalRule.model_validate(
        {
            "name": "slow",
            "query": "M",
            "coverage": "$seen(M)",
            "op": "<",
            "threshold": 0.9,
            "weight": 0.5,
            "group": "peers",
            "mode": "corroborate",
            "kind": "state",
            "failure_class": "straggler",
            "text": "slow",
            "source": "ours",
            "peers": {"floor": 100.0},
            **changes,
        }
    )


HIGH = slow(op=">", threshold=1.5, peers={"floor": 10.0})


def fleet(*values: float, gpus: int = 2) -> tuple[dict[Any, float], dict[str, Any]]:
    """One value a node, on each of its GPUs."""
    nodes = {f"n{i}": ready_node(f"n{i}", sku="H100", pool="train") for i in range(len(values))}
    places = {
        (f"n{i}", f"GPU-{i}-{g}", ""): value for i, value in enumerate(values) for g in range(gpus)
    }
    return places, nodes


def far(rule: SignalRule, *values: float) -> set[str]:
    return {node for node, _, _ in unlike_peers(rule, *fleet(*values))}


@pytest.mark.parametrize(
    ("rule", "values", "expected"),
    [
        pytest.param(slow(), (1900, 1905, 1895, 1900, 1200), {"n4"}, id="one node is slow"),
        pytest.param(slow(), (1900,) * 5, set(), id="all alike"),
        pytest.param(slow(), (1900, 1905, 1895, 1900, 1750), set(), id="slower, by too little"),
        pytest.param(slow(), (1900, 1900, 1200), set(), id="three nodes are no crowd"),
        pytest.param(slow(), (1900, 1000, 1500, 1200, 1700), set(), id="the whole crowd is uneven"),
        pytest.param(slow(), (90, 90, 90, 90, 10), set(), id="an idle crowd tells nothing"),
        pytest.param(slow(), (1200, 1200, 1200, 1900, 1900), set(), id="most are slow"),
        pytest.param(HIGH, (0, 0, 0, 0, 40), {"n4"}, id="an excess over a median of zero"),
        pytest.param(HIGH, (0, 0, 0, 0, 12), set(), id="below the floor's multiple"),
    ],
)
def test_who_is_unlike_its_peers(
    rule: SignalRule, values: tuple[float, ...], expected: set[str]
) -> None:
    assert far(rule, *values) == expected


def test_the_reading_is_the_ratio_to_the_median() -> None:
    found = unlike_peers(slow(), *fleet(2000, 2000, 2000, 2000, 1000))
    assert found == {("n4", "GPU-4-0", ""): 0.5, ("n4", "GPU-4-1", ""): 0.5}


def test_other_skus_pools_and_keys_are_no_peers() -> None:
    values, nodes = fleet(2000, 2000, 2000, 2000, 1000)
    for other in ({"sku": "B200"}, {"pool": "infer"}):
        apart = {**nodes, "n4": ready_node("n4", **{"sku": "H100", "pool": "train", **other})}
        assert unlike_peers(slow(), values, apart) == {}
    keyed = {(n, g, "b" if n == "n4" else "a"): v for (n, g, _), v in values.items()}
    assert unlike_peers(slow(), keyed, nodes) == {}


@given(st.lists(st.floats(1.0, 1e6), min_size=4, max_size=12), st.randoms(use_true_random=False))
def test_the_order_of_the_values_does_not_matter(values: list[float], chance: Any) -> None:
    places, nodes = fleet(*values)
    shuffled = list(places.items())
    chance.shuffle(shuffled)
    assert unlike_peers(slow(), dict(shuffled), nodes) == unlike_peers(slow(), places, nodes)


@given(st.lists(st.floats(0.0, 1e6), min_size=4, max_size=12))
def test_never_more_than_half_of_a_crowd_is_unlike_it(values: list[float]) -> None:
    for rule in (slow(), HIGH):
        assert len(far(rule, *values)) <= len(values) / 2
