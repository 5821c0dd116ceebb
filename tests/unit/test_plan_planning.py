"""The plan as a whole: whom it takes first, which rung, and what holds for any fleet."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from breakfix.brakes import Brakes, Strike, storms_of
from breakfix.model import (
    Action,
    FailureClass,
    Incident,
    Judgement,
    NodeState,
    Observation,
    Refusal,
    RefusalReason,
)
from breakfix.plan.planning import limits_of, plan_one, sick_nodes, well_nodes
from breakfix.plan.world import build_world
from breakfix.policy_drain import Drain
from tests.fakes_cluster import make_node, make_pod
from tests.unit.plan_world import (
    NOW,
    case,
    fleet,
    healthy,
    plan,
    policy,
    record,
    verdict,
)


def test_the_surest_fault_goes_first_and_then_the_name():
    verdicts = [verdict("n2", 0.92), verdict("n1", 0.97), verdict("n0", 0.97), verdict("n3", 0.99)]
    made = plan(verdicts=verdicts)
    assert [i.node for i in made.intents] == ["n3", "n0", "n1", "n2"]


@pytest.mark.parametrize(
    ("attempts", "recommended", "action"),
    [
        pytest.param(0, Action.RESET_GPU, Action.RESET_GPU, id="the first repair"),
        pytest.param(0, Action.REBOOT_NODE, Action.REBOOT_NODE, id="the rung the evidence wants"),
        pytest.param(0, Action.HOLD_FOR_HARDWARE, Action.HOLD_FOR_HARDWARE, id="a part to replace"),
        pytest.param(1, Action.REBOOT_NODE, Action.REBOOT_NODE, id="the second repair"),
        pytest.param(2, Action.REBOOT_NODE, Action.HOLD_FOR_HARDWARE, id="no repair is left"),
        pytest.param(9, Action.RESET_GPU, Action.HOLD_FOR_HARDWARE, id="nor after many"),
    ],
)
def test_the_rung_of_the_ladder(attempts, recommended, action):
    made = plan(
        verdicts=[verdict("n0", failure_class=FailureClass.ECC_UNCORRECTABLE, action=recommended)],
        records=[record("n0", attempts=attempts)],
    )
    assert (made.intents[0].action, made.intents[0].attempt) == (action, attempts + 1)


@pytest.mark.parametrize(
    ("mode", "action", "asks"),
    [
        pytest.param("approve", Action.REBOOT_NODE, True, id="a destructive step is asked about"),
        pytest.param("auto", Action.REBOOT_NODE, False, id="an automatic class is not"),
        pytest.param("approve", Action.RESTART_DEVICE_PLUGIN, True, id="and so is a mild one"),
    ],
)
def test_who_is_asked(mode, action, asks):
    raw = policy().model_dump(mode="json", by_alias=True)
    raw["classes"]["gpu_off_bus"]["mode"] = mode
    rules = type(policy()).model_validate(raw)
    (intent,) = plan(verdicts=[verdict("n0", action=action)], rules=rules).intents
    assert intent.needs_approval is asks


def test_the_plan_says_by_which_ladders_pods_leave():
    rungs = [{"do": "wait", "for": "20m"}, {"do": "evict"}]
    ladder = {"name": "training", "namespaces": ["train"], "rungs": rungs}
    rules = policy()
    rules = rules.model_copy(update={"drain": Drain.model_validate({"ladders": [ladder]})})
    pods = (make_pod("web", "n0"), make_pod("job", "n0", namespace="train"))
    (intent,) = plan(rules=rules, pods=pods).intents
    assert set(intent.impact.ladders) == {"1 pod: evict", "1 pod: wait 20m, evict"}
    assert plan(pods=pods).intents[0].impact.ladders == ()


def test_a_verdict_about_a_node_that_is_gone_is_passed_over():
    made = plan(verdicts=[verdict("ghost"), verdict("n0")])
    assert [i.node for i in made.intents] == ["n0"]


def test_the_hash_is_of_what_is_planned_and_not_of_when():
    made = plan(("n0", "n1"))
    assert replace(made, at=NOW.replace(year=2030)).hash == made.hash
    assert plan(("n0",)).hash != made.hash
    assert plan(("n0", "n1"), rules=policy(headroom_gpus=1)).hash != made.hash


@pytest.mark.parametrize(
    "change",
    [{"boot_id": "other"}, {"uid": "other"}],
    ids=["another boot", "another machine"],
)
def test_an_approval_is_for_this_node_and(change):
    nodes = fleet()
    before = plan(nodes=nodes).intents[0].hash
    assert plan(nodes=[replace(nodes[0], **change), *nodes[1:]]).intents[0].hash != before


# --------------------------------------------------------------------------- by hand


def by_hand(failure_class, action, *, nodes=None, cases=(), records=()):
    from breakfix.model import HaltLevel, Observation

    nodes = nodes or fleet()
    world = build_world(
        Observation(NOW, nodes),
        frozenset(n.name for n in nodes),
        policy(),
        records={r.node: r for r in records},
        cases=cases,
        halt=HaltLevel.NONE,
    )
    return plan_one(nodes[0], failure_class, action, world, reason="ann says so", now=NOW)


def test_a_person_may_drain_what_policy_only_recommends_and_without_cooldown():
    outcome = by_hand(
        FailureClass.MANUAL, Action.DRAIN_ONLY, records=[record("n0", last_ended_at=NOW)]
    )
    assert outcome.is_by_hand
    assert not outcome.needs_approval


@pytest.mark.parametrize(
    ("failure_class", "action", "how", "reason"),
    [
        pytest.param(
            FailureClass.STRAGGLER,
            Action.REVIEW,
            {},
            RefusalReason.MODE_RECOMMEND,
            id="a class for which there is no repair",
        ),
        pytest.param(
            FailureClass.GPU_OFF_BUS,
            Action.REBOOT_NODE,
            {"cases": [case("n0", NodeState.RETURNING)]},
            RefusalReason.CASE_OPEN,
            id="a node under watch",
        ),
        pytest.param(
            FailureClass.MANUAL,
            Action.DRAIN_ONLY,
            {"records": [record("n0", NodeState.ESCALATED)]},
            RefusalReason.CASE_OPEN,
            id="an escalated node",
        ),
        pytest.param(
            FailureClass.MANUAL,
            Action.DRAIN_ONLY,
            {"nodes": (make_node("n0", is_unschedulable=True),)},
            RefusalReason.FOREIGN_CORDON,
            id="a node that somebody cordoned",
        ),
    ],
)
def test_a_person_is_refused(failure_class, action, how, reason):
    outcome = by_hand(failure_class, action, **how)
    assert isinstance(outcome, Refusal)
    assert outcome.reason is reason


# --------------------------------------------------------------------------- for any fleet

LIMITS = {
    "fleet": {"share": 0.3},
    "pool": {"nodes": 2},
    "rack": {"nodes": 1},
    "sku": {"share": 0.4},
    "fabric": {"nodes": 1},
}
RULES = policy(out=LIMITS)
few = st.sampled_from


@st.composite
def fleets(draw):
    """(nodes, verdicts, records, cases) of up to sixteen nodes, some out by anybody's word."""
    nodes, verdicts, records, cases = [], [], [], []
    for number in range(draw(st.integers(1, 16))):
        name = f"n{number}"
        nodes.append(
            make_node(
                name,
                pool=draw(few(["p1", "p2"])),
                rack=draw(few(["", "r1", "r2", "r3"])),
                sku=draw(few(["H100", "A100"])),
                fabric=draw(few(["", "f1"])),
                is_ready=draw(few([True] * 6 + [False])),
                is_unschedulable=draw(few([False] * 6 + [True])),
            )
        )
        verdicts.append(verdict(name, draw(few([0.9, 0.95, 0.99]))))
        state = draw(few([None] * 5 + list(NodeState)))
        if state is NodeState.ESCALATED:
            records.append(record(name, state))
        elif state not in {None, NodeState.HEALTHY, NodeState.SUSPECT}:
            cases.append(case(name, state))
    return nodes, verdicts, records, cases


def out_of(nodes, records, cases):
    held = {NodeState.QUARANTINED, NodeState.REPAIRING, NodeState.VALIDATING, NodeState.ESCALATED}
    by_ledger = {x.node for x in (*records, *cases) if x.state in held}
    return {n.name for n in nodes if n.is_out or n.name in by_ledger}


def make(world, nodes=None):
    own, verdicts, records, cases = world
    nodes = own if nodes is None else nodes
    return plan(nodes=nodes, verdicts=verdicts, records=records, cases=cases, rules=RULES)


@settings(max_examples=150, deadline=None)
@given(fleets())
def test_no_plan_exceeds_a_limit_counting_who_is_out_already(world):
    nodes, _, records, cases = world
    taken = {i.node for i in make(world).intents}
    out = out_of(nodes, records, cases) | taken
    sizes, gone = Counter(), Counter()
    for node in nodes:
        sizes.update(node.scopes())
        gone.update(s for s in node.scopes() if node.name in out)
    for node in nodes:
        if node.name in taken:
            for scope in node.scopes():
                assert gone[scope] <= RULES.limits.out[scope.kind].of(sizes[scope])


@settings(max_examples=60, deadline=None)
@given(fleets(), st.randoms(use_true_random=False))
def test_the_order_of_what_was_seen_changes_no_plan(world, random):
    nodes, verdicts, records, cases = (list(x) for x in world)
    before = make(world)
    for part in (nodes, verdicts, records, cases):
        random.shuffle(part)
    after = make((nodes, verdicts, records, cases))
    assert after.hash == before.hash
    assert after.intents == before.intents


@settings(max_examples=100, deadline=None)
@given(fleets(), st.data())
def test_one_more_node_that_is_out_never_admits_more(world, data):
    nodes = world[0]
    unlucky = data.draw(few([n.name for n in nodes]))
    worse = [replace(n, is_unschedulable=n.is_unschedulable or n.name == unlucky) for n in nodes]
    assert len(make(world, worse).intents) <= len(make(world).intents)


@settings(max_examples=60, deadline=None)
@given(fleets())
def test_every_sure_fault_is_admitted_refused_or_in_hand(world):
    made = make(world)
    in_hand = {c.node for c in world[3] if c.state is not NodeState.RETURNING}
    in_hand |= {r.node for r in world[2]}
    named = [i.node for i in made.intents] + [r.node for r in made.refusals]
    assert sorted([*named, *in_hand]) == sorted(n.name for n in world[0])


@settings(max_examples=60, deadline=None)
@given(fleets())
def test_the_ledger_is_told_the_limits_that_the_plan_kept(world):
    from breakfix.model import HaltLevel, Observation

    nodes, _, records, cases = world
    seen = build_world(
        Observation(NOW, tuple(nodes)),
        frozenset(n.name for n in nodes),
        RULES,
        records={r.node: r for r in records},
        cases=cases,
        halt=HaltLevel.NONE,
    )
    out = out_of(nodes, records, cases)
    for node in nodes:
        told = {limit.scope: limit for limit in limits_of(node, seen)}
        assert set(told) == set(node.scopes())
        for scope, limit in told.items():
            members = {n.name for n in nodes if scope in n.scopes()}
            assert limit.out_now == (out & members) - {node.name}
            assert limit.maximum == RULES.limits.out[scope.kind].of(len(members))


# --------------------------------------------------------------------------- storms, for any fleet

TRIPS = {"fleet": {"share": 0.3, "at_least": 2}, "rack": {"nodes": 1}, "pool": {"share": 0.5}}
STORMY = policy(breaker={"most": TRIPS})


@settings(max_examples=80, deadline=None)
@given(fleets(), st.sets(st.integers(0, 15)))
def test_no_plan_takes_more_than_a_breaker_lets_fall(world, struck):
    nodes, verdicts, records, cases = world
    known = {f"n{i}" for i in struck} & {n.name for n in nodes}
    strikes = [Strike(s, n.name, NOW) for n in nodes if n.name in known for s in n.scopes()]
    brakes = Brakes(storms_of((), strikes, {v.node for v in verdicts} - {"n0", "n1"}))
    made = plan(
        nodes=nodes, verdicts=verdicts, records=records, cases=cases, rules=STORMY, brakes=brakes
    )
    taken = {i.node for i in made.intents}
    sizes, fallen = Counter(), Counter()
    for node in nodes:
        sizes.update(node.scopes())
        is_new = node.name in {"n0", "n1"}
        fallen.update(s for s in node.scopes() if is_new or node.name in taken | known)
    for node in nodes:
        for scope in node.scopes():
            trip = STORMY.limits.breaker.most.get(scope.kind)
            if node.name in taken and trip is not None:
                assert fallen[scope] <= trip.of(sizes[scope])


@pytest.mark.parametrize(
    ("node", "verdicts", "incidents", "ill"),
    [
        pytest.param({}, [healthy("n0")], (), False, id="a healthy node"),
        pytest.param({}, [verdict("n0")], (), True, id="a verdict wants it out"),
        pytest.param({}, [verdict("n0", action=Action.REVIEW)], (), False, id="people look"),
        pytest.param({"is_ready": False}, [healthy("n0")], (), True, id="it is not Ready"),
        pytest.param(
            {"is_ready": False, "is_unschedulable": True},
            [healthy("n0")],
            (),
            False,
            id="somebody who cordoned it works on it",
        ),
        pytest.param(
            {}, [healthy("n0")], (Incident("rack=r", ("n0",), (), "many"),), True, id="an incident"
        ),
    ],
)
def test_who_counts_as_fallen_ill(node, verdicts, incidents, ill):
    seen = Observation(NOW, (make_node("n0", **node),))
    judged = Judgement(NOW, "1", "h", tuple(verdicts), incidents)
    assert sick_nodes(seen, judged) == (frozenset({"n0"}) if ill else frozenset())
    assert well_nodes(seen, judged, frozenset({"xid"})) == (frozenset() if ill else {"n0"})


def test_a_node_without_a_required_signal_is_neither_ill_nor_well():
    blind = replace(healthy("n0"), unknown=("xid",))
    seen, judged = Observation(NOW, fleet(1)), Judgement(NOW, "1", "h", (blind,))
    assert sick_nodes(seen, judged) == well_nodes(seen, judged, frozenset({"xid"})) == frozenset()
    assert well_nodes(seen, judged, frozenset({"other"})) == {"n0"}
