"""Storms, small pools, several rules at once, new labels, and nodes that must not be hit."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from breakfix.adapters.ledger import PostgresLedger, migrate
from breakfix.brakes import Lift
from breakfix.errors import Refused
from breakfix.flow import brakes
from breakfix.flow.by_hand import open_by_hand
from breakfix.flow.limits_report import limits_report
from breakfix.flow.stages import Stage
from breakfix.model import (
    CaseEnd,
    FailureClass,
    NodeState,
    Purpose,
    Refusal,
    RefusalReason,
    Scope,
    ScopeKind,
)
from tests.flow.world import START, FlowWorld

FLEET = Scope(ScopeKind.FLEET, "")
TWENTY = tuple(f"{rack}{n}" for rack in "abcdefghij" for n in range(2))
NO_CROWDS = "common_cause: {min_nodes: 99, surge_nodes: 99}\n"


def breaker(most, *, more=""):
    """Room for half of the fleet at a time, a breaker that opens beyond `most` nodes an hour."""
    return (
        NO_CROWDS
        + f"""
limits:
  out: {{fleet: {{share: 0.5}}, pool: {{nodes: 99}}, sku: {{nodes: 99}}, rack: {{nodes: 9}}}}
  breaker: {{window: 1h, cool_down: 30m, most: {{fleet: {{share: 0, at_least: {most}}}}}}}
  {more}
"""
    )


def taken(world):
    return {c.node for c in world.ledger.cases()}


def is_open(world):
    return world.ledger.storms(since=START - timedelta(days=9)).breaker(FLEET).is_open


def answers(swept):
    return {r.node: r.reason for r in swept.refusals}


# --------------------------------------------------------------------------- storms


@pytest.mark.parametrize(("failing", "opens"), [(2, False), (5, True), (10, True)])
def test_f17_a_part_of_the_fleet_fails_within_the_window(failing, opens):
    """A tenth, a quarter, half of twenty nodes fails at once; a fifth is the most that may.

    Lost: nothing; in a storm no node is touched at all, and people are told; a tenth is repaired.
    """
    world = FlowWorld(nodes=TWENTY, overlay=breaker(4))
    world.silence.add(Purpose.REPAIR)
    for name in TWENTY[:failing]:
        world.break_node(name)
    swept = world.road.sweep()
    assert is_open(world) is opens
    assert len(taken(world)) == (0 if opens else failing)
    if opens:
        assert set(answers(swept).values()) == {RefusalReason.BREAKER}
        assert not [c for c in world.cluster.writes() if c[0] == "patch_node"]
        assert any("breaker of fleet is open" in subject for subject, _ in world.notifier.told)
    assert world.is_audit_sound()


def test_f17_the_window_slides_and_a_flapping_node_is_one():
    """Two nodes fail every hour, and one of them over and over.

    Lost: nothing; the breaker stays closed, for never more than two nodes count at once.
    """
    world = FlowWorld(nodes=TWENTY[:8], overlay=breaker(2))
    for hour in range(6):
        for name in ("a0", TWENTY[1 + hour]):
            world.metrics.xids = [x for x in world.metrics.xids if x[0] != name]
            world.break_node(name)
        world.run_for(3720)
        assert not is_open(world)
    assert {world.case(n).end for n in taken(world) - {"a0"}} == {CaseEnd.RETURNED}
    assert world.case("a0").end is CaseEnd.ESCALATED  # out of attempts, for hardware hands


def test_f18_a_restart_in_the_middle_of_the_storm(postgres_url):
    """Two nodes failed, the process and its memory are gone, and two more fail.

    Lost: nothing; the new process counts four, opens the breaker, and takes none of the two.
    """
    migrate(postgres_url)
    before = PostgresLedger(postgres_url, "test")
    world = FlowWorld(nodes=TWENTY[:8], overlay=breaker(3), ledger=before)
    for name in ("a0", "b0"):
        world.break_node(name)
    world.road.sweep()
    before.close()
    after = PostgresLedger(postgres_url, "test")
    world.ledger, world.services = after, replace(world.services, ledger=after)
    world.road.services = world.services
    world.clock.sleep(600)
    for name in ("c0", "d0"):
        world.break_node(name)
    world.road.sweep()
    assert taken(world) == {"a0", "b0"}
    assert is_open(world)
    assert after.verify_audit()[1] == ""
    after.close()


def test_f19_an_open_breaker_holds_no_return():
    """A node is validated and ready to return while a storm has opened the breaker.

    Lost: nothing; the node returns to service, and no other node is taken out meanwhile.
    """
    overlay = breaker(3).replace("cool_down: 30m", "cool_down: 9h")
    world = FlowWorld(nodes=TWENTY[:8], overlay=overlay)
    world.silence.add(Purpose.RETURN)
    world.break_node("a0")
    world.drive(world.at_stage(Stage.APPROVE_RETURN, "a0"))
    for name in ("b0", "c0", "d0"):
        world.break_node(name)
    world.run_for(120)
    assert is_open(world)
    world.silence.clear()
    world.drive(lambda: world.case("a0").state is NodeState.RETURNING)
    assert not world.node("a0").is_unschedulable
    assert is_open(world)
    assert taken(world) == {"a0"}


def test_f19_a_reset_plays_nothing_of_the_storm_again():
    """People find the cause of a storm, and reset the breaker while its nodes are still ill.

    Lost: nothing; what struck before does not open it again, and the ill nodes are repaired.
    """
    world = FlowWorld(nodes=TWENTY[:8], overlay=breaker(2))
    for name in ("a0", "b0", "c0"):
        world.break_node(name)
    world.run_for(120)
    assert is_open(world)
    assert not taken(world)
    brakes.reset_breaker(world.services, FLEET, actor="cli:ann", reason="a switch was off")
    world.clock.sleep(1)
    world.road.sweep()
    assert not is_open(world)
    assert taken(world) == {"a0", "b0"}
    assert answers(world.road.sweep()) == {"c0": RefusalReason.BREAKER}
    entry = next(e for e in world.ledger.audit_entries() if e.event == "breaker.reset")
    assert (entry.actor, entry.detail["reason"]) == ("cli:ann", "a switch was off")


def test_f20_the_storm_is_over_only_once_it_was_calm_for_long_enough():
    """A storm ebbs: the last node fails twenty minutes after the others.

    Lost: nothing; no node is taken until half an hour has passed since, and then they are repaired.
    """
    world = FlowWorld(nodes=TWENTY[:8], overlay=breaker(2))
    for name in ("a0", "b0", "c0"):
        world.break_node(name)
    world.run_for(1200)
    world.break_node("d0")
    world.run_for(1700)
    assert is_open(world)
    assert not taken(world)
    world.run_for(240)
    assert not is_open(world)
    assert taken(world)


def test_f20_nobody_looked_so_nobody_knows_that_it_is_calm():
    """The sweeps stop in the middle of a storm, for a day.

    Lost: nothing; time alone closes no breaker, a sweep that sees the calm does.
    """
    world = FlowWorld(nodes=TWENTY[:8], overlay=breaker(2))
    for name in ("a0", "b0", "c0"):
        world.break_node(name)
    world.road.sweep()
    world.clock.sleep(86400)
    node = "d0"
    outcome = open_by_hand(world.services, node, FailureClass.MANUAL, requester="ann", reason="r")
    assert isinstance(outcome, Refusal)
    assert outcome.reason is RefusalReason.BREAKER


# --------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("size", "limit", "out"),
    [
        pytest.param(3, "fleet: {share: 0.2}", 1, id="a fifth of three is one"),
        pytest.param(1, "fleet: {share: 0.2}", 0, id="a fifth of one is none"),
        pytest.param(10, "fleet: {share: 0.2}, pool: {share: 0.9}", 2, id="a pool has more room"),
        pytest.param(10, "fleet: {share: 0.9}, pool: {share: 0.2}", 2, id="the fleet has more"),
    ],
)
def test_f21_shares_of_small_pools(size, limit, out):
    """All nodes of a small pool fail, one after another; a fifth of it may be out.

    Lost: nothing; the share rounds down, one of two or more at least, and the smallest limit holds.
    """
    most = run_out(size, limit)
    assert most == out


@pytest.mark.parametrize(
    ("limit", "out"),
    [
        pytest.param("fleet: {nodes: 2}", 2, id="a number"),
        pytest.param("fleet: {share: 0.4}", 4, id="a share"),
        pytest.param("fleet: {share: 0.4, nodes: 3}", 3, id="both: the smaller"),
        pytest.param("fleet: {in_service: 7}", 3, id="so many stay in service"),
        pytest.param("fleet: {in_service_share: 0.85}", 1, id="a share stays, rounded up"),
        pytest.param("fleet: {nodes: 0}", 0, id="none"),
        pytest.param("fleet: {share: 0}", 0, id="no share"),
    ],
)
def test_f22_a_limit_as_a_number_a_share_both_or_zero(limit, out):
    """Ten nodes fail under a limit that is given in each of the ways there are.

    Lost: nothing; never more are out than it allows, and zero allows none.
    """
    assert run_out(10, limit) == out


def run_out(size, limit):
    """The most nodes that are out at once when all fail and nobody answers."""
    names = tuple(f"{rack}0" for rack in "abcdefghij"[:size])
    free = "pool: {nodes: 99}, sku: {nodes: 99}, rack: {nodes: 9}"
    kinds = {part.split(":")[0].strip() for part in limit.split("}, ")}
    rest = ", ".join(p for p in free.split(", ") if p.split(":")[0] not in kinds)
    rules = f"fleet: {{share: 0.5, nodes: 1000000}}, {rest}, {limit}"
    if "in_service" in limit:
        rules = rules.replace("share: 0.5", "share: 1.0")
    parts = dict(p.split(": ", 1) for p in split_top(rules))
    out = ", ".join(f"{k}: {v}" for k, v in parts.items())
    world = FlowWorld(nodes=names, overlay=NO_CROWDS + f"limits: {{out: {{{out}}}}}")
    world.silence.add(Purpose.REPAIR)
    for name in names:
        world.break_node(name)
    most = 0
    for _ in range(3):
        world.road.sweep()
        most = max(most, sum(n.is_out for n in world.cluster._nodes.values()))
        world.clock.sleep(60)
    return most


def split_top(text):
    """`a: {x, y}, b: {z}` by the commas between its maps."""
    return [p if p.endswith("}") else p + "}" for p in text.split("}, ")]


def test_f23_two_rules_of_the_policy_match_one_node():
    """A node is in an allowed window, in a blocked one, and under two alerts' rules.

    Lost: nothing; the strictest holds it, and each is lifted on its own before it is taken.
    """
    more = """windows:
    - {kind: allowed, reason: always}
    - {kind: blocked, from: "00:00", to: "06:00", scope: {rack: a}, reason: night shift}
  alerts:
    watchdog: ""
    block:
      - {match: {alertname: RackPower}, by: rack}
      - {match: {alertname: "Rack.*", severity: info}, by: node}"""
    world = FlowWorld(nodes=("a0", "b0", "c0"), overlay=breaker(9, more=more))
    world.silence.add(Purpose.REPAIR)
    world.metrics.firing = [{"alertname": "RackPower", "rack": "a"}]
    world.break_node("a0")
    swept = world.road.sweep()
    assert answers(swept) == {"a0": RefusalReason.WINDOW}
    assert "night shift); opens at 2026-01-02 06:00 UTC" in swept.refusals[0].text
    world.clock.sleep(3 * 3600)
    assert answers(world.road.sweep()) == {"a0": RefusalReason.ALERT}
    world.metrics.firing = []
    world.road.sweep()
    assert taken(world) == {"a0"}


def test_a_case_waits_for_the_window_and_then_goes_on():
    """The window in which nodes may be drained closes between the cordon and the drain.

    Lost: nothing; no pod is touched until it opens the next night, and then the node is repaired.
    """
    more = 'windows: [{kind: allowed, from: "03:00", to: "03:10"}]\n  hold_longest: 25h'
    overlay = breaker(9, more=more) + "timing: {approval_repair: 30h}\n"
    world = FlowWorld(nodes=("a0", "b0", "c0"), overlay=overlay)
    world.cluster.add_pod("web-1", "a0")
    world.break_node("a0")
    world.drive(world.at_stage(Stage.DRAIN, "a0"))
    world.clock.sleep(600)
    world.run_for(3600)
    assert world.case("a0").is_open
    assert not [c for c in world.cluster.writes() if c[0] == "evict"]
    world.drive(world.ended("a0"), within_s=30 * 3600)
    assert world.case("a0").end is CaseEnd.RETURNED


def test_an_emergency_lifts_what_it_names_and_for_no_longer():
    """A rack must be emptied at night: two people lift the window and the rack's limit.

    Lost: nothing; only what was named is lifted, the fleet keeps a last limit, all holds again.
    """
    more = "windows: [{kind: blocked}]\n  emergency: {fleet: {nodes: 2}}"
    world = FlowWorld(nodes=("a0", "a1", "a2", "b0", "c0", "d0"), overlay=breaker(9, more=more))
    world.silence.add(Purpose.REPAIR)
    for name in ("a0", "a1", "a2"):
        world.break_node(name)
    assert set(answers(world.road.sweep()).values()) == {RefusalReason.WINDOW}
    lifts = frozenset({Lift.WINDOWS, Lift.RACK, Lift.FLEET})
    ask = {"lasts_s": 3600.0, "requester": "cli:ann", "approver": "oncall", "reason": "power"}
    brakes.ask_emergency(world.services, lifts, **ask)
    assert not taken(world)
    brakes.approve_emergency(world.services, approver="cli:oncall")
    report = limits_report(world.services)
    assert (report["emergency"]["state"], report["emergency"]["lifts"]) == (
        "in force",
        sorted(lifts),
    )
    assert not any("window" in said for said in report["holds"])
    world.road.sweep()
    assert len(taken(world)) == 3  # half of six by policy is more than the emergency's two
    world.clock.sleep(3601)
    world.break_node("b0")
    assert answers(world.road.sweep())["b0"] is RefusalReason.WINDOW
    events = [e.event for e in world.ledger.audit_entries()]
    assert events.count("emergency.asked") == events.count("emergency.approved") == 1


@pytest.mark.parametrize(
    ("change", "says"),
    [
        pytest.param({"approver": "ann"}, "no approver", id="nobody whom policy names"),
        pytest.param({"requester": "cli:oncall"}, "same person", id="the requester"),
        pytest.param({"lasts_s": 5 * 3600.0}, "lasts up to", id="too long"),
        pytest.param({"lasts_s": 0.0}, "lasts up to", id="no time at all"),
    ],
)
def test_an_emergency_that_policy_does_not_allow(change, says):
    """Somebody asks for an emergency that policy does not let them have.

    Lost: nothing; it is refused with the rule, and no limit is lifted.
    """
    world = FlowWorld()
    ask = {"lasts_s": 60.0, "requester": "cli:ann", "approver": "oncall", "reason": "r"} | change
    with pytest.raises(Refused, match=says):
        brakes.ask_emergency(world.services, frozenset({Lift.FLEET}), **ask)
    assert world.ledger.emergencies() == ()


# --------------------------------------------------------------------------- labels, own hosts


@pytest.mark.parametrize(
    "label", ["breakfix.dev/exclude", "remediation.medik8s.io/exclude-from-remediation"]
)
@pytest.mark.parametrize("stage", [Stage.APPROVE_REPAIR, Stage.REBOOT_NODE])
def test_f36_an_exclusion_label_is_put_on_the_node_mid_flight(label, stage):
    """A person labels the node while its case waits for a yes, or is about to reboot it.

    Lost: nothing; no reboot is sent, the label stays, and the node is given back or stays out.
    """
    world = FlowWorld()
    world.cluster.add_pod("web-1", "a1")
    if stage is Stage.APPROVE_REPAIR:
        world.silence.add(Purpose.REPAIR)
    world.break_node("a1")
    world.drive(world.at_stage(stage))
    world.cluster.change_node("a1", labels={**world.node().labels, label: "true"})
    world.silence.clear()
    world.drive(world.ended())
    assert world.ran["reboot"] == 0
    assert world.node().labels[label] == "true"
    is_given_back = stage is Stage.APPROVE_REPAIR
    assert world.case().end is (CaseEnd.OVERRIDDEN if is_given_back else CaseEnd.ESCALATED)
    assert world.node().is_unschedulable is not is_given_back


@pytest.mark.parametrize(
    ("change", "pod"),
    [
        ({"node-role.kubernetes.io/control-plane": ""}, None),
        ({}, {"app.kubernetes.io/name": "breakfix"}),
        ({}, {"component": "scheduler", "tier": "airflow"}),
        ({}, {"app.kubernetes.io/name": "postgresql"}),
    ],
    ids=["control plane", "ourselves", "Airflow", "the ledger"],
)
def test_f44_the_target_hosts_what_repairs_the_others(change, pod):
    """The control plane, or the host of Airflow, the ledger or ourselves, is the faulty node.

    Lost: nothing; it is never taken, not by a sweep, not by hand, not in an emergency.
    """
    world = FlowWorld(overlay=breaker(9))
    world.cluster.change_node("a1", labels={**world.node().labels, **change})
    if pod:
        world.cluster.add_pod("own-1", "a1", labels=pod)
    world.break_node("a1")
    ask = {"lasts_s": 3600.0, "requester": "ann", "approver": "oncall", "reason": "all of it"}
    brakes.ask_emergency(world.services, frozenset(Lift), **ask)
    brakes.approve_emergency(world.services, approver="oncall")
    assert answers(world.road.sweep()) == {"a1": RefusalReason.PROTECTED}
    outcome = open_by_hand(world.services, "a1", FailureClass.MANUAL, requester="ann", reason="r")
    assert outcome.reason is RefusalReason.PROTECTED
    assert not [c for c in world.cluster.writes() if c[0] == "patch_node"]
