"""The policy as data: durations, overlays, the hash, and what the default promises."""

from __future__ import annotations

import pytest
import yaml

from breakfix.errors import SettingsError
from breakfix.model import DISRUPTIVE, Action, FailureClass, ScopeKind
from breakfix.policy import parse_duration, parse_policy
from breakfix.wiring import default_policy_text

DEFAULT = default_policy_text()
POLICY = parse_policy(DEFAULT)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(90, 90.0), ("90s", 90.0), ("1.5m", 90.0), ("2h", 7200.0), ("7d", 604800.0), ("5ms", 0.005)],
)
def test_a_duration(text, seconds):
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5", "5 m", "-5s", "1h30m", True, None])
def test_no_duration(text):
    with pytest.raises(ValueError, match="no duration"):
        parse_duration(text)


def test_an_overlay_changes_only_what_it_names():
    changed = parse_policy(DEFAULT, "limits: {out: {rack: {nodes: 3}}}")
    assert changed.limits.out[ScopeKind.RACK].nodes == 3
    assert changed.limits.out[ScopeKind.POOL] == POLICY.limits.out[ScopeKind.POOL]
    assert changed.signals == POLICY.signals


def test_an_overlay_changes_a_signal_by_its_name():
    changed = parse_policy(DEFAULT, "signals: [{name: ecc_dbe, weight: 0.5}]")
    by_name = {s.name: s for s in changed.signals}
    assert by_name["ecc_dbe"].weight == 0.5
    assert by_name["ecc_dbe"].query == next(s for s in POLICY.signals if s.name == "ecc_dbe").query
    assert len(changed.signals) == len(POLICY.signals)


@pytest.mark.parametrize(
    ("overlay", "says"),
    [
        ("limits: {out: {rack: {share: 1.5}}}", "limits.out.rack.share"),
        ("limits: {max_attempts: 0}", "limits.max_attempts"),
        ("limits: {out: {row: {nodes: 1}}}", "limits.out.row"),
        ("classes: {gpu_off_bus: {ladder: []}}", "classes.gpu_off_bus.ladder"),
        ("classes: {gpu_off_bus: {mode: yolo}}", "classes.gpu_off_bus.mode"),
        ("approvals: {ask_before: [lunch]}", "approvals.ask_before"),
        ("signals: [{name: mine, query: up}]", "signals"),
        ("app_xids: [79]", "XIDs both in xids and app_xids: 79"),
        ("surprise: 1", "surprise"),
    ],
)
def test_a_wrong_overlay_names_the_place(overlay, says):
    with pytest.raises(SettingsError) as error:
        parse_policy(DEFAULT, overlay)
    assert says in str(error.value)


def test_the_hash_is_of_the_meaning_and_not_of_the_layout():
    again = yaml.safe_dump(yaml.safe_load(DEFAULT), sort_keys=True)
    assert parse_policy(again).hash == POLICY.hash
    assert parse_policy(DEFAULT, "drain: {poll: 5000ms}").hash == POLICY.hash
    assert parse_policy(DEFAULT, "drain: {poll: 6s}").hash != POLICY.hash


def test_nobody_approves_and_nothing_is_automatic_by_default():
    assert POLICY.approvals.approvers == ()
    assert not [c for c, rule in POLICY.classes.items() if rule.mode == "auto"]
    assert POLICY.approvals.ask_before == {"repair", "return"}


def test_every_failure_class_has_a_rule_and_every_repair_ladder_ends_with_people():
    assert set(POLICY.classes) == set(FailureClass)
    for failure_class, rule in POLICY.classes.items():
        if failure_class is not FailureClass.MANUAL and rule.ladder[0] in DISRUPTIVE:
            assert rule.ladder[-1] is Action.HOLD_FOR_HARDWARE


def test_every_scope_is_limited_by_default():
    assert set(POLICY.limits.out) == set(ScopeKind)


def test_beyond_its_ladder_a_class_is_held_or_looked_at():
    assert POLICY.class_rule(FailureClass.GPU_OFF_BUS).action_for(9) is Action.HOLD_FOR_HARDWARE
    assert POLICY.class_rule(FailureClass.STRAGGLER).action_for(9) is Action.REVIEW
