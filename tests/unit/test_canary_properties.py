"""What holds for any two cohorts."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from breakfix.cohorts import Advice, Traffic
from breakfix.decide.canary import compare
from tests.canaries import BOUNDS, RULES, evidence, health, source

WIDE = RULES.model_copy(update={"looks": 1})


@st.composite
def units(draw: st.DrawFn, most: int = 5) -> tuple[Traffic, ...]:
    made = []
    for i in range(draw(st.integers(0, most))):
        requests = draw(st.integers(0, 400))
        errors = draw(st.integers(0, min(requests, 40)))
        steps = [draw(st.integers(0, 100)) for _ in BOUNDS]
        buckets = tuple((b, float(sum(steps[: k + 1]))) for k, b in enumerate(BOUNDS))
        made.append(Traffic(f"n{i}", float(requests), float(errors), None, buckets))
    return tuple(made)


def answer(canary, stable):
    return compare(evidence(source(canary, stable)), WIDE)


@given(units(), units(), st.randoms(use_true_random=False))
def test_the_order_of_nodes_does_not_matter(canary, stable, chance):
    mixed = tuple(chance.sample(canary, len(canary))), tuple(chance.sample(stable, len(stable)))
    assert answer(canary, stable) == answer(*mixed)


@given(units(), units(), st.data())
@settings(max_examples=300)
def test_more_errors_of_the_canary_never_turn_a_roll_back_round(canary, stable, data):
    worse = tuple(
        replace(u, errors=u.errors + data.draw(st.integers(0, int(u.requests - u.errors))))
        for u in canary
    )
    if answer(canary, stable).advice is Advice.ROLL_BACK:
        assert answer(worse, stable).advice is Advice.ROLL_BACK
    if answer(worse, stable).advice is Advice.PROCEED:
        assert answer(canary, stable).advice is Advice.PROCEED


@given(units())
def test_a_canary_that_does_as_stable_does_is_never_rolled_back_for_the_difference(canary):
    same = answer(canary, canary)
    relative = [c for c in same.checks if c.name.endswith("against stable")]
    assert all(c.outcome != "failed" for c in relative)


@given(units(), units())
def test_nothing_of_the_canary_never_proceeds(canary, stable):
    assert answer((), stable).advice is Advice.CONTINUE
    assert answer(canary, ()).advice is not Advice.PROCEED


@given(st.integers(1, 60), st.integers(1, 200), st.data())
def test_one_more_sick_node_never_clears_the_cohort(nodes, others, data):
    sick = data.draw(st.integers(0, nodes - 1))
    rest = health(others, data.draw(st.integers(0, others)))
    rank = [Advice.PROCEED, Advice.CONTINUE, Advice.ROLL_BACK]
    before, after = (
        compare(evidence(health=(health(nodes, n), rest)), WIDE) for n in (sick, sick + 1)
    )
    assert rank.index(after.advice) >= rank.index(before.advice)
