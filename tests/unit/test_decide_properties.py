"""What holds for any evidence."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from breakfix.decide import judge, judgement_json
from breakfix.decide.fuse import fuse
from breakfix.model import DISRUPTIVE, Action, NodeState, Reading
from tests.observations import NOW, POLICY, observation, ready_node, verdict

NODES = ("gpu-1", "gpu-2", "gpu-3")
RANK = {Action.NONE: 0, Action.REVIEW: 1}
CODES = sorted({*POLICY.xids, *POLICY.app_xids, 57, 999})
TEXT = st.text(max_size=40)


def rank(action: Action) -> int:
    return RANK.get(action, 2)


@st.composite
def readings(draw: st.DrawFn, nodes: tuple[str, ...] = ("gpu-1",)) -> Reading:
    rule = draw(st.sampled_from(POLICY.signals))
    code = str(draw(st.sampled_from(CODES)))
    return Reading(
        rule.name,
        draw(st.sampled_from(nodes)),
        draw(st.sampled_from(["GPU-a", "GPU-b"])) if rule.per == "gpu" else "",
        draw(st.floats(1, 1e6)),
        code if rule.is_xid else "",
    )


def some(nodes: tuple[str, ...] = ("gpu-1",)) -> st.SearchStrategy[list[Reading]]:
    return st.lists(
        readings(nodes), max_size=8, unique_by=lambda r: (r.signal, r.node, r.gpu, r.key)
    )


@given(some(), readings())
def test_more_evidence_never_lowers_confidence_or_action(
    found: list[Reading], one_more: Reading
) -> None:
    before, after = verdict(*found), verdict(*found, one_more)
    assert after.confidence >= before.confidence - 1e-9
    assert rank(after.recommended_action) >= rank(before.recommended_action)


@given(some(), st.sets(st.sampled_from([s.name for s in POLICY.signals])))
def test_losing_telemetry_of_a_ready_node_never_raises_an_action_or_clears_it(
    found: list[Reading], lost: set[str]
) -> None:
    found = [r for r in found if r.signal not in ("not_ready", "npd_kernel_deadlock")]
    nodes = [ready_node(n) for n in NODES]
    before = verdict(*found, nodes=nodes)
    after = verdict(
        *(r for r in found if r.signal not in lost),
        nodes=nodes,
        unseen={s: ["gpu-1"] for s in lost},
    )
    assert rank(after.recommended_action) <= rank(before.recommended_action)
    assert lost <= set(after.unknown)
    if lost & POLICY.required_signals:
        assert after.state is not NodeState.HEALTHY
        assert after.recommended_action not in DISRUPTIVE


@given(some(NODES).flatmap(lambda f: st.tuples(st.just(f), st.permutations(f))), st.randoms())
def test_the_order_of_readings_and_nodes_does_not_matter(
    pair: tuple[list[Reading], list[Reading]], random
) -> None:
    nodes = [ready_node(n) for n in NODES]
    shuffled = list(nodes)
    random.shuffle(shuffled)
    one = judge(observation(pair[0], nodes), POLICY, {}, NOW)
    two = judge(observation(pair[1], shuffled), POLICY, {}, NOW)
    assert one == two


@given(some())
def test_what_is_never_a_reason_changes_neither_action_nor_confidence(found: list[Reading]) -> None:
    never = [
        Reading("gpu_hot", "gpu-1", "GPU-a", 99.0),
        Reading("xid_last", "gpu-1", "GPU-a", 1.0, "13"),
    ]
    found = [r for r in found if r.signal != "gpu_hot"]
    before, after = verdict(*found), verdict(*found, *never)
    assert (after.recommended_action, after.confidence) == (
        before.recommended_action,
        before.confidence,
    )


@settings(max_examples=50)
@given(TEXT, TEXT, st.floats(allow_nan=False, allow_infinity=False))
def test_hostile_labels_stay_data(key: str, gpu: str, value: float) -> None:
    reading = Reading("xid_last", "gpu-1", gpu, value, key)
    seen = observation([reading])
    made = judge(seen, POLICY, {}, NOW)
    assert json.dumps(judgement_json(seen, made, POLICY))
    if not (key.isascii() and key.isdecimal()):
        assert made.verdicts[0].recommended_action not in DISRUPTIVE


@given(st.lists(st.floats(0, 1), max_size=6), st.floats(0, 1))
def test_fusing_stays_between_the_strongest_and_one(weights: list[float], more: float) -> None:
    (base,) = verdict(Reading("xid_last", "gpu-1", "GPU-a", 1.0, "79")).findings
    made = [replace(base, weight=w, group=str(i)) for i, w in enumerate(weights)]
    before = fuse(made)
    assert max([0.0, *weights]) - 1e-9 <= before <= 1.0
    assert fuse([*made, replace(base, weight=more, group="more")]) >= before
