"""What the product tells of itself, and the alerts on it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from breakfix.brakes import BreakerRule, Lift
from breakfix.errors import ClusterError
from breakfix.flow import brakes
from breakfix.flow.exposition import exposition
from breakfix.flow.stages import Stage
from breakfix.flow.sweep import sweep
from breakfix.model import CaseEnd, HaltLevel, Purpose, Scope, ScopeKind
from tests.flow.test_reconcile import world_at
from tests.flow.world import FlowWorld
from tests.unit import test_cli_recovery as commands

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus" / "rules" / "breakfix.yaml"

#: The fixtures of those tests.
fleet, run, on_fleet = commands.fleet, commands.run, commands.on_fleet
database, ledger = commands.database, commands.ledger


def told(world, name, **labels):
    """The value of one series; None when it is not told."""
    for family in text_string_to_metric_families(exposition(world.services)):
        for sample in family.samples:
            if sample.name == f"breakfix_{name}" and labels.items() <= sample.labels.items():
                return sample.value
    return None


def waiting():
    return world_at(Stage.APPROVE_REPAIR)


def test_open_cases_are_counted_by_state_class_and_action():
    world = waiting()
    labels = {"state": "quarantined", "failure_class": "gpu_off_bus", "action": "reboot_node"}
    assert told(world, "cases", **labels) == 1
    world.clock.sleep(90)
    assert told(world, "case_oldest_seconds", state="quarantined") >= 90
    assert told(world, "questions", purpose="repair") == 1
    assert told(world, "scope_slots", scope="rack", value="a") == 1


def test_an_escalated_node_is_named_with_the_time_that_it_waits():
    world = waiting()
    world.silence.clear()
    world.refused.add(Purpose.REPAIR)
    world.drive(world.ended())
    world.clock.sleep(60)
    assert told(world, "nodes", state="escalated") == 1
    assert told(world, "node_escalated_seconds", node="a1", case=world.case().id) >= 60
    world.uncordon("a1")
    world.run_for(600)
    assert told(world, "node_escalated_seconds", node="a1") is None


def test_repairs_of_a_node_are_counted():
    world = waiting()
    world.silence.clear()
    world.drive(world.ended())
    assert world.case().end is CaseEnd.RETURNED
    assert told(world, "node_attempts", node="a1") == 1


@pytest.mark.parametrize("late_s", [30, 90])
def test_a_wait_counts_as_overdue_a_minute_after_its_deadline(late_s):
    world = waiting()
    (question,) = world.ledger.approvals(world.case().id)
    world.clock.at = question.expires_at + timedelta(seconds=late_s)
    assert told(world, "deadlines_overdue", of="question") == (late_s > 60)


def test_a_blocked_drain_names_its_blocker():
    world = waiting()
    case, now = world.case(), world.clock.now()
    blocker = {"pod": "work/web-1", "kind": "budget", "name": "web", "message": "…"}
    world.ledger.begin_step(case.id, 1, "drain-1", detail={"blocked": [blocker]}, now=now)
    labels = {"node": "a1", "kind": "budget", "pod": "work/web-1", "blocker": "web"}
    assert told(world, "drain_blocked", **labels) == 1


def test_refusals_of_the_last_sweep_are_counted_by_reason():
    world = waiting()
    world.break_node("a2")  # its rack has a node out
    sweep(world.services)
    assert told(world, "refusals", reason="scope_full") == 1
    assert told(world, "last_sweep_timestamp_seconds") == world.clock.now().timestamp()


def test_the_kill_switch_is_told_from_both_places():
    world = waiting()
    assert told(world, "halt_level", source="ledger") == 0
    world.ledger.set_halt(HaltLevel.DISRUPTION, actor="ann", reason="t", now=world.clock.now())
    world.cluster.config_maps["breakfix", "breakfix-halt"] = {"level": "all"}
    assert told(world, "halt_level", source="ledger") == 1
    assert told(world, "halt_level", source="cluster") == 2


def test_breakers_and_emergencies_are_told():
    world = waiting()
    assert told(world, "emergency_in_force") == 0
    fleet, now = Scope(ScopeKind.FLEET, ""), world.clock.now()
    sick = dict.fromkeys(("x1", "x2"), (fleet,))
    rule = BreakerRule(fleet, 1, 3600.0, 600.0)
    world.ledger.watch_storms({fleet: rule}, sick, frozenset(), actor="t", now=now)
    ask = {"lasts_s": 600.0, "requester": "ann", "approver": "oncall", "reason": "r"}
    brakes.ask_emergency(world.services, frozenset({Lift.BREAKER}), **ask)
    assert told(world, "emergency_in_force") == 0
    brakes.approve_emergency(world.services, approver="oncall")
    assert told(world, "breaker_open", scope="fleet") == 1
    assert told(world, "emergency_in_force") == 1
    world.ledger.reset_breaker(fleet, actor="ann", reason="r", now=now)
    world.clock.sleep(600)
    assert told(world, "breaker_open", scope="fleet") == 0
    assert told(world, "emergency_in_force") == 0


def test_a_held_case_is_told_with_the_hand_on_it():
    world = waiting()
    world.ledger.hold(world.case().id, actor="cli:ann", reason="t", now=world.clock.now())
    assert told(world, "case_held", node="a1", by="cli:ann") == 1


def test_the_head_of_the_audit_is_told_and_compared_with_what_the_cluster_saw():
    world = waiting()
    seq, digest = world.ledger.head()
    assert told(world, "audit_head_seq") == seq
    assert f"{int(told(world, 'audit_head_hash_prefix')):012x}" == digest[:12]
    assert told(world, "audit_marked_seq") <= seq
    assert told(world, "ledger_owns_cluster") == 1
    world.cluster.config_maps["breakfix", "breakfix-ledger"]["audit_hash"] = "f" * 64
    assert told(world, "ledger_owns_cluster") == 0


def test_a_cluster_that_is_away_hides_nothing_that_the_ledger_knows():
    world = waiting()
    world.cluster.fail("config_map", ClusterError("connection refused"), times=9)
    assert told(world, "cluster_reachable") == 0
    assert told(world, "cases", state="quarantined") == 1
    assert told(world, "ledger_owns_cluster") is None


def test_nothing_is_written_by_telling():
    world = FlowWorld()
    world.break_node("a1")
    exposition(world.services)
    assert world.ledger.head()[0] == 0
    assert not world.cluster.writes()
    assert not world.cluster.config_maps


def test_the_command_prints_them_and_writes_them_as_a_whole(run, on_fleet, ledger, tmp_path):
    code, out, err = run("metrics")
    assert (code, err) == (0, "")
    assert "breakfix_audit_head_seq 0.0" in out
    listed = json.loads(run("metrics", "-o", "json")[1])
    assert {"name": "breakfix_audit_head_seq", "labels": {}, "value": 0.0} in listed
    file = tmp_path / "breakfix.prom"
    assert run("metrics", "-f", str(file))[0] == 0
    assert "breakfix_nodes" in file.read_text()
    assert [f.name for f in tmp_path.glob("*breakfix.prom*")] == ["breakfix.prom"]
    code, _, err = run("metrics", "-f", str(tmp_path / "none" / "x.prom"))
    assert (code, "cannot write" in err) == (2, True)


def test_what_is_told_is_well_formed():
    checked = subprocess.run(
        ["promtool", "check", "metrics"],
        input=exposition(waiting().services),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_every_alert_fires_when_it_should_and_a_quiet_fleet_has_none(tmp_path):
    shutil.copy(RULES, tmp_path)
    shutil.copy(ROOT / "tests" / "data" / "rules" / "breakfix_test.yaml", tmp_path)
    tested = subprocess.run(
        ["promtool", "test", "rules", str(tmp_path / "breakfix_test.yaml")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert tested.returncode == 0, tested.stdout + tested.stderr


def alerts():
    (group,) = yaml.safe_load(RULES.read_text())["groups"]
    return group["rules"]


def test_alerts_ask_only_for_metrics_that_are_told():
    source = (ROOT / "include/breakfix/flow/exposition.py").read_text()
    asked = {name for rule in alerts() for name in re.findall(r"breakfix_(\w+)", rule["expr"])}
    assert asked
    assert [name for name in sorted(asked) if f'"{name}"' not in source] == []


def test_the_runbook_says_what_to_do_at_each_alert():
    text = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")
    assert [r["alert"] for r in alerts() if f"`{r['alert']}`" not in text] == []
