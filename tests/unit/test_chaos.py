"""The harassed fleet's own judgement: its plan is repeatable, and it notices each broken rule."""

from __future__ import annotations

import pytest

from dev.chaos.schedule import CALM_S, QUIET_S, Target, make_schedule
from dev.chaos.watch import Ended, Watch, at_the_end, percentile


def node(name, *, rack="r1", pool="p1", sku="s1", cordoned=False):
    return {"node": name, "rack": rack, "pool": pool, "sku": sku, "cordoned": cordoned}


def case(name="a", *, is_open=False, end="returned", reboots=1, dispatched=()):
    return Ended(f"case-{name}", name, is_open, end, reboots, dispatched)


def test_a_schedule_is_the_same_for_the_same_seed_and_another_for_another():
    assert make_schedule(3, lasts_s=900) == make_schedule(3, lasts_s=900)
    assert make_schedule(3, lasts_s=900) != make_schedule(4, lasts_s=900)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_killed_at_first_and_nothing_breaks_at_last(seed):
    made = make_schedule(seed, lasts_s=900)
    assert min(k.at_s for k in made.kills) > QUIET_S
    assert max(b.at_s for b in made.breaks) < 900 - CALM_S
    assert {k.target for k in made.kills} == set(Target)
    assert [b.at_s for b in made.breaks] == sorted(b.at_s for b in made.breaks)


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        pytest.param(
            [
                node("a", cordoned=True),
                node("b", cordoned=True, rack="r2", sku="s2"),
                node("f", cordoned=True, rack="r3", pool="p3", sku="s3"),
            ],
            "2 nodes of pool p1 were out at once",
            id="two of a pool are out",
        ),
        pytest.param(
            [
                node("never", cordoned=True),
                node("f", cordoned=True, rack="r3", pool="p3", sku="s3"),
            ],
            "never was taken out, and must not be",
            id="a node is out that must not be touched",
        ),
        pytest.param(
            [node("f", rack="r3", pool="p3", sku="s3")],
            "the cordon that people put on f is gone",
            id="somebody's cordon was lifted",
        ),
    ],
)
def test_a_broken_rule_is_noticed_at_the_instant(nodes, says):
    watch = Watch(frozenset({"f"}), never={"never"}, fleet_most=2)
    watch.sample(nodes, 1.0)
    assert list(watch.violations) == [says]


def test_more_of_the_fleet_out_than_may_be_is_noticed():
    watch = Watch(frozenset(), fleet_most=1)
    watch.sample(
        [node("a", cordoned=True), node("b", cordoned=True, rack="r2", pool="p2", sku="s2")], 1.0
    )
    assert list(watch.violations) == ["2 nodes of the fleet were out at once"]


def test_the_time_from_fault_to_cordon_is_taken_once():
    watch = Watch(frozenset(), fleet_most=5)
    watch.broke("a", 10.0)
    for at in (12.0, 17.5, 20.0):
        watch.sample([node("a", cordoned=at > 12.0)], at)
    assert watch.delays == [(10.0, 7.5)]
    assert not watch.violations


@pytest.mark.parametrize(
    ("cases", "nodes", "rebooted", "audit", "says"),
    [
        pytest.param([case(is_open=True, end="")], [node("a")], {}, "", "has not ended", id="open"),
        pytest.param(
            [], [node("a", cordoned=True)], {}, "", "nobody has it", id="out without an owner"
        ),
        pytest.param(
            [case(end="escalated")],
            [node("a", cordoned=True)],
            {},
            "",
            "back in service",
            id="curable, and given up",
        ),
        pytest.param(
            [case("bad")], [node("bad")], {}, "", "has broken hardware", id="incurable, returned"
        ),
        pytest.param([case()], [node("a")], {"a": 2}, "", "2 times", id="rebooted off the record"),
        pytest.param(
            [case(dispatched=("drain-1",))], [node("a")], {}, "", "unsettled", id="a step is open"
        ),
        pytest.param([], [], {}, "entry 7", "entry 7", id="the audit was touched"),
    ],
)
def test_what_did_not_end_well_is_said(cases, nodes, rebooted, audit, says):
    wrong = at_the_end(
        cases, nodes, foreign=(), incurable={"bad"}, rebooted=rebooted, audit_fault=audit
    )
    assert any(says in sentence for sentence in wrong), wrong


def test_what_ended_well_is_not_complained_about():
    nodes = [node("a"), node("bad", cordoned=True), node("f", cordoned=True), node("never")]
    cases = [case(), case("bad", end="escalated", reboots=0)]
    wrong = at_the_end(
        cases, nodes, foreign={"f"}, incurable={"bad"}, rebooted={"a": 1}, audit_fault=""
    )
    assert wrong == []


@pytest.mark.parametrize(
    ("values", "share", "wanted"),
    [
        ([], 0.95, 0.0),
        ([3.0], 0.5, 3.0),
        ([1.0, 2.0, 3.0, 4.0], 0.5, 2.0),
        (list(range(1, 101)), 0.95, 95),
    ],
)
def test_percentiles(values, share, wanted):
    assert percentile(values, share) == wanted
