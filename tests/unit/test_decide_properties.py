"""What holds for any evidence."""

from __future__ import annotations

import json
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from breakfix.adapters.ledger.sweep_rules import left_by
from breakfix.decide import explain, judge, judgement_json
from breakfix.decide.fuse import fuse
from breakfix.model import (
    DISRUPTIVE,
    TRANSITIONS,
    Action,
    FailureClass,
    NodeState,
    Plan,
    Reading,
    RefusalReason,
    SignalMode,
)
from tests.observations import NOW, POLICY, judged, observation, ready_node, record, verdict

NODES = ("gpu-1", "gpu-2", "gpu-3")
RANK = {Action.NONE: 0, Action.REVIEW: 1}
CODES = sorted({*POLICY.xids, *POLICY.app_xids, 57, 999})
TEXT = st.text(max_size=40)
OF_THE_NODE = {s.name for s in POLICY.signals if s.input in {"gpu", "node"}}


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


@given(some(), readings(), st.sampled_from(sorted(POLICY.common_cause.changes)))
def test_nor_does_it_after_a_change(found: list[Reading], one_more: Reading, change: str) -> None:
    facts = {"gpu-1": {change: "1"}}
    before, after = verdict(*found, facts=facts), verdict(*found, one_more, facts=facts)
    assert after.confidence >= before.confidence - 1e-9
    assert rank(after.recommended_action) >= rank(before.recommended_action)


@given(some(NODES), readings(NODES))
def test_in_a_crowd_more_evidence_lowers_no_confidence_and_only_the_veto_an_action(
    found: list[Reading], one_more: Reading
) -> None:
    nodes = [ready_node(n, rack="r") for n in NODES]
    before, after = judged(*found, nodes=nodes), judged(*found, one_more, nodes=nodes)
    for old, new in zip(before.verdicts, after.verdicts, strict=True):
        assert new.confidence >= old.confidence - 1e-9
        if rank(new.recommended_action) < rank(old.recommended_action):
            assert new.refusal is RefusalReason.COMMON_CAUSE


@given(some())
def test_a_change_makes_nothing_surer(found: list[Reading]) -> None:
    before = verdict(*found)
    after = verdict(*found, facts={"gpu-1": {"changed_driver_version": "595"}})
    assert after.confidence <= before.confidence + 1e-9
    assert rank(after.recommended_action) <= rank(before.recommended_action)
    assert (after.state, len(after.findings)) == (before.state, len(before.findings))


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
    assert after.confidence <= before.confidence + 1e-9
    assert lost <= set(after.unknown)
    if lost & POLICY.required_signals:
        assert after.state is not NodeState.HEALTHY
        assert after.recommended_action not in DISRUPTIVE
    if before.state is not NodeState.HEALTHY and lost & OF_THE_NODE:
        assert after.state is not NodeState.HEALTHY


@given(some(), st.sampled_from(sorted(NodeState)))
def test_what_spoke_and_is_not_reported_by_its_gpu_is_never_cleared(
    found: list[Reading], state: NodeState
) -> None:
    """The coverage of the nodes is whole: others of their GPUs report everything."""
    nodes = [ready_node(n) for n in NODES]
    before = verdict(*found, nodes=nodes)
    left = tuple(f for f in before.open_findings if f.signal in OF_THE_NODE)
    after = verdict(nodes=nodes, unreported={"gpu-1": left} if left else {})
    if left:
        assert after.state is not NodeState.HEALTHY
        assert after.failure_class is FailureClass.TELEMETRY_LOST
        assert {f.signal for f in left} <= set(after.unknown)
        assert after.open_findings == left
    assert after.recommended_action not in DISRUPTIVE
    assert {f.signal for f in before.open_findings} == {
        f.signal for f in before.findings if f.mode is not SignalMode.NEVER
    }
    in_hand = verdict(nodes=nodes, unreported={"gpu-1": left}, records={"gpu-1": record(state)})
    assert in_hand.recommended_action not in DISRUPTIVE
    assert in_hand.open_findings == left


@given(some(), st.sampled_from(sorted(NodeState)), st.booleans())
def test_no_state_is_proposed_that_the_ledger_would_refuse(
    found: list[Reading], state: NodeState, is_blind: bool
) -> None:
    unseen = {"gpu_count_short": ["gpu-1"]} if is_blind else {}
    nodes = [ready_node(n) for n in NODES]
    made = judged(*found, nodes=nodes, unseen=unseen, records={"gpu-1": record(state)})
    proposed = made.verdict("gpu-1").state
    assert proposed is state or proposed in TRANSITIONS[state]
    written = left_by(made, Plan(NOW, POLICY.hash, (), ())).states
    if state not in {NodeState.HEALTHY, NodeState.SUSPECT}:
        assert "gpu-1" not in written
    else:
        assert written["gpu-1"] in {NodeState.HEALTHY, NodeState.SUSPECT}


@given(some(), st.data())
def test_duplicates_change_nothing(found: list[Reading], data: st.DataObject) -> None:
    twice = data.draw(st.lists(st.sampled_from(found), max_size=20)) if found else []
    assert verdict(*found, *twice) == verdict(*found)


@given(some(), st.dictionaries(TEXT, TEXT, max_size=3), st.randoms())
def test_labels_that_mean_nothing_and_their_order_do_not_matter(
    found: list[Reading], labels: dict[str, str], random
) -> None:
    named = {"a": "1", "b": "2", **labels}
    items = list(named.items())
    random.shuffle(items)
    one = verdict(*found, nodes=[ready_node(labels=named)])
    two = verdict(*found, nodes=[ready_node(labels=dict(items))])
    assert one == two == verdict(*found)


@given(some())
def test_every_verdict_can_be_explained_and_the_numbers_agree(found: list[Reading]) -> None:
    made = verdict(*found)
    told = explain(made, POLICY)
    if told.rows:
        assert told.rows[-1].confidence >= told.confidence - 1e-9
        assert [r.confidence for r in told.rows] == sorted(r.confidence for r in told.rows)
        assert told.confidence == made.confidence
        assert told.is_proven is (made.refusal is not RefusalReason.NOT_CORROBORATED)
    assert told.is_proven or told.missing or made.recommended_action is Action.NONE


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


@example(
    [
        Reading("hw_slowdown", "gpu-1", "GPU-a", 4.0),
        Reading("straggler_power", "gpu-1", "GPU-a", 0.5),
    ]
)
@example(
    [
        Reading(s, "gpu-1", "GPU-a", 1.0)
        for s in ("straggler_clock", "straggler_power", "aks_throttling")
    ]
)
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
@given(TEXT, TEXT, st.floats())
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
